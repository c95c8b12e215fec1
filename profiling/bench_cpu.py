"""The CPU benchmark: ``python profiling/bench_cpu.py`` is ``python -m profiling.cpu``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # this checkout, in place of profiling/
    from profiling.cpu.__main__ import main

    sys.exit(main())
