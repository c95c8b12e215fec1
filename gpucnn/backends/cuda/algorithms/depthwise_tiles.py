"""What one thread of a depthwise convolution computes, and for which windows there are kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .base import Problem

VECTOR_BYTES = 16  # of channels that a thread takes at once


@dataclass(frozen=True)
class Tile:
    """What one thread computes; see kernels/depthwise.cuh.

    Attributes:
        channels_last: the layout.
        vector: 16 bytes of channels, else one.
        taps: taps of a row of the window, with dilation 1; 0 for any row.
        stride: along that row; 1 for any row.
        rows: of the map.
        transposed: the gradient of the input of a strided convolution.
    """

    channels_last: bool
    vector: bool
    taps: int = 0
    stride: int = 1
    rows: int = 1
    transposed: bool = False

    @property
    def tag(self) -> str:
        layout = ("nhwc16b" if self.vector else "nhwc") if self.channels_last else "nchw"
        window = f"_{self.taps}s{self.stride}_{self.rows}rows" if self.taps else "_any"
        return layout + window + ("_transposed" if self.transposed else "")

    @property
    def macros(self) -> dict[str, int]:
        return {
            "CHANNELS_LAST": int(self.channels_last),
            "VECTOR": int(self.vector),
            "TAPS": self.taps,
            "STRIDE": self.stride,
            "ROWS": self.rows,
        }

    @property
    def columns(self) -> int:
        """COLUMNS of the kernels."""
        if self.transposed:
            return 4 if self.channels_last else self.stride
        return 4 // self.stride if self.channels_last else 1

    @property
    def window_rows(self) -> int:
        """Rows of the window that a thread of wgrad sums: as many as fit into its registers."""
        return self.taps if self.taps == 3 or (self.taps and not self.channels_last) else 1

    def channels(self, problem: Problem) -> int:
        return VECTOR_BYTES // problem.itemsize if self.vector else 1


ANY = (Tile(True, False), Tile(True, True), Tile(False, False))
# (taps, stride, rows)
GATHER_TILES = (
    *ANY,
    *(Tile(True, True, *window) for window in ((3, 1, 1), (3, 1, 2), (5, 1, 1), (5, 1, 2))),
    *(Tile(True, True, *window) for window in ((7, 1, 1), (3, 2, 1), (5, 2, 1))),
    *(Tile(False, False, *window) for window in ((3, 1, 7), (5, 1, 7), (7, 1, 4))),
    *(Tile(False, False, *window) for window in ((3, 2, 7), (5, 2, 4))),
)
_STRIDED = (
    *ANY,
    *(Tile(True, True, taps, stride=2, rows=2) for taps in (3, 5)),
    *(Tile(False, False, taps, stride=2, rows=8) for taps in (3, 5)),
)
TRANSPOSED_TILES = tuple(replace(tile, transposed=True) for tile in _STRIDED)
WGRAD_TILES = (
    *ANY,
    *(Tile(True, True, *window) for window in ((3, 1), (5, 1), (7, 1), (3, 2), (5, 2))),
    *(Tile(False, False, *window, rows=4) for window in ((3, 1), (5, 1), (3, 2), (5, 2))),
    Tile(False, False, 7, 1, rows=2),
)
