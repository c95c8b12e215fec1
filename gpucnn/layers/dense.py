"""The fully connected layer, and its twin as a convolution."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import functional as F
from ..arguments import as_choice, as_int, as_shape, check_data_format
from ..backends.base import Array
from ..functional.activation import check_activation
from ..initializers import Initializer, check_initializer
from ..math_mode import as_math
from ..shapes import ConvShape
from .activation import Activated
from .base import Shape, sample_text
from .conv import Conv, Conv1D, Conv2D, Conv3D, conv_shape


class Dense(Activated):
    """y = f(x @ kernel.T + bias) over the last axis: (N, ..., C) -> (N, ..., units).

    It runs as a 1x1 convolution of a one-pixel map, by the same kernels.

    Args:
        units: outputs.
        activation: a name (see ``Activation``) or None.
        use_bias: whether there is a bias.
        math: as for ``Conv2D``.
        out_dtype: the output's, "float32" in a network of 16 bits: logits that are not rounded, for
            a softmax and a loss without parameters behind it. By default the network's.
        kernel_initializer, bias_initializer: a name, or a function (shape, generator) -> array.

    Parameters: "kernel" (units, C), as in PyTorch (the transpose of Keras's), and "bias" (units,).

    Example:
        >>> Dense(10).forward(np.zeros((2, 64))).shape
        (2, 10)
    """

    arguments = (
        "units", "activation", "use_bias", "math", "out_dtype", "kernel_initializer",
        "bias_initializer",
    )  # fmt: skip

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        *,
        use_bias: bool = True,
        math: str | None = None,
        out_dtype: str | None = None,
        kernel_initializer: Initializer = "he_normal",
        bias_initializer: Initializer = "zeros",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.units = as_int(self.label, "units", units)
        self.activation = check_activation(self.label, activation)
        self.use_bias = bool(use_bias)
        self.math = as_math(self.label, math)
        self.out_dtype = as_choice(self.label, "out_dtype", out_dtype, (None, "float32"))
        self.kernel_initializer = check_initializer(
            self.label, "kernel_initializer", kernel_initializer
        )
        self.bias_initializer = check_initializer(self.label, "bias_initializer", bias_initializer)

    @property
    def output_dtype(self) -> str | None:
        halves = self.dtype is not None and self.dtype.itemsize == 2
        return self.out_dtype if halves else None

    def output_shape(self, input_shape: Shape) -> Shape:
        features = self.params["kernel"].shape[1] if self.built else None
        if not input_shape or not input_shape[-1] or features not in (None, input_shape[-1]):
            raise ValueError(
                f"{self.label}: expects an input (batch, ..., {features or 'features'})."
                f" Received: input of shape {sample_text(input_shape)}"
            )
        return (*input_shape[:-1], self.units)

    def multiply_adds(self, input_shape: Shape) -> int:
        return prod(input_shape) * self.units

    def as_conv(self, input_shape: Shape, data_format: str = "channels_last") -> Conv:
        """Return a convolution with the same weights, for this layer after a ``Flatten``.

        Its window is the whole map, so that on a map of ``input_shape`` it gives this layer's
        numbers, (N, 1, 1, units); on a larger map it gives them for each place of the window.

        Args:
            input_shape: the map before the ``Flatten``, (H, W, C) or (C, H, W); one or three axes
                before the channels for 1-D and 3-D.

        Raises:
            ValueError: the layer is not built, has other than H * W * C features, or an
                ``out_dtype`` of its own, which a convolution has not.

        Source: Long et al. 2015, "Fully convolutional networks for semantic segmentation".
        """
        check_data_format(self.label, data_format)
        if self.output_dtype is not None:
            raise ValueError(
                f"{self.label}: a convolution gives the network's dtype; set out_dtype to None"
                f" first. Received: out_dtype={self.out_dtype!r}"
            )
        input_shape = as_shape(self.label, "input_shape", input_shape)
        features = self.params["kernel"].shape[1] if self.built else None
        if prod(input_shape) != features or len(input_shape) not in (2, 3, 4):
            expected = "a built layer" if features is None else f"a map of {features} numbers"
            raise ValueError(
                f"{self.label}: as_conv needs {expected}. Received: input_shape={input_shape}"
            )
        last = data_format == "channels_last"
        window = input_shape[:-1] if last else input_shape[1:]
        conv = {1: Conv1D, 2: Conv2D, 3: Conv3D}[len(window)](
            self.units,
            window,
            data_format=data_format,
            activation=self.activation,
            use_bias=self.use_bias,
            math=self.math,
            name=self.name,
        )
        conv.build(input_shape, self.dtype, self.backend)
        kernel = self.params["kernel"].reshape(self.units, *input_shape)
        if not last:
            kernel = self.backend.xp.moveaxis(kernel, 1, -1)  # (K, C, H, W) -> (K, H, W, C)
        conv.params["kernel"][...] = kernel
        if self.use_bias:
            conv.params["bias"][...] = self.params["bias"]
        return conv

    def _build(self, input_shape: Shape) -> None:
        features = input_shape[-1]
        fans = (features, self.units)
        self._add("kernel", (self.units, features), self.kernel_initializer, fans)
        if self.use_bias:
            self._add("bias", (self.units,), self.bias_initializer)

    sums_gradients = True
    _run_masked = staticmethod(F.dense_forward_masked)

    def _geometry(self, x_shape: Shape) -> ConvShape:
        """Return that of the convolution which this layer runs as."""
        *rows, features = x_shape
        return conv_shape((prod(rows), 1, features), (self.units, 1, features), owner=self.label)

    def _forward(
        self, x: Array, training: bool, activation: str | None = None,
        residual: Array | None = None, masked: bool = False,
    ) -> Array:  # fmt: skip
        kernel, bias = self.params["kernel"], self.params.get("bias")
        options = {"math": self.math, "activation": activation or self.activation}
        options |= {"masked": True} if masked else {"out_dtype": self.output_dtype}
        y, kept = self._run_activated(
            F.dense_forward, x, kernel, bias, residual=residual, **options
        )
        self._save(x, kept, options["activation"], residual is not None)
        return y

    def _forward_normed(self, x: Array, *norm: Array, **options: Any) -> Array:
        """Run forward with a batch norm behind, for inference (``functional.conv_norm_infer``)."""
        kernel, bias = self.params["kernel"], self.params.get("bias")
        options |= {"math": self.math, "owner": self.label}
        return F.dense_norm_infer(x, kernel, bias, *norm, **options)

    def _forward_before_norm(self, x: Array, *norm: Array, **options: Any) -> tuple[Array, ...]:
        """Run forward and a batch norm in training behind it (``functional.conv_norm_train``)."""
        self._save(x, None, "linear", False)
        kernel, bias = self.params["kernel"], self.params.get("bias")
        return F.dense_norm_train(x, kernel, bias, *norm, math=self.math, **options)

    def _backward(
        self, dy: Array, x: Array, kept: Array | F.Mask | None, activation: str, with_residual: bool
    ) -> Array | tuple[Array, Array]:
        """Return dx, and the gradient of the residual, if there was one."""
        dy = self._deactivate(dy, kept, activation)
        dx = self._gradients(F.dense_backward, dy, x, self.params["kernel"])
        return (dx, dy) if with_residual else dx
