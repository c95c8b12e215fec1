"""Which kernels a backend launches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Recorder:
    """Passes launches on and notes the kernels' names, in order."""

    def __init__(self, launcher: Any) -> None:
        self.launcher, self.symbols = launcher, []

    def launch(self, kernel: Any, *arguments: Any, **keywords: Any) -> Any:
        self.symbols.append(kernel.symbol)
        return self.launcher.launch(kernel, *arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.launcher, name)


@contextmanager
def kernels_of(backend: Any) -> Iterator[list[str]]:
    """Note the kernels that the backend launches: whatever its plans are, these are what ran."""
    if not hasattr(backend, "launcher"):  # NumPy's
        yield []
        return
    recorder = _Recorder(backend.launcher)
    backend.launcher = recorder
    try:
        yield recorder.symbols
    finally:
        backend.launcher = recorder.launcher
