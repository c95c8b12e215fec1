"""Which kernels there are: each a function in a file, specialised along a few finite axes.

The backend can only ask for what a ``KernelFamily`` declares, so a test that walks ``FAMILIES``
compiles and runs everything that a user can reach.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

OLDEST_ARCHITECTURE = 75  # sm_75, Turing

# An axis maps a Python value to its tag in the symbol's name and the macros that it sets.
Axis = Mapping[Any, tuple[str, Mapping[str, Any]]]

DTYPE: Axis = {
    "float16": ("f16", {"ELEMENT": "F16"}),
    "bfloat16": ("bf16", {"ELEMENT": "BF16"}),
    "float32": ("f32", {"ELEMENT": "F32"}),
    "float64": ("f64", {"ELEMENT": "F64"}),
}
RANK: Axis = {rank: (f"{rank}d", {"RANK": rank}) for rank in (1, 2, 3)}
CHANNELS_LAST: Axis = {
    True: ("nhwc", {"CHANNELS_LAST": 1}),
    False: ("nchw", {"CHANNELS_LAST": 0}),
}


@dataclass(frozen=True)
class Kernel:
    """One specialisation: what a launcher needs to find or compile it."""

    file: str
    function: str
    tags: tuple[str, ...]
    macros: tuple[tuple[str, str], ...]
    minimum_architecture: int = OLDEST_ARCHITECTURE
    only_architecture: int | None = None

    def exists_on(self, architecture: int) -> bool:
        """Return whether an architecture, 90 for sm_90, has the kernel's instructions."""
        if self.only_architecture:
            return architecture == self.only_architecture
        return architecture >= self.minimum_architecture

    @cached_property
    def suffix(self) -> str:
        return "".join(f"_{tag}" for tag in self.tags if tag)

    @property
    def symbol(self) -> str:
        """The name in the cubin and in profilers, ``conv_fprop_implicit_gemm_2d_nhwc_f32``."""
        return self.function + self.suffix

    @property
    def defines(self) -> dict[str, str]:
        """Macros to compile with; kernels of one file with equal defines share a module."""
        return {**dict(self.macros), "SUFFIX": self.suffix}

    @cached_property
    def dynamic_bytes(self) -> int:
        """Shared memory that a launch asks for: the macro SHARED_BYTES, where the file has it."""
        return int(dict(self.macros).get("SHARED_BYTES", 0))


FAMILIES: list[KernelFamily] = []


class KernelFamily:
    """A ``__global__`` function of a file in kernels/, and the axes along which it varies.

    Args:
        file: the file's name.
        function: what the file passes to ``NAME(...)``.
        axes: each a mapping from a value to (tag, macros), in the order of the call.
        minimum_architecture: the first that has the kernel's instructions, 80 for sm_80.
        only_architecture: the one that has them, where newer ones do not.

    Example:
        >>> from gpucnn.backends.cuda.dropout import DROPOUT  # KernelFamily("dropout.cu", ...)
        >>> DROPOUT(np.dtype("float32")).symbol
        'dropout_f32'
    """

    def __init__(
        self,
        file: str,
        function: str,
        *axes: Axis,
        minimum_architecture: int = OLDEST_ARCHITECTURE,
        only_architecture: int | None = None,
    ) -> None:
        self.file, self.function, self.axes = file, function, axes
        self.minimum_architecture = only_architecture or minimum_architecture
        self.only_architecture = only_architecture
        self._kernels: dict[tuple, Kernel] = {}
        FAMILIES.append(self)

    def __call__(self, *values: Any) -> Kernel:
        """Return the kernel for a value of each axis; a dtype stands for its name."""
        kernel = self._kernels.get(values)
        if kernel is None:
            kernel = self._kernels[values] = self._specialise(values)
        return kernel

    def _specialise(self, values: tuple) -> Kernel:
        tags, macros = [], {}
        for axis, value in zip(self.axes, values, strict=True):
            value = value.name if isinstance(value, np.dtype) else value
            if value not in axis:
                raise TypeError(
                    f"{self.function}: no kernel for {value!r}, only for"
                    f" {', '.join(map(str, axis))}. Received: {values}"
                )
            tag, defines = axis[value]
            tags.append(tag)
            macros.update({key: str(setting) for key, setting in defines.items()})
        return Kernel(
            self.file, self.function, tuple(tags), tuple(macros.items()),
            self.minimum_architecture, self.only_architecture,
        )  # fmt: skip

    def all(self) -> Iterator[Kernel]:
        """Yield every specialisation."""
        return (self(*values) for values in itertools.product(*self.axes))


def modules() -> dict[tuple, list[Kernel]]:
    """Group every kernel by what is compiled together: one file with one set of macros."""
    groups: dict[tuple, list[Kernel]] = {}
    for family in FAMILIES:
        for kernel in family.all():
            groups.setdefault((kernel.file, kernel.macros, kernel.suffix), []).append(kernel)
    return groups
