"""ONNX's own backend interface: a model run on arrays, node by node.

>>> import onnx.helper as h
>>> node = h.make_node("Relu", ["x"], ["y"])
>>> Backend.run_node(node, [np.array([-1.0, 2.0], "float32")])
(array([0., 2.], dtype=float32),)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.backend.base
from onnx import helper

from ..backends import get_backend, use_backend
from ..backends.base import Array
from ..backends.base import Backend as ArrayBackend
from .call import Context
from .errors import UnsupportedError
from .importer import read
from .interpreter import Interpreter
from .operators import OPERATORS

DEVICES = {"CPU": "numpy", "CUDA": "cuda"}


class Prepared(onnx.backend.base.BackendRep):
    """A model that is ready to run on a device."""

    def __init__(self, model: onnx.ModelProto, backend: ArrayBackend) -> None:
        self.model, self.backend = model, backend

    def run(self, inputs: Sequence[Any], **_: Any) -> tuple[np.ndarray, ...]:
        """Return the outputs for the inputs in the order of the model's.

        Raises:
            UnsupportedError: a node, or its use, is not supported; all are listed.
        """
        graph = self.model.graph
        given = {item.name for item in graph.initializer}
        names = [item.name for item in graph.input if item.name not in given]
        if len(inputs) > len(names):  # those with a default value, too
            names = [item.name for item in graph.input]
        values = {name: self._array(value) for name, value in zip(names, inputs, strict=False)}
        interpreter = Interpreter(self.model, Context(self.backend))
        with use_backend(self.backend):
            results = interpreter.run(graph, values)
        if interpreter.problems:
            found = "; ".join(f"{kind} {name!r}: {why}" for kind, name, why in interpreter.problems)
            raise UnsupportedError(f"the model holds what is not supported. Received: {found}")
        return tuple(self._on_host(value) for value in results)

    def _array(self, value: Any) -> Array:
        if not isinstance(value, (np.ndarray, np.generic)) or value.dtype.kind in "OSU":
            raise UnsupportedError(f"an input is no array of numbers. Received: {type(value)}")
        return self.backend.asarray(value)

    def _on_host(self, value: Any) -> np.ndarray:
        return self.backend.to_numpy(self.backend.xp.asarray(value))


class Backend(onnx.backend.base.Backend):
    """``onnx.backend.base.Backend`` over gpucnn's layers and functions, on "CPU" or "CUDA"."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **options: Any) -> bool:
        """Return whether all operators of the model are known."""
        return all(
            node.domain in ("", "ai.onnx") and (node.op_type in OPERATORS or node.op_type == "If")
            for node in read(model).graph.node
        )

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **options: Any) -> Prepared:
        """Return a model that is ready to run.

        Raises:
            RuntimeError: there is no such device here.
        """
        return Prepared(read(model), get_backend(DEVICES[device.partition(":")[0]]))

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Sequence[Any], device: str = "CPU",
        outputs_info: Any = None, **options: Any,
    ) -> tuple[np.ndarray, ...]:  # fmt: skip
        """Return the outputs of one node, of the newest opset or ``opset_version``."""
        names = [name for name in node.input if name]
        kinds = [helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype) for value in inputs]
        graph = helper.make_graph(
            [node],
            "node",
            [helper.make_tensor_value_info(n, k, None) for n, k in zip(names, kinds, strict=True)],
            [helper.make_empty_tensor_value_info(name) for name in node.output if name],
        )
        version = options.get("opset_version", onnx.defs.onnx_opset_version())
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
        return cls.run_model(model, [np.asarray(value) for value in inputs], device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Return whether the device is one of ours, and here."""
        try:
            return bool(get_backend(DEVICES.get(device.partition(":")[0], "")))
        except (RuntimeError, ValueError):
            return False
