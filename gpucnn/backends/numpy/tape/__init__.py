"""Frozen networks on NumPy: lists of calls on arrays that were allocated beforehand."""

from .tape import Tape

__all__ = ["Tape"]
