"""The kernels that the backend can ask for compile for each generation, as the table says.

NVRTC turns CUDA C into a cubin without a GPU, and ptxas says what each kernel takes. All of them
take half an hour: ``python -m profiling.resources`` makes the table, which is held to be of these
sources (``test_plan_resources``), and some are compiled here to see that it is so.
"""

from __future__ import annotations

import re
from zlib import crc32

import pytest

from gpucnn.backends.cuda.compiler import compile_cubin, kernel_folder
from gpucnn.backends.cuda.kernel import FAMILIES, OLDEST_ARCHITECTURE, KernelFamily, modules
from profiling.resources import ARCHITECTURES, FILES, compiler, modules_of
from tests.test_plan_resources import content, taken

CompileException = pytest.importorskip(
    "cupy.cuda.compiler", reason="NVRTC is reached through CuPy"
).CompileException


OTHERS = ("sm_75", "sm_80", "sm_120")
CASES = [
    (file, architecture)
    for number, file in enumerate(FILES)
    for architecture in ("sm_90", OTHERS[number % len(OTHERS)])
]


@pytest.mark.parametrize(("file", "architecture"), CASES)
def test_compiles_as_the_table_says(file: str, architecture: str) -> None:
    """One module of each file, another one for each architecture."""
    if not (groups := modules_of(file, architecture)):
        pytest.skip(f"{file} needs a newer architecture than {architecture}")
    kernels = groups[crc32(f"{file} {architecture}".encode()) % len(groups)]
    cubin, resources = compile_cubin(kernels[0], architecture)
    assert cubin.startswith(b"\x7fELF")
    assert set(resources) == {kernel.symbol for kernel in kernels}
    for kernel in kernels:
        used, said = resources[kernel.symbol], taken(kernel, int(architecture[3:]))
        assert used.spill_bytes == used.stack_bytes == 0, f"{kernel.symbol}: {used}"
        if compiler() == content()["meta"]["compiler"]:
            assert used.shared_bytes == said.shared_bytes, kernel.symbol
            # ptxas is not the same from run to run: of 16 runs of a kernel one had 115 for 108
            assert abs(used.registers - said.registers) <= 0.1 * said.registers, kernel.symbol


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
