"""How busy other programs keep the cores, by Linux's own accounts in /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

TICKS = 2  # of the kernel's clock, by which an account may be late


class Load:
    """Watches the cores from ``mark`` to ``foreign``.

    Args:
        pids: returns the processes of the benchmark, whose time is not foreign.
        proc: where the accounts lie; where there are none, the load is not known.
    """

    def __init__(
        self, pids: Callable[[], Iterable[int]], proc: Path = Path("/proc"),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        self.pids, self.proc, self.clock = pids, proc, clock
        self.tick = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01
        self.cores = os.cpu_count() or 1
        self.known = (proc / "stat").exists()
        self._marked = (0.0, 0.0, 0.0)

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
