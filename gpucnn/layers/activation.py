"""Activations as layers, and as the last step of a layer that has weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import functional as F
from ..arguments import as_choice, as_number, integers
from ..backends.base import ACTIVATIONS, Array
from ..functional.activation import check_activation
from ..initializers import Initializer, check_initializer
from .base import Layer, Shape, sample_text


class Activated(Layer):
    """A layer whose output runs through an activation, ``self.activation``, of its own.

    Only the tensor that the derivative needs is kept: for relu or tanh the output, and the sum
    before it is freed. ``_forward`` takes another activation in place of its own, so that a network
    can hand it a ReLU layer's work (see ``network.plan``).
    """

    activation: str
    softmax_axis = -1
    fused: frozenset[str] = ACTIVATIONS  # what the layer's own kernel can apply
    # What runs the layer and returns the output's mask, too, which ``_forward`` is then asked for
    # by ``masked=True`` (see ``network.masks``); None where nothing does.
    _run_masked: Callable[..., tuple[Array, F.Mask | None]] | None = None

    def _check(self, x: Array | F.Unapplied) -> Array | F.Unapplied:
        if isinstance(x, F.Unapplied):  # from within a network: see ``network.on_load``
            return x._replace(x=super()._check(x.x))
        return super()._check(x)

    def _activate(self, y: Array, activation: str) -> tuple[Array, Array | None]:
        """Return the activation's output and what ``_deactivate`` will need of it."""
        if activation == "linear":
            return y, None
        out = F.activation_forward(y, activation, axis=self.softmax_axis, owner=self.label)
        return out, out if F.saves_output(activation) else y

    def _run_activated(
        self, run: Callable, *arrays: Any, activation: str, masked: bool = False, **keywords: Any
    ) -> tuple[Array, Array | F.Mask | None]:
        """``_activate`` the result of a convolution, in the same kernel where it knows how.

        Where a backward pass may follow, those are the ones whose derivative the output tells. If
        ``masked``, its mask is kept in its place, where that pays.
        """
        if masked:
            y, mask = self._run_masked(*arrays, activation=activation, owner=self.label, **keywords)
            return y, y if mask is None else mask
        fused = activation in self.fused and (F.saves_output(activation) or not self._keeps)
        if not fused or arrays[0].dtype.kind == "c":
            return self._activate(run(*arrays, owner=self.label, **keywords), activation)
        y = run(*arrays, activation=activation, owner=self.label, **keywords)
        return y, y

    def _deactivate(self, dy: Array, kept: Array | F.Mask | None, activation: str) -> Array:
        """Return the gradient before the activation: dy itself where nothing is kept for it."""
        if kept is None:
            return dy
        return F.activation_backward(dy, kept, activation, axis=self.softmax_axis, owner=self.label)

    def _gradients(self, run: Callable, *arrays: Any, **keywords: Any) -> Array | None:
        """Fill the gradients of a layer with a kernel by ``run``, and return dx."""
        dx, self.grads["kernel"], db = run(
            *arrays,
            with_bias=self.use_bias,
            needs_dx=self.needs_input_gradient,
            residual=self._take_others_gradient(),
            math=self.math,
            owner=self.label,
            **keywords,
        )
        if self.use_bias:
            self.grads["bias"] = db
        return dx


class Pointwise(Layer):
    """An activation without arguments of its own, called ``kind`` by the backends."""

    kind: str
    alpha: float | None = None
    axis = -1

    @property
    def keeps_input(self) -> bool:
        return not F.saves_output(self.kind)

    def _forward(self, x: Array, training: bool) -> Array:
        y = F.activation_forward(x, self.kind, alpha=self.alpha, axis=self.axis, owner=self.label)
        self._save(y if F.saves_output(self.kind) else x)
        return y

    def _backward(self, dy: Array, saved: Array | F.Mask | None) -> Array:
        if saved is None:
            return dy
        return F.activation_backward(
            dy, saved, self.kind, alpha=self.alpha, axis=self.axis, owner=self.label
        )


class Activation(Pointwise):
    """Any activation by its Keras name; see ``gpucnn.functional.activation_forward`` for the list.

    Example:
        >>> Activation("tanh").forward(np.zeros((1, 3)))
        array([[0., 0., 0.]])
    """

    arguments = ("activation",)

    def __init__(self, activation: str, **common: Any) -> None:
        super().__init__(**common)
        self.activation = self.kind = check_activation(self.label, activation)


class ReLU(Pointwise):
    """max(x, 0), or with ``max_value=6`` min(max(x, 0), 6)."""

    arguments = ("max_value",)

    def __init__(self, max_value: float | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.max_value = as_choice(self.label, "max_value", max_value, (None, 6))
        self.kind = "relu" if max_value is None else "relu6"


class LeakyReLU(Pointwise):
    """x where x > 0, else negative_slope * x, which must not be negative.

    The default 0.3 is the one of Keras's layer; the name "leaky_relu" has its function's, 0.2.
    """

    arguments = ("negative_slope",)
    kind = "leaky_relu"

    def __init__(self, negative_slope: float = 0.3, **common: Any) -> None:
        super().__init__(**common)
        # The derivative is read off the output, whose sign must be the input's.
        self.alpha = as_number(self.label, "negative_slope", negative_slope, least=0)
        self.negative_slope = self.alpha


class ELU(Pointwise):
    """x where x > 0, else alpha * (exp(x) - 1) (Clevert et al. 2016)."""

    arguments = ("alpha",)
    kind = "elu"

    def __init__(self, alpha: float = 1.0, **common: Any) -> None:
        super().__init__(**common)
        self.alpha = as_number(self.label, "alpha", alpha, least=0)  # as for LeakyReLU


class SELU(Pointwise):
    """The ELU whose scales keep mean 0 and variance 1 (Klambauer et al. 2017)."""

    kind = "selu"


class Sigmoid(Pointwise):
    """1 / (1 + exp(-x))."""

    kind = "sigmoid"


class HardSigmoid(Pointwise):
    """min(max(x + 3, 0), 6) / 6."""

    kind = "hard_sigmoid"


class Tanh(Pointwise):
    """tanh(x)."""

    kind = "tanh"


class Softplus(Pointwise):
    """log(1 + exp(x))."""

    kind = "softplus"


class Softsign(Pointwise):
    """x / (1 + |x|)."""

    kind = "softsign"


class GELU(Pointwise):
    """x * Phi(x), or its tanh form with ``approximate=True`` (Hendrycks & Gimpel 2016)."""

    arguments = ("approximate",)

    def __init__(self, approximate: bool = False, **common: Any) -> None:
        super().__init__(**common)
        self.approximate = bool(approximate)
        self.kind = "gelu_tanh" if approximate else "gelu"


class SiLU(Pointwise):
    """x * sigmoid(x), also called swish (Ramachandran et al. 2017)."""

    kind = "silu"


class HardSiLU(Pointwise):
    """x * HardSigmoid(x) (Howard et al. 2019)."""

    kind = "hard_silu"


class Mish(Pointwise):
    """x * tanh(softplus(x)) (Misra 2020)."""

    kind = "mish"


class Softmax(Pointwise):
    """exp(x) / sum(exp(x)) over ``axis``, which counts the batch axis.

    To train, leave it out: the cross-entropy loss takes the logits and is more exact so.
    """

    arguments = ("axis",)
    kind = "softmax"

    def __init__(self, axis: int = -1, **common: Any) -> None:
        super().__init__(**common)
        if integers([axis]) is None:
            raise ValueError(f"{self.label}: axis must be an integer. Received: axis={axis!r}")
        self.axis = int(axis)


class LogSoftmax(Softmax):
    """The logarithm of ``Softmax``: x - log(sum(exp(x))) over ``axis``."""

    kind = "log_softmax"


class PReLU(Layer):
    """x where x > 0, else alpha * x, with a learned alpha for each channel (He et al. 2015).

    Args:
        alpha_initializer: zeros, as in Keras.
        axis: where the channels lie: the last axis, or 1 for channels-first maps.
    """

    arguments = ("alpha_initializer", "axis")

    def __init__(
        self, alpha_initializer: Initializer = "zeros", *, axis: int = -1, **common: Any
    ) -> None:
        super().__init__(**common)
        self.alpha_initializer = check_initializer(
            self.label, "alpha_initializer", alpha_initializer
        )
        self.axis = as_choice(self.label, "axis", axis, (-1, 1))

    def output_shape(self, input_shape: Shape) -> Shape:
        channels = self.params["alpha"].size if self.built else None
        place = -1 if self.axis == -1 else 0
        if not input_shape or channels not in (None, input_shape[place]):
            raise ValueError(
                f"{self.label}: expects an input of {channels or 'any'} channels on axis"
                f" {self.axis}. Received: input of shape {sample_text(input_shape)}"
            )
        return input_shape

    def _build(self, input_shape: Shape) -> None:
        channels = input_shape[-1 if self.axis == -1 else 0]
        self._add("alpha", (channels,), self.alpha_initializer)

    def _forward(self, x: Array, training: bool) -> Array:
        self._save(x)
        return F.prelu_forward(x, self.params["alpha"], axis=self.axis, owner=self.label)

    def _backward(self, dy: Array, x: Array) -> Array:
        dx, self.grads["alpha"] = F.prelu_backward(
            dy, x, self.params["alpha"], axis=self.axis, owner=self.label
        )
        return dx


def as_activation(activation: str | Layer | None) -> Layer | None:
    """Return an activation as a layer: by name, or as it is; None for none."""
    if activation is None or isinstance(activation, Layer):
        return activation
    return Activation(activation)
