"""How a training run is shown: a bar on a terminal, a line an epoch elsewhere, or nothing."""

from __future__ import annotations

import sys
from typing import Any

from .history import Record


def describe(record: Record) -> str:
    """Return the measurements of a record as one line.

    >>> describe({"loss": 0.25, "accuracy": 0.9, "images_per_second": 12345.6, "seconds": 2.0})
    'loss 0.2500  accuracy 0.9000  12,346 images/s  2.00 s'
    """
    units = {"images_per_second": "{:,.0f} images/s", "seconds": "{:.2f} s"}
    apart = ("epoch", "learning_rate")
    return "  ".join(
        units[name].format(value) if name in units else f"{name} {value:.4f}"
        for name, value in record.items()
        if name not in apart
    )


class Silent:
    """Shows nothing; the others say what they show instead."""

    def start(self, epoch: int, epochs: int, batches: int) -> None:
        """Epoch ``epoch`` of ``epochs`` begins; it has this many batches."""

    def update(self, batch: int, record: Record) -> None:
        """So many batches of the epoch are done."""

    def finish(self, record: Record) -> None:
        """The epoch is done."""

    def say(self, text: str) -> None:
        """Show a line."""

    def close(self) -> None:
        """The run is over, however it ended."""


class Lines(Silent):
    """A plain line for each epoch: for logs and pipes."""

    def start(self, epoch: int, epochs: int, batches: int) -> None:
        self.title = f"epoch {epoch}/{epochs}"

    def finish(self, record: Record) -> None:
        self.say(f"{self.title}  {describe(record)}")

    def say(self, text: str) -> None:
        print(text, flush=True)


class Bar(Lines):
    """A rich progress bar for the epoch under way, over a line for each finished one."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            transient=True,
        )
        self.task: Any = self.bar.add_task("", total=None, text="")
        self.bar.start()

    def start(self, epoch: int, epochs: int, batches: int) -> None:
        super().start(epoch, epochs, batches)
        self.bar.reset(self.task, total=batches, description=self.title, text="")

    def update(self, batch: int, record: Record) -> None:
        self.bar.update(self.task, completed=batch, text=describe(record))

    def say(self, text: str) -> None:
        self.bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        self.bar.stop()


def choose(shown: bool) -> Silent:
    """Return the display: none, a bar where standard output is a terminal, else lines."""
    if not shown:
        return Silent()
    return Bar() if sys.stdout.isatty() else Lines()
