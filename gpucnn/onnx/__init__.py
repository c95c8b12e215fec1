"""Networks in ONNX, the format in which frameworks hand networks to each other.

``load`` makes a ``gpucnn.Graph`` of a model: of the same layers that a person would write, with
their weights, so that it predicts, trains further and is saved as any other. ``save`` and
``export`` make a model of a network. The package ``onnx`` reads and writes the files:
``pip install "gpucnn[onnx]"``. ``docs/onnx.md`` and ``docs/onnx-export.md`` say what is supported.

    save, export            a network -> a model; in exporting/, one file a family of layers
    load, importer.py       a model -> a Graph
    call.py                 a node and its inputs, which are arrays or values of a graph to be
    operators/              what each operator does with them; one file a family
    interpreter.py          the walk over the nodes
    patterns.py             layers that exporters write out as several nodes
    backend.py              ONNX's own backend interface, over arrays
    conformance.py          ONNX's own test cases, run and counted
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras import package
from .errors import UnsupportedError
from .exporting import export, save

if TYPE_CHECKING:
    from ..network import Graph

__all__ = ["UnsupportedError", "export", "load", "save"]


def load(
    model: str | Path | bytes | Any,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    name: str | None = None,
) -> Graph:
    """Return an ONNX model as a network.

    Its maps have their channels first, as in ONNX. The batch may be of any size, also where the
    file says 1; all other sizes are settled here, and with them whatever the model computes from
    shapes. Weights are copied: an array that two nodes share becomes two. Batch norms stay layers
    of their own, which train further, and are folded into the convolution before them in inference.

    Args:
        model: a path, the bytes of a file, or an ``onnx.ModelProto``; opsets 6 to the newest.
        input_shapes: the sizes of one sample by the input's name, such as {"x": (3, 224, 224)},
            where the file leaves them open or others are wanted.
        name: the network's.

    Raises:
        UnsupportedError: operators, or uses of them, are not supported; all are listed, by their
            names and nodes. A ValueError.
        ValueError: the file is no ONNX model, or damaged, or an input's sizes are not known.
        ModuleNotFoundError: the package ``onnx`` is missing.

    Example:
        >>> import onnx.helper as h
        >>> x, y = (h.make_tensor_value_info(n, 1, ["batch", 2, 4, 4]) for n in "xy")
        >>> graph = h.make_graph([h.make_node("Relu", ["x"], ["y"])], "tiny", [x], [y])
        >>> load(h.make_model(graph)).forward(np.ones((5, 2, 4, 4), "float32")).shape
        (5, 2, 4, 4)
    """
    require_onnx()
    from .importer import import_model

    return import_model(model, input_shapes or {}, name)


def require_onnx() -> None:
    """Raise a ModuleNotFoundError that says what to install, unless ``onnx`` is there."""
    package("onnx", "onnx", "gpucnn.onnx needs")
