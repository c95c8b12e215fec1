"""Normalisation layers: batch, group, instance and layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import functional as F
from ..arguments import as_choice, as_int, as_number, integers
from ..backends.base import NORM_FUSED, Array
from ..functional.activation import check_activation
from ..initializers import Initializer, check_initializer
from ..shapes import PoolShape
from .activation import Activated
from .base import Layer, Shape, sample_text


class _Norm(Layer):
    """Keeps gamma and beta, and where the channels lie."""

    arguments: tuple[str, ...] = ("epsilon", "axis", "gamma_initializer", "beta_initializer")

    def __init__(
        self,
        *,
        epsilon: float = 1e-3,
        axis: int = -1,
        gamma_initializer: Initializer = "ones",
        beta_initializer: Initializer = "zeros",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.epsilon = as_number(self.label, "epsilon", epsilon, least=0)
        self.axis = self._check_axis(axis)
        self.gamma_initializer = check_initializer(
            self.label, "gamma_initializer", gamma_initializer
        )
        self.beta_initializer = check_initializer(self.label, "beta_initializer", beta_initializer)

    def _check_axis(self, axis: Any) -> Any:
        return as_choice(self.label, "axis", axis, (-1, 1))

    def _parameter_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of gamma and beta: the channels."""
        return (input_shape[-1 if self.axis == -1 else 0],)

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape:
            raise ValueError(
                f"{self.label}: expects an input of two axes or more."
                f" Received: input of shape {sample_text(input_shape)}"
            )
        shape = self._parameter_shape(input_shape)
        if self.built and shape != self.params["gamma"].shape:
            raise ValueError(
                f"{self.label}: expects an input of size"
                f" {', '.join(map(str, self.params['gamma'].shape))} on axis {self.axis}."
                f" Received: input of shape {sample_text(input_shape)}"
            )
        return input_shape

    def _build(self, input_shape: Shape) -> None:
        shape = self._parameter_shape(input_shape)
        self._add("gamma", shape, self.gamma_initializer)
        self._add("beta", shape, self.beta_initializer)


class BatchNorm(_Norm, Activated):
    """Normalise each channel by its batch's mean and variance (Ioffe & Szegedy 2015).

    y = f(gamma * (x - mean) / sqrt(variance + epsilon) + beta)

    In training the statistics are the batch's; the moving ones follow them,
    moving = momentum * moving + (1 - momentum) * batch, the variance biased as in Keras (PyTorch
    corrects it). Otherwise, and where ``trainable`` is False, the moving ones are used.

    Args:
        momentum: the share of the moving statistics that a step keeps, in [0, 1).
        activation: f, a name (see ``Activation``) or None; "relu" and "relu6" cost nothing on
            their way.
        epsilon: added to the variance.
        axis: where the channels lie: the last axis, or 1 for channels-first maps.
        gamma_initializer, beta_initializer: a name, or a function (shape, generator) -> array.

    Parameters: "gamma" and "beta" (C,). State: "moving_mean" and "moving_variance" (C,), float32,
    or float64 with float64 parameters.
    """

    arguments = ("momentum", "activation", *_Norm.arguments)
    fused = frozenset(NORM_FUSED) - {"linear"}

    def __init__(
        self, *, momentum: float = 0.99, activation: str | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.momentum = as_number(self.label, "momentum", momentum, least=0, below=1)
        self.activation = check_activation(self.label, activation)
        self.softmax_axis = self.axis

    def _build(self, input_shape: Shape) -> None:
        super()._build(input_shape)
        shape = self._parameter_shape(input_shape)
        self._add_state("moving_mean", shape, "zeros")
        self._add_state("moving_variance", shape, "ones")

    def _forward(
        self, x: Array, training: bool, activation: str | None = None,
        residual: Array | None = None, behind: Callable[..., tuple[Array, ...]] | None = None,
        applies: bool = True,
    ) -> Array | F.Unapplied:  # fmt: skip
        """In training ``behind`` runs a convolution of x first, and gives its output, too.

        Where not ``applies`` the statistics alone are taken, for a layer that applies the norm to
        what it loads; in training, with an activation of ``NORM_FUSED`` and no residual.
        """
        activation = activation or self.activation
        own = activation if activation in self.fused else "linear"  # what the kernels apply
        gamma, beta = self.params["gamma"], self.params["beta"]
        statistics = self.state["moving_mean"], self.state["moving_variance"]
        options = {"epsilon": self.epsilon, "axis": self.axis, "owner": self.label}
        options |= {"activation": own, "residual": residual}
        training = training and self.trainable
        if training:
            options |= {"moving": statistics, "momentum": self.momentum, "applies": applies}
            if behind is None:
                y, *statistics = F.batch_norm_train(x, gamma, beta, **options)
            else:
                del options["axis"]  # the convolution's own
                x, y, *statistics = behind(x, gamma, beta, **options)
        else:
            y = F.batch_norm_infer(x, gamma, beta, *statistics, **options)
        kept = None
        if own != activation:
            y, kept = self._activate(y, activation)
        elif residual is not None:
            kept = y
        self._save(kept, activation, x, *statistics, training, residual is not None)
        return y

    def _forward_pooled(self, x: Array, training: bool, pool: PoolShape, activation: str) -> Array:
        """Return what a max-pool makes of the output; keep its index, then as ``_forward``."""
        gamma, beta = self.params["gamma"], self.params["beta"]
        statistics = self.state["moving_mean"], self.state["moving_variance"]
        options = {"epsilon": self.epsilon, "axis": self.axis, "owner": self.label}
        pooling = {"activation": activation, "with_index": self._keeps}
        training = training and self.trainable
        if training:
            options |= {"pool": pool, "moving": statistics, "momentum": self.momentum, **pooling}
            y, index, *statistics = F.batch_norm_pool_train(x, gamma, beta, **options)
        else:
            y = F.batch_norm_infer(x, gamma, beta, *statistics, **options)
            y, index = F.pool_forward(y, shape=pool, owner=self.label, **pooling)
        self._save(index, pool, None, "linear", x, *statistics, training, False)
        return y

    def _backward(
        self, dy: Array, kept: Array | F.Mask | None, activation: str, x: Array, mean: Array,
        var: Array, training: bool, with_residual: bool,
    ) -> Array | tuple[Array, Array]:  # fmt: skip
        """Return dx, and the gradient of the residual, if there was one."""
        own = activation if activation in self.fused else "linear"
        if isinstance(kept, F.Mask):  # the kernels read an output, or the input
            own = "linear"
        if own != activation:
            dy = self._deactivate(dy, kept, activation)
        relu = own != "linear"
        dx, self.grads["gamma"], self.grads["beta"], dresidual = F.batch_norm_backward(
            dy,
            x,
            self.params["gamma"],
            mean,
            var,
            epsilon=self.epsilon,
            training=training,
            axis=self.axis,
            activation=own,
            beta=self.params["beta"] if relu and not with_residual else None,
            y=kept if relu and with_residual else None,
            owner=self.label,
        )
        if not with_residual:
            return dx
        return dx, dresidual if relu else dy


class GroupNorm(_Norm):
    """Normalise each sample over the positions and channels of a group (Wu & He 2018).

    Args:
        groups: a divisor of the channels; -1 for a group a channel, as ``InstanceNorm``.
        epsilon, axis, gamma_initializer, beta_initializer: as for ``BatchNorm``.

    Parameters: "gamma" and "beta" (C,).
    """

    arguments = ("groups", *_Norm.arguments)

    def __init__(self, groups: int = 32, **options: Any) -> None:
        super().__init__(**options)
        self.groups = -1 if groups == -1 else as_int(self.label, "groups", groups)

    def output_shape(self, input_shape: Shape) -> Shape:
        super().output_shape(input_shape)
        (channels,) = self._parameter_shape(input_shape)
        if channels % self.groups:
            raise ValueError(
                f"{self.label}: groups must divide the {channels} channels."
                f" Received: groups={self.groups}"
            )
        return input_shape

    def _options(self) -> dict[str, Any]:
        groups = self.params["gamma"].size if self.groups == -1 else self.groups
        return {
            "groups": groups,
            "epsilon": self.epsilon,
            "axis": self.axis,
            "owner": self.label,
        }

    def _forward(self, x: Array, training: bool) -> Array:
        y, mean, var = F.group_norm_forward(
            x, self.params["gamma"], self.params["beta"], **self._options()
        )
        self._save(x, mean, var)
        return y

    def _backward(self, dy: Array, x: Array, mean: Array, var: Array) -> Array:
        dx, self.grads["gamma"], self.grads["beta"] = F.group_norm_backward(
            dy, x, self.params["gamma"], mean, var, **self._options()
        )
        return dx


class InstanceNorm(GroupNorm):
    """Normalise each channel of each sample over its positions (Ulyanov et al. 2016)."""

    arguments = _Norm.arguments

    def __init__(self, **options: Any) -> None:
        super().__init__(-1, **options)


class LayerNorm(_Norm):
    """Normalise each sample over its last axis, or the last few (Ba et al. 2016).

    Args:
        axis: -1, or the last axes in order, such as (-3, -2, -1) or (1, 2, 3) for whole maps.
        epsilon, gamma_initializer, beta_initializer: as for ``BatchNorm``.

    Parameters: "gamma" and "beta", of the shape of those axes.
    """

    def _check_axis(self, axis: int | Sequence[int]) -> int | tuple[int, ...]:
        alone = integers([axis])
        axes = alone or integers(axis)
        in_order = axes and axes == tuple(range(axes[0], axes[0] + len(axes)))
        if in_order and (axes[-1] == -1 or axes[0] >= 1):
            return axes[0] if alone else axes
        raise ValueError(
            f"{self.label}: axis must be -1 or the last axes in order, such as (-2, -1)."
            f" Received: axis={axis!r}"
        )

    def _parameter_shape(self, input_shape: Shape) -> Shape:
        axes = (self.axis,) if isinstance(self.axis, int) else self.axis
        rank = len(input_shape) + 1
        if axes[-1] not in (-1, rank - 1) or len(axes) >= rank:
            raise ValueError(
                f"{self.label}: axis={self.axis} must name the last axes of the input."
                f" Received: input of shape {sample_text(input_shape)}"
            )
        return input_shape[len(input_shape) - len(axes) :]

    def _forward(self, x: Array, training: bool) -> Array:
        y, mean, var = F.layer_norm_forward(
            x, self.params["gamma"], self.params["beta"], epsilon=self.epsilon, owner=self.label
        )
        self._save(x, mean, var)
        return y

    def _backward(self, dy: Array, x: Array, mean: Array, var: Array) -> Array:
        dx, self.grads["gamma"], self.grads["beta"] = F.layer_norm_backward(
            dy, x, self.params["gamma"], mean, var, epsilon=self.epsilon, owner=self.label
        )
        return dx


class LocalResponseNorm(Layer):
    """Divide each number by a power of its neighbours' squares (Krizhevsky et al. 2012).

    Args:
        size: how many channels, the number's own in their middle.
        alpha, beta, bias: see ``functional.local_response_norm_forward``.
        axis: where the channels lie: the last axis, or 1 for channels-first maps.
    """

    arguments = ("size", "alpha", "beta", "bias", "axis")

    def __init__(
        self,
        size: int,
        *,
        alpha: float = 1e-4,
        beta: float = 0.75,
        bias: float = 1.0,
        axis: int = -1,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.size = as_int(self.label, "size", size)
        self.alpha = as_number(self.label, "alpha", alpha, least=0)
        self.beta = as_number(self.label, "beta", beta, least=0)
        self.bias = as_number(self.label, "bias", bias, least=0)
        self.axis = as_choice(self.label, "axis", axis, (-1, 1))

    def _options(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "beta": self.beta, "axis": self.axis, "owner": self.label}

    def _forward(self, x: Array, training: bool) -> Array:
        y, d = F.local_response_norm_forward(x, self.size, bias=self.bias, **self._options())
        self._save(x, d)
        return y

    def _backward(self, dy: Array, x: Array, d: Array) -> Array:
        return F.local_response_norm_backward(dy, x, d, self.size, **self._options())


BatchNormalization, GroupNormalization, LayerNormalization = BatchNorm, GroupNorm, LayerNorm
