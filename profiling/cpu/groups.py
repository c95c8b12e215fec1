"""The groups that ratios are averaged in, and what is aimed at for each.

A ratio is gpucnn's time over PyTorch's, in PyTorch's better layout: below 1 gpucnn is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gpucnn.bench.cases import BATCHES, NETWORKS
from gpucnn.bench.rows import OWN_CHOICE
from gpucnn.bench.runs import HASWELL
from profiling.results import Row, geomean

LARGE = tuple(batch for batch in BATCHES if batch > 1)
TITLES = {
    "lenet5": "LeNet-5", "lenet5_plain": "LeNet-5 without batch norm", "vgg_small": "VGG-small",
    "vgg_plain": "VGG without batch norm", "resnet20": "ResNet-20",
    "mobilenet_v2_small": "MobileNetV2-small",
}  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Rows that are averaged together.

    Attributes:
        name: as in tables.
        holds: whether a row is of the group.
        goals: the ratio aimed at, by the setting of OpenBLAS's core.
    """

    name: str
    holds: Callable[[Row], bool]
    goals: dict[str, float]

    def ratios(self, rows: Iterable[Row], core: str) -> list[float]:
        return [ratio(row) for row in counted(rows, core) if self.holds(row)]

    def mean(self, rows: Iterable[Row], core: str) -> float | None:
        """Return the geometric mean of the ratios; None where there are none."""
        found = self.ratios(rows, core)
        return geomean(found) if found else None


def ratio(row: Row) -> float:
    return 1 / row["speedup"]


def counted(rows: Iterable[Row], core: str) -> list[Row]:
    """Return the rows that enter a mean: without an error, with a peer's time."""
    return [
        row for row in rows if row["core"] == core and not row.get("error") and row.get("speedup")
    ]


def _goals(own: float | None, haswell: float | None = None) -> dict[str, float]:
    given = {OWN_CHOICE: own, HASWELL: haswell}
    return {core: goal for core, goal in given.items() if goal is not None}


def _of(*sets: str) -> Callable[[Row], bool]:
    return lambda row: row["set"] in sets


def _steps(op: str, batches: Iterable[int], *networks: str) -> Callable[[Row], bool]:
    batches = tuple(batches)
    return lambda row: (
        row["op"] == op and row["shape"]["batch"] in batches and row["layer"] in networks
    )


_STEP_GOALS = {
    "lenet5": _goals(0.60, 0.85), "lenet5_plain": _goals(0.60, 0.85),
    "vgg_small": _goals(0.45, 0.85), "vgg_plain": _goals(0.45, 0.85),
    "resnet20": _goals(0.70, 0.85),
}  # fmt: skip

GROUPS = (
    Group(
        "convolutions but depthwise", _of("3x3", "1x1", "few channels"), _goals(0.70, 1.1)
    ),
    Group("3x3, 64 channels or more", _of("3x3"), _goals(0.52)),
    Group("1x1", _of("1x1"), _goals(0.95)),
    Group("few channels", _of("few channels"), _goals(1.0)),
    Group("depthwise", _of("depthwise"), _goals(2.0)),
    Group("max pool", _of("max pool"), _goals(1.2)),
    Group("ReLU", _of("ReLU"), _goals(1.2)),
    Group("batch norm", _of("batch norm"), {}),
    *(
        Group(
            f"{TITLES[name]} training, batch 64 and 128", _steps("training_step", LARGE, name),
            _STEP_GOALS.get(name, {}),
        )
        for name in NETWORKS
    ),
    Group("training, batch 1", _steps("training_step", (1,), *NETWORKS), {}),
    Group("inference, batch 64 and 128", _steps("inference", LARGE, *NETWORKS), {}),
    Group("inference, batch 1", _steps("inference", (1,), *NETWORKS), _goals(1.0)),
)  # fmt: skip
