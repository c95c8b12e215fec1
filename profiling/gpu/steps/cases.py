"""What is compared, the most telling first, and what is aimed at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from gpucnn import models

TRAINING, INFERENCE = "training_step", "inference"
SMALL = ("lenet5", "vgg_small", "resnet20")
FLOAT32, BFLOAT16 = "float32", "bfloat16"

DEPENDENT = "gpucnn dependent"  # the recorded step, whose kernels may begin early

# Peers that are set up and timed together. What takes long to set up is alone.
EAGER = ("torch", "torch graph", "gpucnn", DEPENDENT)
COMPILED = ("torch.compile",)
COMPILED_GRAPH = ("torch.compile graph",)
JAX = ("jax",)


@dataclass(frozen=True)
class StepCase:
    """A network's training step, or its answers to a batch."""

    kind: str
    network: str
    batch: int
    dtype: str = FLOAT32

    @property
    def math(self) -> str:
        return "mixed" if self.dtype == BFLOAT16 else "strict"

    def row(self, against: str) -> dict[str, Any]:
        """Return what names this case against a peer in a results file."""
        height, width, channels = models.USUAL[self.network]
        return {
            "op": self.kind, "set": self.network, "layer": "", "dtype": self.dtype,
            "shape": {"batch": self.batch, "channels": channels, "input": [height, width]},
            "math": self.math, "layout": "NHWC", "against": against,
        }  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """A case and the peers that it is timed against in turn: a row for each of them."""

    case: StepCase
    peers: tuple[str, ...]

    def without(self, peer: str) -> Comparison:
        return replace(self, peers=tuple(other for other in self.peers if other != peer))

    def rows(self) -> list[dict[str, Any]]:
        return [self.case.row(peer) for peer in self.peers]


def _training(networks: Iterable[str], batch: int, dtype: str = FLOAT32) -> list[StepCase]:
    return [StepCase(TRAINING, network, batch, dtype) for network in networks]


def _inference(networks: Iterable[str], batch: int, dtype: str = FLOAT32) -> list[StepCase]:
    return [StepCase(INFERENCE, network, batch, dtype) for network in networks]


NETWORKS = (*SMALL, "resnet50")
FIRST = [
    *_training(SMALL, 512),
    *_training(("resnet50",), 32, BFLOAT16),
    *_inference(NETWORKS, 1),
]
SECOND = [
    *_training(SMALL, 512, BFLOAT16),
    *_training(("resnet50",), 32),
    *_inference(NETWORKS, 1, BFLOAT16),
]
THIRD = [
    *_training(SMALL, 64),
    *_training(SMALL, 2000),
    *_training(("resnet50",), 256, BFLOAT16),
    *_inference(NETWORKS, 256),
    *_training(SMALL, 64, BFLOAT16),
    *_training(SMALL, 2000, BFLOAT16),
    *_training(("resnet50",), 256),
    *_inference(NETWORKS, 256, BFLOAT16),
]


def comparisons() -> list[Comparison]:
    """Return everything, so ordered that a run which stops early has the most telling rows.

    What is quick to set up goes before what a compiler has to look at for minutes.
    """
    return [
        *(Comparison(case, EAGER) for case in FIRST),
        *(Comparison(case, COMPILED) for case in FIRST),
        *(Comparison(case, COMPILED_GRAPH) for case in FIRST[:3]),
        *(Comparison(case, EAGER) for case in SECOND),
        *(Comparison(case, JAX) for case in FIRST),
        *(Comparison(case, COMPILED) for case in SECOND),
        *(Comparison(case, EAGER) for case in THIRD),
        *(Comparison(case, JAX) for case in SECOND),
        *(Comparison(case, COMPILED) for case in THIRD),
    ]


def goal(row: dict[str, Any]) -> float | None:
    """Return how many times faster than its peer a row is to be, where something is aimed at.

    >>> goal(StepCase(TRAINING, "lenet5", 512).row("torch"))
    5.0
    >>> goal(StepCase(INFERENCE, "resnet20", 1).row("torch.compile"))
    2.0
    """
    batch, against = row["shape"].get("batch"), row["against"]
    if row["op"] == INFERENCE:
        return 2.0 if batch == 1 and against in ("torch", "torch.compile") else None
    if (row["set"], batch) == ("lenet5", 512):
        return {"torch": 5.0, "torch.compile": 2.0}.get(against)
    if against != "torch.compile":
        return None
    if row["set"] == "resnet50":
        return 1.2 if row["dtype"] == BFLOAT16 else None
    return 1.5 if row["set"] == "vgg_small" else None


MOST_MICROSECONDS = {"lenet5": 60.0}  # of a training step of 512 images, at most
