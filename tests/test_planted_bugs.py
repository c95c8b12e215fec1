"""Bugs planted in copies of our kernels: the tests must catch every one.

A test suite for kernels is worth what it catches. Each entry damages one line of one file, as a
tired person would; the checked emulator has to report it, or the result has to miss the
reference. Undamaged copies pass by the same path.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpucnn.backends.cuda import CudaBackend
from gpucnn.backends.cuda.compiler import kernel_folder
from tests.emulator import KernelError
from tests.emulator_launcher import EmulatorLauncher
from tests.planted_bugs import gemm, maps, mma, norms, pools, special_convs, training, wgmma
from tests.planted_bugs.common import Bug

FAMILIES = (gemm, mma, wgmma, special_convs, pools, norms, maps, training)
BUGS = [bug for family in FAMILIES for bug in family.BUGS]
CHECKS = sorted({bug.check for bug in BUGS}, key=lambda check: check.__name__)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(kernel_folder(), tmp_path / "kernels"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_undamaged_copy_passes(check: Callable[[CudaBackend], None], copy: Path) -> None:
    check(CudaBackend(np, EmulatorLauncher("check", copy)))


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.file}: {bug.what}")
def test_bug_is_caught(bug: Bug, copy: Path) -> None:
    text = (copy / bug.file).read_text()
    assert text.count(bug.right) >= 1, "the line to damage is gone"
    (copy / bug.file).write_text(text.replace(bug.right, bug.wrong))
    with pytest.raises((KernelError, AssertionError)) as caught:
        bug.check(CudaBackend(np, EmulatorLauncher("check", copy)))
    print(caught.value)
