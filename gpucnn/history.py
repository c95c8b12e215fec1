"""What a training run measured, epoch by epoch: as records, as a CSV file, as a picture."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

Record = dict[str, float]


class History:
    """A list of records, one for each finished epoch, in order.

    A record holds "epoch" (from 1), "loss" and the metrics over the epoch's training batches, the
    same with "val_" before them where there is validation, "learning_rate" (of the last step),
    "images_per_second" (training alone) and "seconds" (with validation). The training values are
    means over the epoch, while the weights changed; the validation values are those at its end.

    Example:
        >>> history = History([{"epoch": 1, "loss": 0.7}, {"epoch": 2, "loss": 0.4}])
        >>> history["loss"], len(history)
        ([0.7, 0.4], 2)
    """

    def __init__(self, records: list[Record] | None = None) -> None:
        self.records: list[Record] = list(records or [])

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, name: str) -> list[float]:
        """Return the column ``name``, over the epochs that have it."""
        if name not in self.names:
            raise KeyError(f"history has {', '.join(self.names) or 'no epochs'}; not {name!r}")
        return [record[name] for record in self.records if name in record]

    def __repr__(self) -> str:
        return f"History({len(self)} epochs: {', '.join(self.names)})"

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(dict.fromkeys(name for record in self.records for name in record))

    def to_csv(self, path: str | Path) -> None:
        """Write a line for each epoch, under a line of names; a value that is missing is empty."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.records)

    def plot(self, path: str | Path) -> None:
        """Draw the learning curve: a panel for the loss and for each metric, with validation.

        path: a picture's name; its suffix (.png, .svg, .pdf) says the format.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
            ValueError: no epoch was recorded.
        """
        figure_type: Any
        try:
            from matplotlib.figure import Figure as figure_type  # no pyplot: no global state
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                'History.plot needs the package matplotlib: pip install "gpucnn[plots]"'
            ) from error
        apart = ("epoch", "learning_rate", "images_per_second", "seconds")
        panels = [n for n in self.names if n not in apart and not n.startswith("val_")]
        if not panels:
            raise ValueError("History.plot needs at least one epoch. Received: an empty history")
        figure = figure_type(figsize=(5 * len(panels), 4), layout="constrained")
        for axes, name in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            for label, column in (("training", name), ("validation", f"val_{name}")):
                points = [(r["epoch"], r[column]) for r in self.records if column in r]
                if points:
                    axes.plot(*zip(*points, strict=True), label=label, marker="o", markersize=3)
            axes.set(xlabel="epoch", ylabel=name.replace("_", " "))
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
            axes.legend()
        figure.savefig(path, dpi=150)
