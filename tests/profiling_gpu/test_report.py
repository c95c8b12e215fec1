"""The results file, its page and its pictures."""

from __future__ import annotations

import json
import re
from math import prod
from pathlib import Path

from profiling.gpu import __main__ as command
from profiling.gpu import figures, floors, report
from profiling.results import Results, problems

from . import H200, SET


def synthetic(path: Path) -> Results:
    """A results file with groups, a slow row, a failed one and one that a peer lacks."""
    meta = {
        "gpu": "NVIDIA H200", "date": "2026-01-31", "commit": "1a2b3c4", "torch": "2.11",
        "measured": {"bandwidth": 4300.0, "bfloat16 mixed": 780.0, "float32 strict": 51.0},
        "tests": {
            "passed": 9, "failed": 1, "errors": 0, "skipped": 0, "stopped": [],
            "failures": ["tests.x::y: dx"],
        },
        "ptx": {"mma": "passed", "tma": "left out: no libcuda"},
        "sanitizer": {"memcheck": {"passed": True, "said": "ERROR SUMMARY: 0 errors", "ran": "9"}},
        "left_out": {"sanitize": "not installed"}, "left_out_rows": 7,
    }  # fmt: skip
    results = Results(path, meta)
    wanted = [case for case in SET[:90] if case.dtype != "float64"]
    for place, case in enumerate(wanted):
        floor = H200.floor_us(case)
        us = 2 * floor
        row = {
            "algorithm": "kernel", "peer": "torch channels_last", "ours_us": us, "ours_iqr_us": 0.1,
            "peer_us": us * (4.0 if place % 2 else 1.0), "peer_iqr_us": 0.1,
            "speedup": 4.0 if place % 2 else 1.0, "tflops": floors.flops(case) / us / 1e6,
            "gbps": floors.fewest_bytes(case) / us / 1e3, "floor_us": floor, "err_ours": 1e-6,
            "err_peer": 2e-6, "timing": "graph",
        }  # fmt: skip
        results.begin(case.row())
        if place == 3:
            results.end(error="ValueError: no")
        elif place == 4:
            results.end(**{**row, "speedup": 0.5})
        else:
            results.end(**row)
    return results


def test_rows_have_the_form_of_a_results_file(tmp_path):
    results = synthetic(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    assert set(content) == {"meta", "rows"} and len(content["rows"]) == len(results.rows)
    assert all(problems(row) == [] for row in content["rows"])
    assert not list(tmp_path.glob("*.partial"))
    for name in ("op", "set", "shape", "dtype", "math", "layout", "algorithm", "ours_us"):
        assert name in content["rows"][0]
    broken = {**content["rows"][0], "ours_us": "fast", "shape": None}
    del broken["peer"]
    assert problems(broken) == [
        "peer is missing", "ours_us is no number", "shape is no object",
    ]  # fmt: skip


def test_a_group_has_one_kind_one_operation_one_format(tmp_path):
    results = synthetic(tmp_path / "r.json")
    grouped = report.groups(results.rows)
    assert sum(map(len, grouped.values())) == len(results.rows)
    assert ("float32 strict", "depthwise", "conv_fprop", "torch") in grouped
    assert next(iter(grouped)) == ("float32 strict", "plain", "conv_fprop", "torch")
    assert len(report.counted(results.rows)) == len(results.rows) - 1


def test_the_page_says_what_the_file_holds(tmp_path):
    path = tmp_path / "r.json"
    results = synthetic(path)
    assert [file.name for file in report.write(path)] == [
        "r.json", "r.md", "r-roofline.png", "r-ratios.png",
    ]  # fmt: skip
    page = (tmp_path / "r.md").read_text()
    assert page.startswith("# NVIDIA H200, 2026-01-31, commit 1a2b3c4")
    assert "![](r-roofline.png)" in page
    failed, slow = results.rows[3], results.rows[4]
    assert f"- {report.title(failed)}: ValueError: no" in page
    assert f"| 0.50 | {report.title(slow)} | torch channels_last |" in page
    assert "## Below 0.9x: 1 of " in page
    assert "7 rows of the benchmark set" in page and "- sanitize: not installed" in page
    assert "9 passed, 1 failed" in page and "tests.x::y: dx" in page
    assert "tma: left out: no libcuda" in page and "1 of 2 cases passed" in page
    # rows at 1x and 4x: their geometric mean; twice the floor's time
    speedups = [row["speedup"] for row in results.rows if row["op"] == "max_pool"]
    assert set(speedups) == {1.0, 4.0}
    mean = prod(speedups) ** (1 / len(speedups))
    line = f"| max_pool, float32 strict | {len(speedups)} | {mean:.2f} | 1.00 | 4.00 |  | 50% |"
    assert line in page
    widths = {
        len(re.findall(r"(?<!\\)\|", line)) for line in page.splitlines() if line.startswith("|")
    }
    assert widths == {4, 8, 14}


def test_pictures_are_the_same_for_the_same_file(tmp_path):
    results = synthetic(tmp_path / "r.json")
    pictures = [
        [file.read_bytes() for file in figures.write(results, tmp_path / name)]
        for name in ("a.json", "b.json")
    ]
    assert pictures[0] == pictures[1] and all(len(p) > 10_000 for p in pictures[0])
    (tmp_path / "empty").mkdir()
    assert figures.write(Results(tmp_path / "none.json", results.meta), tmp_path / "empty/e") == []


def test_a_page_of_nothing(tmp_path):
    meta = {"gpu": "NVIDIA H200", "date": "2026-01-31", "commit": "1", "left_out": {"bench": "no"}}
    results = Results(tmp_path / "r.json", meta)
    results.save()
    report.write(tmp_path / "r.json")
    assert "- bench: no" in (tmp_path / "r.md").read_text()
    assert "0 rows, 0 failed" in command.closing(results)
