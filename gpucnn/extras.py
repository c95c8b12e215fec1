"""Packages that are not needed by all, and what to install for those who need them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def package(name: str, extra: str, user: str) -> ModuleType:
    """Import a package that an extra of gpucnn brings.

    Args:
        user: who needs it, with the verb: "pictures need".

    Raises:
        ModuleNotFoundError: it is not installed; the text says how it is.

    Example:
        >>> package("math", "plots", "pictures need").pi
        3.141592653589793
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{user} the package {name}: pip install "gpucnn[{extra}]"'
        ) from error
