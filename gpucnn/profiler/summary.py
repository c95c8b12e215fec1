"""From the ranges of many steps to a profile: the median of each time, and rows in order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ..backends.base import Backend
from ..layers.base import Layer
from ..network import Network
from .floors import Peaks, Work
from .recording import Key, Span, Survey
from .result import Pass, Profile, Row
from .work import parts_of

_FAMILIES = {  # by the file of gpucnn/layers
    "conv": "convolution", "conv_transpose": "convolution", "separable": "convolution",
    "dense": "dense", "pool": "pooling", "unpool": "pooling", "norm": "normalisation",
    "activation": "activation",
}  # fmt: skip


def summarised(
    model: Network, backend: Backend, survey: Survey, steps: list[list[Span]], peaks: Peaks
) -> Profile:
    """Return the profile of steps that were surveyed once.

    Raises:
        RuntimeError: the steps ran through different layers.
    """
    starts, lengths, between = _laid_out(steps)
    spans = steps[0]
    networks = {span.subject for span, below in pairwise(spans) if below.depth > span.depth}
    passes: dict[Key, Pass] = {}
    for span, start, length in zip(spans, starts, lengths, strict=True):
        key = span.subject, span.what
        if key in passes:  # a layer that is called again within a step
            start, length = passes[key].start_us, passes[key].us + length
        work = Work() if span.subject in networks else survey.work.get(key, Work())
        passes[key] = Pass(float(start), float(length), work)
    rows, around, seen = [], [], {model}
    of_a_multiply_add = 8 if model.dtype.kind == "c" else 2
    for subject, what, depth, *_ in spans:
        if what != "forward":
            continue
        around[depth - 1 :] = [subject.name]  # at depth 0 is the step
        if subject not in seen:
            seen.add(subject)
            forward = passes[subject, "forward"]
            rows.append(
                Row(
                    path=tuple(around[1:]),
                    family="network" if subject in networks else _family(subject),
                    output_shape=survey.shapes[subject],
                    multiply_adds=forward.work.operations // of_a_multiply_add,
                    forward=forward,
                    backward=passes.get((subject, "backward")),
                )
            )
    return Profile(
        model=model.name,
        input_shape=model.input_shape,
        dtype=model.dtype.name,
        backend=backend.name,
        rows=rows,
        loss=passes.get((None, "loss")),
        optimizer=passes.get((None, "optimizer")),
        between_us=between,
        step_us=float(lengths[0]),
        steps_us=[step[0].end for step in steps],
        peaks=peaks,
    )


def _laid_out(steps: list[list[Span]]) -> tuple[np.ndarray, np.ndarray, float]:
    """Return when each range of a typical step begins, how long it is, and what is in no layer.

    A range with none inside has the median of its lengths and comes after the median of the gaps
    before it, so that the parts of the step add up to it.
    """
    first = steps[0]
    for step in steps[1:]:
        if [span[:3] for span in step] != [span[:3] for span in first]:
            raise RuntimeError(
                "profile: every step must run through the same layers."
                f" Received: steps of {len(first)} and {len(step)} ranges, or in another order"
            )
    begins, ends = (
        np.array([[getattr(span, name) for span in step] for step in steps])
        for name in ("start", "end")
    )  # (steps, ranges)
    lengths = np.median(ends - begins, axis=0)
    starts, now, gaps = np.zeros(len(first)), 0.0, 0.0
    before = begins[:, 0]
    for place, span in enumerate(first):
        if place + 1 < len(first) and first[place + 1].depth > span.depth:
            continue  # it holds others
        gap = np.median(begins[:, place] - before)
        starts[place] = now + gap
        now, gaps, before = starts[place] + lengths[place], gaps + gap, ends[:, place]
    for place in reversed(range(len(first) - 1)):
        if first[place + 1].depth > first[place].depth:
            starts[place] = starts[place + 1]
    gap = np.median(ends[:, 0] - before)
    starts[0], lengths[0] = 0, now + gap  # of the step itself
    return starts, lengths, float(gaps + gap)


def _family(subject: Any) -> str:
    """Return a layer's family, that of its first layer for a stage; a subclass has its base's."""
    kinds = type(parts_of(subject)[0]).__mro__
    package = Layer.__module__.rpartition(".")[0]
    homes = (kind.__module__.removeprefix(f"{package}.") for kind in kinds)
    return next((_FAMILIES[home] for home in homes if home in _FAMILIES), "other")
