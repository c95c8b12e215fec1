"""The parts of ``make gpu``, and the command that runs them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gpucnn.backends import get_backend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, LADDER
from gpucnn.backends.cuda.backend import CudaBackend
from profiling.gpu import __main__ as command
from profiling.gpu import jobs, machine, parts, report, sanitized, shard
from profiling.gpu.cases import FLOAT64
from profiling.gpu.jobs import Deadline, Job
from profiling.gpu.options import parser
from profiling.results import Results

from ..cases import DTYPES
from ..emulator.build import CXX
from ..step_launches import Listing
from . import Clock

REPORT = """<?xml version="1.0"?><testsuites><testsuite name="pytest" errors="1" failures="1"
skipped="2" tests="9"><testcase classname="tests.a" name="good"/><testcase classname="tests.a"
name="bad[x]"><failure message="AssertionError: dx&#10;more">long</failure></testcase><testcase
classname="" name="tests.b"><error message="collection failure">long</error></testcase>
</testsuite></testsuites>"""


def test_shares_are_added_up(tmp_path):
    share = parts.report_of(tmp_path, 0)
    share.write_text(REPORT)
    found = parts.tests_summary([Job("tests-0", [], 1, code=1), Job("tests-1", [], 1)], tmp_path)
    assert {k: found[k] for k in ("passed", "failed", "errors", "skipped")} == {
        "passed": 5, "failed": 1, "errors": 1, "skipped": 2,
    }  # fmt: skip
    assert found["stopped"] == ["tests-1: exit status None"]
    assert found["failures"] == [
        "tests.a::bad[x]: AssertionError: dx", "::tests.b: collection failure",
    ]  # fmt: skip
    assert not parts.clean({"tests": found})


def job_that_said(folder: Path, name: str, text: str, code: int) -> Job:
    log = folder / f"{name}.log"
    log.write_text(text)
    return Job(name, [], 1, code=code, log=log)


def test_sanitizers_are_understood(tmp_path):
    said = "========= COMPUTE-SANITIZER\n{}\n========= {}\n"
    good = said.format("497 calls, 0 failed; float32", "ERROR SUMMARY: 0 errors")
    race = said.format(
        "========= Error: Race reported between Write access at x.cu:7", "RACECHECK SUMMARY: 1"
    )
    other = "========= COMPUTE-SANITIZER\n========= Error: Device not supported.\n"
    found = parts.sanitize_summary(
        [
            job_that_said(tmp_path, "sanitizer-memcheck", good, 0),
            job_that_said(tmp_path, "sanitizer-racecheck", race, parts.FOUND),
            job_that_said(tmp_path, "sanitizer-initcheck", other, 1),
        ]
    )
    assert found["memcheck"] == {
        "passed": True, "said": "ERROR SUMMARY: 0 errors", "ran": "497 calls, 0 failed; float32",
    }  # fmt: skip
    assert found["racecheck"]["passed"] is False and "x.cu:7" in found["racecheck"]["first"]
    assert found["initcheck"]["said"].startswith("left out")
    assert not parts.clean({"sanitizer": found})
    del found["racecheck"]
    assert parts.clean({"sanitizer": found})


def test_ptx_cases_are_understood(tmp_path):
    found = parts.ptx_summary(
        [
            job_that_said(tmp_path, "ptx-a", "passed\n", 0),
            job_that_said(tmp_path, "ptx-b", "warning\nthis GPU has no such\n", parts.LEFT_OUT),
            job_that_said(tmp_path, "ptx-c", "AssertionError: off by 3\n", 1),
        ]
    )
    assert found == {
        "a": "passed", "b": "left out: this GPU has no such", "c": "AssertionError: off by 3",
    }  # fmt: skip
    assert not parts.clean({"ptx": found})


def test_shares_are_all_the_tests_and_no_test_twice():
    items = [SimpleNamespace(nodeid=f"test_{i}") for i in range(23)]
    shares, left = [], []
    for which in range(4):
        mine = list(items)
        config = SimpleNamespace(
            getoption=lambda name, which=which: f"{which}/4",
            hook=SimpleNamespace(pytest_deselected=lambda items: left.append(len(items))),
        )
        shard.pytest_collection_modifyitems(config, mine)
        shares.append({item.nodeid for item in mine})
    assert set.union(*shares) == {item.nodeid for item in items}
    assert sum(map(len, shares)) == 23 and left == [23 - len(share) for share in shares]


def test_every_operation_against_the_reference(capsys):
    assert sanitized.main(["--backend", "numpy", "--compare"]) == 0
    done = re.search(r"(\d+) calls, 0 failed", capsys.readouterr().out)
    assert int(done[1]) > 400
    names = {call.operation for call in sanitized.calls("float32")}
    abstract = type(get_backend("numpy")).__mro__[1:]
    wanted = {name for base in abstract for name in getattr(base, "__abstractmethods__", ())}
    wanted |= {"batch_norm_pool_train", "conv_pool_forward", "conv_pool_backward"}
    wanted |= {"conv_dgrad_through"}
    assert names == wanted - {"owns", "asarray", "to_numpy", "synchronize", "memory"}
    forced = {c.algorithm.name for d in DTYPES for c in sanitized.calls(d, 90) if c.algorithm}
    assert forced == {*ALGORITHMS, *LADDER}


def test_initcheck_leaves_out_what_tma_stores():
    """Whatever the operation: it takes that for memory that nobody has written."""
    listing = Listing()
    backend, found = CudaBackend(np, listing), set()
    for given in sanitized.calls("bfloat16", listing.architecture):
        if not given.operation.startswith("conv_"):
            continue
        listing.clear()
        sanitized.run(backend, given)
        stores = any(kernel.startswith("conv_wgmma") for kernel in listing.kernels)
        assert stores == (sanitized.runs_by(given, listing.architecture) == "wgmma"), given
        found |= {given.operation} if stores else set()
    assert found == {"conv_fprop", "conv_dgrad", "conv_fprop_masked"}


def test_kernels_that_read_through_a_norm_run():
    listing = Listing()
    for given in sanitized.calls("bfloat16", listing.architecture):
        if "on_load" in given.keywords:
            sanitized.run(CudaBackend(np, listing), given)
    kernels = [name.rpartition("_mma")[0] for name in listing.kernels if name.endswith("_norm")]
    assert kernels == ["conv_fprop", "conv_wgrad"]


def test_a_wrong_operation_does_not_pass(monkeypatch, capsys):
    backend = get_backend("numpy")
    right = backend.conv_wgrad
    monkeypatch.setattr(backend, "conv_wgrad", lambda *given: right(*given) * 1.01)
    assert sanitized.main(["--backend", "numpy", "--compare", "--dtype", "float32"]) == 1
    assert "conv_wgrad in float32: result 0 is off by" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which(CXX) is None, reason=f"there is no {CXX}")
@pytest.mark.slow
def test_without_a_gpu_the_command_says_what_it_left_out(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(machine, "gpu", lambda: (None, "no driver"))
    monkeypatch.setattr(command, "QUICK_SECONDS", 5)
    assert command.main(["--quick", "--out", str(tmp_path)]) == 0
    said = capfd.readouterr().out
    assert "no GPU here: no driver" in said
    assert re.search(
        r"operations, in the emulator: \d+ calls, 0 failed; (stopped in )?float32", said
    )
    assert re.search(r"(\d+) of \1 cases passed", said)
    for what in (*command.WITHOUT_GPU.values(), "the tests marked gpu"):
        assert f"left out: {what}" in said
    assert not list(tmp_path.glob("*.json"))


GPU = {"gpu": "NVIDIA H200", "driver": "580", "cuda": "13.0"}


def test_what_fails_on_a_gpu_is_left_out_and_the_rest_is_kept(tmp_path, monkeypatch, capfd):
    """A machine that says it has a GPU and has not: the benchmark's process fails at its start."""
    monkeypatch.setattr(machine, "gpu", lambda: (dict(GPU), ""))
    monkeypatch.setattr(machine, "compute_sanitizer", lambda: None)
    given = ["bench", "steps", "sanitize", "report", "--out", str(tmp_path), "--commit", "1a2b3c4"]
    assert command.main(given) == 0
    (path,) = tmp_path.glob("h200-*-1a2b3c4.json")
    meta = Results(path).meta
    assert meta["left_out"]["sanitize"] == "compute-sanitizer is not installed"
    assert "the CUDA backend needs" in meta["left_out"]["bench"]
    assert "the CUDA backend needs" in meta["left_out"]["steps"]
    assert path.with_suffix(".md").exists()
    said = capfd.readouterr().out
    assert "left out bench: " in said
    with pytest.raises(SystemExit, match="holds rows of commit 1a2b3c4"):
        command.main(["bench", "--file", str(path), "--commit", "other"])


def test_a_part_that_fails_in_itself_costs_no_other(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(machine, "gpu", lambda: (dict(GPU), ""))
    monkeypatch.setattr(parts, "ptx_jobs", lambda: 1 / 0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "has", lambda module: module != "torch")
    monkeypatch.setattr(machine, "compute_sanitizer", lambda: None)
    monkeypatch.setattr(report, "write", lambda path: 1 / 0)
    assert command.main(["ptx", "bench", "report", "--out", "here", "--commit", "1"]) == 0
    (path,) = (tmp_path / "here").glob("*.json")
    left_out = Results(path).meta["left_out"]
    assert left_out["ptx"] == "ZeroDivisionError: division by zero"
    assert left_out["bench"] == "PyTorch is not installed"
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_missing_pytest_or_torch_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "has", lambda module: False)
    (job,) = parts.test_jobs(tmp_path, quick=False)
    assert "profiling.gpu.sanitized" in job.command and "--compare" in job.command
    ended = job_that_said(tmp_path, "tests", "497 calls, 0 failed", 0)
    assert parts.tests_summary([ended], tmp_path)["passed"] is True
    run = object.__new__(command.Run)
    run.left_out, run.options = {}, parser("", 1.0).parse_args([])
    run.ladder(alone=True)
    run.bench()
    run.steps()
    assert run.left_out == {
        **dict.fromkeys(("ladder", "bench", "steps"), "PyTorch is not installed"),
        "steps against JAX": "JAX is not installed",
    }


def test_measuring_parts_share_the_time_and_get_their_options(tmp_path, monkeypatch):
    """Each program ends when its time is up; the steps' process against JAX comes last."""
    clock, ran = Clock(), []

    def run_all(jobs, logs, at_once, deadline):
        for job in jobs:
            ran.append((job.name, deadline.left(), job.command[2:]))
            clock.now += deadline.left()
            job.code = 0

    monkeypatch.setattr(command, "run_all", run_all)
    monkeypatch.setattr(command, "Deadline", lambda seconds: Deadline(seconds, clock))
    monkeypatch.setattr(machine, "has", lambda module: True)
    run = object.__new__(command.Run)
    given = ["--dtype", "bfloat16", "--network", "lenet5", "--op", "conv_fprop", "--quick"]
    run.options = parser("", 1.0).parse_args([*given, "--cifar", "here"])
    run.results = SimpleNamespace(meta={"commit": "1a2b3c4"})
    run.left_out, run.path, run.logs = {}, tmp_path / "r.json", tmp_path
    run.deadline = Deadline(580, clock)
    run.ladder(alone=False)
    run.bench(command.STEPS_SHARE)
    run.steps()
    names, seconds, commands = zip(*ran, strict=True)
    assert names == ("ladder-0", "bench-0", "steps-0", "airbench", "steps-jax-0")
    assert seconds == pytest.approx((60, 200, 144, 120, 36))
    ladder, *commands = commands
    assert ladder[:4] == ["profiling.gpu.bench", "--ladder", "--file", str(run.path)]
    assert commands[0][:6] == [
        "profiling.gpu.bench", "--quick", "--op", "conv_fprop", "--dtype", "bfloat16",
    ]  # fmt: skip
    steps = ["profiling.gpu.steps", "--network", "lenet5", "--dtype", "bfloat16"]
    assert commands[1][:7] == [*steps, "--file", str(run.path)]
    assert commands[2][:3] == ["profiling.gpu.airbench", "--data", "here"]
    assert commands[3][:6] == [*steps, "--jax"]
    assert clock.now == pytest.approx(560) and run.left_out == {}


def test_the_command_refuses_what_is_no_part(capsys):
    with pytest.raises(SystemExit):
        command.main(["banch"])
    assert "Received: banch" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["report"])


def test_sources_have_a_name_without_git(monkeypatch):
    monkeypatch.setattr(machine, "_output", lambda *command: "")
    name = machine.describe(None)["commit"]
    assert re.fullmatch(r"tree-[0-9a-f]{8}", name)
    assert machine.describe("1a2b3c4")["commit"] == "1a2b3c4"
    assert Path(__file__).parents[2] == jobs.ROOT and FLOAT64 == ("float64", "strict")
