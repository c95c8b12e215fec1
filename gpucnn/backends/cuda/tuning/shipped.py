"""Plans that come with the package: the fastest of the benchmark's convolutions, by the GPU's name.

A file for each GPU, shipped/nvidia-h200.json say, which ``python -m profiling.plans`` makes of the
results of a tuned benchmark, {"meta": {...}, "rows": [{"problem": ..., "plan": ..., "gain": ...}]},
of the plans that beat the estimate's choice. Of a problem it has what is not the default, so that
it means the same when problems have learned to ask for more; a plan that is no longer a candidate
counts as not there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

from .. import plans as estimated
from ..algorithms import Plan, Problem
from .store import Entry

FOLDER = Path(__file__).parent / "shipped"
GAIN = 0.98  # of the time of the estimate's choice, at most: less is noise


def file_name(gpu: str) -> str:
    """Return a GPU's file.

    >>> file_name("NVIDIA H200")
    'nvidia-h200.json'
    """
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-") + ".json"


def find(problem: Problem, gpu: str) -> Plan | None:
    """Return the plan that comes with the package for a problem on a GPU, if there is one."""
    wanted = _read(FOLDER / file_name(gpu)).get(_text(_asked(problem)))
    if wanted is None:
        return None
    return next((p for p in estimated.candidates(problem) if _text(asdict(p)) == wanted), None)


def worth_shipping(entries: Mapping[Problem, Entry]) -> list[dict[str, Any]]:
    """Return of what was measured the plans that beat the estimate's choice, as a file has them."""
    rows = []
    for problem, entry in entries.items():
        times, chosen = entry.times, estimated.choose(problem)
        if chosen in times and times[entry.plan] < GAIN * times[chosen]:
            row = {"problem": _asked(problem), "plan": asdict(entry.plan)}
            rows.append(row | {"gain": round(times[chosen] / times[entry.plan], 3)})
    return rows


@cache
def _read(path: Path) -> dict[str, str]:
    """Return a file's plans by the problem, both as text."""
    if not path.exists():
        return {}
    rows = json.loads(path.read_text())["rows"]
    return {_text(row["problem"]): _text(row["plan"]) for row in rows}


def _asked(problem: Problem) -> dict[str, Any]:
    """Return what a problem has that is not the default."""
    defaults = {f.name: f.default for f in fields(Problem) if f.default is not MISSING}
    record = asdict(problem)
    return {k: v for k, v in record.items() if k not in defaults or v != defaults[k]}


def _text(record: dict[str, Any]) -> str:
    return json.dumps(record, sort_keys=True)
