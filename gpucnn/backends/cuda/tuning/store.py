"""What the tuner keeps on disk: a JSON file for each problem, and the cubins of its plan.

<hash>.json      the problem and where it was measured, its plan in full, the candidates' times
<sha256>.cubin   called by its content, so that problems share it

The hash is over the problem, the GPU, its driver, the compiler and the kernels' sources: what was
measured under others is not found. A file gets its place in one step, the JSON after the cubins,
so any number of processes may read and write. What is damaged, foreign or names a plan that is no
longer a candidate counts as not there.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ....files import cache_folder, place
from ..algorithms import Plan, Problem
from ..plans import candidates


@dataclass(frozen=True)
class Entry:
    """What was measured of a problem.

    Attributes:
        plan: the fastest.
        times: microseconds of every candidate that ran.
        cubins: of the plan's kernels, by ``compiler.identity``.
        failures: why the other candidates did not run.
    """

    plan: Plan
    times: dict[Plan, float]
    cubins: dict[str, bytes]
    failures: dict[Plan, str] = field(default_factory=dict)


class Store:
    """The folder of entries, by default tuned/ in ``cache_folder()``."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / "tuned"

    def read(self, problem: Problem, environment: dict[str, str]) -> Entry | None:
        """Return a problem's entry, or None where there is none that can be used."""
        key = _key(problem, environment)
        plans = {_text(plan): plan for plan in candidates(problem)}

        def known(pairs: list) -> dict[Plan, Any]:
            return {plans[_text(plan)]: what for plan, what in pairs if _text(plan) in plans}

        try:
            content = json.loads(self._path(key).read_bytes())
            if content["key"] != key:
                return None
            return Entry(
                plans[_text(content["plan"])],
                {plan: float(us) for plan, us in known(content["times_us"]).items()},
                {name: self._cubin(digest) for name, digest in content["cubins"].items()},
                known(content["failures"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, problem: Problem, environment: dict[str, str], entry: Entry) -> None:
        """Keep an entry in place of the one that is there.

        Raises:
            OSError: the folder cannot be written.
        """
        key = _key(problem, environment)
        self.folder.mkdir(parents=True, exist_ok=True)
        digests = {name: _sha256(cubin) for name, cubin in entry.cubins.items()}
        for name, cubin in entry.cubins.items():
            place(self._cubin_path(digests[name]), cubin)
        content = {
            "key": key,
            "plan": _plain(entry.plan),
            "cubins": digests,
            "times_us": [[_plain(plan), us] for plan, us in entry.times.items()],
            "failures": [[_plain(plan), why] for plan, why in entry.failures.items()],
        }
        place(self._path(key), json.dumps(content, indent=1).encode())

    def _path(self, key: dict[str, Any]) -> Path:
        return self.folder / f"{_sha256(_text(key).encode())[:32]}.json"

    def _cubin_path(self, digest: str) -> Path:
        return self.folder / f"{digest}.cubin"

    def _cubin(self, digest: str) -> bytes:
        cubin = self._cubin_path(digest).read_bytes()
        if _sha256(cubin) != digest:
            raise ValueError(f"{digest}.cubin is damaged")
        return cubin


def _key(problem: Problem, environment: dict[str, str]) -> dict[str, Any]:
    return {"problem": _plain(problem), **environment}


def _plain(record: Any) -> Any:
    """Return a record as JSON has it: dicts, lists, numbers and strings."""
    return json.loads(json.dumps(asdict(record)))


def _text(value: Any) -> str:
    """Return a record or what ``_plain`` made of it as text, the same for equal ones."""
    return json.dumps(value if isinstance(value, dict) else asdict(value), sort_keys=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
