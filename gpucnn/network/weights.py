"""The arrays of a network by path: what an optimizer changes and what a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..backends.base import Array, Backend
from ..layers.base import Layer

# Where an array or a counter lies: the dictionary of its layer, and the key there.
Slot = tuple[dict[str, Any], str]


class Parameter(NamedTuple):
    """A trainable array: the path "conv2d/kernel", the layer that holds it, and its key there."""

    path: str
    layer: Layer
    key: str

    @property
    def value(self) -> Array:
        return self.layer.params[self.key]

    @property
    def gradient(self) -> Array:
        if self.key not in self.layer.grads:
            raise KeyError(f"{self.path} has no gradient yet; run forward and backward first")
        return self.layer.grads[self.key]


def slots_of(layers: Iterable[tuple[str, Layer]]) -> dict[str, Slot]:
    """Return the slot of each parameter, state and counter of a walk, by path."""
    return {
        f"{path}/{key}": (holder, key)
        for path, layer in layers
        for holder in (layer.params, layer.state, layer.counters)
        for key in holder
    }


def read(slots: Mapping[str, Slot], backend: Backend) -> dict[str, np.ndarray]:
    """Return copies on the host of what the slots hold; a counter as a 0-d int64 array."""
    state = {}
    for path, (holder, key) in slots.items():
        value = holder[key]
        state[path] = np.array(
            np.int64(value) if isinstance(value, int) else backend.to_numpy(value)
        )
    return state


def write(
    owner: str, slots: Mapping[str, Slot], state: Mapping[str, Array], strict: bool,
    backend: Backend,
) -> None:  # fmt: skip
    """Fill the slots from ``state``, in place; all of it is checked before anything is changed.

    Raises:
        ValueError: what does not fit, all of it: missing and unexpected paths, and shapes.
    """
    common = [path for path in slots if path in state]
    misfits = []
    if strict:
        missing = [path for path in slots if path not in state]
        unexpected = [path for path in state if path not in slots]
        misfits += [f"missing: {', '.join(missing)}"] if missing else []
        misfits += [f"unexpected: {', '.join(unexpected)}"] if unexpected else []
    for path in common:
        holder, key = slots[path]
        expected, given = np.shape(holder[key]), np.shape(state[path])
        if expected != given:
            misfits.append(f"{path} must be of shape {expected}, not {given}")
    if misfits:
        raise ValueError(
            f"{owner}: the state does not fit, and nothing was changed; {'; '.join(misfits)}."
            f" Received: {len(state)} arrays for {len(slots)} places"
        )
    values = {}
    for path in common:
        holder, key = slots[path]
        if isinstance(holder[key], int):
            values[path] = int(state[path])
        else:
            values[path] = backend.asarray(state[path], holder[key].dtype)
    for path, value in values.items():
        holder, key = slots[path]
        if isinstance(value, int):
            holder[key] = value
        else:
            holder[key][...] = value  # in place: an optimizer may hold the array
