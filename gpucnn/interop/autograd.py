"""A model as a module of PyTorch's: its forward and backward as one operation of autograd."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch

from ..backends import get_backend
from ..backends.base import Array
from ..backends.exchange import as_own
from ..layers.base import Layer, inference_mode
from ..network.base import Network
from .arrays import as_torch

Tensor = torch.Tensor


class TorchModule(torch.nn.Module):
    """A ``torch.nn.Module`` that computes with a gpucnn model.

    Every forward runs on the memory that the parameters and buffers have at that moment, so that
    optimizers, ``load_state_dict``, ``to``, ``copy.deepcopy`` and ``torch.func.functional_call`` do
    what they do to any module. What backward needs is kept by autograd, not by the model: several
    forwards may come before their backwards, and an array that is changed in between is an error.

    ``train()`` and ``eval()`` say whether dropout drops and batch norm takes the batch's
    statistics. Moving statistics are buffers, float32 or float64 whatever the parameters are
    converted to. The parameters of a layer with ``trainable = False`` ask for no gradient. On a GPU
    the work is queued on PyTorch's current stream. The gradient of a gradient is refused.

    Attributes:
        model: the gpucnn model, whose arrays are those of the last forward. While the module is in
            use it is not to be run or trained by other means.
    """

    def __init__(self, model: Layer) -> None:
        if not isinstance(model, Layer):
            raise TypeError(
                f"as_torch_module: model must be a gpucnn network or layer. Received: {model!r}"
            )
        if not model.built:
            raise ValueError(
                "as_torch_module: the model is not built; give its first layer an input_shape, or"
                f" call model.build(input_shape). Received: {model!r}"
            )
        super().__init__()
        self.model = model
        self._layers = list(_with_all_within(model))
        self._parameter_places: dict[str, tuple[Layer, str]] = {}
        self._buffer_places: dict[str, tuple[Layer, str]] = {}
        trained = _trained(model)
        for path, layer in model.walk():
            stem = path.replace(".", "_")  # dots are PyTorch's own, between modules
            for key, array in layer.params.items():
                trains = (id(layer), key) in trained
                parameter = torch.nn.Parameter(as_torch(array), requires_grad=trains)
                self.register_parameter(f"{stem}/{key}", parameter)
                self._parameter_places[f"{stem}/{key}"] = layer, key
            for key, array in layer.state.items():
                self.register_buffer(f"{stem}/{key}", as_torch(array))
                self._buffer_places[f"{stem}/{key}"] = layer, key

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the model's output for its inputs; a graph of several outputs gives a tuple.

        Raises:
            TypeError: an input is no tensor, or of another dtype or device than the parameters.
            ValueError: an input does not fit the model.
        """
        if not all(isinstance(x, Tensor) for x in inputs):
            kinds = ", ".join(type(x).__name__ for x in inputs)
            raise TypeError(f"{self.model.label}: inputs must be tensors. Received: {kinds}")
        if torch.compiler.is_compiling():  # which would take NumPy's code for its own, wrongly
            return torch.compiler.disable(self._forward)(*inputs)
        return self._forward(*inputs)

    def _forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        parameters = [getattr(self, path) for path in self._parameter_places]
        tensors = (*inputs, *parameters)
        keeps = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        outputs = _Pass.apply(self, keeps, *tensors)
        return outputs if self.model.gives_many else outputs[0]

    def extra_repr(self) -> str:
        return repr(self.model)

    def get_extra_state(self) -> dict[str, int]:
        """Return the counters, dropout's calls, which belong to a ``state_dict``."""
        return {
            f"{path}/{key}": count
            for path, layer in self.model.walk()
            for key, count in layer.counters.items()
        }

    def set_extra_state(self, state: dict[str, int]) -> None:
        for path, layer in self.model.walk():
            for key in layer.counters:
                layer.counters[key] = state[f"{path}/{key}"]

    def _apply(self, fn: Any, recurse: bool = True) -> TorchModule:
        """Convert or move the tensors, as ``to`` and ``half`` do, but keep statistics exact."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        wide = any(parameter.dtype == torch.float64 for parameter in self.parameters())
        dtype = torch.float64 if wide else torch.float32
        for path, buffer in self._buffers.items():
            if buffer.dtype != dtype:
                self._buffers[path] = before[path].to(buffer.device, dtype)
        return self

    def _bind(self, parameters: Sequence[Tensor]) -> None:
        """Let the model compute with these parameters, and with the buffers as they are."""
        arrays = [_array(tensor) for tensor in parameters]
        if arrays and arrays[0].dtype != self.model.dtype:
            self.model.astype(arrays[0].dtype)
        for (layer, key), array in zip(self._parameter_places.values(), arrays, strict=True):
            layer.params[key] = array
        for path, (layer, key) in self._buffer_places.items():
            layer.state[key] = _array(getattr(self, path))

    def _run(
        self, inputs: Sequence[Tensor], parameters: Sequence[Tensor]
    ) -> tuple[list[Array], list[Array]]:
        """Return the inputs as arrays, and the model's outputs for them, each in its own memory."""
        model = self.model
        if len(inputs) != 1 and not model.takes_many:
            raise ValueError(f"{model.label}: the model takes one input. Received: {len(inputs)}")
        self._bind(parameters)
        xs = [_array(x) for x in inputs]
        y = model.forward(xs if model.takes_many else xs[0], training=self.training)
        if self.training:
            for path in self._buffer_places:
                torch.autograd.graph.increment_version(getattr(self, path))
        return xs, _apart(y if model.gives_many else [y], xs)

    def _take_saved(self, arrays: list[Array]) -> list[Any]:
        """Take what the layers keep for their backward; its arrays are appended to ``arrays``."""
        saved = [_packed(layer._saved, arrays) for layer in self._layers]
        self._put_saved([None] * len(saved), [])
        return saved

    def _put_saved(self, saved: list[Any], arrays: Sequence[Array]) -> None:
        for layer, item in zip(self._layers, saved, strict=True):
            layer._saved = _unpacked(item, arrays)


class _Pass(torch.autograd.Function):
    """One forward of a module, and the backward that belongs to it."""

    @staticmethod
    def forward(ctx: Any, module: TorchModule, keeps: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
        count = len(tensors) - len(module._parameter_places)
        inputs, parameters = tensors[:count], tensors[count:]
        kept: list[Array] = []
        with _on_pytorchs_stream(tensors), nullcontext() if keeps else inference_mode():
            xs, ys = module._run(inputs, parameters)
            outputs = tuple(map(as_torch, ys))
            if not keeps:
                return outputs
            saved = module._take_saved(kept)
            # Tensors that PyTorch watches: an error, if what backward reads is changed before it.
            shown = [*zip(inputs, xs, strict=True), *zip(outputs, ys, strict=True)]
            watched = [tensor for tensor, array in shown if _shares_memory(array, kept)]
            ids = set(map(id, kept))
            watched += [
                getattr(module, path)
                for path, (layer, key) in module._buffer_places.items()
                if id(layer.state[key]) in ids
            ]
            ctx.save_for_backward(*parameters, *map(as_torch, kept), *watched)
        ctx.module, ctx.inputs, ctx.saved, ctx.kept = module, count, saved, len(kept)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        module, model = ctx.module, ctx.module.model
        if torch.is_grad_enabled():  # once_differentiable would let a constant dy pass, unseen
            raise RuntimeError(
                f"{model.label}: the gradient of a gradient is not known here."
                " Received: create_graph=True"
            )
        places = module._parameter_places.values()
        tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        with _on_pytorchs_stream(gradients):
            module._bind(tensors[: len(places)])
            kept = tensors[len(places) : len(places) + ctx.kept]
            module._put_saved(ctx.saved, [_array(tensor) for tensor in kept])
            dys = [_array(gradient) for gradient in gradients]
            asked = model.needs_input_gradient
            model.needs_input_gradient = any(needed[: ctx.inputs])
            try:
                dx = model.backward(dys if model.gives_many else dys[0])
                found = [_apart([layer.grads.pop(key)], dys)[0] for layer, key in places]
            finally:
                model.needs_input_gradient = asked
                module._take_saved([])
            dxs = dx if model.takes_many else [dx]
            found = [*_apart(dxs, dys), *found]
            results = [
                as_torch(array) if wanted else None
                for array, wanted in zip(found, needed, strict=True)
            ]
        return None, None, *results


class _Place(int):
    """Where an array stands in the list of those that a forward kept."""


def _packed(value: Any, arrays: list[Array]) -> Any:
    """Return a layer's saved value with its arrays moved to ``arrays``."""
    if isinstance(value, (tuple, list)):
        return _like(value, [_packed(item, arrays) for item in value])
    if not hasattr(value, "__dlpack__"):
        return value
    arrays.append(value)
    return _Place(len(arrays) - 1)


def _unpacked(value: Any, arrays: Sequence[Array]) -> Any:
    if isinstance(value, (tuple, list)):
        return _like(value, [_unpacked(item, arrays) for item in value])
    return arrays[value] if isinstance(value, _Place) else value


def _like(value: tuple | list, items: list[Any]) -> tuple | list:
    """Return items as a list or tuple is, or a record: a ``Mask``, an ``Unapplied`` norm."""
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def _apart(arrays: Sequence[Array | None], others: Sequence[Array]) -> list[Array | None]:
    """Return the arrays, those copied that show the memory of another one.

    A reshape or a sum's gradient is what it was given. PyTorch, which knows its own views alone,
    adds to tensors in place.
    """
    found: list[Array | None] = []
    for array in arrays:
        alone = array is None or not _shares_memory(array, [*others, *found])
        found.append(array if alone else array.copy())
    return found


def _shares_memory(array: Array, others: Sequence[Array | None]) -> bool:
    xp = np if isinstance(array, np.ndarray) else get_backend("cuda").xp
    return any(other is not None and xp.may_share_memory(array, other) for other in others)


def _array(tensor: Tensor) -> Array:
    """Return a tensor's memory as the model takes it."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16:
        return tensor.numpy()  # quicker than DLPack, and NumPy 1 may write to it
    return as_own("as_torch_module", "tensor", tensor)


@contextmanager
def _on_pytorchs_stream(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Let CuPy work on the GPU, and on the stream, that PyTorch works on."""
    device = next((tensor.device for tensor in tensors if tensor.is_cuda), None)
    if device is None:
        yield
        return
    cuda = get_backend("cuda").xp.cuda
    stream = _Stream(torch.cuda.current_stream(device).cuda_stream)
    with cuda.Device(device.index), cuda.Stream.from_external(stream):
        yield


class _Stream(NamedTuple):
    """PyTorch's stream as CuPy takes it; PyTorch's own class does so only from some version on."""

    pointer: int

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.pointer  # the protocol's version, and the stream


def _with_all_within(layer: Layer) -> Iterator[Layer]:
    yield layer
    for child in getattr(layer, "keepers", ()):
        yield from _with_all_within(child)


def _trained(model: Layer) -> set[tuple[int, str]]:
    """Return what an optimizer would change, as (id of the layer, key)."""
    if isinstance(model, Network):
        return {(id(parameter.layer), parameter.key) for parameter in model.parameters()}
    return {(id(model), key) for key in model.params if model.trainable}
