"""One piece of memory for all arrays of a step, which share it as their lifetimes allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

ALIGNMENT = 512  # bytes, as CuPy's memory pool: kernels' widest loads and TMA ask for 128


@dataclass(frozen=True)
class Lifetime:
    """An array's bytes and the moments between which they are in use: begin < end."""

    size: int
    begin: int
    end: int

    def meets(self, other: Lifetime) -> bool:
        """Return whether there is a moment at which both are in use."""
        return self.begin < other.end and other.begin < self.end


@dataclass(frozen=True)
class Arena:
    """Where each array lies.

    Attributes:
        lifetimes: in the order in which the arrays are made.
        offsets: of each from the beginning, in bytes.
    """

    lifetimes: tuple[Lifetime, ...]
    offsets: tuple[int, ...]

    @cached_property
    def size(self) -> int:
        """The bytes of the whole."""
        places = zip(self.offsets, self.lifetimes, strict=True)
        return max((offset + aligned(life.size) for offset, life in places), default=0)

    @property
    def naive(self) -> int:
        """The bytes that the arrays would take if none took over from another."""
        return sum(aligned(life.size) for life in self.lifetimes)

    @cached_property
    def least(self) -> int:
        """The most bytes that are in use at one moment: no arena is smaller."""
        changes = [(life.begin, aligned(life.size)) for life in self.lifetimes]
        changes += [(life.end, -aligned(life.size)) for life in self.lifetimes]
        most = now = 0
        for _, change in sorted(changes):
            now += change
            most = max(most, now)
        return most

    @cached_property
    def taken_over(self) -> tuple[tuple[int, ...], ...]:
        """For each array those whose bytes it takes over, in whole or in part."""
        return tuple(
            tuple(other for other in range(number) if self._follows(number, other))
            for number in range(len(self.lifetimes))
        )

    def _follows(self, number: int, other: int) -> bool:
        begin, size = self.offsets[number], self.lifetimes[number].size
        other_begin, other_size = self.offsets[other], self.lifetimes[other].size
        if begin >= other_begin + other_size or other_begin >= begin + size:
            return False
        return not self.lifetimes[number].meets(self.lifetimes[other])

    @classmethod
    def of(cls, lifetimes: Sequence[Lifetime]) -> Arena:
        """Place the arrays, the largest first, each in the smallest gap that it fits.

        Gaps are those between arrays that were placed before and live at a common moment. Source:
        Pisarchyk & Lee, "Efficient memory management for deep neural net inference", 2020,
        section 5.2, "greedy by size".

        >>> one_after_another = [Lifetime(1000, 0, 2), Lifetime(600, 1, 4), Lifetime(900, 3, 5)]
        >>> arena = Arena.of(one_after_another)
        >>> arena.offsets, arena.size, arena.naive
        ((0, 1024, 0), 2048, 3072)
        """
        offsets = [0] * len(lifetimes)
        placed: list[int] = []  # in the order of their offsets
        for number in sorted(range(len(lifetimes)), key=lambda n: (-lifetimes[n].size, n)):
            size = aligned(lifetimes[number].size)
            best, best_gap, end = None, None, 0
            for other in placed:
                if not lifetimes[other].meets(lifetimes[number]):
                    continue
                gap = offsets[other] - end
                if gap >= size and (best_gap is None or gap < best_gap):
                    best, best_gap = end, gap
                end = max(end, offsets[other] + aligned(lifetimes[other].size))
            offsets[number] = end if best is None else best
            placed.append(number)
            placed.sort(key=offsets.__getitem__)
        return cls(tuple(lifetimes), tuple(offsets))


def aligned(size: int) -> int:
    """Round bytes up.

    >>> aligned(1), aligned(512)
    (512, 512)
    """
    return -(-size // ALIGNMENT) * ALIGNMENT
