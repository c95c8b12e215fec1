"""``install``: the drop-in under the names that CuPy 13 had for cuDNN."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

NAMES = ("cupy.cudnn", "cupyx.cudnn", "cupy.cuda.cudnn")

_PACKAGE = __name__.rpartition(".")[0]
_MISSING = object()
# name -> what stood in sys.modules and on the parent package before
_before: dict[str, tuple[Any, Any]] = {}


def install(*, force: bool = False) -> bool:
    """Register the drop-in as ``cupy.cudnn``, ``cupyx.cudnn`` and ``cupy.cuda.cudnn``.

    Each is a module of its own, with all names of ``gpucnn.interop.cudnn``; CuPy had functions in
    the first two, constants, version and ``CuDNNError`` in the third. Call it before the program
    that imports them. A second call changes nothing.

    Args:
        force: take the place of a CuPy's own modules, too: CuPy 13 has them.

    Returns:
        Whether the names are the drop-in's: False where a CuPy has its own and was left alone.

    Raises:
        ImportError: CuPy is not installed, or cannot be imported.

    Example:
        >>> import gpucnn.interop.cudnn
        >>> gpucnn.interop.cudnn.install()
        True
        >>> from cupy import cudnn
        >>> cudnn.CUDNN_POOLING_MAX
        0
        >>> gpucnn.interop.cudnn.uninstall()
    """
    parents = [_parent(name) for name in NAMES]
    if not force and any(_is_there(name) and not _is_ours(name) for name in NAMES):
        return False
    for name, parent in zip(NAMES, parents, strict=True):
        if not _is_ours(name):
            _before[name] = sys.modules.get(name, _MISSING), vars(parent).get("cudnn", _MISSING)
            sys.modules[name] = parent.cudnn = _module(name)
    return True


def uninstall() -> None:
    """Undo ``install``; what a program has imported by then it keeps."""
    while _before:
        name, (module, attribute) = _before.popitem()
        _put_back(sys.modules, name, module)
        _put_back(vars(_parent(name)), "cudnn", attribute)


def _put_back(names: dict[str, Any], name: str, value: Any) -> None:
    if value is _MISSING:
        names.pop(name, None)
    else:
        names[name] = value


def _parent(name: str) -> ModuleType:
    try:
        return import_module(name.rpartition(".")[0])
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise
        raise ModuleNotFoundError(
            f"{_PACKAGE}.install needs CuPy, which is not installed:"
            ' pip install "gpucnn[cuda13]" (or [cuda12])',
            name="cupy",
        ) from error


def _is_there(name: str) -> bool:
    return name in sys.modules or find_spec(name) is not None


def _is_ours(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec is not None and spec.origin == _PACKAGE


def _module(name: str) -> ModuleType:
    """Return a module with the names of the drop-in, and a spec, which ``find_spec`` asks for."""
    package = import_module(_PACKAGE)
    module = ModuleType(name, package.__doc__)
    module.__spec__ = ModuleSpec(name, None, origin=_PACKAGE)
    module.__package__ = name.rpartition(".")[0]
    module.__all__ = [each for each in package.__all__ if each not in ("install", "uninstall")]
    for each in (*module.__all__, "__getattr__"):
        setattr(module, each, getattr(package, each))
    return module
