"""What may happen to pictures on their way from a data set into a batch: a frozen record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Changes:
    """Random changes to each picture, in this order: shift, flip, cutout.

    Args:
        shift: every whole shift from -shift to shift, in rows and in columns, is equally likely.
        fill: the pixel value, 0 to 255, that enters; None mirrors the picture about its edge
            pixels, with a shift below its height and width.
        flip: the probability of being mirrored left to right.
        alternating: mirror in turns instead: half of the pictures in the first epoch, the others in
            the second, and so on; the seed settles which.
        cutout: the side of the square that covers part of a picture, its centre on any pixel; 0 for
            none.
        cover: the square's pixel value, 0 to 255.

    Example:
        >>> Changes(shift=2, flip=0.5)
        Changes(shift=2, fill=0, flip=0.5, alternating=False, cutout=0, cover=0)
    """

    shift: int = 0
    fill: int | None = 0
    flip: float = 0.0
    alternating: bool = False
    cutout: int = 0
    cover: int = 0

    @property
    def flip_threshold(self) -> int:
        """A picture is flipped where its 32-bit random number is below this."""
        return int(self.flip * 2**32)


UNCHANGED = Changes()
