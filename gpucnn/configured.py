"""Losses, optimizers and schedules as JSON: a name and the constructor's arguments.

>>> from gpucnn.schedules import Cosine
>>> Cosine(0.1, steps=1000).config()
{'type': 'cosine', 'learning_rate': 0.1, 'steps': 1000, 'final': 0.0}
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, ClassVar, TypeVar

import numpy as np

from .arguments import as_number

C = TypeVar("C", bound="Configured")


class Configured:
    """A dataclass with a short name, which strings and checkpoints call it by.

    A user's own subclass of a loss, an optimizer or a schedule takes part once it is defined: it
    needs ``@dataclass`` and an ``alias``.
    """

    alias: ClassVar[str] = ""

    def config(self) -> dict[str, Any]:
        """Return the alias and the arguments as JSON values; ``from_config`` makes a twin."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.init}
        return {"type": self.alias} | {name: _plain(value) for name, value in values.items()}

    @classmethod
    def from_config(cls: type[C], config: dict[str, Any]) -> C:
        """Build what ``config`` describes.

        Raises:
            ValueError: the name or an argument is unknown.
        """
        known = dict(cls._aliases())
        arguments = dict(config)
        kind = arguments.pop("type", None)
        if kind not in known:
            names = ", ".join(map(repr, known))
            raise ValueError(f"{cls.__name__.lower()} must be one of {names}. Received: {kind!r}")
        for name, value in arguments.items():
            if isinstance(value, dict):
                arguments[name] = Configured.from_config(value)
        try:
            return known[kind](**arguments)
        except TypeError as error:
            raise ValueError(f"{kind}: {error}. Received: {config}") from error

    @classmethod
    def of(cls: type[C], value: str | C) -> C:
        """Return ``value`` itself, or what it names with its default arguments.

        Raises:
            ValueError: the name is unknown.
            TypeError: it is neither a name nor an object of this class.
        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise TypeError(
                f"{cls.__name__.lower()} must be a name or an instance of {cls.__name__}."
                f" Received: {value!r}"
            )
        return cls.from_config({"type": value})

    @classmethod
    def _aliases(cls) -> Iterator[tuple[str, type]]:
        if vars(cls).get("alias"):  # its own, not one that it inherits
            yield cls.alias, cls
        for subclass in cls.__subclasses__():
            yield from subclass._aliases()


def _plain(value: Any) -> Any:
    """Return a field's value as JSON takes it."""
    if isinstance(value, Configured):
        return value.config()
    return value.item() if isinstance(value, np.generic) else value


def check_range(
    owner: Configured, name: str, *, above: float | None = None, least: float | None = None,
    below: float = math.inf, most: float | None = None,
) -> None:  # fmt: skip
    """Check that the field ``name`` is a number > above or >= least, and < below or <= most."""
    value = getattr(owner, name)
    as_number(type(owner).__name__, name, value, above=above, least=least, below=below, most=most)
