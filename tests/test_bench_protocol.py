"""The CPU benchmark's protocol with workers, clocks and loads that are none.

What is sampled in which order, what is thrown away, and what happens when a library fails.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gpucnn
from gpucnn.bench import processes
from gpucnn.bench.cases import Case
from gpucnn.bench.load import MOST_PAUSES, Load
from gpucnn.bench.processes import Refused, Worker, WorkerDied
from gpucnn.bench.protocol import FOREIGN, REPEATS, Outcome, Protocol
from gpucnn.bench.rows import OWN_CHOICE, add_run, key, new_row
from gpucnn.bench.runs import HASWELL, Benchmark

from .bench_fakes import TINY, FakeLoad, FakeWorker, Machine, plan

ROOT = Path(gpucnn.__file__).parents[1]


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
