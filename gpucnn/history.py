"""What a training run measured, epoch by epoch: as records, as a CSV file, as a picture."""

from __future__ import annotations

import csv
from pathlib import Path

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
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.records)

    def plot(self, path: str | Path) -> None:
        """Draw the learning curve: a panel for the loss and for each metric, with validation.

        Args:
            path: a picture's name; its suffix (.png, .svg, .pdf) says the format.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
            ValueError: no epoch was recorded.
        """
        from .plots import learning_curve

        Path(path).parent.mkdir(parents=True, exist_ok=True)
        learning_curve(self).savefig(path)
