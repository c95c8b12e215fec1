"""Processes with time limits: none outlives its own, and all end when the time is up."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# many processes share the cores
ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
DEVICE_LOST = 3  # the exit status of a program whose GPU is lost to it: it may be started again
LOST = "the GPU no longer answers this process"
GRACE = 8.0  # seconds from asking a process to end to ending it


def _hear_interrupts() -> None:
    """Heed Ctrl-C: a shell makes what it starts in the background, and its children, deaf to it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Deadline:
    """Counts down from some seconds.

    >>> now = 5.0
    >>> deadline = Deadline(10, clock=lambda: now)
    >>> now = 9.0
    >>> deadline.left(), deadline.within(4), deadline.within(30)
    (6.0, 4, 6.0)
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.end = clock, clock() + seconds

    def left(self) -> float:
        return max(0.0, self.end - self.clock())

    def within(self, seconds: float) -> float:
        """Return these seconds, or what is left if that is less."""
        return min(seconds, self.left())


@dataclass
class Job:
    """A command, run in a process group of its own with its output in a file.

    Attributes:
        name: what the log is called.
        command: program and arguments.
        seconds: its time limit.
        progress: a file that it keeps writing; if it has not for ``idle`` seconds, the job hangs.
        code: the exit status, once it has ended: negative for a signal.
        stopped: why it was ended from here, "" if it was not.
        took: seconds.
    """

    name: str
    command: Sequence[str]
    seconds: float
    progress: Path | None = None
    idle: float = 120.0
    code: int | None = None
    stopped: str = ""
    took: float = 0.0
    log: Path | None = None
    _process: subprocess.Popen | None = field(default=None, repr=False)
    _began: float = 0.0
    _asked: float = 0.0

    def start(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.log = logs / f"{self.name}.log"
        self._began = time.monotonic()
        _hear_interrupts()
        with self.log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    self.command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log,
                    stderr=subprocess.STDOUT, start_new_session=True, env=ENVIRONMENT,
                )  # fmt: skip
            except OSError as error:
                log.write(f"{error}\n".encode())
                self.code, self.stopped = 127, f"cannot be started: {error}"

    def poll(self) -> bool:
        """Return whether the job has ended; ask it to end, then end it, when it is over time."""
        if self.code is not None:
            return True
        self.took = time.monotonic() - self._began
        self.code = self._process.poll()
        if self.code is not None:
            self.kill()  # what it may have left behind
            return True
        if not self.stopped:
            reason = self._overtime()
            if reason:
                self.stop(reason)
        elif time.monotonic() - self._asked > GRACE:
            self.kill()
        return False

    def stop(self, reason: str) -> None:
        """Ask the job to end, as Ctrl-C does, so that it can write what it has."""
        self.stopped, self._asked = reason, time.monotonic()
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def tail(self, lines: int = 15) -> str:
        if self.log is None or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])

    def _overtime(self) -> str:
        if self.took > self.seconds:
            return f"its time was up after {self.seconds:.0f} s"
        if self.progress and self.progress.exists():
            still = min(self.took, time.time() - self.progress.stat().st_mtime)
            if still > self.idle:
                return f"nothing happened for {self.idle:.0f} s"
        return ""

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def run_all(
    jobs: Sequence[Job], logs: Path, at_once: int, deadline: Deadline, pause: float = 0.05
) -> None:
    """Run jobs in order, so many at once, to their ends or the deadline.

    A job that the deadline does not let start keeps ``code`` None and says so in ``stopped``.
    """
    waiting, running = list(jobs), []
    try:
        while waiting or running:
            running = [job for job in running if not job.poll()]
            while waiting and len(running) < at_once and deadline.left() > 1:
                job = waiting.pop(0)
                job.seconds = deadline.within(job.seconds)
                job.start(logs)
                running.append(job)
            if waiting and deadline.left() <= 1:
                for job in waiting:
                    job.stopped = "there was no time left for it"
                waiting = []
            time.sleep(pause)
    finally:
        for job in running:
            job.kill()
