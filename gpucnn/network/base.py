"""What every network is: a layer made of layers, with names, shapes, weights and ``predict``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..arguments import as_int
from ..backends import backend_of, get_backend
from ..backends.base import Array, Backend
from ..layers.base import Layer, Shape, as_dtype, inference_mode
from . import weights
from .naming import adopt
from .plan import plan
from .stages import Stage, sums_gradients
from .weights import Parameter

if TYPE_CHECKING:
    from .frozen import Frozen


class Step(NamedTuple):
    """A layer on the way through a network, with its shapes; shapes leave out the batch axis."""

    layer: Layer
    input_shape: Shape
    output_shape: Shape
    sources: tuple[str, ...] = ()  # the names of its inputs, in a graph


class Network(Layer):
    """A layer that is made of layers: networks nest, and a network is used as a layer is.

    A kind of network says three things: ``_flow`` (the way of the shapes), ``_forward`` and
    ``_backward`` (the way of the arrays).

    The parameters are built for ``input_shape`` where it is known, otherwise by the first forward,
    and then in the dtype of its input. From then on a network converts its inputs to its ``dtype``.

    Attributes:
        layers: the layers of this network, in order; their names are unique within it.
        needs_input_gradient: where False, ``backward`` may return None in place of dx. A trainer
            switches it off, because nobody asks for the gradient of a picture.
        fuses: whether layers that can run as one operation do (see ``plan``); the numbers are the
            same.
    """

    fuses = True

    # Whether it stands within another network, which converts what comes in.
    nested = False

    # Whether somebody keeps the output for the way back, as far as this network knows: where one
    # around it says False, a ReLU at its end keeps a mask (see ``masks``).
    output_is_kept = True

    def __init__(
        self, layers: Iterable[Layer], *, name: str | None = None,
        input_shape: Shape | None = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(name=name, input_shape=input_shape)
        self.dtype = None if dtype is None else as_dtype(self.label, dtype)
        self.layers = adopt(self.label, layers)
        for layer in self.layers:
            if isinstance(layer, Network):
                layer.nested = True
        self._planned: tuple[Any, Any] = (None, None)

    # ---- what a kind of network says -------------------------------------------------------------

    @property
    def keepers(self) -> list[Layer]:
        """The layers that keep what a backward pass needs: those listed, and a block's own."""
        return self.layers

    def _flow(self, input_shape: Shape) -> tuple[list[Step], Shape]:
        """Return the step of each layer of ``layers``, in order, and the network's output shape."""
        raise NotImplementedError

    # ---- shapes ----------------------------------------------------------------------------------

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the output's shape for an input's, both without the batch axis.

        Raises:
            ValueError: a layer's input does not fit; the text shows the way of the shapes to it.
        """
        return self._flow(input_shape)[1]

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return the multiply-adds of one forward pass for one sample."""
        steps, _ = self._flow(input_shape)
        return sum(step.layer.multiply_adds(step.input_shape) for step in steps)

    def summary(self, input_shape: Shape | None = None) -> None:
        """Print ``summary_text``."""
        print(self.summary_text(input_shape))

    def summary_text(self, input_shape: Shape | None = None) -> str:
        """Return a table of the layers: output shapes, parameters and multiply-adds per sample.

        A network that is not built yet is built for ``input_shape`` (no batch axis).

        Raises:
            ValueError: the network is not built and no ``input_shape`` is given.
        """
        from .summary import network_table  # summary imports this module

        return network_table(self, self._known_shape(input_shape))

    def _known_shape(self, input_shape: Shape | None) -> Shape:
        shape = self.input_shape if input_shape is None else self._as_shape(input_shape)
        if shape is None:
            raise ValueError(
                f"{self.label}: no shape is known before the first forward; give the shape of one"
                " input: model.summary(input_shape=(28, 28, 1)). Received: input_shape=None"
            )
        if not self.built:
            self.build(shape)
        return shape

    # ---- parameters ------------------------------------------------------------------------------

    def build(
        self, input_shape: Shape, dtype: Any = None, backend: str | Backend | None = None
    ) -> None:
        """Build the layers for inputs of this shape (no batch axis); built ones keep their weights.

        ``dtype`` is by default the network's own, else that of the layers that are built already,
        else float32.

        Raises:
            ValueError: a layer's input does not fit, or a layer is of another dtype.
        """
        settled = self._settled_dtype() or "float32"
        dtype = as_dtype(self.label, settled if dtype is None else dtype)
        if self.dtype is not None and dtype != self.dtype:
            raise ValueError(
                f"{self.label}: the dtype is {self.dtype.name}; convert it with astype."
                f" Received: dtype={dtype.name!r}"
            )
        super().build(input_shape, dtype, backend)

    def _settled_dtype(self) -> np.dtype | None:
        built = (layer.dtype for _, layer in self.walk() if layer.built and layer.params)
        return self.dtype or next(built, None)

    def _build(self, input_shape: Shape) -> None:
        steps, _ = self._flow(input_shape)
        for layer, layer_input, *_ in steps:
            if not layer.built:
                layer.build(layer_input, self.dtype, self.backend)
            elif layer.dtype != self.dtype:
                raise ValueError(
                    f"{self.label}: all layers must be {self.dtype.name}; convert a layer with"
                    f" astype. Received: {layer.label} of dtype {layer.dtype.name}"
                )
            elif layer.backend is not self.backend:
                layer.to(self.backend)

    def walk(self) -> Iterator[tuple[str, Layer]]:
        """Yield (path, layer), as ("residual_1/conv2d", layer), for all layers but networks."""
        for path, layer, _ in self._walk():
            yield path, layer

    def _walk(self) -> Iterator[tuple[str, Layer, bool]]:
        """Walk with a third item: whether the layer and all networks around it are trainable."""
        for child in self.layers:
            if isinstance(child, Network):
                for path, layer, trainable in child._walk():
                    yield f"{child.name}/{path}", layer, trainable and self.trainable
            else:
                yield child.name, child, child.trainable and self.trainable

    def parameters(self) -> Iterator[Parameter]:
        """Yield the trainable parameters in a fixed order, for an optimizer.

        ``trainable = False`` on a layer or on a nested network leaves its parameters out, and so
        does a layer's ``frozen`` those that it names.
        """
        for path, layer, trainable in self._walk():
            if trainable:
                for key in layer.params:
                    if key not in layer.frozen:
                        yield Parameter(f"{path}/{key}", layer, key)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return copies of all arrays on the host, by path: "conv2d/kernel", "dropout/calls".

        It holds parameters, states (a moving mean) and counters, so that a network of the same
        architecture that loads it gives the same numbers.

        Raises:
            RuntimeError: the network is not built.
        """
        return weights.read(self._slots(), self.backend)

    def load_state_dict(self, state: Mapping[str, Array], strict: bool = True) -> None:
        """Copy arrays of any backend into the network, in place, by the paths of ``state_dict``.

        Args:
            state: arrays by path; each is converted to the dtype of the array that it fills.
            strict: refuse missing and unexpected paths; where False they are passed over.

        Raises:
            ValueError: paths are missing or unexpected, or a shape does not fit. All of them are
                listed, and nothing has been changed.
            RuntimeError: the network is not built.
        """
        weights.write(self.label, self._slots(), state, strict, self.backend)

    def _slots(self) -> dict[str, weights.Slot]:
        if not self.built:
            raise RuntimeError(
                f"{self.label}: there are no parameters yet; give the first layer its input_shape,"
                " call build(input_shape), or run forward once"
            )
        return weights.slots_of(self.walk())

    def _map_arrays(self, function: Any, backend: Any, dtype: Any = None) -> None:
        super()._map_arrays(function, backend, dtype)
        for layer in self.keepers:
            layer._map_arrays(function, backend, dtype)

    # ---- running ---------------------------------------------------------------------------------

    def _pass_forward(
        self, forward: Callable[..., Any], subject: Any, x: Any, training: bool
    ) -> Any:
        return super()._pass_forward(partial(self._running, forward), subject, x, training)

    def _pass_backward(self, backward: Callable[..., Any], subject: Any, dy: Any) -> Any:
        return super()._pass_backward(partial(self._running, backward), subject, dy)

    def _running(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self.backend.running():  # which the input has settled by now
            return function(*arguments)

    def _plan(self) -> Any:
        """Return ``_make_plan()``, made once for the layers as they are."""
        dtypes = [layer.output_dtype for layer in self.layers]
        key = (*self.layers, *dtypes, self.fuses, self.dtype, self.output_is_kept)
        if self._planned[0] != key:
            self._planned = key, self._make_plan()
        return self._planned[1]

    @property
    def _refines(self) -> bool:
        """Whether stages may keep masks and apply norms on load: complex numbers know neither."""
        return self.fuses and self.dtype.kind != "c"

    def _stages(self, layers: Sequence[Layer]) -> list[Layer | Stage]:
        """Return what runs for a chain of layers."""
        return plan(layers, self.dtype.kind == "c") if self.fuses else list(layers)

    def _sums_gradients(self, stages: Sequence[Layer | Stage]) -> bool:
        """Return whether a chain adds its input's gradient to the one of others that read that."""
        return self.fuses and sums_gradients(stages)

    def predict(self, x: Any, batch_size: int = 256) -> Any:
        """Return the outputs for ``x`` in inference mode, batch by batch.

        Each batch is moved to the network's backend and its answer to where ``x`` lies: NumPy in,
        NumPy out, as for a tensor of another library on the host. A graph of several inputs takes a
        list, one of several outputs returns a list.

        What else is in a sample's batch does not change its answer, not a bit. On CUDA its place
        does not either: the last of several batches is filled up, for kernels are chosen by the
        batch's size. On NumPy the BLAS may round in another way at another place.

        Raises:
            ValueError: x holds no samples.
        """
        batch_size = as_int(self.label, "batch_size", batch_size)
        xs = [
            self._own(item if hasattr(item, "dtype") else np.asarray(item))
            for item in self._listed(x)
        ]
        counts = {item.shape[0] if item.ndim else 0 for item in xs}
        if len(counts) != 1 or counts == {0}:
            raise ValueError(
                f"{self.label}: predict needs inputs of at least one sample, as many in each."
                f" Received: {', '.join(str(item.shape) for item in xs)}"
            )
        count = counts.pop()
        backend, on_host = self.backend, isinstance(xs[0], np.ndarray)
        answers = []
        with backend.running(), inference_mode():
            for start in range(0, count, batch_size):
                batch = [backend.asarray(item[start : start + batch_size]) for item in xs]
                rest = len(batch[0])
                if start and rest < batch_size and backend.name == "cuda":
                    batch = [_filled_up(item, batch_size, backend) for item in batch]
                y = self.forward(batch if self.takes_many else batch[0])
                ys = [part[:rest] for part in (y if isinstance(y, list) else [y])]
                answers.append([_brought_home(part, backend, on_host) for part in ys])
        xp = np if on_host else get_backend("cuda").xp
        joined = [xp.concatenate(parts) for parts in zip(*answers, strict=True)]
        return joined if isinstance(y, list) else joined[0]

    def freeze(self, blas_threads: int = 1) -> Frozen:
        """Return the network as it is now, for answers alone: see ``Frozen``.

        With one image at a time it answers several times as quickly as ``predict``.

        Args:
            blas_threads: on NumPy, how many threads of the BLAS may share a small matrix product.
                Several are quicker on an idle machine and slower on a busy one, where they wait for
                each other. The numbers are the same.

        Raises:
            ValueError: the network is not built.

        Example:
            >>> from gpucnn import Dense, Sequential
            >>> answer = Sequential([Dense(10)], input_shape=(64,)).freeze()
            >>> answer(np.zeros((1, 64), np.float32)).shape
            (1, 10)
        """
        from .frozen import Frozen  # frozen imports the kinds of networks

        return Frozen(self, blas_threads)

    def _listed(self, x: Any) -> list:
        """Return the inputs as a list: one, or as many as the network takes."""
        return [x]

    def _check(self, x: Any) -> Any:
        """Return the input in the network's dtype, with the network built to fit it."""
        xs = [self._own(item) for item in self._listed(x)]
        parameter = next((a for _, layer in self.walk() for a in layer.params.values()), None)
        names = [f"input_{i}" if i else "input" for i in range(len(xs))]
        backend = backend_of(self.label, **dict(zip(names, xs, strict=True)), parameters=parameter)
        self._check_shape(xs)
        if not self.built:
            dtype = self._settled_dtype() or (None if xs[0].dtype.kind in "iub" else xs[0].dtype)
            shapes = tuple(tuple(item.shape[1:]) for item in xs)
            self.build(shapes if self.takes_many else shapes[0], dtype, backend)
        self._backend = backend
        xs = [self._converted(item) for item in xs]
        return xs if self.takes_many else xs[0]

    def _converted(self, x: Array) -> Array:
        if x.dtype.kind == "c" and self.dtype.kind != "c":
            raise TypeError(
                f"{self.label}: the network is {self.dtype.name} and takes no complex numbers; give"
                f" it dtype={x.dtype.name!r}. Received: input of dtype {x.dtype.name}"
            )
        wide = x.dtype.kind == "f" and x.dtype.itemsize > self.dtype.itemsize
        if wide and self.nested and not self.parameter_count():
            return x  # a Dense's logits, in its out_dtype, as layers without parameters take them
        return x.astype(self.dtype, copy=False)

    def _check_shape(self, xs: list[Array]) -> None:
        """Raise unless inputs of these shapes, with a batch axis, fit."""
        whole = tuple(tuple(x.shape) for x in xs)
        samples = tuple(shape[1:] for shape in whole)
        if not self.takes_many:
            whole, samples = whole[0], samples[0]
        if samples == self.input_shape:
            return
        misfit = self._misfit(samples)
        if whole == self.input_shape or (misfit and not self._misfit(whole)):
            raise ValueError(
                f"{self.label}: the input is one sample; add a batch axis: x[None]."
                f" Received: input of shape {whole}"
            )
        if misfit:
            raise misfit

    def _misfit(self, shape: Shape) -> ValueError | None:
        try:
            self.output_shape(shape)
        except ValueError as error:
            return error
        return None

    def __repr__(self) -> str:
        count = f"{self.parameter_count():,} parameters" if self.built else "not built"
        return f"<{self.label}: {len(self.layers)} layers, {count}>"


def _filled_up(x: Array, batch_size: int, backend: Backend) -> Array:
    """Return (n, ...) as (batch_size, ...), zeros behind."""
    filled = backend.xp.zeros((batch_size, *x.shape[1:]), x.dtype)
    filled[: len(x)] = x
    return filled


def _brought_home(y: Array, backend: Backend, on_host: bool) -> Array:
    if on_host:
        return backend.to_numpy(y)
    return get_backend("cuda").asarray(y)
