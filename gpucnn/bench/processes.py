"""Workers as the benchmark sees them: started, asked, and started again when they have ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from ..backends.numpy.workers import VARIABLES as THREAD_VARIABLES

PATIENCE = 300.0  # seconds for an answer
MOST_STARTS = 5  # of one worker
CORE_VARIABLE = "OPENBLAS_CORETYPE"


class WorkerDied(RuntimeError):
    """A worker's process ended, or did not answer; the text says how."""


class Refused(RuntimeError):
    """A worker could not do what it was asked, and goes on."""


def environment(threads: int, core: str | None) -> dict[str, str]:
    """Return a worker's environment: gpucnn's NumPy backend, threads, OpenBLAS's core.

    ``core`` is the name of one, None for OpenBLAS's own choice.
    """
    package = str(Path(__file__).resolve().parents[2])
    numbers = ("GPUCNN_NUM_THREADS", *THREAD_VARIABLES)
    found = {
        **os.environ,
        **dict.fromkeys(numbers, str(threads)),
        "GPUCNN_BACKEND": "numpy",
        "JAX_PLATFORMS": "cpu",
        # the same gpucnn as here, wherever it was imported from
        "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH")))),
    }
    found.pop(CORE_VARIABLE, None)
    return found if core is None else {**found, CORE_VARIABLE: core}


class Worker:
    """A process that answers requests, started when it is first asked.

    Args:
        side: "gpucnn", "torch" or "jax".
        threads: that it computes with.
        core: OpenBLAS's, see ``environment``.
        command: what to run instead, in tests.
    """

    def __init__(
        self, side: str, threads: int, core: str | None = None,
        command: Sequence[str] | None = None, patience: float = PATIENCE,
    ) -> None:  # fmt: skip
        self.side, self.patience = side, patience
        self.command = command or [
            sys.executable, "-m", f"{__package__}.worker", side, str(threads)
        ]  # fmt: skip
        self.environment = environment(threads, core)
        self.starts = 0
        self._process: subprocess.Popen | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            WorkerDied: the process ended or hangs; the next request finds a new one.
            Refused: the library could not do it.
        """
        if self._process is None:
            self._start()
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=self.patience)
        except BrokenPipeError:
            line = ""
        except Empty:
            self._end(kill=True)
            raise WorkerDied(
                f"the {self.side} worker did not answer for {self.patience:.0f} s"
            ) from None
        if not line:
            raise WorkerDied(f"the {self.side} worker ended by {self._end()}")
        answer = json.loads(line)
        if "failed" in answer:
            raise Refused(answer["failed"])
        return answer

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._end(kill=True)

    def _start(self) -> None:
        if self.starts == MOST_STARTS:
            raise WorkerDied(f"the {self.side} worker ended {MOST_STARTS} times, and is left out")
        self.starts += 1
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _end
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            env=self.environment, encoding="utf-8",
        )  # fmt: skip
        self._answers: Queue[str] = Queue()
        arguments = self._process, self._answers
        self._reader = threading.Thread(target=self._read, args=arguments, daemon=True)
        self._reader.start()

    @staticmethod
    def _read(process: subprocess.Popen, answers: Queue[str]) -> None:
        for line in process.stdout:
            answers.put(line)
        answers.put("")  # it has ended

    def _end(self, kill: bool = False) -> str:
        """Collect what is left of the process; return its exit status and its last words."""
        process, self._process = self._process, None
        if kill:
            process.kill()
        code = process.wait()
        self._reader.join()
        process.stdout.close()
        with suppress(BrokenPipeError):  # a request that nobody read
            process.stdin.close()
        self._log.seek(0)
        words = self._log.read().decode(errors="replace").strip().splitlines()
        self._log.close()
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return f"{how}: {words[-1]}" if words else how
