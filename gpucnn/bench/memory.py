"""The memory of this process: what it has now, and the most that it has had."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path

STATUS = Path("/proc/self/status")


def start() -> int:
    """Begin anew to note the most, where the system can; return the bytes that there are now."""
    with suppress(OSError):  # "5" resets the peak: man 5 proc_pid_clear_refs
        Path("/proc/self/clear_refs").write_text("5")
    return _field("VmRSS") or peak()


def peak() -> int:
    """Return the most bytes that were resident.

    Linux's ru_maxrss counts what the parent process had, too; VmHWM does not.
    """
    found = _field("VmHWM")
    if found:
        return found
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _field(name: str) -> int | None:
    """Return a field of /proc/self/status in bytes; None where there is none.

    >>> _field("VmNone") is None
    True
    """
    if not STATUS.exists():
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else None
