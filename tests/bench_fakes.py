"""What the CPU benchmark's tests have in place of processes, a busy machine and other libraries."""

from __future__ import annotations

from typing import Any

from gpucnn.bench.cases import Case
from gpucnn.bench.rows import OWN_CHOICE
from gpucnn.bench.runs import HASWELL, Plan

TINY = Case("conv_fprop", "3x3", "tiny", 1, 4, 6, 8, 3, 1, 1)
STEP = Case("training_step", "lenet5", "lenet5", 64)


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
