"""The CPU benchmark's file, its page, its chart and its command; and one tiny layer for real."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn.backends.numpy.convolution.pointwise import Pointwise
from gpucnn.backends.numpy.convolution.taps import Taps
from gpucnn.bench import cases
from gpucnn.bench.cases import Case
from gpucnn.bench.processes import Refused, Worker, WorkerDied
from gpucnn.bench.rows import OWN_CHOICE, new_row
from gpucnn.bench.runs import HASWELL, Benchmark, Plan
from profiling.cpu import __main__ as command
from profiling.cpu import chart, choices, groups, page
from profiling.results import UNFINISHED, Results, problems

from .bench_fakes import STEP, TINY, FakeWorker, Machine, plan

ROOT = Path(gpucnn.__file__).parents[1]


@pytest.mark.parametrize("name", ["__main__", "chart", "groups", "page"])
def test_examples(name):
    assert doctest.testmod(importlib.import_module(f"profiling.cpu.{name}")).failed == 0


# ---- the file, the page, the chart, the README ---------------------------------------------------


def measured(path: Path, machine: Machine | None = None, **options: Any) -> Results:
    """A results file of every case, measured on fake workers."""
    meta = {"cpu": "Zen 9", "date": "2026-01-31", "commit": "1a2b3c4", "cpus": 2, "python": "3.13"}
    results = Results(path, meta)
    machine = machine or Machine()
    options = {"peers": ("torch", "jax"), "runs": 2, **options}
    command.run(plan(*cases.full(), **options), results, **machine.options())
    results.save()
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    return measured(tmp_path_factory.mktemp("results") / "cpu-2026-01-31-1a2b3c4.json")


def test_rows_have_the_form_of_a_results_file(results):
    content = json.loads(results.path.read_text())
    assert len(content["rows"]) == 2 * len(cases.full())
    assert [row for row in content["rows"] if problems(row)] == []
    for row in content["rows"]:
        assert row["speedup"] == pytest.approx(2.0) and len(row["runs"]) == 2
    assert content["meta"]["cores"] == {OWN_CHOICE: "Zen", HASWELL: HASWELL}


def test_a_row_is_in_the_file_while_it_is_measured(tmp_path):
    machine, path, seen = Machine(), tmp_path / "r.json", []
    asked = FakeWorker.ask

    def ask(self: FakeWorker, do: str, **arguments: Any) -> dict[str, Any]:
        if do == "sample" and not seen:
            seen.extend(json.loads(path.read_text())["rows"])
        return asked(self, do, **arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeWorker, "ask", ask)
        command.run(plan(TINY), Results(path), **machine.options())
    assert [row["error"] for row in seen] == [UNFINISHED] * 2
    assert not any("error" in row for row in Results(path).rows)


def test_a_run_that_was_ended_is_continued(tmp_path):
    path = tmp_path / "r.json"

    class Interrupting(Machine):
        def worker(self, side: str, threads: int, core: str | None = None) -> FakeWorker:
            made = super().worker(side, threads, core)
            if side == "torch" and len(self.made) > 3:
                made.fails = {"prepare": KeyboardInterrupt()}
            return made

    results = Results(path)
    interrupted = plan(TINY, STEP, runs=2, memory=False)
    with pytest.raises(KeyboardInterrupt):
        command.run(interrupted, results, **Interrupting().options())
    assert results.meta["threads"] == 2
    results.save()
    results.begin(new_row(Case("max_pool", "max pool", "x", 1), OWN_CHOICE))  # and one was begun
    machine, again = Machine(), Results(path)
    command.run(interrupted, again, **machine.options())
    assert [len(row["runs"]) for row in again.rows] == [2] * 4
    assert all(len(row["runs"]) == 2 and "error" not in row for row in again.rows)
    assert machine.asked("prepare").count("torch") == 2  # the second run of both cases alone


def test_groups_are_those_of_the_goals(results):
    rows = results.rows
    found = {group.name: group for group in groups.GROUPS}
    assert len(found["convolutions but depthwise"].ratios(rows, OWN_CHOICE)) == 3 * 17
    assert len(found["3x3, 64 channels or more"].ratios(rows, HASWELL)) == 3 * 10
    assert len(found["inference, batch 1"].ratios(rows, OWN_CHOICE)) == 6
    assert len(found["VGG-small training, batch 64 and 128"].ratios(rows, OWN_CHOICE)) == 2
    for group in groups.GROUPS:
        assert group.mean(rows, OWN_CHOICE) == pytest.approx(0.5)
    assert found["convolutions but depthwise"].goals == {OWN_CHOICE: 0.70, HASWELL: 1.1}
    others = [row for row in rows if not any(group.holds(row) for group in groups.GROUPS)]
    assert {row["set"] for row in others} == {"large"}
    failed = [{**row, "error": "no"} for row in rows]
    assert found["1x1"].mean(failed, OWN_CHOICE) is None


def test_the_page_says_what_the_file_holds(results, tmp_path):
    files = page.write(results.path)
    assert [file.name.removeprefix(results.path.stem) for file in files] == [
        ".json", "-ratios.png", ".md",
    ]  # fmt: skip
    text = files[-1].read_text("utf-8")
    assert text.startswith("# Zen 9, 2026-01-31, commit 1a2b3c4\n\n2 threads of 2 cores; NumPy 1;")
    assert f"![]({files[1].name})" in text
    assert "| 3x3, 64 channels or more | 30 | 0.50 | 0.52 | 0.50 |  | 0.25 |" in text
    assert re.search(r"\| lenet5 training_step, N64 \| 2.0 \| 2.0 \| 5.0 \| 5.0 \|", text)
    row = r"\| cifar_64_64 \| N32 C64 32x32, K64 3x3 \| 1000 \| 0 \| 2416 \| 0.50 \| 0.50-0.50 \|"
    assert re.search(row + r" 0.50 \| 0.50-0.50 \| 2000 \| channels_last \| 4000 \| 1e-06 \|", text)
    tables = [re.findall(r"\|", line) for line in text.splitlines() if line.startswith("|")]
    assert {len(bars) for bars in tables} == {8, 6, 15}
    assert "- 0 windows were disturbed" in text


def test_the_page_says_what_failed_and_what_was_disturbed(tmp_path):
    machine = Machine()
    machine.fails = {
        "gpucnn Haswell": {"prepare": Refused("MemoryError: no")},
        "torch": {"prepare": WorkerDied("the torch worker ended by SIGKILL")},
    }
    results = measured(tmp_path / "r.json", machine, peers=("torch",), runs=1)
    first = results.rows[0]
    first["contended"], results.meta["left_out_cases"] = 1, 7
    results.save()
    page.write(results.path)
    text = (tmp_path / "r.md").read_text()
    assert "- lenet_conv1 conv_fprop N32, Haswell: MemoryError: no" in text
    assert "own choice, PyTorch: the torch worker ended by SIGKILL" in text
    assert "- 1 rows, marked ?" in text and "- 7 cases of the last run" in text
    assert not list(tmp_path.glob("*.png"))  # no ratio, no chart


def test_the_chart_is_the_same_for_the_same_file(results, tmp_path):
    pictures = [chart.write(results, tmp_path / name)[0].read_bytes() for name in ("a", "b")]
    assert pictures[0] == pictures[1] and len(pictures[0]) > 10_000
    (axes,) = chart.chart(results).axes
    bars = [bar for bar in axes.patches if bar.get_width()]
    assert len(bars) == 2 * len(groups.GROUPS)
    goals = {line.get_segments()[0][0][0] for line in axes.collections}
    assert {0.70, 0.52, 1.1, 0.45, 0.85} <= goals


def test_the_readme_gets_its_table(results, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Before\n{page.BEGIN}\nold\n{page.END}\nAfter\n", "utf-8")
    page.write(results.path, readme)
    once = readme.read_text("utf-8")
    assert once.startswith("# Before\n") and once.endswith(f"{page.END}\nAfter\n")
    assert "old" not in once and "| 1x1 | 9 | 0.50 | 0.95 |" in once
    place = os.path.relpath(results.path.parent, tmp_path)
    assert f"![Ratios by group]({place}/{results.path.stem}-ratios.png)" in once
    page.write(results.path, readme)
    assert readme.read_text("utf-8") == once
    with pytest.raises(ValueError, match="the text must hold"):
        page.with_table("no markers", "table")


def test_the_readmes_table_is_that_of_a_results_file():
    """Nothing between the markers was typed."""
    text = (ROOT / "README.md").read_text("utf-8")
    between = text.partition(page.BEGIN)[2].partition(page.END)[0].strip()
    named = re.search(r"\((profiling/results/cpu-\S+)\.md\)", between)
    if named is None:
        assert between == "" and page.BEGIN in text and page.END in text
        return
    path = ROOT / f"{named[1]}.json"
    files = [path, path.with_name(f"{path.stem}-ratios.png"), path.with_suffix(".md")]
    assert between == page.table_for(Results(path), files, ROOT).strip()


# ---- the command ---------------------------------------------------------------------------------


@pytest.fixture
def fake_machine(monkeypatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(command, "Benchmark", partial(Benchmark, **machine.options()))
    return machine


def run_command(*arguments: object) -> int:
    return command.main([str(argument) for argument in arguments])


def test_the_command_measures_and_reports(fake_machine, tmp_path, capsys):
    given = ("--only", "1x1", "lenet5", "--runs", 1, "--threads", 2, "--commit", "1a2b3c4")
    assert run_command(*given, "--out", tmp_path) == 0
    (path,) = tmp_path.glob("cpu-*-1a2b3c4.json")
    rows = Results(path).rows
    assert {row["set"] for row in rows} == {"1x1", "lenet5"} and len(rows) == 2 * (9 + 6)
    said = capsys.readouterr().out
    assert "resnet50_64_256 conv_fprop N8, Haswell: 1000 us | 0.50 of torch channels_last" in said
    assert f"wrote {path.with_suffix('.md')}" in said
    assert run_command("report", "--file", path) == 0
    with pytest.raises(SystemExit):
        run_command("--file", path, "--commit", "other")
    assert "holds rows of commit 1a2b3c4" in capsys.readouterr().err


def test_the_quick_form_is_a_part(fake_machine, tmp_path):
    assert run_command("--quick", "--out", tmp_path, "--commit", "1") == 0
    (path,) = tmp_path.glob("*.json")
    assert len(Results(path).rows) == len(cases.quick())


def test_a_report_needs_a_file(capsys, tmp_path):
    with pytest.raises(SystemExit):
        run_command("report", "--file", tmp_path / "none.json")
    assert "report needs a results file" in capsys.readouterr().err


def test_a_failure_is_told_by_the_exit_status(fake_machine, tmp_path):
    fake_machine.fails = {"gpucnn": {"prepare": Refused("no")}}
    given = ("--only", "1x1", "--runs", 1, "--out", tmp_path, "--commit", "1")
    assert run_command(*given) == 1


def test_an_interrupted_run_keeps_what_it_has(fake_machine, tmp_path, capsys):
    fake_machine.fails = {"gpucnn": {"sample": KeyboardInterrupt()}}
    given = ("--only", "1x1", "--out", tmp_path, "--commit", "1")
    assert run_command(*given) == 1
    (path,) = tmp_path.glob("*.json")
    assert Results(path).rows[0]["error"] == UNFINISHED
    assert f"go on with --file {path}" in capsys.readouterr().out


@pytest.mark.parametrize("script", [["profiling/bench_cpu.py"], ["-m", "profiling.cpu"]])
def test_it_is_found_by_both_names(script):
    said = subprocess.run(
        [sys.executable, *script, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith("usage: python -m profiling.cpu")


# ---- for real ------------------------------------------------------------------------------------


def test_a_tiny_layer_for_real(tmp_path):
    """Two processes, our own and PyTorch's, each asked for one small convolution."""
    results = Results(tmp_path / "r.json", {"cpu": "x", "date": "d", "commit": "c"})
    tiny = Plan([TINY], ("torch",), threads=1, windows=2, patience=0.0)
    command.run(tiny, results)
    (row,) = Results(results.path).rows
    assert problems(row) == [] and "error" not in row and "peer_error" not in row
    assert 0 < row["ours_us"] < 1e6 and 0 < row["peer_us"] < 1e6 and row["speedup"] > 0
    assert 0 < row["err_ours"] < 1e-5 and 0 < row["err_peer"] < 1e-5
    assert row["peer"] in ("torch NCHW", "torch channels_last")
    assert results.meta["threads"] == 1 and results.meta["torch"].startswith("2.")


def test_the_memory_of_a_step_for_real():
    found = {}
    for batch in (1, 128):
        worker = Worker("gpucnn", 1)
        case = Case("training_step", "lenet5", "lenet5", batch)
        found[batch] = worker.ask("memory", case=asdict(case), way="gpucnn")
        worker.close()
    assert 0 < found[1]["added"] < found[128]["added"] < found[128]["peak"] < 2e9


# ---- the choice of algorithms --------------------------------------------------------------------


def test_choices_are_held_against_a_plain_product(monkeypatch, capsys):
    small = [replace(TINY, op=op, kernel=1, padding=0) for op in cases.CONVOLUTIONS]
    monkeypatch.setattr(choices, "layers", lambda: small)
    taken = []
    monkeypatch.setattr(choices, "bound", lambda algorithm, case: partial(taken.append, algorithm))
    ticks = iter(range(10**6))
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(choices, "time", clock)
    with pytest.raises(SystemExit) as end:
        choices.main()
    assert end.value.code == 0
    assert "3 choices: 1.00 on average, 1.00 at worst" in capsys.readouterr().out
    assert {type(algorithm).__name__ for algorithm in taken} == {"Pointwise", "Taps"}


@pytest.mark.parametrize("op", cases.CONVOLUTIONS)
def test_a_choice_and_the_plain_product_compute_the_same(op):
    case = replace(TINY, op=op, kernel=1, padding=0)
    found = []
    for call in (choices.bound(algorithm, case) for algorithm in (Pointwise(), Taps())):
        value = call()
        arguments = inspect.getclosurevars(call).nonlocals["arguments"]
        found.append(arguments[2] if value is None else value)
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)
