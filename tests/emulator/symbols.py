"""What a compiled library's symbols tell: source lines, shared arrays, initialisation guards."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from .build import RUNTIME


def explain(message: str, library: Path) -> str:
    """Turn each <pc:...> into file:line and offsets in static shared memory into array names."""
    message = re.sub(r"<pc:([0-9a-f]+)>", lambda m: _source_line(library, m[1]), message)
    return re.sub(r"static shared memory\+(\d+)", lambda m: _shared_array(library, m), message)


def guards(library: Path) -> list[int]:
    """Offsets in shared memory of the 8-byte guards that g++ puts beside arrays of half.

    A kernel reads them to see whether the array's (trivial) constructor has run; the checker must
    not take that for a read of uninitialised shared memory.
    """
    names = _thread_local_variables(library)
    return [start for start, _, name in names if name.startswith("guard variable for ")]


def _source_line(library: Path, pc: str) -> str:
    frames = _output("addr2line", "-i", "-e", library, "0x" + pc).splitlines()
    frames = [frame.split(" ")[0] for frame in frames if "?" not in frame]
    # Innermost first; the emulator's own inlined functions say nothing to the reader.
    own = [frame for frame in frames if not frame.startswith(str(RUNTIME))]
    return Path((own or frames or [f"pc 0x{pc}"])[0]).name


def _shared_array(library: Path, match: re.Match) -> str:
    offset = int(match[1])
    for start, size, name in _thread_local_variables(library):
        if start <= offset < start + size:
            return f"__shared__ {name.split('::')[-1]}+{offset - start}"
    return match[0]


def _thread_local_variables(library: Path) -> list[tuple[int, int, str]]:
    """(offset, bytes, name) of each variable in the library's thread-local segment."""
    table = _output("readelf", "-sWC", library)
    rows = re.findall(r": (\w+) +(\w+) TLS +\w+ +\w+ +\d+ (\S.*)$", table, re.MULTILINE)
    return [(int(start, 16), int(size, 0), name) for start, size, name in rows]


def _output(*command: object) -> str:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True).stdout
