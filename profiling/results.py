"""The one form of a results file, {"meta": {...}, "rows": [{...}, ...]}, for every benchmark here.

A row says what was measured ("op", "set", "layer", "shape", "dtype", "math", "layout"), how
("algorithm", the kernels that ran; "peer", what they are held against), and what came out, times in
microseconds; ``NUMBERS`` lists those columns. A number that is not known is null. A row with
"error" counts in no mean: something in it failed, and the text says what.

The file is written whole and atomically before and after each row, so that a run that is killed
keeps what it has and the row in which it died is known.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]

NAMES = ("op", "set", "layer", "dtype", "math", "layout", "algorithm", "peer")
COLUMNS = ("op", "set", "layer", "shape", *NAMES[3:])  # as a row begins
NUMBERS = (
    "ours_us", "ours_iqr_us", "peer_us", "peer_iqr_us", "speedup", "tflops", "gbps", "floor_us",
    "err_ours", "err_peer",
)  # fmt: skip
UNFINISHED = "the process ended, or was ended, in this row"


class Results:
    """A results file that grows row by row.

    Args:
        path: the file; one that is there is continued.
        meta: what describes the whole run; added to that of a continued file.
    """

    def __init__(self, path: Path, meta: Row | None = None) -> None:
        self.path = path
        content = json.loads(path.read_text("utf-8")) if path.exists() else {"meta": {}, "rows": []}
        self.meta: Row = content["meta"] | (meta or {})
        self.rows: list[Row] = content["rows"]

    def begin(self, row: Row) -> None:
        """Append a row that is about to be measured; it stays as an error unless ``end`` comes."""
        blank = dict.fromkeys((*COLUMNS, *NUMBERS))
        self.rows.append({**blank, **row, "error": UNFINISHED})
        self.save()

    def end(self, **measured: Any) -> None:
        """Complete the row that was begun; ``error`` among the values says that it failed."""
        row = self.rows[-1]
        del row["error"]
        row.update(measured)
        self.save()

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(dumps(self.meta, self.rows), "utf-8")
        os.replace(partial, self.path)


def dumps(meta: Row, rows: Iterable[Row]) -> str:
    """Return the file's text, a row a line.

    >>> print(dumps({"gpu": "none"}, [{"op": "relu", "ours_us": 1.23456789, "gbps": math.inf}]))
    {"meta": {
      "gpu": "none"
    },
    "rows": [
    {"op": "relu", "ours_us": 1.23457, "gbps": null}
    ]}
    <BLANKLINE>
    """
    head = json.dumps(_plain(meta), indent=2, allow_nan=False)
    lines = ",\n".join(json.dumps(_plain(row), allow_nan=False) for row in rows)
    return f'{{"meta": {head},\n"rows": [\n{lines}\n]}}\n'


def _plain(value: Any) -> Any:
    """Return what JSON can hold: floats to six digits, those that are not finite as None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def problems(row: Row) -> list[str]:
    """Return what is wrong with a row's form; nothing for one that is right."""
    found = [f"{key} is missing" for key in (*COLUMNS, *NUMBERS) if key not in row]
    found += [f"{key} is no text" for key in NAMES[:6] if not isinstance(row.get(key), str)]
    found += [
        f"{key} is no number"
        for key in NUMBERS
        if row.get(key) is not None and not isinstance(row[key], (int, float))
    ]
    if not isinstance(row.get("shape"), dict):
        found.append("shape is no object")
    if "error" not in row and row.get("ours_us") is None:
        found.append("neither a time nor an error")
    return found


def geomean(values: Iterable[float]) -> float:
    """Return the geometric mean.

    >>> geomean([0.5, 2.0, 8.0])
    2.0
    """
    values = list(values)
    return math.exp(math.fsum(map(math.log, values)) / len(values))
