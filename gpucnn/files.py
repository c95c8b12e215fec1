"""Files that gpucnn writes: where those it can make anew lie, and how each gets its place."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def cache_folder() -> Path:
    """Return where what can be made or fetched again is kept.

    $GPUCNN_CACHE_DIR, or else gpucnn/ in $XDG_CACHE_HOME, which is ~/.cache if it is not set.
    """
    given = os.environ.get("GPUCNN_CACHE_DIR")
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    # unlike Path.expanduser no error where nobody has a home: then nothing is found there
    return Path(os.path.expanduser(given or f"{caches}/gpucnn"))


def place(file: Path, data: bytes) -> None:
    """Put a file in its place in one step, and only when it lies on the disk.

    Of several processes that do so at once the last one wins, and no reader sees a part.
    """
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the folder's entry, too
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
