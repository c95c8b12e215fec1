"""What the plans' kernels take, by the table of profiling/, is what a multiprocessor has."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucnn.backends.cuda.algorithms import ALGORITHMS, Plan, Problem
from gpucnn.backends.cuda.algorithms.base import SHARED_BYTES
from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.backends.cuda.compiler import Resources
from gpucnn.backends.cuda.kernel import Kernel, modules
from gpucnn.backends.cuda.launch import ceil_div
from gpucnn.backends.cuda.plans import candidates
from profiling import resources
from tests.cases import DTYPES
from tests.test_plans import PROBLEMS

TABLE = Path(resources.__file__).parent / "results" / "resources.json"
# From sm_75 to sm_120: of a multiprocessor, what a warp gets at a time, and of a thread at most.
REGISTERS, REGISTER_UNIT, REGISTERS_PER_THREAD = 65536, 256, 255

Place = tuple[str, str, str]


def place(kernel: Kernel) -> Place:
    """Return what a row of the table is found by."""
    return kernel.file, kernel.function, kernel.suffix.removeprefix("_")


@cache
def content() -> dict[str, Any]:
    return json.loads(TABLE.read_text())


@cache
def table() -> tuple[list[str], dict[Place, dict[str, Any]]]:
    """Return the table's architectures, and its rows by their places."""
    rows = {(row["file"], row["kernel"], row["variant"]): row for row in content()["rows"]}
    assert len(rows) == len(content()["rows"]), "a kernel has two rows"
    return content()["meta"]["architectures"], rows


def taken(kernel: Kernel, architecture: int) -> Resources:
    """Return what a kernel takes on an architecture."""
    architectures, rows = table()
    row, column = rows[place(kernel)], architectures.index(f"sm_{architecture}")
    values = (row[field.name] for field in fields(Resources))
    return Resources(*(value[column] if isinstance(value, list) else value for value in values))


def registers_suffice(registers: int, threads: int) -> bool:
    """Return whether a multiprocessor can hold a block of so many threads."""
    of_a_warp = ceil_div(32 * registers, REGISTER_UNIT) * REGISTER_UNIT
    return registers <= REGISTERS_PER_THREAD and ceil_div(threads, 32) * of_a_warp <= REGISTERS


class Recorder:
    """A launcher that launches nothing, and notes kernels with their grids and threads."""

    device = 0

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture
        self.launches: list[tuple[Kernel, tuple[int, ...], int]] = []

    def launch(
        self, kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], *_: Any
    ) -> None:
        self.launches.append((kernel, grid, math.prod(block)))


def launches(problem: Problem, plan: Plan) -> list[tuple[Kernel, tuple[int, ...], int]]:
    """Return what a plan launches. Nothing touches the arrays, so they take no memory."""
    s, recorder = problem.shape, Recorder(problem.architecture)
    x, w, y = (np.empty(size, DTYPES[problem.dtype]) for size in (s.x_shape, s.w_shape, s.y_shape))
    arrays = {"fprop": (x, w, None), "dgrad": (y, w, None), "wgrad": (x, y)}[problem.direction]
    ALGORITHMS[plan.algorithm].run(CudaBackend(np, recorder), problem, plan, *arrays)
    return recorder.launches


@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_a_multiprocessor_holds_each_block(problem: Problem, channels_last: bool) -> None:
    problem = replace(problem, shape=replace(problem.shape, channels_last=channels_last))
    for plan in candidates(problem):
        own = []  # shared memory of the launches that the plan describes
        for kernel, grid, threads in launches(problem, plan):
            assert kernel.minimum_architecture <= problem.architecture
            takes = taken(kernel, problem.architecture)
            assert registers_suffice(takes.registers, threads), (plan, kernel.symbol, takes)
            assert takes.shared_bytes <= SHARED_BYTES, (plan, kernel.symbol, takes)
            if (grid, threads) == (plan.grid, plan.threads):
                own.append(takes.shared_bytes)
        assert max(own) == plan.shared_bytes, plan


@pytest.mark.parametrize(
    ("registers", "threads", "suffice"),
    [
        (64, 1024, True), (65, 1024, False), (168, 384, True), (169, 384, False),
        (255, 256, True), (255, 257, False), (256, 32, False),
    ],
)  # fmt: skip
def test_registers_of_a_block(registers: int, threads: int, suffice: bool) -> None:
    assert registers_suffice(registers, threads) is suffice


def test_the_table_is_of_these_sources() -> None:
    """If not, make it anew: ``python -m profiling.resources``."""
    now = {file: resources.code_hash(file) for file in resources.FILES}
    assert content()["meta"]["sources"] == now


def test_no_kernel_spills_or_has_a_stack() -> None:
    for row in content()["rows"]:
        for name in ("spill_bytes", "stack_bytes"):
            assert row[name] == 0 or set(row[name]) <= {0, None}, row


def test_the_table_has_a_row_for_each_specialisation() -> None:
    """If not, make it anew: ``python -m profiling.resources``."""
    declared = {place(kernel) for group in modules().values() for kernel in group}
    assert set(table()[1]) == declared
