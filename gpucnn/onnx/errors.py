"""What is raised where a model holds what gpucnn does not support."""

from __future__ import annotations


class UnsupportedError(ValueError):
    """A model holds operators, or uses of them, that are not supported."""
