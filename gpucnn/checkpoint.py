"""Checkpoints: weights in a safetensors file, all else in a JSON file beside it.

A checkpoint called ``runs/best`` is ``runs/best.json``, which a person can read, and a file
``runs/best-<hash>.safetensors`` that the JSON names together with its SHA-256; a folder stands for
``last`` in it. Arrays keep their dtype, bfloat16 too.

A crash at any moment leaves the previous checkpoint whole: the tensors are written under a new
name, then the JSON is replaced in one step, then the old tensors are removed; each file reaches the
disk before it gets its name. One process writes a checkpoint at a time.

    >>> save(model, "digits")                                                    # doctest: +SKIP
    >>> model = load("digits")                                                   # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .data import Normalize
from .files import place
from .layers import from_config, to_config
from .layers.base import as_dtype
from .network import Network

Arrays = dict[str, dict[str, np.ndarray]]

VERSION = 1
# safetensors' names of the dtypes
DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def save(
    model: Network, path: str | Path, *, classes: Sequence[str] | None = None,
    normalize: Normalize | None = None,
) -> Path:  # fmt: skip
    """Save a network: its architecture, its weights and states, and what its users need.

    Args:
        path: the checkpoint's name, with or without ".json".
        classes: the name of each label.
        normalize: what is done to images before the network.

    Returns:
        The path of the JSON file.

    Raises:
        RuntimeError: the network is not built.
        TypeError: it is no network.
    """
    if not isinstance(model, Network):
        raise TypeError(f"save: model must be a network, a Sequential say. Received: {model!r}")
    return write(path, describe(model, classes, normalize), {"model": model.state_dict()})


def load(path: str | Path) -> Network:
    """Return the network of a checkpoint, that of a trainer too, on the default backend.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: a file is damaged or does not fit the other; the text names it.
    """
    info, arrays = read(path)
    return model_of(path, info, arrays)


def describe(
    model: Network, classes: Sequence[str] | None, normalize: Normalize | None
) -> dict[str, Any]:
    """Return the JSON values that ``save`` keeps."""
    return {
        "model": to_config(model),
        "classes": None if classes is None else list(classes),
        "normalize": normalize and normalize.config(),
    }


def model_of(path: str | Path, info: dict[str, Any], arrays: Arrays) -> Network:
    """Build the network that ``read`` found at ``path``."""
    try:
        model = from_config(info["model"])
        model.load_state_dict(arrays["model"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{json_path(path)}: no network can be made of it: {error}") from error
    return model


def json_path(path: str | Path) -> Path:
    """Return the JSON file of the checkpoint that is called ``path``.

    >>> json_path("runs/best").as_posix(), json_path("runs/best.json").as_posix()
    ('runs/best.json', 'runs/best.json')
    """
    path = Path(path)
    if path.is_dir():
        path = path / "last"
    return path if path.suffix == ".json" else path.with_name(path.name + ".json")


def write(
    path: str | Path, info: dict[str, Any], arrays: Mapping[str, Mapping[str, np.ndarray]]
) -> Path:
    """Write JSON values and groups of arrays as a checkpoint, atomically; return the JSON file.

    A group's name holds no "/"; an array is called "group/name" in the safetensors file.

    Raises:
        ValueError: an array is of a dtype that safetensors has no name for; nothing is written.
    """
    from safetensors.numpy import save as to_bytes

    file = json_path(path)
    named = {
        f"{group}/{name}": np.ascontiguousarray(array).reshape(array.shape)
        for group, members in arrays.items()
        for name, array in members.items()
    }
    for name, array in named.items():
        if array.dtype.name not in DTYPES.values():
            raise ValueError(
                f"{file}: a checkpoint holds numbers of {', '.join(DTYPES.values())} alone."
                f" Received: {name} of dtype {array.dtype.name}"
            )
    file.parent.mkdir(parents=True, exist_ok=True)
    data = to_bytes(named)
    digest = hashlib.sha256(data).hexdigest()
    tensors = file.with_name(f"{file.stem}-{digest[:16]}.safetensors")
    head = {"format": "gpucnn", "version": VERSION, "tensors": tensors.name, "sha256": digest}
    text = json.dumps(head | info, indent=2)
    place(tensors, data)
    place(file, text.encode())
    ours = re.compile(re.escape(file.stem) + r"-[0-9a-f]{16}\.safetensors")
    for other in file.parent.iterdir():
        if ours.fullmatch(other.name) and other.name != tensors.name:
            other.unlink()
    return file


def read(path: str | Path) -> tuple[dict[str, Any], Arrays]:
    """Return the JSON values and the groups of arrays of a checkpoint.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: a file is damaged or does not fit the other; the text names it.
    """
    file = json_path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such checkpoint")
    try:
        info = json.loads(file.read_bytes())
        if info["format"] != "gpucnn" or info["version"] != VERSION:
            raise ValueError(f"format {info['format']!r}, version {info['version']!r}")
        tensors, digest = file.with_name(info["tensors"]), info["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: not a gpucnn checkpoint of version {VERSION}, or damaged. Received: {error}"
        ) from error
    if not tensors.is_file():
        raise ValueError(f"{tensors}: this file is missing, which {file.name} belongs to")
    data = tensors.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(
            f"{tensors}: damaged, or not the file that {file.name} belongs to: its SHA-256 differs"
        )
    return info, _arrays(data)


def _arrays(data: bytes) -> Arrays:
    groups: Arrays = {}
    for full_name, array in sorted(tensors(data).items()):
        group, _, name = full_name.partition("/")
        groups.setdefault(group, {})[name] = array
    return groups


def tensors(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file by name, bfloat16 too."""
    from safetensors import deserialize

    arrays = {}
    for name, tensor in deserialize(data):
        kind = DTYPES[tensor["dtype"]]
        dtype = as_dtype("safetensors", kind) if kind == "bfloat16" else np.dtype(kind)
        arrays[name] = np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"])
    return arrays
