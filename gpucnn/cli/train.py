"""``gpucnn train``: from a data set to a trained network, its measurements and pictures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .console import console, describe, details, on_backend, percent, shape_text

if TYPE_CHECKING:
    from ..data import Dataset
    from ..network import Sequential
    from ..trainer import Trainer
    from .runs import Settings


def train(
    data: options.Data = None,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"{options.NETWORKS}; by default by the images' size.",
            metavar="NAME",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Passes over the images.", show_default="by the recipe"
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Images a step.", show_default="by the recipe"),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE", help="The highest in its schedule.", show_default="by the recipe"
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(help="adamw, adam or sgd.", metavar="NAME", show_default="by the recipe"),
    ] = None,
    label_smoothing: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=0.9, metavar="SHARE", show_default="by the recipe",
            help="Of each label, given to all classes alike.",
        ),
    ] = None,
    augment: Annotated[
        bool | None,
        typer.Option(
            "--augment/--no-augment",
            help="Shift, flip or crop training images at random.",
            show_default="by the recipe",
        ),
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=0.9, metavar="SHARE", show_default="by the recipe",
            help="Share of the training images that is held out to follow the training.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Of weights, order and augmentation.", show_default="0"
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, float64, float16 or bfloat16.", metavar="NAME", show_default="float32"
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Pixels a side, that pictures of a folder are resized to."
        ),
    ] = None,
    grey: Annotated[
        bool | None, typer.Option("--grey", help="Read pictures of a folder without colour.")
    ] = None,
    backend: options.Backend = None,
    out: Annotated[
        Path | None,
        typer.Option(
            callback=options.folder_to_fill, metavar="FOLDER",
            help="What to fill; by default a new one in runs/.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the run in --out, or else the newest."),
    ] = False,
) -> None:  # fmt: skip
    """Train a network: by default on handwritten digits, in seconds.

    A network and its data have a recipe, which the options change.
    The folder of the run gets the checkpoint, history.csv and pictures of what was learnt.
    Ctrl-C is no loss: [bold]gpucnn train --resume[/bold] continues, bit for bit.
    """
    given = {
        "data": data, "model": model, "epochs": epochs, "batch_size": batch_size,
        "learning_rate": learning_rate, "optimizer": optimizer, "augment": augment,
        "label_smoothing": label_smoothing, "validation": validation, "seed": seed,
        "dtype": dtype, "size": size, "grey": grey,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    folder, settings, dataset = _begin(given, out, resume)
    with on_backend(backend) as chosen:
        trainer = _trainer(settings, dataset, chosen)
        console.print(details(_head(settings, dataset, trainer)))
        start = time.perf_counter()
        try:
            _fit(trainer, settings, dataset, folder, resume)
        except KeyboardInterrupt:
            console.print(f"continue with: gpucnn train --resume --out {folder}")
            raise typer.Exit(130) from None
        _conclude(trainer, settings, dataset, folder, time.perf_counter() - start)


def _begin(given: dict[str, Any], out: Path | None, resume: bool) -> tuple[Path, Settings, Dataset]:
    """Return the folder, the settings and the data of a new run, or of one that continues.

    Raises:
        ValueError: the folder holds another run, or an option does not fit.
        FileNotFoundError: there is no run to continue, or no such data set.
    """
    from .. import models, recipes
    from ..arguments import as_choice
    from ..backends.base import FLOATS
    from . import runs

    name = given.pop("data", None)
    if name is not None:  # the run may be resumed from another folder
        given["data"] = name if name in recipes.BY_DATA else str(Path(name).resolve())
    if resume:
        folder = out or runs.newest()
        settings, _ = runs.read_begin(folder)
        differing = [name for name, value in given.items() if value != getattr(settings, name)]
        if differing:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in differing)
            raise ValueError(
                f"--resume continues {folder} as it was begun; leave out {names}, or start anew"
            )
        return folder, settings, settings.load()
    name = name or "digits"
    if out is not None and (out / "last.json").exists():  # without it nothing would be lost
        raise ValueError(f"{out} holds a run; continue it with --resume, or give another --out")
    choices = {
        "model": ("auto", *models.MODELS),
        "optimizer": tuple(recipes.RATES),
        "dtype": FLOATS,
    }
    for option, names in choices.items():
        as_choice("gpucnn train", f"--{option}", given.get(option, names[0]), names)
    recipe = recipes.recipe_for(given.get("model", "auto"), name)
    recipe = recipe.using(given.get("optimizer", recipe.optimizer))
    defaults = {
        "data": "digits",
        "size": None,
        "grey": False,
        "model": "auto",
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.peak,
        "optimizer": recipe.optimizer,
        "augment": recipe.augmented,
        "validation": recipe.validation,
        "seed": 0,
        "dtype": "float32",
        "label_smoothing": recipe.label_smoothing,
        "views": recipe.views,
    }
    settings = runs.Settings(**defaults | given)
    dataset = runs.load_data(name, settings.size, settings.grey)
    return out or runs.fresh(dataset.name), settings, dataset


def _trainer(settings: Settings, dataset: Dataset, backend: Any) -> Trainer:
    """Return a trainer with the network and the optimizer of the settings."""
    from .. import models
    from ..data import Normalize
    from ..initializers import set_seed
    from ..trainer import Trainer

    set_seed(settings.seed)
    model = models.make(settings.model, len(dataset.classes), dataset.image_shape, settings.dtype)
    if models.whitening_layer(model) is not None:
        first = dataset.train.images[:5000]  # as many as its source takes
        models.whiten(model, Normalize.of(dataset.train.images)(first))
    images = len(dataset.train) - round(settings.validation * len(dataset.train))
    return Trainer(
        model,
        settings.recipe.make_loss(),
        settings.recipe.make_optimizer(images),
        callbacks=settings.recipe.make_callbacks(),
        backend=backend,
        seed=settings.seed,
    )


def _fit(
    trainer: Trainer, settings: Settings, dataset: Dataset, folder: Path, resume: bool
) -> None:
    from ..data import Normalize
    from . import runs

    train, validation = dataset.train, None
    if settings.validation:
        train, validation = train.split(settings.validation, settings.seed)
    if not resume:
        runs.begin(folder, settings, dataset)
    trainer.fit(
        train,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        validation=validation,
        validation_split=0.0,
        augment=settings.recipe.augment if settings.augment else None,
        normalize=Normalize.of(train.images),
        classes=dataset.classes,
        checkpoint_dir=folder,
        resume=resume,
    )


def _head(settings: Settings, dataset: Dataset, trainer: Trainer) -> dict[str, str]:
    """Return what is about to happen, by name."""
    model: Sequential = trainer.model
    work = model.multiply_adds(dataset.image_shape)
    parts = [settings.recipe.changes if settings.augment else "no augmentation"]
    parts += [f"labels smoothed by {settings.label_smoothing:g}"] * bool(settings.label_smoothing)
    parts += [f"{settings.views} views of a test image"] * (settings.views > 1)
    return {
        "data": f"{dataset.name}: {len(dataset.train):,} training and {len(dataset.test):,} test "
        f"images of {shape_text(dataset.image_shape)}, {len(dataset.classes)} classes",
        "model": f"{model.name}: {model.parameter_count():,} parameters, "
        f"{work:,} multiply-adds an image, {model.dtype.name}",
        "recipe": f"{settings.epochs} epochs in batches of {settings.batch_size}, "
        f"{settings.optimizer} up to {settings.learning_rate:g}, {', '.join(parts)}",
        "backend": describe(trainer.backend),
    }


def _conclude(
    trainer: Trainer, settings: Settings, dataset: Dataset, folder: Path, seconds: float
) -> None:
    """Test the network, write the history and the pictures, and say what came out."""
    from rich.panel import Panel
    from rich.text import Text

    from ..metrics import confusion_matrix
    from ..views import averaged
    from .pictures import draw_training
    from .runs import RUNS

    test = dataset.test
    predicted = averaged(trainer.predict, test.images, settings.views).argmax(axis=-1)
    matrix = confusion_matrix(test.labels, predicted, len(dataset.classes))
    right = int(matrix.trace())
    trainer.history.to_csv(folder / "history.csv")
    files, missing = ["last.json", "history.csv"], None
    following = f"gpucnn evaluate {folder}"
    image = trainer.normalize(test.images[:1])[0]
    try:
        files += draw_training(folder, trainer.history, matrix, trainer.model, image, dataset)
    except ModuleNotFoundError as error:
        missing = f"none drawn: {error}"
    if "example.png" in files:
        checkpoint = "" if folder.parent == RUNS else f" --checkpoint {folder}"
        following = f"gpucnn predict {folder / 'example.png'}{checkpoint}"
    speed = sum(trainer.history["images_per_second"]) / trainer.epoch
    rows = {
        "test accuracy": Text.assemble(
            (percent(right / len(test)), "bold"),
            f" ({len(test) - right:,} of {len(test):,} wrong)",
        ),
        "time": f"{seconds:.1f} s, {speed:,.0f} images/s in training",
        "backend": describe(trainer.backend),
        "files": f"{folder}: {', '.join(files)}",
        **({"pictures": missing} if missing else {}),
        "next": Text(following, "bold"),
    }
    title = Text(f"{trainer.model.name} on {dataset.name}")
    console.print(Panel(details(rows), title=title, title_align="left", border_style="green"))
