"""PyTorch's way to each operation of the benchmark: every candidate that may be its fastest.

A candidate binds inputs, given in gpucnn's layouts, to a call. It may copy them to its own layout
first, for a program in PyTorch would hold them so; channels last is a view. Results come back as
views in gpucnn's axes. All of it runs on any device, so that a machine without a GPU can check the
arguments; and in float64 it is the reference that both sides are held against.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gpucnn.shapes import ConvShape, NormShape, PoolShape

from .arrays import Inputs
from .cases import Case
from .layouts import Maps, Windows
from .torch_ops import CUDNN, OPERATIONS, Call, linear


@dataclass(frozen=True)
class Peer:
    """A way to run a case: its name in the results, and what binds inputs to a call."""

    label: str
    bind: Callable[[Case, Inputs], Call]


def candidates(case: Case, device: str) -> list[Peer]:
    """Return PyTorch's ways to run a case on "cuda" or "cpu"; the first needs no copies."""
    maps = isinstance(case.shape, (ConvShape, PoolShape, NormShape)) and case.op != "change_layout"
    layouts = ("channels_last", "contiguous") if maps else ("",)
    found = [Peer(f"torch {layout}".strip(), _binder(layout)) for layout in layouts]
    if isinstance(case.shape, ConvShape) and set(case.shape.input) == {1}:
        found.append(Peer("torch linear", linear))
    if device == "cuda" and case.op in CUDNN:
        name, operation = CUDNN[case.op]
        found += [Peer(f"torch {name} {layout}", _binder(layout, operation)) for layout in layouts]
    return found


def compiled(case: Case, device: str) -> list[Peer]:
    """Return the operation through torch.compile, without its own CUDA graphs: ours hold it.

    It chooses layouts itself, so it is given the one that needs no copies.
    """
    eager = _binder("channels_last")
    run = torch.compile(
        lambda inputs: eager(case, inputs)(), mode="max-autotune-no-cudagraphs", dynamic=False
    )
    return [Peer("torch.compile", lambda case, inputs: lambda: run(inputs))]


def reference(case: Case, inputs: Inputs) -> tuple[Tensor, ...]:
    """Run a case on float64 inputs, without cuDNN."""
    torch.backends.cudnn.enabled = False
    try:
        return _binder("contiguous")(case, inputs)()
    finally:
        torch.backends.cudnn.enabled = True


def _binder(layout: str, operation: Callable | None = None) -> Callable[[Case, Inputs], Call]:
    """Return what binds inputs to the operation of a case's name, in a layout."""

    def bind(case: Case, inputs: Inputs) -> Call:
        chosen = operation or OPERATIONS[case.op]
        if isinstance(case.shape, (ConvShape, PoolShape)):
            return chosen(case, inputs, Windows(case.shape, layout))
        if isinstance(case.shape, NormShape):
            return chosen(case, inputs, Maps(case.shape, layout))
        return chosen(case, inputs)

    return bind
