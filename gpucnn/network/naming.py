"""Names of layers within a network: Keras's rule, independent of every other network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..layers.base import Layer


def listed(owner: str, name: str, layers: Any) -> list:
    """Return ``layers`` as a list.

    Raises:
        TypeError: it is a single layer, say.
    """
    if not isinstance(layers, Iterable):
        raise TypeError(f"{owner}: {name} must be a list of layers. Received: {name}={layers!r}")
    return list(layers)


def adopt(owner: str, layers: Iterable[Layer]) -> list[Layer]:
    """Return the layers as a list, each with a name that is unique among them.

    Raises:
        TypeError: an item is no layer.
        ValueError: there is no layer, a layer occurs twice, or two were given one name.
    """
    layers = list(layers)
    if not layers:
        raise ValueError(f"{owner}: layers must hold at least one layer. Received: layers=[]")
    seen = set()
    for layer in layers:
        if not isinstance(layer, Layer):
            raise TypeError(f"{owner}: each layer must be a gpucnn layer. Received: {layer!r}")
        for _, part in layer.walk():
            if id(part) in seen:
                raise ValueError(
                    f"{owner}: a layer may be used once; shared weights are not supported yet, make"
                    f" a second layer. Received: {part.label} twice"
                )
            seen.add(id(part))
    give_names(owner, layers)
    return layers


def give_names(owner: str, items: Iterable[Any]) -> None:
    """Name the unnamed by their class, conv2d, conv2d_1, ...; names that a person gave stay.

    A name is given once: a layer that is used again in another network (the first half of a
    trained one, say) keeps it, and so do the paths of its weights in a checkpoint.

    Raises:
        ValueError: two items were given one name, or a name holds a "/".
    """
    items = list(items)
    taken = set()
    for item in items:
        if item.given_name:
            if item.name in taken:
                raise ValueError(f"{owner}: names must be unique. Received: two of {item.name!r}")
            if "/" in item.name:
                raise ValueError(
                    f'{owner}: a name holds no "/", which separates the names in a path.'
                    f" Received: name={item.name!r}"
                )
            taken.add(item.name)
    for item in items:
        if not item.given_name:
            stem, number = item.name, 0
            while item.name in taken:
                number += 1
                item.name = f"{stem}_{number}"
            taken.add(item.name)
            item.given_name = True
