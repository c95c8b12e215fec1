"""How busy other programs keep the cores, by Linux's own accounts in /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

TICKS = 2  # of the kernel's clock, by which an account may be late
PAUSE = 0.003  # seconds between two looks at whether a process sleeps
MOST_PAUSES = 40


class Load:
    """Watches the cores from ``mark`` to ``foreign``.

    Args:
        pids: returns the processes of the benchmark, whose time is not foreign.
        proc: where the accounts lie; where there are none, the load is not known.
        clock, sleep: in place of the real ones, in tests.
    """

    def __init__(
        self, pids: Callable[[], Iterable[int]], proc: Path = Path("/proc"),
        clock: Callable[[], float] = time.perf_counter, sleep: Callable[[float], Any] = time.sleep,
    ) -> None:  # fmt: skip
        self.pids, self.proc, self.clock, self.sleep = pids, proc, clock, sleep
        self.tick = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01
        self.cores = os.cpu_count() or 1
        self.known = (proc / "stat").exists()
        self._marked = (0.0, 0.0, 0.0)

    def rest(self) -> None:
        """Wait until our processes sleep: threads of most libraries spin a while for more work."""
        for _ in range(MOST_PAUSES if self.known else 1):
            self.sleep(PAUSE)
            if not any(map(self._runs, self.pids())):
                return

    def mark(self) -> None:
        self._marked = self._now()

    def foreign(self) -> float | None:
        """Return the share of all cores' time that others had since the mark; None: not known."""
        if not self.known:
            return None
        seconds, busy, own = (
            now - then for now, then in zip(self._now(), self._marked, strict=True)
        )
        late = TICKS * self.tick
        return max(0.0, busy - own - late) / (seconds * self.cores) if seconds > 0 else 0.0

    def _now(self) -> tuple[float, float, float]:
        """Return the clock, the seconds of all processes, and those of ours."""
        if not self.known:
            return 0.0, 0.0, 0.0
        # user nice system idle iowait irq softirq steal: man 5 proc_stat
        fields = list(map(int, (self.proc / "stat").read_text().split(maxsplit=9)[1:9]))
        busy = sum(fields) - fields[3] - fields[4]
        return self.clock(), busy * self.tick, sum(map(self._of, self.pids())) * self.tick

    def _of(self, pid: int) -> int:
        """Return the ticks of a process and its threads; none of one that has ended."""
        try:
            stat = (self.proc / str(pid) / "stat").read_text()
        except OSError:
            return 0
        user, system = stat.rpartition(")")[2].split()[11:13]  # its name may hold anything
        return int(user) + int(system)

    def _runs(self, pid: int) -> bool:
        """Return whether a thread of another process of ours runs."""
        if pid == os.getpid():
            return False
        try:
            stats = [file.read_text() for file in (self.proc / str(pid)).glob("task/*/stat")]
        except OSError:  # a thread has ended meanwhile
            return True
        return any(stat.rpartition(")")[2].split()[0] == "R" for stat in stats)
