"""Time: its limits, the jobs that are ended by them, and graphs replayed in turn."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from profiling.gpu import bench, cases, timing
from profiling.gpu.cases import Case
from profiling.gpu.jobs import Deadline, Job, run_all
from profiling.results import Results, problems

from . import SET, Clock


class SlowBench:
    """Takes ten seconds a row, one for a pool; the third fails, the fourth loses the GPU."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.rows = clock, 0

    def measure(self, case: Case) -> dict:
        self.clock.now += 1 if case.op == "max_pool" else 10
        self.rows += 1
        good = {"ours_us": 1.0, "tflops": 1.0, "gbps": 1.0, "speedup": 2.0, "err_ours": 0.0}
        return {"error": "ValueError: no"} if self.rows == 3 else good

    def healthy(self) -> bool:
        return self.rows != 4


def test_short_rows_fill_the_time_that_a_long_one_does_not_fit(tmp_path):
    clock, results = Clock(), Results(tmp_path / "r.json", {"gpu": "none"})
    pools = [case for case in SET if (case.op, case.set) == ("max_pool", "vgg16")]
    convs = [case for case in SET if case.op == "conv_fprop"]
    in_order = [pools[0], convs[0], convs[1], pools[1]]
    assert bench.run(SlowBench(clock), in_order, results, Deadline(16, clock)) == 1
    assert [row["op"] for row in results.rows] == ["max_pool", "conv_fprop", "max_pool"]


def test_a_benchmark_ends_before_its_time(tmp_path):
    clock = Clock()
    results = Results(tmp_path / "r.json", {"gpu": "none"})
    left = bench.run(SlowBench(clock), SET[:10], results, Deadline(35, clock))
    assert (left, clock.now) == (7, 30)  # for a fourth row there were only 5 s
    rows = Results(tmp_path / "r.json").rows
    assert Results(tmp_path / "r.json").meta == {"gpu": "none", "left_out_rows": 7}
    assert [row.get("error") for row in rows] == [None, None, "ValueError: no"]
    assert all(problems(row) == [] for row in rows)


def test_a_benchmark_goes_on_where_another_lost_the_gpu(tmp_path):
    clock = Clock()
    results = Results(tmp_path / "r.json")
    slow = SlowBench(clock)
    with pytest.raises(SystemExit) as stop:
        bench.run(slow, SET[:10], results, Deadline(1000, clock))
    assert stop.value.code == bench.DEVICE_LOST
    results = Results(tmp_path / "r.json")
    assert results.rows[-1]["error"] == f"measured; {bench.LOST}"
    results.begin(SET[4].row())  # a process that died in this row
    again = Results(tmp_path / "r.json")
    assert again.rows[-1]["error"].startswith("the process ended")
    # both were dgrads, which are given up now: the third is left out
    assert [case.op for case in SET[3:6]] == ["conv_dgrad"] * 3
    assert bench.run(slow, SET[:10], again, Deadline(1000, clock)) == 1
    ran = [case for case in SET[:10] if case is not SET[5]]
    assert [cases.key(row) for row in again.rows] == [cases.key(case.row()) for case in ran]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_jobs_end_by_themselves_or_are_ended(tmp_path):
    good = Job("good", python("print('all well')"), 20)
    bad = Job("bad", python("import sys; sys.exit(5)"), 20)
    slow = Job(
        "slow",
        python(
            "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('kept', flush=True)"
        ),
        1.0,
    )
    missing = Job("missing", ["no-such-program-anywhere"], 20)
    run_all([slow, good, bad, missing], tmp_path, 4, Deadline(60))
    assert (good.code, good.tail(), good.stopped) == (0, "all well", "")
    assert bad.code == 5
    assert slow.stopped == "its time was up after 1 s" and "kept" in slow.tail()
    assert missing.code == 127 and "cannot be started" in missing.stopped


def test_a_job_that_writes_nothing_hangs(tmp_path):
    progress = tmp_path / "progress"
    progress.touch()
    job = Job("hangs", python("import time; time.sleep(60)"), 60, progress, idle=0.5)
    run_all([job], tmp_path, 1, Deadline(60))
    assert job.stopped == "nothing happened for 0 s" and job.took < 20


def test_a_deadline_starts_nothing_when_it_is_over(tmp_path):
    job = Job("late", python("print('here')"), 20)
    run_all([job], tmp_path, 1, Deadline(0.5))
    assert job.code is None and "no time left" in job.stopped


class FakeStream:
    """Takes note of what is done on it; a capture fails if it is told so."""

    def __init__(self, fails: bool) -> None:
        self.fails, self.done, self.now = fails, [], 0.0

    def begin_capture(self):
        self.done.append("begin")

    def end_capture(self):
        self.done.append("end")
        if self.fails:
            raise RuntimeError("cudaErrorStreamCaptureInvalidated: why\nmore")
        return SimpleNamespace(launch=lambda stream: self.pass_(6.0))

    def pass_(self, milliseconds):
        self.done.append("pass")
        self.now += milliseconds

    def synchronize(self):
        pass

    def record(self, event):
        event.time = self.now
        return event


def fake_timer(fails: bool) -> timing.CudaTimer:
    timer = object.__new__(timing.CudaTimer)
    timer.stream = FakeStream(fails)
    timer.cupy = SimpleNamespace(
        cuda=SimpleNamespace(
            Event=lambda: SimpleNamespace(time=0.0),
            get_elapsed_time=lambda a, b: b.time - a.time,
        )
    )
    return timer


def test_sides_are_replayed_in_turn():
    timer = fake_timer(fails=False)
    calls = [lambda: "result"] * 3
    side = timer.ours(calls)
    assert (side.how, side.calls) == ("graph", 3)
    assert side.kept[0] is calls and side.kept[1][1] == ["result"] * 3
    other = timing.Side(lambda: timer.stream.pass_(9.0), 3, "graph", lambda: None)
    mine, theirs = timer.compare([side, other], seconds=100)
    assert (mine.median, theirs.median) == (2000.0, 3000.0)  # us of one of three calls
    assert mine.samples == timing.SAMPLES
    assert timer.compare([side], seconds=1e-9)[0].samples == timing.FEWEST_SAMPLES


def test_what_pytorchs_calls_read_lives_as_long_as_their_graph():
    """Their inputs may be copies of their own, whose memory a graph reads without holding it."""
    timer = fake_timer(fails=False)
    graph = SimpleNamespace(replay=lambda: None)
    timer.torch = SimpleNamespace(
        cuda=SimpleNamespace(
            synchronize=lambda: None, CUDAGraph=lambda: graph, graph=lambda *a, **k: nullcontext()
        )
    )
    calls = [lambda: "result"] * 2
    side = timer.peer(calls)
    assert (side.how, side.launch) == ("graph", graph.replay)
    assert side.kept[0] is calls and side.kept[1:] == (graph, ["result"] * 2)


def test_a_capture_that_fails_becomes_a_loop():
    timer = fake_timer(fails=True)
    called = []
    side = timer.ours([lambda: called.append(1)] * 2)
    assert side.how == "loop"
    assert side.why == "RuntimeError: cudaErrorStreamCaptureInvalidated: why"
    called.clear()
    side.launch()
    assert called == [1, 1]
