"""The CPU benchmark's protocol with workers, clocks and loads that are none; its file, its page and
its chart; and one tiny layer for real."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gpucnn
from gpucnn.bench import cases, processes
from gpucnn.bench.cases import Case
from gpucnn.bench.load import MOST_PAUSES, Load
from gpucnn.bench.processes import Refused, Worker, WorkerDied
from gpucnn.bench.protocol import FOREIGN, REPEATS, Outcome, Protocol
from gpucnn.bench.rows import OWN_CHOICE, add_run, key, new_row
from gpucnn.bench.runs import HASWELL, Benchmark, Plan
from profiling.cpu import __main__ as command
from profiling.cpu import chart, groups, page
from profiling.results import UNFINISHED, Results, problems

ROOT = Path(gpucnn.__file__).parents[1]
TINY = Case("conv_fprop", "3x3", "tiny", 1, 4, 6, 8, 3, 1, 1)
STEP = Case("training_step", "lenet5", "lenet5", 64)


@pytest.mark.parametrize("name", ["__main__", "chart", "groups", "page"])
def test_examples(name):
    assert doctest.testmod(importlib.import_module(f"profiling.cpu.{name}")).failed == 0


# ---- what is none --------------------------------------------------------------------------------


class FakeWorker:
    """Answers with numbers that were given, and notes in ``log`` what it was asked.

    Args:
        ways: the seconds of a call by way: a number, or a list that is gone through.
        fails: exceptions by request.
    """

    def __init__(
        self, name: str, log: list, ways: dict[str, Any], fails: dict[str, Exception] | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.name, self.log, self.ways, self.fails = name, log, ways, fails or {}
        self.answers = {"about": about or {"version": "1", "core": "Zen"}}
        self.pid, self.closed = 1, False

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.log.append((self.name, do, arguments))
        if do in self.fails:
            raise self.fails[do]
        if do == "prepare":
            return {"errors": dict.fromkeys(self.ways, 1e-6 if arguments["check"] else None)}
        if do == "memory":
            return {"peak": 5_000_000, "added": 2_000_000}
        if do == "sample":
            taken = self.ways[arguments["way"]]
            taken = taken.pop(0) if isinstance(taken, list) else taken
            return {"seconds": taken, "calls": 3}
        return self.answers[do]

    def close(self) -> None:
        self.closed = True


class FakeLoad:
    """Says, window by window, what share others had; at last nothing."""

    known = True

    def __init__(self, *shares: float) -> None:
        self.shares, self.marks, self.rests = list(shares), 0, 0

    def rest(self) -> None:
        self.rests += 1

    def mark(self) -> None:
        self.marks += 1

    def foreign(self) -> float:
        return self.shares.pop(0) if self.shares else 0.0


def protocol(*workers: FakeWorker, load: FakeLoad | None = None, **options: Any) -> Protocol:
    made = {worker.name: worker for worker in workers}
    options = {"sleep": lambda seconds: None, **options}
    return Protocol(made, load or FakeLoad(), **options)


def samples(log: list) -> list[str]:
    return [name for name, do, arguments in log if do == "sample" and arguments["seconds"] > 0]


# ---- the protocol --------------------------------------------------------------------------------


def test_samples_of_the_libraries_alternate_and_each_begins_in_turn():
    log: list = []
    workers = [FakeWorker(name, log, {"way": 1.0}) for name in "abc"]
    outcome = protocol(*workers).measure(TINY, "abc")
    assert "".join(samples(log)) == "abcbcacab"
    assert len(outcome.windows) == 3 and not outcome.failures
    prepared = [(name, arguments) for name, do, arguments in log if do == "prepare"]
    assert [name for name, _ in prepared] == ["a", "b", "c"]
    assert all(Case(**arguments["case"]) == TINY for _, arguments in prepared)


def test_only_the_workers_that_are_named_are_asked():
    log: list = []
    both = protocol(FakeWorker("a", log, {"way": 1.0}), FakeWorker("b", log, {"way": 1.0}))
    outcome = both.measure(TINY, ["b"], check=False)
    assert {name for name, *_ in log} == {"b"}
    assert outcome.measured("b") and not outcome.measured("a")
    assert outcome.error("b") is None


def test_ratios_are_taken_within_windows_and_are_medians():
    """The second window is twice as slow for both: a drift that a ratio does not see."""
    mine = FakeWorker("a", [], {"way": [1.0, 2.0, 1.5]})
    theirs = FakeWorker("b", [], {"way": [2.0, 4.0, 1.0]})
    outcome = protocol(mine, theirs).measure(TINY, "ab")
    assert outcome.ratio("a", "b") == 0.5  # of 0.5, 0.5 and 1.5
    assert outcome.spread("a") == (1.5, 0.5)
    assert outcome.error("a") == 1e-6


def test_the_better_layout_counts_and_a_hopeless_one_is_not_sampled():
    log: list = []
    ways = {"NCHW": 1.2, "channels_last": 1.0, "hopeless": 3.0}
    outcome = protocol(FakeWorker("b", log, ways)).measure(TINY, "b")
    assert outcome.best("b") == "channels_last" and outcome.times("b") == [1.0] * 3
    sampled = [a["way"] for _, do, a in log if do == "sample" and a["seconds"] > 0]
    assert sampled == ["NCHW", "channels_last"] * 3
    looks = [a["way"] for _, do, a in log if do == "sample" and a["seconds"] == 0]
    assert sorted(looks) == sorted([*ways] * 2)


def test_a_disturbed_window_is_repeated():
    worker = FakeWorker("a", [], {"way": [9.0, 8.0, 1.0, 2.0, 7.0, 3.0]})
    load = FakeLoad(0.5, 0.2, FOREIGN, 0.0, 0.9)
    outcome = protocol(worker, load=load).measure(TINY, "a")
    assert outcome.times("a") == [1.0, 2.0, 3.0]
    assert (outcome.discarded, outcome.contended) == (3, 0)
    assert load.marks == 6


def test_of_windows_that_stay_disturbed_the_quietest_is_kept():
    times = [float(number) for number in range(1, REPEATS + 2)]
    shares = [0.5] * (REPEATS + 1)
    shares[4] = 0.3
    worker = FakeWorker("a", [], {"way": [*times, 20.0, 21.0]})
    outcome = protocol(worker, load=FakeLoad(*shares)).measure(TINY, "a")
    assert outcome.times("a") == [5.0, 20.0, 21.0]
    assert (outcome.discarded, outcome.contended) == (REPEATS, 1)


def test_patience_is_for_all_windows_together():
    clock = SimpleNamespace(now=0.0)

    def sleep(seconds: float) -> None:
        clock.now += 2.0

    made = protocol(
        FakeWorker("a", [], {"way": 1.0}), load=FakeLoad(*[1.0] * 99), sleep=sleep,
        clock=lambda: clock.now, patience=5.0,
    )  # fmt: skip
    outcome = made.measure(TINY, "a")
    assert made.patience == -1.0
    assert outcome.discarded == 3 and outcome.contended == 3
    assert made.measure(TINY, "a").discarded == 0


def test_where_the_load_is_not_known_every_window_counts():
    load = FakeLoad()
    load.foreign = lambda: None
    outcome = protocol(FakeWorker("a", [], {"way": 1.0}), load=load).measure(TINY, "a")
    assert len(outcome.windows) == 3 and outcome.discarded == 0


@pytest.mark.parametrize("error", [WorkerDied("ended by SIGKILL"), Refused("ValueError: no")])
@pytest.mark.parametrize("when", ["prepare", "sample"])
def test_one_that_fails_is_left_out_and_no_other(error, when):
    log: list = []
    workers = [FakeWorker(name, log, {"way": 1.0}) for name in "abc"]
    workers[1].fails = {when: error}
    outcome = protocol(*workers).measure(TINY, "abc")
    assert outcome.failures == {"b": str(error)}
    assert [set(window) for window in outcome.windows] == [{"a", "c"}] * 3
    assert not outcome.measured("b") and outcome.ratio("a", "c") == 1.0


def test_one_that_fails_late_is_in_no_window():
    worker = FakeWorker("b", [], {"way": [1.0, 1.0]})
    asked = worker.ask

    def ask(do: str, **arguments: Any) -> dict[str, Any]:
        if do == "sample" and not worker.ways["way"]:
            raise WorkerDied("gone")
        return asked(do, **arguments)

    worker.ask = ask
    outcome = protocol(FakeWorker("a", [], {"way": 2.0}), worker).measure(TINY, "ab")
    assert outcome.failures == {"b": "gone"} and [*map(set, outcome.windows)] == [{"a"}] * 3


def test_where_all_fail_there_is_nothing():
    outcome = protocol(FakeWorker("a", [], {}, {"prepare": Refused("no")})).measure(TINY, "a")
    assert not outcome.windows and not outcome.measured("a")


# ---- the load ------------------------------------------------------------------------------------


def write_proc(folder: Path, busy: int, own: int, name: str = "python (3) x") -> None:
    """Write accounts: of ``busy`` ticks of all, half are a user's and a quarter each of others."""
    parts = [busy // 2, busy // 4, 0, 777, 888, 0, 0, busy - busy // 2 - busy // 4]
    (folder / "stat").write_text(f"cpu  {' '.join(map(str, parts))} 5 6\ncpu0 1 2 3\n")
    (folder / "42").mkdir(exist_ok=True)
    stat = f"42 ({name}) S 1 2 3 4 5 6 7 8 9 10 {own - 1} 1 0 0"
    (folder / "42" / "stat").write_text(stat)


def test_what_others_take_is_all_but_ours(tmp_path):
    times = iter([10.0, 12.0])
    write_proc(tmp_path, busy=1000, own=500)
    load = Load(lambda: [42, 43], tmp_path, clock=lambda: next(times))
    load.tick, load.cores = 0.01, 2
    load.mark()
    write_proc(tmp_path, busy=1300, own=700)  # 3 s of the cores, 2 s of them ours
    assert load.foreign() == pytest.approx((3.0 - 2.0 - 0.02) / (2.0 * 2))


def test_a_quiet_machine_has_no_load_and_neither_has_a_late_account(tmp_path):
    times = iter([0.0, 1.0])
    write_proc(tmp_path, busy=1000, own=500)
    load = Load(lambda: [42], tmp_path, clock=lambda: next(times))
    load.mark()
    write_proc(tmp_path, busy=1050, own=552)
    assert load.foreign() == 0.0


def test_samples_wait_until_our_processes_sleep(tmp_path):
    (tmp_path / "stat").write_text("cpu 1 2 3 4 5 6 7 8")
    threads = [tmp_path / "42" / "task" / name / "stat" for name in ("42", "50")]
    for thread in threads:
        thread.parent.mkdir(parents=True)
        thread.write_text("42 (a) R b) S 1 2")
    states = iter("RRS")
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        threads[1].write_text(f"50 (spins) {next(states)} 1 2")

    Load(lambda: [os.getpid(), 42, 43], tmp_path, sleep=sleep).rest()
    assert len(pauses) == 3
    states = iter("R" * 1000)
    pauses.clear()
    Load(lambda: [42], tmp_path, sleep=sleep).rest()
    assert len(pauses) == MOST_PAUSES


def test_every_sample_waits_for_that():
    load = FakeLoad()
    workers = [FakeWorker(name, [], {"way": 1.0}) for name in "ab"]
    protocol(*workers, load=load).measure(TINY, "ab")
    assert load.rests == 2 * 3


def test_without_accounts_the_load_is_not_known(tmp_path):
    load = Load(lambda: [42], tmp_path / "none")
    load.mark()
    assert not load.known and load.foreign() is None


# ---- processes -----------------------------------------------------------------------------------

ECHO = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"


def scripted(script: str, patience: float = 20.0) -> Worker:
    return Worker("torch", 1, command=[sys.executable, "-c", script], patience=patience)


def test_a_worker_answers():
    worker = scripted(ECHO)
    assert worker.pid is None
    assert worker.ask("sample", way="é", seconds=0.5) == {
        "do": "sample", "way": "é", "seconds": 0.5,
    }  # fmt: skip
    pid = worker.pid
    worker.ask("about")
    assert worker.pid == pid and worker.starts == 1
    worker.close()
    assert worker.pid is None
    worker.close()


def test_a_worker_that_died_says_how_and_is_started_again():
    script = (
        "import os, sys\n"
        "print(sys.stdin.readline(), end='', flush=True)\n"
        "sys.stdin.readline(); print('bad allocation', file=sys.stderr, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    worker = scripted(script)
    worker.ask("about")
    with pytest.raises(WorkerDied, match="the torch worker ended by SIGKILL: bad allocation"):
        worker.ask("about")
    assert worker.pid is None
    assert worker.ask("about") == {"do": "about"}
    assert worker.starts == 2
    worker.close()


def test_a_worker_that_ends_at_once_is_not_started_for_ever():
    worker = scripted("import sys; sys.exit('no module named torch')")
    for _ in range(processes.MOST_STARTS):
        with pytest.raises(WorkerDied, match="ended by exit status 1: no module named torch"):
            worker.ask("about")
    with pytest.raises(WorkerDied, match="ended 5 times, and is left out"):
        worker.ask("about")


def test_a_worker_that_hangs_is_ended():
    worker = scripted("import time; time.sleep(60)", patience=0.2)
    with pytest.raises(WorkerDied, match="the torch worker did not answer for 0 s"):
        worker.ask("about")
    assert worker.pid is None


def test_a_refusal_is_no_death():
    script = 'import sys\nfor line in sys.stdin: print(\'{"failed": "no"}\', flush=True)'
    worker = scripted(script)
    for _ in range(2):
        with pytest.raises(Refused, match=r"^no$"):
            worker.ask("about")
    assert worker.starts == 1
    worker.close()


def test_the_environment_of_a_worker(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    own, haswell = (processes.environment(3, core) for core in (None, "Haswell"))
    assert "OPENBLAS_CORETYPE" not in own and haswell["OPENBLAS_CORETYPE"] == "Haswell"
    for name in ("GPUCNN_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        assert own[name] == "3"
    assert own["GPUCNN_BACKEND"] == "numpy"
    assert own["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/mine"]


# ---- rows ----------------------------------------------------------------------------------------


def outcome_of(ours: float, theirs: float, **members: Any) -> Outcome:
    window = {OWN_CHOICE: {"gpucnn": ours}, "torch": {"NCHW": theirs}}
    errors = {OWN_CHOICE: {"gpucnn": 1e-6}, "torch": {"NCHW": 2e-6}}
    return Outcome([window], errors, **members)


def test_a_row_has_the_medians_of_its_runs():
    row = new_row(TINY, OWN_CHOICE)
    for ours, theirs in ((1e-6, 2e-6), (3e-6, 3e-6), (2e-6, 8e-6)):
        add_run(row, TINY, outcome_of(ours, theirs, discarded=2, contended=1))
    assert row["ours_us"] == pytest.approx(2.0) and row["peer_us"] == pytest.approx(3.0)
    assert row["speedup"] == pytest.approx(2.0)  # of the ratios 0.5, 1 and 0.25
    assert (row["discarded"], row["contended"]) == (6, 3)
    assert (row["err_ours"], row["err_peer"], row["peer"]) == (1e-6, 2e-6, "torch NCHW")
    multiply_adds = 6 * 6 * 8 * 3 * 3 * 4
    assert row["tflops"] == pytest.approx(2 * multiply_adds / 2.0 / 1e6)
    assert "second" in row and row["second"] is None


def test_a_row_without_a_peer_has_a_time_and_the_reason():
    row = new_row(TINY, OWN_CHOICE)
    outcome = outcome_of(1e-6, 1e-6, failures={"torch": "the torch worker ended"})
    del outcome.windows[0]["torch"]
    add_run(row, TINY, outcome)
    assert row["speedup"] is None and row["ours_us"] == pytest.approx(1.0)
    assert row["peer_error"] == "the torch worker ended" and "error" not in row


def test_a_row_of_ours_that_failed_is_an_error():
    row = new_row(TINY, OWN_CHOICE)
    add_run(row, TINY, Outcome(failures={OWN_CHOICE: "MemoryError: no"}))
    assert row["error"] == "MemoryError: no" and not row["runs"]


# ---- whole runs ----------------------------------------------------------------------------------


class Machine:
    """Makes fake workers, and remembers them: ours takes half of PyTorch's time."""

    def __init__(self, cores: dict[str | None, str] | None = None) -> None:
        self.seconds = {
            "gpucnn": {"gpucnn": 1e-3}, "torch": {"NCHW": 3e-3, "channels_last": 2e-3},
            "jax": {"jax": 4e-3},
        }  # fmt: skip
        self.made: list[FakeWorker] = []
        self.log: list = []
        self.cores = cores or {None: "Zen", HASWELL: HASWELL}
        self.fails: dict[str, dict[str, Exception]] = {}

    def worker(self, side: str, threads: int, core: str | None = None) -> FakeWorker:
        name = side if core is None else f"{side} {core}"
        about = {"version": "1", "core": self.cores.get(core), "blas": "openblas 1"}
        fails = self.fails.get(name, {})
        self.made.append(FakeWorker(name, self.log, self.seconds[side], fails, about))
        return self.made[-1]

    def options(self) -> dict[str, Any]:
        return {
            "make_worker": self.worker, "make_load": lambda pids: FakeLoad(),
            "sleep": lambda seconds: None,
        }  # fmt: skip

    def asked(self, do: str) -> list[str]:
        return [name for name, what, _ in self.log if what == do]


def plan(*chosen: Case, **options: Any) -> Plan:
    options = {"peers": ("torch",), "cores": (OWN_CHOICE, HASWELL), "threads": 2, **options}
    return Plan(chosen or (TINY, STEP), **options)


def test_a_run_gives_a_row_for_each_case_and_core():
    machine, changed = Machine(), []
    benchmark = Benchmark(
        plan(runs=3), changed=lambda row: changed.append(key(row)), **machine.options()
    )
    benchmark.run()
    rows = list(benchmark.rows.values())
    assert [(row["layer"], row["core"]) for row in rows] == [
        ("tiny", OWN_CHOICE), ("tiny", HASWELL), ("lenet5", OWN_CHOICE), ("lenet5", HASWELL),
    ]  # fmt: skip
    for row in rows:
        assert len(row["runs"]) == 3 and row["speedup"] == pytest.approx(2.0)
        assert row["peer"] == "torch channels_last"
    assert all(worker.closed for worker in machine.made)
    # three runs of three workers, and for the memory of the one step two more
    assert [worker.name for worker in machine.made] == [
        "gpucnn", "gpucnn Haswell", "torch", "gpucnn", "torch",
        *["gpucnn", "gpucnn Haswell", "torch"] * 2,
    ]  # fmt: skip
    assert benchmark.meta["cores"] == {OWN_CHOICE: "Zen", HASWELL: HASWELL}
    assert benchmark.meta["threads"] == 2 and benchmark.meta["torch"] == "1"
    assert benchmark.meta["left_out_cases"] == 0
    # results are held against float64 once
    checks = [arguments["check"] for _, do, arguments in machine.log if do == "prepare"]
    assert checks == [True] * 6 + [False] * 12
    assert len(changed) == 4 * 3 + 1


def test_memory_is_of_training_steps_and_in_fresh_processes():
    machine = Machine()
    benchmark = Benchmark(plan(cores=(OWN_CHOICE,)), **machine.options())
    benchmark.run()
    tiny, step = benchmark.rows.values()
    assert "ours_peak_bytes" not in tiny
    assert (step["ours_added_bytes"], step["peer_peak_bytes"]) == (2_000_000, 5_000_000)
    asked = [(name, a["way"]) for name, do, a in machine.log if do == "memory"]
    assert asked == [("gpucnn", "gpucnn"), ("torch", "channels_last")]
    machine = Machine()
    Benchmark(plan(memory=False), **machine.options()).run()
    assert "memory" not in machine.asked("memory")


def test_a_core_that_the_blas_does_not_know_is_no_column():
    machine = Machine({None: "Haswell", HASWELL: "Haswell"})
    benchmark = Benchmark(plan(runs=2), **machine.options())
    benchmark.run()
    assert {row["core"] for row in benchmark.rows.values()} == {OWN_CHOICE}
    assert [w.name for w in machine.made].count("gpucnn Haswell") == 1


def test_jax_is_in_the_first_run():
    machine = Machine()
    benchmark = Benchmark(
        plan(TINY, peers=("torch", "jax"), runs=2, cores=(OWN_CHOICE,)), **machine.options()
    )
    benchmark.run()
    (row,) = benchmark.rows.values()
    assert row["second"] == "jax" and row["second_ratio"] == pytest.approx(0.25)
    assert machine.asked("prepare") == ["gpucnn", "torch", "jax", "gpucnn", "torch"]


def test_a_peer_that_failed_on_a_case_is_not_asked_for_it_again():
    machine = Machine()
    machine.fails = {"torch": {"prepare": WorkerDied("the torch worker ended by SIGSEGV")}}
    benchmark = Benchmark(plan(TINY, runs=2, cores=(OWN_CHOICE,)), **machine.options())
    benchmark.run()
    (row,) = benchmark.rows.values()
    assert len(row["runs"]) == 2 and row["peer_error"].endswith("SIGSEGV")
    assert machine.asked("prepare") == ["gpucnn", "torch", "gpucnn"]


def test_a_library_that_cannot_be_loaded_is_said():
    machine = Machine()
    machine.fails = {"torch": dict.fromkeys(("about", "prepare"), WorkerDied("no libtorch"))}
    benchmark = Benchmark(plan(TINY, cores=(OWN_CHOICE,)), **machine.options())
    benchmark.run()
    assert benchmark.meta["torch_error"] == "no libtorch" and benchmark.meta["torch"] is None


def test_the_time_limit_begins_nothing_more():
    machine, clock = Machine(), iter([0.0, 1.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0])
    benchmark = Benchmark(
        plan(runs=2, seconds=10.0, cores=(OWN_CHOICE,)), clock=lambda: next(clock),
        **machine.options(),
    )  # fmt: skip
    benchmark.run()
    (first,) = benchmark.rows.values()
    assert len(first["runs"]) == 1
    assert benchmark.meta["left_out_cases"] == 2
    assert machine.asked("memory") == []


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
    assert len(found["inference, batch 1"].ratios(rows, OWN_CHOICE)) == 4
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
