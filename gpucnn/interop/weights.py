"""Weights of networks that were trained elsewhere, by their names there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import tensors
from ..layers.base import Layer, Shape
from ..layers.conv import Conv
from ..layers.dense import Dense
from ..network import Network
from .flattened import column_orders
from .tables import IGNORED, PARAMETERS, TABLES, Table


def load_state_dict(
    model: Network,
    source: str | Path | Mapping[str, Any],
    table: str | Table = "torchvision",
    *,
    strict: bool = True,
) -> None:
    """Fill a network with the weights of one that PyTorch has, in place.

    Filters KCRS become KRSC, a batch norm's weight and running variance gamma and moving variance,
    and the columns of a dense layer behind a ``Flatten`` the order of a map with channels last.
    Arrays are converted to the network's dtype; ``num_batches_tracked`` is passed over.

    Args:
        model: a network that is built.
        source: a .safetensors file; an .onnx file, whose initializers are taken by name; or arrays
            by name: a ``state_dict`` on the host.
        table: one of ``tables.TABLES`` by name, or (pattern, path) pairs: a regular expression for
            the whole name of a module ("layer1.0.conv1") or of an array ("layer1.0.conv1.weight"),
            and the path of our layer ("layer1_0/conv1") or parameter, in which ``\\1`` stands for
            the first group. The first that fits counts; where none does, "." becomes "/".
        strict: refuse arrays without a place and places without an array; where False they are
            passed over.

    Raises:
        ValueError: arrays do not fit; all of them are listed, and nothing has been changed.
        RuntimeError: the network is not built.

    Example:
        >>> from gpucnn import Sequential
        >>> model = Sequential([Dense(2, name="logits", input_shape=(3,))])
        >>> arrays = {"fc.weight": np.ones((2, 3)), "fc.bias": np.zeros(2)}
        >>> load_state_dict(model, arrays, [("fc", "logits")])
        >>> model.forward(np.ones((1, 3), np.float32))
        array([[3., 3.]], dtype=float32)
    """
    if isinstance(table, str) and table not in TABLES:
        names = ", ".join(map(repr, TABLES))
        raise ValueError(
            f"load_state_dict: table must be one of {names}, or pairs of a pattern and a path."
            f" Received: table={table!r}"
        )
    patterns = TABLES[table] if isinstance(table, str) else table
    for pattern, _ in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"load_state_dict: table must hold regular expressions: {error}."
                f" Received: {pattern!r}"
            ) from error
    arrays = {name: np.asarray(array) for name, array in read(source).items()}
    slots = {
        path: np.shape(holder[key])
        for path, (holder, key) in model._slots().items()
        if not isinstance(holder[key], int)  # a counter
    }
    layers, columns = dict(model.walk()), column_orders(model)
    found: dict[str, np.ndarray] = {}
    unused, misfits, origins = [], [], {}
    for name, array in arrays.items():
        if name.rpartition(".")[2] in IGNORED:
            continue
        path = place(name, patterns, layers)
        if path not in slots:
            unused.append(f"{name} (no {path})")
            continue
        layer_path, _, key = path.rpartition("/")
        expected = _expected(layers[layer_path], key, slots[path])
        if array.shape != expected:
            misfits.append(f"{name} must be of shape {expected}, not {array.shape}")
        elif path in origins:
            misfits.append(f"{name} and {origins[path]} are both {path}")
        else:
            found[path] = _converted(layers[layer_path], key, array, columns.get(layer_path))
        origins[path] = name
    missing = [path for path in slots if path not in origins]
    problems = list(misfits)
    if strict:
        problems += [f"unused: {', '.join(unused)}"] if unused else []
        problems += [f"missing: {', '.join(missing)}"] if missing else []
    if problems:
        raise ValueError(
            f"load_state_dict: the weights do not fit {model.label}, and nothing was changed;"
            f" {'; '.join(problems)}. Received: {len(arrays)} arrays for {len(slots)} places"
        )
    model.load_state_dict(found, strict=False)


def read(source: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arrays of a .safetensors or an .onnx file by name; a mapping as it is.

    Raises:
        ValueError: it is another kind of file, or damaged.
        FileNotFoundError: it is not there.
    """
    if isinstance(source, Mapping):
        return source
    file = Path(source)
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError

        try:
            return tensors(file.read_bytes())
        except SafetensorError as error:
            raise ValueError(f"{file}: not a safetensors file, or damaged. {error}") from error
    if file.suffix == ".onnx":
        from ..onnx import require_onnx

        require_onnx()
        from onnx import numpy_helper

        from ..onnx.importer import parsed

        graph = parsed(file).graph
        return {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    raise ValueError(
        "load_state_dict: source must be a .safetensors or .onnx file, or arrays by name; in"
        f" PyTorch, safetensors.torch.save_file(model.state_dict(), path) writes one. Received:"
        f" {source!r}"
    )


def place(name: str, patterns: Table, layers: Mapping[str, Layer]) -> str:
    """Return the path of the parameter that PyTorch calls ``name``.

    >>> place("layer1.0.conv2.weight", TABLES["torchvision"], {"layer1_0/conv2": Conv2D(1, 1)})
    'layer1_0/conv2/kernel'
    """
    module, _, key = name.rpartition(".")
    for pattern, path in patterns:
        if whole := re.fullmatch(pattern, name):
            return whole.expand(path)
        if part := re.fullmatch(pattern, module):
            layer_path = part.expand(path)
            break
    else:
        layer_path = module.replace(".", "/")
    layer = layers.get(layer_path)
    ours = next((names for kind, names in PARAMETERS.items() if isinstance(layer, kind)), {})
    return f"{layer_path}/{ours.get(key, key)}"


def _is_kernel(layer: Layer, key: str) -> bool:
    return isinstance(layer, Conv) and key.endswith("kernel")


def _expected(layer: Layer, key: str, shape: Shape) -> Shape:
    """Return the shape of an array in PyTorch."""
    return (shape[0], shape[-1], *shape[1:-1]) if _is_kernel(layer, key) else shape


def _converted(layer: Layer, key: str, array: np.ndarray, columns: np.ndarray | None) -> np.ndarray:
    if _is_kernel(layer, key):
        return np.moveaxis(array, 1, -1)  # KCRS -> KRSC
    if columns is None or (isinstance(layer, Dense) and key != "kernel"):
        return array
    return array[..., columns]
