"""Where the arrays of a step come from: first watched, then from an arena.

Both are called with a number of bytes, as a backend's arrays are made, and return a ``Piece``, to
which the array holds on for as long as it, or a view of it, is in use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .arena import Arena, Lifetime


class Piece:
    """Bytes at an address, until nobody refers to them any more.

    Attributes:
        owner: of the memory, which lives at least as long.
        leave: called at the end.
    """

    __slots__ = ("__weakref__", "address", "leave", "owner", "size")

    def __init__(
        self, address: int, size: int, owner: Any, leave: Callable[[], None] | None = None
    ) -> None:
        self.address, self.size, self.owner, self.leave = address, size, owner, leave

    def __del__(self) -> None:
        if self.leave is not None:
            self.leave()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """The bytes as NumPy sees them; of memory of a device nobody asks."""
        return {
            "shape": (self.size,),
            "typestr": "|u1",
            "data": (self.address, False),
            "version": 3,
        }


# Returns memory of so many bytes: its address, and what owns it.
Source = Callable[[int], tuple[int, Any]]


class Watched:
    """Memory from the usual source, and a diary of when each piece was taken and left."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._sizes: list[int] = []
        self._begins: list[int] = []
        self._ends: dict[int, int] = {}
        self._moment = 0
        self._open = True

    def __call__(self, size: int) -> Piece:
        number = len(self._sizes)
        self._sizes.append(size)
        self._begins.append(self._next())
        address, owner = self._source(size)
        return Piece(address, size, owner, lambda: self._left(number))

    def _left(self, number: int) -> None:
        if self._open:
            self._ends[number] = self._next()

    def _next(self) -> int:
        self._moment += 1
        return self._moment

    def arena(self) -> Arena:
        """Close the diary and plan; what is still in use then is so to the end of every step."""
        self._open = False
        end = self._next()
        return Arena.of(
            [
                Lifetime(size, begin, self._ends.get(number, end))
                for number, (size, begin) in enumerate(zip(self._sizes, self._begins, strict=True))
            ]
        )


class Placed:
    """Memory of an arena, for a step that takes the sizes of the watched one in the same order.

    A step that does not, or that holds on to an array for longer, gets memory from the usual source
    from then on: its numbers are right, but it cannot be recorded.

    Attributes:
        differs: in what the step was another one, or None.
    """

    def __init__(self, arena: Arena, base: int, owner: Any, source: Source) -> None:
        self.differs: str | None = None
        self._arena, self._base, self._owner, self._source = arena, base, owner, source
        self._taken = 0
        self._in_use: set[int] = set()

    def __call__(self, size: int) -> Piece:
        number = self._taken
        self._taken += 1
        if self.differs is None:
            self.differs = self._difference(number, size)
        if self.differs is not None:
            address, owner = self._source(size)
            return Piece(address, size, owner)
        self._in_use.add(number)
        address = self._base + self._arena.offsets[number]
        return Piece(address, size, self._owner, lambda: self._in_use.discard(number))

    def _difference(self, number: int, size: int) -> str | None:
        lifetimes = self._arena.lifetimes
        if number >= len(lifetimes):
            return f"it makes more arrays than before, {len(lifetimes)}"
        if size != lifetimes[number].size:
            return f"array {number} is of {size:,} bytes, and was of {lifetimes[number].size:,}"
        late = next((n for n in self._arena.taken_over[number] if n in self._in_use), None)
        return None if late is None else f"array {late} is in use for longer than before"

    def finish(self) -> None:
        """Say that the step is over."""
        if self.differs is None and self._taken != len(self._arena.lifetimes):
            self.differs = (
                f"it makes fewer arrays than before, {self._taken} of {len(self._arena.lifetimes)}"
            )
