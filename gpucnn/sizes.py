"""Sizes of memory and of files, as everything that gpucnn prints gives them."""

from __future__ import annotations


def size_text(count: int) -> str:
    """Return so many bytes as text, in powers of 1024 by their IEC names.

    >>> size_text(1023), size_text(1024), size_text(1_234_567_890)
    ('1023 B', '1.0 KiB', '1.1 GiB')
    """
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} B"
