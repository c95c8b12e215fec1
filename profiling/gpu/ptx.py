"""Run cases of tests/ptx_cases.py without pytest: ``python -m profiling.gpu.ptx NAME``.

One case a process, for an instruction that the GPU refuses takes the process's context with it, and
a barrier that never completes its time. The last line says what came of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tests.ptx_cases import CASES, runs_on
from tests.ptx_runners import EmulatorRunner, GpuRunner

from .parts import LEFT_OUT


def outcome(name: str, run: EmulatorRunner | GpuRunner) -> tuple[int, str]:
    """Return the exit status of a case, and a line about it."""
    if not runs_on(name, run.architecture):
        return LEFT_OUT, "this GPU has no such instruction"
    try:
        CASES[name][1](run)
    except OSError as error:  # no libcuda to make tensor maps with
        return LEFT_OUT, str(error)
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return 1, f"{type(error).__name__}: {' '.join(lines[:4])}"[:300]
    return 0, "passed"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m profiling.gpu.ptx", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="by default all cases")
    parser.add_argument("--emulated", action="store_true", help="in the emulator")
    options = parser.parse_args(arguments)
    run = EmulatorRunner("fast") if options.emulated else GpuRunner()
    outcomes = {name: outcome(name, run) for name in options.names or CASES}
    if len(outcomes) > 1:
        for name, (_, text) in outcomes.items():
            print(f"{name}: {text}")
        passed = sum(code == 0 for code, _ in outcomes.values())
        print(f"{passed} of {len(outcomes)} cases passed")
    else:
        print(*(text for _, text in outcomes.values()))
    return max(code for code, _ in outcomes.values())


if __name__ == "__main__":
    sys.exit(main())
