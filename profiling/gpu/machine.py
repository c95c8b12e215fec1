"""What this machine has: GPU, driver, versions, tools, and the commit that is measured."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from .jobs import ROOT

SANITIZER_FOLDERS = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")
SOURCES = ("gpucnn", "kernels")
PACKAGES = ("numpy", "ml_dtypes", "torch", "jax", "pytest")


def gpu() -> tuple[dict[str, Any] | None, str]:
    """Return the first GPU's name, capability and so on, or None and why there is none.

    No context is made, so the memory and the process stay free for those who measure.
    """
    from gpucnn.backends import get_backend

    try:
        cuda = get_backend("cuda").xp.cuda
        properties = cuda.runtime.getDeviceProperties(0)
        versions = cuda.runtime.runtimeGetVersion(), cuda.runtime.driverGetVersion()
    except Exception as error:
        return None, str(error).splitlines()[0]
    runtime, supported = (f"{v // 1000}.{v % 1000 // 10}" for v in versions)
    return {
        "gpu": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": properties["multiProcessorCount"],
        "l2_bytes": properties["l2CacheSize"],
        "memory_bytes": properties["totalGlobalMem"],
        "cuda": runtime,
        "driver": _driver() or f"for CUDA {supported}",
        "cupy": get_backend("cuda").xp.__version__,
    }, ""


def describe(commit: str | None) -> dict[str, Any]:
    """Return versions, date and commit: everything of a run's meta that needs no GPU."""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit or _commit(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        **{name: version(name) for name in PACKAGES},
    }


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def has(module: str) -> bool:
    return find_spec(module) is not None


def compute_sanitizer() -> str | None:
    """Return the path of NVIDIA's compute-sanitizer, or None."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *SANITIZER_FOLDERS))
    return shutil.which("compute-sanitizer", path=path)


def stem(meta: dict[str, Any]) -> str:
    """Return the name of a run's files, <gpu>-<date>-<commit>.

    >>> stem({"gpu": "NVIDIA H200", "date": "2026-01-31", "commit": "1a2b3c4"})
    'h200-2026-01-31-1a2b3c4'
    """
    name = re.sub(r"[^a-z0-9]+", "-", meta["gpu"].lower().removeprefix("nvidia ")).strip("-")
    return f"{name}-{meta['date']}-{meta['commit']}"


def _commit() -> str:
    """Return git's short hash; with a hash of the sources where they differ or there is no git."""
    head = _output("git", "rev-parse", "--short", "HEAD") if (ROOT / ".git").exists() else ""
    if head and not _output("git", "status", "--porcelain", "--", *SOURCES):
        return head
    digest = hashlib.sha256()
    for folder in SOURCES:
        for file in sorted((ROOT / folder).rglob("*.*")):
            if file.suffix in (".py", ".cu", ".cuh"):
                digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return f"{head or 'tree'}-{digest.hexdigest()[:8]}"


def _driver() -> str:
    query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return _output(*query).partition("\n")[0]


def memory_used() -> int | None:
    """Return the bytes of the first GPU that are in use, by whomever, as the driver says."""
    query = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")
    mebibytes = _output(*query).partition("\n")[0].strip()
    return int(mebibytes) * 2**20 if mebibytes.isdigit() else None


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
