"""``gpucnn filters``: what a network has learnt to look for, and classical filters on pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import console, on_backend
from .options import file_to_write, folder_to_fill


def filters(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="A run's folder or a checkpoint, by default the newest in runs/; with --apply, the"
            " picture.",
            metavar="CHECKPOINT|PICTURE",
        ),
    ] = None,
    apply: Annotated[
        str | None,
        typer.Option(
            help="Filter a picture: edge, blur, sharpen, emboss, sobel_x, sobel_y, laplacian or"
            " box_blur.",
            metavar="NAME",
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="PICTURE",
            help="What the feature maps are drawn for.",
            show_default="the first test image",
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="With --apply: draw before and after side by side.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The folder for the drawings; with --apply, the picture to write.",
            show_default="the run; beside the picture",
        ),
    ] = None,
) -> None:
    """Draw a network's first filters and its feature maps, or filter a picture."""
    if apply is not None:
        _apply(source, apply, compare, file_to_write(out))
    elif compare:
        raise ValueError("--compare goes with --apply, as in: gpucnn filters --apply edge cat.jpg")
    else:
        _draw(source, picture, folder_to_fill(out))


def _apply(source: Path | None, name: str, compare: bool, out: Path | None) -> None:
    if source is None:
        raise ValueError("--apply needs a picture, as in: gpucnn filters --apply edge cat.jpg")
    from ..arguments import as_choice
    from ..data import read_picture
    from ..filters import FILTERS, apply_filter
    from .pictures import save_picture

    as_choice("gpucnn filters", "--apply", name, tuple(FILTERS))
    image = read_picture(source)
    with on_backend("numpy"):
        filtered = apply_filter(image, name)
    out = out or source.with_name(f"{source.stem}-{name}.png")
    out.parent.mkdir(parents=True, exist_ok=True)
    if compare:
        from .. import plots

        plots.filter_comparison(image, filtered, name).savefig(out)
    else:
        save_picture(out, filtered)
    console.print(f"wrote {out}", soft_wrap=True)


def _draw(source: Path | None, picture: Path | None, out: Path | None) -> None:
    from .pictures import draw_network
    from .predict import read_pictures
    from .runs import Trained

    if source is not None and source.is_file() and source.suffix != ".json":
        raise ValueError(
            f"{source} is no checkpoint; a picture goes with --apply, as in:"
            f" gpucnn filters --apply edge {source}"
        )
    with on_backend(None):
        trained = Trained.read(source)
        if picture is None:
            image = trained.load_data(None).test.images[:1]
        else:
            image = read_pictures([picture], trained)
        folder = out or trained.folder
        folder.mkdir(parents=True, exist_ok=True)
        ready = trained.prepare(image)[0]
        files = draw_network(folder, trained.model, ready, image[0], list(trained.classes))
    for file in files:
        console.print(f"wrote {folder / file}", soft_wrap=True)
