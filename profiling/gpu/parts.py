"""The parts that show correctness, as jobs, and what their logs and reports say."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import machine
from .jobs import Job

# initcheck does not see what TMA stores, and takes it for memory that nobody has written
TOOLS = {"memcheck": (), "racecheck": (), "initcheck": ("--skip", "wgmma"), "synccheck": ()}
SHARDS = 8
TESTS_SECONDS, SANITIZE_SECONDS, PTX_SECONDS = 170.0, 130.0, 60.0
FOUND = 9  # compute-sanitizer's exit status when it finds something
LEFT_OUT = 77  # the exit status of a ptx case that this machine cannot run
MOST_FAILURES = 20  # that a summary tells

Summary = dict[str, Any]


# ---- the GPU tests ------------------------------------------------------------------------------


def test_jobs(logs: Path, quick: bool) -> list[Job]:
    """The tests marked gpu, in shares; without pytest, every operation against the reference."""
    if not machine.has("pytest"):
        command = [sys.executable, "-m", "profiling.gpu.sanitized", "--compare"]
        return [Job("tests", [*command, "--seconds", str(TESTS_SECONDS - 10)], TESTS_SECONDS)]
    shares = SHARDS * (20 if quick else 1)
    for shard in range(SHARDS):
        report_of(logs, shard).unlink(missing_ok=True)  # an earlier run's
    return [
        Job(
            f"tests-{shard}",
            [
                sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests",
                "--ignore", "tests/test_ptx_gpu.py",  # a part of its own, a process a case
                "-p", "profiling.gpu.shard", "--shard", f"{shard}/{shares}",
                "-p", "no:cacheprovider", "--continue-on-collection-errors",
                "-W", "default",  # these versions' warnings are news, but no failures
                "--junitxml", str(report_of(logs, shard)),
            ],
            TESTS_SECONDS,
        )
        for shard in range(SHARDS)
    ]  # fmt: skip


def report_of(logs: Path, shard: int) -> Path:
    return logs / f"tests-{shard}.xml"


def tests_summary(jobs: Sequence[Job], logs: Path) -> Summary:
    """Add the shares up: counts, the first failures, and the shares that did not come to an end."""
    if len(jobs) == 1:
        return {
            "with": "every operation against the reference: pytest is not installed",
            "passed": jobs[0].code == 0,
            "output": jobs[0].tail(MOST_FAILURES),
        }
    summary: Summary = dict.fromkeys(("passed", "failed", "errors", "skipped"), 0)
    failures: dict[str, None] = {}  # each once: a file that cannot be collected fails in all shares
    stopped = []
    for shard, job in enumerate(jobs):
        path = report_of(logs, shard)
        if path.exists():
            counts, failed = read_report(path.read_text("utf-8"))
            summary = {name: summary[name] + counts[name] for name in summary}
            failures |= dict.fromkeys(failed)
        if job.stopped or not path.exists():
            stopped.append(f"{job.name}: {job.stopped or f'exit status {job.code}'}")
    return {**summary, "stopped": stopped, "failures": [*failures][:MOST_FAILURES]}


def read_report(text: str) -> tuple[dict[str, int], list[str]]:
    """Return the counts of a JUnit report, and each failure in a line."""
    root = ElementTree.fromstring(text)
    suite = root if root.tag == "testsuite" else root.find("testsuite")
    counts = {name: int(suite.get(name, 0)) for name in ("errors", "failures", "skipped", "tests")}
    failures = [
        f"{case.get('classname')}::{case.get('name')}: {_first_line(bad.get('message'))}"
        for case in suite.iter("testcase")
        for bad in (*case.findall("failure"), *case.findall("error"))
    ]
    bad = counts["errors"] + counts["failures"] + counts["skipped"]
    return {
        "passed": counts["tests"] - bad, "failed": counts["failures"],
        "errors": counts["errors"], "skipped": counts["skipped"],
    }, failures  # fmt: skip


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0][:300]


# ---- kernels/ptx.cuh ----------------------------------------------------------------------------


def ptx_jobs() -> list[Job]:
    from tests.ptx_cases import CASES

    command = [sys.executable, "-m", "profiling.gpu.ptx"]
    return [Job(f"ptx-{name}", [*command, name], PTX_SECONDS) for name in CASES]


def ptx_summary(jobs: Sequence[Job]) -> Summary:
    """Return what each case came to: "passed", "left out: ..." or what was wrong."""
    said = {}
    for job in jobs:
        last = job.tail(1)
        if job.stopped:
            said[job.name] = job.stopped
        elif job.code == 0:
            said[job.name] = "passed"
        else:
            said[job.name] = f"left out: {last}" if job.code == LEFT_OUT else last
    return {name.removeprefix("ptx-"): outcome for name, outcome in said.items()}


# ---- compute-sanitizer --------------------------------------------------------------------------


def sanitize_jobs(sanitizer: str, quick: bool) -> list[Job]:
    """Each tool over every operation; the program ends itself before its time is up."""
    program = ["-m", "profiling.gpu.sanitized", "--seconds", str(SANITIZE_SECONDS - 40)]
    program += ["--dtype", "float32"] if quick else []
    return [
        Job(
            f"sanitizer-{tool}",
            [
                sanitizer, "--tool", tool, "--error-exitcode", str(FOUND), "--print-limit", "20",
                sys.executable, *program, *options,
            ],
            SANITIZE_SECONDS,
        )
        for tool, options in TOOLS.items()
    ]  # fmt: skip


def sanitize_summary(jobs: Sequence[Job]) -> Summary:
    return {job.name.removeprefix("sanitizer-"): _sanitized(job) for job in jobs}


def _sanitized(job: Job) -> Summary:
    text = job.log.read_text("utf-8", "replace") if job.log else ""
    verdict = re.findall(r"=+ ((?:ERROR|RACECHECK) SUMMARY: .*)", text)
    calls = re.findall(r"^\d+ calls, .*", text, re.MULTILINE)
    if not verdict and "not supported" in text:
        return {"passed": None, "said": "left out: it does not support this device", "ran": ""}
    summary: Summary = {
        "passed": job.code == 0 and not job.stopped,
        "said": verdict[-1] if verdict else job.stopped or f"exit status {job.code}",
        "ran": calls[-1] if calls else "did not come to its end",
    }
    if not summary["passed"]:
        lines = [line for line in text.splitlines() if line.startswith("=====")]
        summary["first"] = "\n".join(lines[:12]) if lines else job.tail(8)
    return summary


def clean(meta: Summary) -> bool:
    """Return whether what ran came to its end without a failure."""
    tests, ptx, sanitizer = (meta.get(name, {}) for name in ("tests", "ptx", "sanitizer"))
    bad = [tests.get(name) for name in ("failed", "errors", "stopped")]
    bad += [tests.get("passed") is False]
    bad += [not outcome.startswith(("passed", "left out")) for outcome in ptx.values()]
    bad += [tool["passed"] is False for tool in sanitizer.values()]
    return not any(bad)


def as_text(summary: Summary) -> str:
    return json.dumps(summary, indent=2)
