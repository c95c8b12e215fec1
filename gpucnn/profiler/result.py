"""What a profile holds: a row for each layer or stage, the rest of the step, and the floors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .floors import Peaks, Work

HEAD = (
    "Layer", "Output shape", "Forward us", "Backward us", "Share", "Multiply-adds", "GFLOP/s",
    "Floor us", "Times floor", "Bound by",
)  # fmt: skip
TEXTS = 2  # of its columns, before those of numbers


@dataclass(frozen=True)
class Pass:
    """One direction of a layer, or another part of a step: its median time, and its work."""

    start_us: float
    us: float
    work: Work


@dataclass(frozen=True)
class Row:
    """A layer, or a plan's stage of several, in the order of the forward pass.

    Attributes:
        path: the names of the networks around it and its own, the outermost network left out.
        family: "convolution", "dense", "pooling", "normalisation", "activation" or "other"; of a
            network (or any layer that runs others) "network", and its times are those of the rows
            below it and what lies between.
        output_shape: with the batch axis.
        multiply_adds: of the forward pass, for the batch.
    """

    path: tuple[str, ...]
    family: str
    output_shape: tuple[int, ...]
    multiply_adds: int
    forward: Pass
    backward: Pass | None

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def is_network(self) -> bool:
        return self.family == "network"

    @property
    def passes(self) -> list[Pass]:
        return [self.forward] if self.backward is None else [self.forward, self.backward]

    @property
    def us(self) -> float:
        return sum(one.us for one in self.passes)

    @property
    def gflops(self) -> float:
        """10^9 operations a second, forward and backward."""
        return sum(one.work.operations for one in self.passes) / max(self.us, 1e-9) / 1e3


@dataclass(frozen=True)
class Profile:
    """One step of a network by layer: see ``gpucnn.profile``. ``str()`` of it is its table.

    Attributes:
        rows: the layers and stages in the order of the forward pass; nested networks stand before
            theirs.
        loss, optimizer: None in inference.
        between_us: the rest of a step, in no layer: checks, copies of a gradient that does not lie
            as a layer takes it, sums of residuals, and what Python does from layer to layer.
        step_us: the time of a step: the sum of its parts, each of them a median over the steps.
        steps_us: the time of each step as it was measured.
        peaks: what floors are reckoned with, measured in the same run.
    """

    model: str
    input_shape: tuple[int, ...]
    dtype: str
    backend: str
    rows: list[Row]
    loss: Pass | None
    optimizer: Pass | None
    between_us: float
    step_us: float
    steps_us: list[float]
    peaks: Peaks

    @property
    def training(self) -> bool:
        return self.loss is not None

    def floor_us(self, row: Row) -> float:
        """Return the least time of a row, forward and backward; a network has none of its own."""
        return sum(self.peaks.floor_us(one.work) for one in row.passes)

    def bound(self, row: Row) -> str | None:
        """Return what most of a row's floor is made of: "arithmetic", "memory" or nothing."""
        shares: dict[str | None, float] = {None: 0.0}
        for one in row.passes:
            kind = self.peaks.bound(one.work)
            shares[kind] = shares.get(kind, 0.0) + self.peaks.floor_us(one.work)
        return max(shares, key=lambda kind: shares[kind])

    def cells(self) -> Iterator[tuple[str, ...]]:
        """Yield the table's rows of text, under ``HEAD``; nested networks are indented."""
        blank = ("",) * 5
        for row in self.rows:
            back = "" if row.backward is None else _us(row.backward.us)
            cells = [f"{'  ' * (len(row.path) - 1)}{row.name}", str(row.output_shape)]
            cells += [_us(row.forward.us), back, self._share(row.us)]
            yield (*cells, *(blank if row.is_network else self._against_floor(row)))
        for name, part in (("loss", self.loss), ("optimizer", self.optimizer)):
            if part:
                yield name, "", _us(part.us), "", self._share(part.us), *blank
        yield "between layers", "", _us(self.between_us), "", self._share(self.between_us), *blank
        floor = sum(self.floor_us(row) for row in self.rows)
        times = f"{self.step_us / floor:.1f}" if floor else ""
        total = sum(row.multiply_adds for row in self.rows)
        step = self.step_us
        operations = sum(one.work.operations for row in self.rows for one in row.passes)
        numbers = _count(total), f"{operations / step / 1e3:.1f}", _us(floor), times
        yield "step", "", _us(step), "", self._share(step), *numbers, ""

    def _against_floor(self, row: Row) -> tuple[str, ...]:
        floor = self.floor_us(row)
        if not floor:
            return ("",) * 5
        work = (_count(row.multiply_adds), f"{row.gflops:.1f}") if row.multiply_adds else ("", "")
        return *work, _us(floor), f"{row.us / floor:.1f}", self.bound(row) or ""

    def _share(self, us: float) -> str:
        return f"{us / self.step_us:.1%}"

    def __str__(self) -> str:
        rows = [HEAD, *self.cells()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        sides = "<" * TEXTS + ">" * (len(HEAD) - TEXTS - 1) + "<"
        pattern = "  ".join(f"{{:{s}{w}}}" for s, w in zip(sides, widths, strict=True))
        return "\n".join(pattern.format(*row).rstrip() for row in rows)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values, with what follows from it: floors, shares, bounds."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        found["rows"] = [self._row(row) for row in self.rows]
        for name in ("loss", "optimizer"):
            found[name] = found[name] and {"start_us": found[name].start_us, "us": found[name].us}
        found["peaks"] = asdict(self.peaks)
        return found

    def _row(self, row: Row) -> dict[str, Any]:
        found = {
            "path": "/".join(row.path), "family": row.family, "output_shape": row.output_shape,
            "multiply_adds": row.multiply_adds, "us": row.us, "gflops": row.gflops,
            "share": row.us / self.step_us, "floor_us": self.floor_us(row),
            "bound": self.bound(row),
        }  # fmt: skip
        for name, one in (("forward", row.forward), ("backward", row.backward)):
            found[name] = one and {
                "start_us": one.start_us, "us": one.us, **asdict(one.work),
                "floor_us": self.peaks.floor_us(one.work), "bound": self.peaks.bound(one.work),
            }  # fmt: skip
        return found

    def save(self, path: str | Path) -> Path:
        """Write ``to_json`` to a file and return its path.

        Raises:
            OSError: it cannot be written.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        return path


def _us(microseconds: float) -> str:
    return f"{microseconds:,.1f}" if microseconds < 100 else f"{microseconds:,.0f}"


def _count(number: int) -> str:
    """
    >>> _count(999), _count(1_234_567)
    ('999', '1.23 M')
    """
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
