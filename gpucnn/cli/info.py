"""``gpucnn info``: what is here, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .console import console, describe, details, table

if TYPE_CHECKING:
    from ..backends.base import Backend

# Each variable that the package reads: its default, and what it does.
VARIABLES = {
    "GPUCNN_BACKEND": ("by the arrays", "numpy or cuda: where everything runs"),
    "GPUCNN_CACHE_DIR": ("~/.cache/gpucnn", "where tuned plans and public data sets are kept"),
    "GPUCNN_DATA": ("~/.cache/gpucnn/data", "where public data sets are kept"),
    "GPUCNN_NUM_THREADS": ("one a core", "threads that the NumPy backend computes with"),
    "GPUCNN_NVTX": ("0; 1 under nsys", "1 marks ranges for Nsight Systems, by layer"),
    "GPUCNN_DEPENDENT_LAUNCH": ("0", "1 lets a recorded step's kernels begin early (sm_90)"),
    "GPUCNN_DEBUG": ("0", "1 shows the traceback of an error on the command line"),
}
# Each optional module: the extra that brings it, and what for.
OPTIONAL = {
    "cupy": ("cuda13", "the GPU; cuda12 for an older driver"),
    "matplotlib": ("plots", "learning curves and other pictures"),
    "PIL": ("data", "reading pictures"),
    "pooch": ("data", "downloads of public data sets"),
    "ml_dtypes": ("bfloat16", "bfloat16"),
    "nvtx": ("profile", "ranges for Nsight Systems"),
    "onnx": ("onnx", "ONNX models, read and written"),
    "torch": ("torch", "models as modules of PyTorch, its tensors in layers"),
    "jax": ("jax", "arrays of JAX in layers"),
    "dask": ("dask", "predictions on many workers"),
}
DISTRIBUTIONS = {"PIL": "pillow"}


def info() -> None:
    """Show the backend, the GPU, the kernels, versions and environment variables."""
    from .. import __version__
    from ..backends import default_backend

    backend = default_backend()
    console.print(
        details(
            {
                "gpucnn": __version__,
                "python": f"{platform.python_version()} on {platform.platform()}",
                "numpy": metadata.version("numpy"),
                "backend": describe(backend),
                "gpu": _gpu(),
                "kernels": _kernels(),
            }
        )
    )
    packages = table("optional package", "version", "for")
    for module, (extra, use) in OPTIONAL.items():
        version = _version(module)
        packages.add_row(module, version or f'missing: pip install "gpucnn[{extra}]"', use)
    console.print(packages)
    variables = table("environment variable", "value", "default", "meaning")
    variables.columns[0].no_wrap = True  # a name is there to be copied
    for name, (default, meaning) in VARIABLES.items():
        variables.add_row(name, os.environ.get(name, "not set"), default, meaning)
    console.print(variables)


def _version(module: str) -> str | None:
    """Return the version of an optional module, or None where it is missing."""
    if find_spec(module) is None:
        return None
    names = [DISTRIBUTIONS.get(module, module)]
    names += metadata.packages_distributions().get(module, [])  # CuPy's name depends on CUDA's
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def _gpu() -> str:
    """Return the GPU's name, compute capability, memory and versions; or why there is none."""
    from ..backends import get_backend

    try:
        return _describe_gpu(get_backend("cuda"))
    except RuntimeError as error:
        return f"none: {error}"


def _describe_gpu(backend: Backend) -> str:
    from ..sizes import size_text

    cuda = backend.xp.cuda
    device = cuda.Device()
    major, minor = device.compute_capability[:-1], device.compute_capability[-1]
    free, total = device.mem_info
    runtime, driver = (
        f"{version // 1000}.{version % 1000 // 10}"
        for version in (cuda.runtime.runtimeGetVersion(), cuda.runtime.driverGetVersion())
    )
    name = cuda.runtime.getDeviceProperties(device.id)["name"].decode()
    return (
        f"{name}, compute capability {major}.{minor}, {size_text(free)} of {size_text(total)}"
        f" free, CUDA {runtime}, driver for CUDA {driver}"
    )


def _kernels() -> str:
    """
    >>> _kernels().split()[1]
    'files,'
    """
    from ..backends import cuda  # noqa: F401 - its modules declare the kernels
    from ..backends.cuda.compiler import kernel_folder
    from ..backends.cuda.kernel import FAMILIES

    files = {family.file for family in FAMILIES}
    made = sum(1 for family in FAMILIES for _ in family.all())
    return (
        f"{len(files)} files, {len(FAMILIES)} kernels, {made:,} specialisations,"
        f" in {kernel_folder()}"
    )
