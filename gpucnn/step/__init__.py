"""A step that is done again and again: its memory planned, its launches recorded and replayed."""

from __future__ import annotations

from .arena import Arena, Lifetime
from .recorded import Recorded, SharedMemory
from .steps import Steps

__all__ = ["Arena", "Lifetime", "Recorded", "SharedMemory", "Steps"]
