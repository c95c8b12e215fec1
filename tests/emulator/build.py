"""Compile a kernel file, or the emulator's runtime, into a cached shared library."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

RUNTIME = Path(__file__).resolve().parent / "runtime"
HEADER = "cuda_emu.h"
KERNELS = Path(__file__).resolve().parents[2] / "kernels"
CXX = os.environ.get("GPUCNN_EMULATOR_CXX", "g++")
MAX_DYNAMIC_SHARED = 227 * 1024  # bytes; what one block of an H100 may ask for

_COMMON = [
    *["-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-ffp-contract=off"],
    "-fno-gnu-unique",  # else a template's __shared__ array is one array in all loaded modules
    *["-Wno-unknown-pragmas", "-Wno-attributes"],
]
# The undefined behaviour that `check` reports; its handlers are ours, in runtime/.
_UNDEFINED = (
    "bounds,shift,integer-divide-by-zero,signed-integer-overflow,float-cast-overflow,"
    "alignment,null,pointer-overflow,bool,enum"
)
_MODES = {
    "fast": ["-O2"],
    "check": [
        *["-O1", "-gdwarf-4", "-g1", f"-fsanitize=thread,{_UNDEFINED}"],
        "-ftrivial-auto-var-init=pattern",  # a forgotten accumulator = 0 shows in the numbers
        *["--param", "tsan-instrument-func-entry-exit=0", "-fno-extern-tls-init"],
    ],
    "asan": ["-O1", "-g", "-fsanitize=address,undefined"],
}
_DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:__align__\(\d+\)\s*)?([\w\s]+?)\s+(\w+)\s*\[\s*\]\s*;"
)
_CLUSTERED = re.compile(
    r"__cluster_dims__\(([^()]*)\)\s*(?:#endif\s*)?(?:__launch_bounds__\([^()]*\)\s*)?(\w+(?:\(\w+\)(?=\())?)"
)


class CompileError(RuntimeError):
    """The kernel file does not compile for the CPU."""


def build_kernels(
    path: Path, text: str, names: Sequence[str], defines: Sequence[str], mode: str
) -> tuple[Path, bool]:
    """Build `text`, the contents of `path`, with the given kernels exported as k0, k1, ...

    Returns the shared library and whether the file uses dynamic shared memory.
    """
    if mode not in _MODES:
        raise ValueError(f"mode must be one of {', '.join(_MODES)}. Received: {mode!r}")
    runtime = build_runtime(mode)
    include_dirs = [path.parent, KERNELS]
    headers = _included(text, include_dirs)
    dynamic = next(filter(None, map(_DYNAMIC.search, [text, *headers.values()])), None)
    source = _wrap(path, text, names, dynamic)
    flags = [*_COMMON, *_MODES[mode], *(f"-D{d}" for d in defines)]
    key = (_compiler(), flags, source, headers, _emulator_sources("*.h"), runtime.name)

    def make(folder: Path) -> Path:
        cpp, obj, lib = (folder / f"kernels.{suffix}" for suffix in ("cpp", "o", "so"))
        cpp.write_text(source)
        dirs = (build_header(mode), RUNTIME / "include", *include_dirs)
        search = [f"-I{d}" for d in dirs]
        _run([CXX, "-c", *flags, *search, "-include", HEADER, cpp, "-o", obj])
        sanitizers = ["-fsanitize=address,undefined"] if mode == "asan" else []
        link = ["-Wl,-z,defs", f"-Wl,-rpath,{runtime.parent}"]
        _run([CXX, "-shared", *sanitizers, obj, runtime, *link, "-o", lib])
        return lib

    return _cached(f"{path.stem}-{mode}", key, make), dynamic is not None


@functools.cache
def build_header(mode: str) -> Path:
    """Compile the header that every kernel file begins with, once for all; return its folder.

    Where another architecture's macro makes it useless, the compiler goes on to the header itself.
    """
    flags = [*_COMMON, *_MODES[mode]]

    def make(folder: Path) -> Path:
        found = folder / "header"
        found.mkdir()
        source = folder / "header.h"
        source.write_text(f'#include "{HEADER}"\n')
        command = [CXX, "-x", "c++-header", *flags, f"-I{RUNTIME / 'include'}", source]
        _run([*command, "-o", found / f"{HEADER}.gch"])
        return found

    return _cached(f"header-{mode}", (_compiler(), flags, _emulator_sources("*.h")), make, "")


@functools.cache
def build_runtime(mode: str) -> Path:
    """Build the scheduler and the checker, which all modules of a process share."""
    flags = ["-std=c++17", "-O2", "-fwrapv", "-fPIC", "-fvisibility=hidden", "-shared", "-pthread"]
    if mode == "asan":
        flags.append("-DEMU_ASAN")  # tell libasan, loaded before Python, of each change of stack
    key = (_compiler(), flags, _emulator_sources("*.cpp"), _emulator_sources("*.h"))

    def make(folder: Path) -> Path:
        _run([CXX, *flags, RUNTIME / "runtime.cpp", "-o", folder / "runtime.so"])
        return folder / "runtime.so"

    return _cached("runtime", key, make)


def _wrap(path: Path, text: str, names: Sequence[str], dynamic: re.Match | None) -> str:
    """The kernel file, the array behind its dynamic shared memory, and exported launchers."""
    if dynamic:
        kind, array = dynamic.groups()
        size = f"{MAX_DYNAMIC_SHARED} / sizeof({kind})"
        tail = f"alignas(1024) thread_local {kind} {array}[{size}];\n"
    else:
        array, tail = "nullptr", ""
    tail += f"EMU_EXPORT_SHARED({array})\n"
    tail += "".join(f"EMU_EXPORT(k{i}, {name})\n" for i, name in enumerate(names))
    tail += "".join(f"EMU_CLUSTER({name}, {dims})\n" for dims, name in _CLUSTERED.findall(text))
    # the name alone: a copy of the file elsewhere is then the same source
    return f'#line 1 "{path.name}"\n{text}\n#line 1 "exports of {path.name}"\n{tail}'


def _included(text: str, include_dirs: Sequence[Path]) -> dict[str, str]:
    """The text of every header reached by #include "..." that lies in `include_dirs`."""
    found: dict[str, str] = {}
    queue = [text]
    while queue:
        for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', queue.pop(), re.MULTILINE):
            file = next((d / name for d in include_dirs if (d / name).is_file()), None)
            if file and name not in found:
                found[name] = file.read_text()
                queue.append(found[name])
    return found


@functools.cache
def _compiler() -> str:
    return subprocess.run([CXX, "--version"], capture_output=True, text=True, check=True).stdout


@functools.cache
def _emulator_sources(pattern: str) -> list[str]:
    return [p.read_text() for p in sorted(RUNTIME.rglob(pattern))]


def _cached(tag: str, key: object, make: Callable[[Path], Path], suffix: str = ".so") -> Path:
    """What is made for `key`, once even when several processes ask for it together."""
    default = Path.home() / ".cache" / "gpucnn" / "emulator"
    cache = Path(os.environ.get("GPUCNN_EMULATOR_CACHE", default))
    out = cache / f"{tag}-{hashlib.sha256(repr(key).encode()).hexdigest()[:20]}{suffix}"
    if out.exists():
        return out
    cache.mkdir(parents=True, exist_ok=True)
    with open(out.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                os.replace(make(Path(folder)), out)
    return out


def _run(command: Sequence[object]) -> None:
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if result.returncode:
        raise CompileError(f"{' '.join(map(str, command))}\n{result.stderr[:6000]}")
