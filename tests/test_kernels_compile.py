"""The kernels that the backend can ask for compile for each generation, and none spills.

NVRTC turns CUDA C into a cubin without a GPU, and ptxas says what each kernel takes. Some elements
stand for the others, which differ from them by little, as the architectures that are left out do,
and take minutes; ``python3 -m profiling.resources`` compiles all.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from gpucnn.backends.cuda.compiler import compile_cubin, kernel_folder
from gpucnn.backends.cuda.kernel import FAMILIES, OLDEST_ARCHITECTURE, KernelFamily, modules
from profiling.resources import ARCHITECTURES, FILES, compile_modules

CompileException = pytest.importorskip(
    "cupy.cuda.compiler", reason="NVRTC is reached through CuPy"
).CompileException


# Of which elements: sm_75 has no instructions for bfloat16, which others have.
ELEMENTS = {"sm_75": {"BF16"}, "sm_80": {"F64"}, "sm_90": {"F32", "BF16", "F64"}, "sm_120": {"F16"}}
CASES = [(file, architecture) for file in FILES for architecture in ELEMENTS]


@pytest.mark.parametrize(("file", "architecture"), CASES)
def test_compiles_without_spills(file: str, architecture: str) -> None:
    # NVRTC releases the GIL; under xdist each worker has one core already
    threads = 1 if "PYTEST_XDIST_WORKER" in os.environ else os.cpu_count()
    elements = ELEMENTS[architecture]
    with ThreadPoolExecutor(threads) as pool:
        for kernels, (cubin, resources) in compile_modules(file, architecture, pool, elements):
            assert cubin.startswith(b"\x7fELF")
            assert set(resources) == {kernel.symbol for kernel in kernels}
            for name, used in resources.items():
                assert used.spill_bytes == 0, f"{name} spills on {architecture}: {used}"
                assert used.stack_bytes == 0, f"{name} uses local memory on {architecture}: {used}"


def test_a_module_has_one_minimum_architecture() -> None:
    for kernels in modules().values():
        assert len({kernel.minimum_architecture for kernel in kernels}) == 1


RECENT = [family for family in FAMILIES if family.minimum_architecture > OLDEST_ARCHITECTURE]


@pytest.mark.parametrize("family", RECENT, ids=lambda family: f"{family.file}: {family.function}")
def test_a_minimum_architecture_is_needed(family: KernelFamily) -> None:
    older = [int(a[3:]) for a in ARCHITECTURES if int(a[3:]) < family.minimum_architecture]
    with pytest.raises(CompileException):
        compile_cubin(next(family.all()), f"sm_{older[-1]}")


def test_every_kernel_file_is_declared() -> None:
    assert sorted(path.name for path in kernel_folder().glob("*.cu")) == FILES


def test_every_global_function_is_declared() -> None:
    for file in FILES:
        text = (kernel_folder() / file).read_text()
        declared = {family.function for family in FAMILIES if family.file == file}
        assert set(re.findall(r"NAME\((\w+)\)", text)) == declared


def test_symbols_are_unique() -> None:
    symbols = [kernel.symbol for kernels in modules().values() for kernel in kernels]
    assert len(set(symbols)) == len(symbols)


def test_undeclared_specialisation_is_refused() -> None:
    family = next(family for family in FAMILIES if family.function == "conv_fprop_implicit_gemm")
    with pytest.raises(TypeError, match="no kernel for 'int8'"):
        family(2, True, "int8", next(iter(family.axes[-1])))
