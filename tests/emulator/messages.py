"""Put source lines and variable names into the runtime's messages."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from .build import RUNTIME


def explain(message: str, library: Path) -> str:
    """Turn each <pc:...> into file:line and offsets in static shared memory into array names."""
    message = re.sub(r"<pc:([0-9a-f]+)>", lambda m: _source_line(library, m[1]), message)
    return re.sub(r"static shared memory\+(\d+)", lambda m: _shared_array(library, m), message)


def _source_line(library: Path, pc: str) -> str:
    frames = _output("addr2line", "-i", "-e", library, "0x" + pc).splitlines()
    frames = [frame.split(" ")[0] for frame in frames if "?" not in frame]
    # Innermost first; the emulator's own inlined functions say nothing to the reader.
    own = [frame for frame in frames if not frame.startswith(str(RUNTIME))]
    return Path((own or frames or [f"pc 0x{pc}"])[0]).name


def _shared_array(library: Path, match: re.Match) -> str:
    offset = int(match[1])
    symbols = _output("readelf", "-sWC", library)
    for low, size, name in re.findall(r": (\w+) +(\d+) TLS .*?\d+ (\S.*)$", symbols, re.MULTILINE):
        if int(low, 16) <= offset < int(low, 16) + int(size):
            return f"__shared__ {name.split('::')[-1]}+{offset - int(low, 16)}"
    return match[0]


def _output(*command: object) -> str:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True).stdout
