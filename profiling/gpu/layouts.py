"""PyTorch's layouts: tensors of gpucnn's axes as PyTorch's, and views of its results back.

The filters are (K, *window, C / groups) and activations (N, *size, C) or (N, C, *size) here; there
(K, C / groups, *window) and (N, C, *size), "contiguous" or "channels_last" in memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gpucnn.shapes import ConvShape, NormShape, PoolShape


class Windows:
    """Brings activations and filters of a convolution or pooling to PyTorch's axes and back.

    PyTorch knows channels last in two and three dimensions, so a case in one becomes one in two of
    height 1, as PyTorch itself does it.
    """

    def __init__(self, shape: ConvShape | PoolShape, layout: str) -> None:
        self.shape, self.layout = shape, layout
        self.flat = shape.rank == 1

    def per_axis(self, values: tuple[int, ...], neutral: int) -> list[int]:
        return [neutral, *values] if self.flat else list(values)

    @property
    def padding(self) -> list[int]:
        """Raises ValueError where the two ends differ, which PyTorch has no argument for."""
        if any(before != after for before, after in self.shape.padding):
            raise ValueError(f"PyTorch pads both ends alike. Received: {self.shape.padding}")
        return self.per_axis(tuple(before for before, _ in self.shape.padding), 0)

    def activation(self, x: Tensor) -> Tensor:
        """(N, *size, C) or (N, C, *size) -> (N, C, *size) with this layout's strides."""
        return self._laid_out(x.movedim(-1, 1) if self.shape.channels_last else x)

    def filters(self, w: Tensor) -> Tensor:
        """(K, *window, C / groups) -> (K, C / groups, *window) with this layout's strides."""
        return self._laid_out(w.movedim(-1, 1))

    def back(self, y: Tensor) -> Tensor:
        """An activation's view in gpucnn's axes."""
        y = y.squeeze(2) if self.flat else y
        return y.movedim(1, -1) if self.shape.channels_last else y

    def filters_back(self, dw: Tensor) -> Tensor:
        dw = dw.squeeze(2) if self.flat else dw
        return dw.movedim(1, -1)

    def _laid_out(self, t: Tensor) -> Tensor:
        t = t.unsqueeze(2) if self.flat else t
        if self.layout == "contiguous":
            return t.contiguous()
        last = torch.channels_last_3d if t.ndim == 5 else torch.channels_last
        return t.contiguous(memory_format=last)


class Maps:
    """Brings (N, L, C) or (N, C, L) to (N, C, 1, L), the axes that fast batch norms want."""

    def __init__(self, shape: NormShape, layout: str) -> None:
        self.shape, self.layout = shape, layout

    def maps(self, x: Tensor) -> Tensor:
        x = (x.movedim(2, 1) if self.shape.channels_last else x).unsqueeze(2)
        if self.layout == "contiguous":
            return x.contiguous()
        return x.contiguous(memory_format=torch.channels_last)

    def back(self, y: Tensor) -> Tensor:
        y = y.squeeze(2)
        return y.movedim(1, 2) if self.shape.channels_last else y
