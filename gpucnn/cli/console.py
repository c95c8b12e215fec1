"""What the commands share: the consoles, how a mistake is told, the choice of the backend."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

if TYPE_CHECKING:
    from ..backends.base import Backend

# What is printed holds names of files, classes and extras: none of it is markup, "[data]" neither.
PLAIN = {"highlight": False, "markup": False, "emoji": False}
console = Console(**PLAIN)
errors = Console(stderr=True, **PLAIN)

# What a person's mistake, a damaged file or a missing part ends in. Others are bugs of ours.
MISTAKES = (ValueError, OSError, ImportError, RuntimeError, ArithmeticError, MemoryError)


class Commands(TyperGroup):
    """Tells an error in a red line, without its traceback unless GPUCNN_DEBUG is 1."""

    def invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):  # typer's own to end quietly
            raise
        except MISTAKES as error:
            if os.environ.get("GPUCNN_DEBUG") == "1":
                raise
            text = str(error) or type(error).__name__
            errors.print(f"Error: {text}", style="red", soft_wrap=True)
            raise typer.Exit(2) from None


@contextmanager
def on_backend(name: str | None) -> Iterator[Backend]:
    """Run the body on the backend called ``name``, or on the default one."""
    from ..backends import default_backend, use_backend

    chosen = nullcontext(default_backend()) if name is None else use_backend(name)
    with chosen as backend, backend.running():
        yield backend


def describe(backend: Backend) -> str:
    """Return the backend's name, with the GPU's.

    >>> from gpucnn import get_backend
    >>> describe(get_backend("numpy"))
    'numpy'
    """
    if backend.name != "cuda":
        return backend.name
    device = backend.xp.cuda.Device()
    name = backend.xp.cuda.runtime.getDeviceProperties(device.id)["name"].decode()
    return f"cuda ({name})"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def shape_text(shape: tuple[int, ...]) -> str:
    """
    >>> shape_text((28, 28, 1))
    '28x28x1'
    """
    return "x".join(str(length) for length in shape)


def details(rows: dict[str, Any]) -> Any:
    """Return a two-column grid of names and values; a value is a string or rich text."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(name, Text(value) if isinstance(value, str) else value)
    return grid


def table(*columns: str, numbers: int = 0) -> Any:
    """Return an empty table; the last ``numbers`` columns are numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for place, column in enumerate(columns):
        of_numbers = place >= len(columns) - numbers
        made.add_column(column, justify="right" if of_numbers else "left", overflow="fold")
    return made
