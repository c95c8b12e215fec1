"""What every layer is: parameters, saved tensors, and a way forward and back.

A layer's own file defines four things: ``output_shape`` (geometry), ``_build`` (parameters),
``_forward`` and ``_backward`` (each a call of ``gpucnn.functional``). The rest is here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import NoneType
from typing import Any

import numpy as np

from ..arguments import as_shape
from ..backends import as_backend, backend_of, default_backend
from ..backends.base import FLOATS, Array, Backend, accumulator, bfloat16
from ..backends.exchange import as_own
from ..initializers import Initializer, initialize
from ..tracing import traced

Shape = tuple[int, ...]

DTYPES = (*FLOATS, "complex64", "complex128")

_saving: ContextVar[bool] = ContextVar("gpucnn_saving", default=True)


@contextmanager
def inference_mode() -> Iterator[None]:
    """Run layers without keeping what ``backward`` would need: less memory, no gradient.

    Example:
        >>> with inference_mode():
        ...     y = Dense(3).forward(np.ones((1, 4)))
    """
    token = _saving.set(False)
    try:
        yield
    finally:
        _saving.reset(token)


def as_dtype(owner: str, dtype: Any) -> np.dtype:
    """Return one of ``DTYPES`` by name or type; "bfloat16" needs the package ml_dtypes.

    Raises:
        ValueError: it is another one.
    """
    if isinstance(dtype, str) and dtype == "bfloat16":
        return bfloat16()
    try:
        found = None if dtype is None else np.dtype(dtype)  # np.dtype(None) is float64
    except TypeError:
        found = None
    if found is None or found.name not in DTYPES:
        raise ValueError(
            f"{owner}: dtype must be one of {', '.join(DTYPES)}. Received: dtype={dtype!r}"
        )
    return found.newbyteorder("=")


def snake_case(name: str) -> str:
    """Return a class name as an identifier, ``MaxPool2D`` -> ``max_pool2d``."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return name.lower()


class Layer:
    """A function of arrays with parameters, its gradient, and a name.

    Attributes:
        name: unique within a network; opens every error message and NVTX range.
        params: trainable arrays by name ("kernel", "bias", "gamma", ...).
        grads: gradients by the same names, overwritten by each ``backward``.
        state: arrays that training changes without a gradient (running mean and variance).
        counters: integers that belong to a checkpoint (a dropout layer's count of calls).
        trainable: an optimizer leaves the parameters of a layer alone where this is False.
        frozen: the names of parameters that an optimizer leaves alone in any case.

    Shapes given to and returned by ``output_shape`` and ``build`` leave out the batch axis. A layer
    that takes many inputs is given a tuple of shapes.
    """

    # The constructor's arguments besides the name and input_shape, each kept as an attribute.
    arguments: tuple[str, ...] = ()

    # Merging layers (Add, Concatenate) take a list of arrays; a graph of several outputs gives one.
    takes_many = False
    gives_many = False

    # Of the output, where it is not the input's: ArgMax gives places.
    output_dtype: str | None = None

    # Whether its input stays in memory for _backward, as one of the arrays that _save is given, or
    # its output can lie in its input's memory. By the first a network knows what a ReLU before this
    # layer keeps for nothing (see ``network.masks``).
    keeps_input = True
    passes_input = False

    # Where a network sets it to False, _backward may return None in place of dx: nobody asks for
    # the gradient of a picture, and dgrad is a third of a convolution's work.
    needs_input_gradient = True

    # Where several read the input, what the others have given for its gradient, set by a network
    # for the time of a _backward: a layer that sums_gradients takes it, and adds it to dx.
    sums_gradients = False
    others_gradient: Array | None = None

    def __init__(
        self, *, name: str | None = None, input_shape: Shape | None = None, **unknown: Any
    ) -> None:
        if unknown:
            raise TypeError(self._misspelt(*next(iter(unknown.items()))))
        if not isinstance(name, (str, NoneType)):
            kind = type(self).__name__
            raise TypeError(f"{kind}: name must be a string. Received: name={name!r}")
        self.name = name or snake_case(type(self).__name__)
        self.given_name = bool(name)
        self.input_shape = None if input_shape is None else self._as_shape(input_shape)
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self.state: dict[str, Array] = {}
        self.counters: dict[str, int] = {}
        self.trainable = True
        self.frozen: tuple[str, ...] = ()
        self.built = False
        self.dtype: np.dtype | None = None
        self._saved: tuple | None = None
        self._accepted: Shape | None = None  # the last input's shape, which need not be looked at
        self._backend: Backend | None = None

    # ---- what a layer's own file says ------------------------------------------------------------

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the output's shape for an input's, both without the batch axis.

        Raises:
            ValueError: the input does not fit; the text says what would.
        """
        return input_shape

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return the multiply-adds of one forward pass for one sample."""
        return 0

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON values; ``type(self)(**config())`` is a twin.

        Raises:
            ValueError: an argument is a function (an initializer), which JSON cannot hold.
        """
        return {"name": self.name} | {key: self._json(key) for key in self.arguments}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """Return a layer with the arguments that ``config`` returned."""
        return cls(**config)

    def _build(self, input_shape: Shape) -> None:
        """Create ``params`` and ``state`` with ``_add`` for an input of this shape."""

    def _forward(self, x: Array, training: bool) -> Array:
        """Compute the output and keep what ``_backward`` needs with ``_save``."""
        raise NotImplementedError

    def _backward(self, dy: Array, *saved: Any) -> Array:
        """Fill ``grads`` and return dx; ``saved`` is what ``_forward`` kept."""
        raise NotImplementedError

    # ---- what a user calls -----------------------------------------------------------------------

    def __call__(self, x: Any, training: bool = False) -> Any:
        """Run ``forward``; on a symbolic ``Input`` or node, add this layer to the graph."""
        from ..network import Node  # network imports this module

        first = x[0] if isinstance(x, (list, tuple)) and x else x
        if isinstance(first, Node):
            return Node.of(self, x)
        return self.forward(x, training)

    def build(
        self, input_shape: Shape, dtype: Any = "float32", backend: str | Backend | None = None
    ) -> None:
        """Create the parameters for inputs of this shape (no batch axis); forward does it too.

        They lie on ``backend``, a name or an object, by default on ``default_backend()``.

        Raises:
            ValueError: the shape or the dtype does not fit; the layer is left as it was.
        """
        dtype, shape = as_dtype(self.label, dtype), self._as_shape(input_shape)
        backend = as_backend(backend)
        before = dict(vars(self))
        self._backend = backend
        self.dtype, self.input_shape, self.built, self._accepted = dtype, shape, False, None
        self.params, self.grads, self.state = {}, {}, {}
        try:
            self.output_shape(shape)
            self._build(shape)
        except BaseException:
            vars(self).update(before)
            raise
        self.built = True

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the layer's output for a batch ``x``; the first call builds the parameters.

        Args:
            x: with the batch axis first; NumPy's or CuPy's, or a tensor of another library, which
                is read where it lies (see ``gpucnn.interop``).
            training: whether dropout drops, and batch norm takes the batch's own statistics.

        Raises:
            ValueError: x has the wrong rank, size or number of channels.
            TypeError: x is no array, or of another dtype than the parameters, or of another
                backend.
        """
        return self._pass_forward(self._forward, self, x, training)

    def backward(self, dy: Array) -> Array:
        """Return dx for the gradient ``dy`` of the last forward's output, and fill ``grads``.

        Raises:
            RuntimeError: no forward since the last backward, or it ran in inference mode.
            ValueError: dy is not of the output's shape.
            TypeError: dy is of another backend than the output.
        """
        return self._pass_backward(self._backward, self, dy)

    @property
    def label(self) -> str:
        """The layer as error messages call it: ``Conv2D 'stem'``."""
        return f"{type(self).__name__} {self.name!r}"

    @property
    def backend(self) -> Backend:
        return self._backend or default_backend()

    def walk(self) -> Iterator[tuple[str, Layer]]:
        """Yield (path, layer) for each layer that holds parameters itself, in order."""
        yield self.name, self

    def parameter_count(self) -> int:
        """Return how many numbers ``params`` hold, those of all layers within too."""
        return sum(array.size for _, layer in self.walk() for array in layer.params.values())

    def to(self, backend: str | Backend) -> Layer:
        """Move parameters and state to a backend, "numpy" or "cuda", in place; return self."""
        target = as_backend(backend)
        self._map_arrays(target.asarray, target)
        return self

    def astype(self, dtype: Any) -> Layer:
        """Convert the parameters to a floating dtype, in place; return self."""
        dtype = as_dtype(self.label, dtype)
        self._map_arrays(lambda array: array.astype(dtype), None, dtype)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: no gradients, and nothing kept for ``backward``."""
        return vars(self) | {"grads": {}, "_saved": None}

    def __repr__(self) -> str:
        keys = ("name", *self.arguments)
        return (
            f"{type(self).__name__}({', '.join(f'{key}={getattr(self, key)!r}' for key in keys)})"
        )

    # ---- for layers ------------------------------------------------------------------------------

    def _misspelt(self, name: str, value: Any) -> str:
        """Return what to say of an argument that no class of the layer's has taken."""
        from difflib import get_close_matches

        known = (*self.arguments, "name", "input_shape")
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(known)}."
        return f"{type(self).__name__}: no argument {name!r}; {hint} Received: {name}={value!r}"

    def _pass_forward(
        self, forward: Callable[..., Array], subject: Any, x: Array, training: bool
    ) -> Array:
        """Run ``_forward``, or what a plan's stage puts in its place, on a checked input."""
        x = self._check(x)
        self._saved = None
        return traced(subject, "forward", forward, x, training)

    def _pass_backward(self, backward: Callable[..., Array], subject: Any, dy: Array) -> Array:
        """Run ``_backward``, or what a plan's stage puts in its place, on what forward saved."""
        if self._saved is None:
            raise RuntimeError(
                f"{self.label}: call forward before each backward (inference_mode keeps nothing)"
            )
        dx = traced(subject, "backward", backward, self._arranged(dy), *self._saved)
        self._saved = None  # but not after an error, so that a right dy can follow a wrong one
        return dx

    def _check(self, x: Array) -> Array:
        """Return x arranged and floating, with the parameters built to fit it."""
        x = self._own(x)
        backend = backend_of(self.label, input=x, **self.params)
        if x.dtype.kind in "iub":
            x = x.astype(self.dtype or np.float32)
        elif not x.dtype.isnative:  # as a file of another machine has it
            x = x.astype(x.dtype.newbyteorder("="))
        if not (self.built and x.shape == self._accepted):
            self._require(tuple(x.shape))
        if not self.built:
            self.build(tuple(x.shape[1:]), self.dtype or x.dtype, backend)
        self._backend, self._accepted = backend, x.shape
        if self.params and x.dtype != self.dtype:
            raise TypeError(
                f"{self.label}: the parameters are {self.dtype.name}; convert the input with"
                f" x.astype or the layer with astype. Received: input of dtype {x.dtype.name}"
            )
        return backend.arranged(x)

    def _require(self, x_shape: Shape) -> None:
        """Raise unless an input of this shape, the batch axis too, fits: the text shows it."""
        self.output_shape(x_shape[1:])

    def _own(self, array: Any, name: str = "input") -> Array:
        """Return an array of another library as NumPy's or CuPy's, in the same memory."""
        return array if type(array) is np.ndarray else as_own(self.label, name, array)

    def _as_shape(self, input_shape: Any) -> Shape | tuple[Shape, ...]:
        """Return the shape of a sample as a tuple; for many inputs, a tuple of such tuples."""
        if not self.takes_many:
            return as_shape(self.label, "input_shape", input_shape)
        shapes = input_shape if isinstance(input_shape, (tuple, list)) else [input_shape]
        return tuple(as_shape(self.label, "each input_shape", shape) for shape in shapes)

    def _arranged(self, dy: Array) -> Array:
        dy = self._own(dy, "dy")
        if not self.backend.owns(dy):
            raise TypeError(
                f"{self.label}: dy must be of {self.backend.xp.__name__}, as the output was."
                f" Received: {type(dy).__module__}.{type(dy).__name__}"
            )
        return self.backend.arranged(dy)

    def _add(
        self, name: str, shape: Shape, initializer: Initializer, fans: tuple[int, int] = (1, 1)
    ) -> None:
        values = initialize(f"{self.label}: {name}", initializer, shape, fans, self.dtype)
        self.params[name] = self.backend.asarray(values)

    def _add_state(self, name: str, shape: Shape, initializer: Initializer) -> None:
        dtype = accumulator(self.dtype)
        values = initialize(f"{self.label}: {name}", initializer, shape, (1, 1), dtype)
        self.state[name] = self.backend.asarray(values)

    @property
    def _keeps(self) -> bool:
        """Whether this forward keeps what a backward needs (see ``inference_mode``)."""
        return _saving.get()

    def _save(self, *tensors: Any) -> None:
        """Keep what ``_backward`` will be given, unless nothing is to be kept."""
        if _saving.get():
            self._saved = tensors

    def _take_others_gradient(self) -> Array | None:
        others, self.others_gradient = self.others_gradient, None
        return others

    def _json(self, key: str) -> Any:
        value = getattr(self, key)
        if callable(value):
            raise ValueError(
                f"{self.label}: a function as {key} cannot be saved; use an initializer by name."
                f" Received: {key}={value!r}"
            )
        return _as_lists(value)

    def _map_arrays(
        self, function: Callable, backend: Backend | None, dtype: np.dtype | None = None
    ) -> None:
        self._saved = None
        self._backend = backend or self._backend
        self.dtype = dtype or self.dtype
        for arrays in (self.params, self.grads):
            for key, array in arrays.items():
                arrays[key] = function(array)
        for key, array in self.state.items():  # statistics are of the accumulator's dtype
            self.state[key] = array.astype(accumulator(dtype)) if dtype else function(array)


def sample_text(shape: Shape) -> str:
    """Return a shape without its batch axis as errors show it.

    >>> sample_text((28, 28, 1))
    '(batch, 28, 28, 1)'
    """
    return f"(batch, {', '.join(map(str, shape))})" if shape else "(batch,)"


def _as_lists(value: Any) -> Any:
    """Return tuples as the lists that JSON makes of them."""
    return [_as_lists(item) for item in value] if isinstance(value, (tuple, list)) else value
