"""Plans that come with the package: made of a benchmark's results, and found by the GPU's name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gpucnn.backends.cuda import plans as estimated
from gpucnn.backends.cuda.algorithms import Plan, Problem
from gpucnn.backends.cuda.tuning import shipped
from gpucnn.backends.cuda.tuning.tuner import CANDIDATES
from gpucnn.shapes import ConvShape
from profiling import plans as command
from profiling.results import Results

from .tuning import FakeLauncher, FakeTimer, fake_backend, fake_tuner

PROBLEM = Problem(
    "fprop", ConvShape.of((1, 6, 5, 16), (16, 3, 3, 16), padding=1), "float32", "relu"
)
WANTED = estimated.shortlist(PROBLEM, CANDIDATES)[-1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "shipped")
    shipped._read.cache_clear()
    return shipped.FOLDER


def results_of(tmp_path: Path, *problems: Problem, wanted_us: float = 3.0) -> Results:
    """The file of a tuned run on a GPU where ``WANTED`` takes so long, and all others 4."""
    tuner = fake_tuner(
        fake_backend(tmp_path / "there"),
        FakeTimer(lambda plan: wanted_us if plan == WANTED else 4.0),
    )
    meta = {"gpu": "Fake H1", "driver": "1", "commit": "abc", "date": "2026-11-21", "torch": "2"}
    results = Results(tmp_path / "results.json", meta)
    for problem in problems:
        results.begin({"op": "conv_fprop"})
        results.end(plans=shipped.worth_shipping({problem: tuner.tune(problem)}))
    return results


def chosen(tmp_path: Path, problem: Problem = PROBLEM, gpu: str = "Fake H1") -> Plan:
    """What a process chooses that has tuned nothing itself."""
    return fake_backend(tmp_path / "here", FakeLauncher(gpu=gpu)).plans.choose(problem)


def test_from_a_tuned_run_to_another_process(tmp_path, folder, capsys) -> None:
    other = replace(PROBLEM, activation="linear", direction="dgrad")
    results = results_of(tmp_path, PROBLEM, other, PROBLEM)  # of other, no plan is the wanted one
    assert estimated.choose(PROBLEM) != WANTED
    assert chosen(tmp_path) == estimated.choose(PROBLEM)
    shipped._read.cache_clear()
    command.main([str(results.path), "--folder", str(folder)])
    assert capsys.readouterr().out == f"{folder / 'fake-h1.json'}: 1 plans\n"
    content = json.loads((folder / "fake-h1.json").read_text())
    assert content["meta"] == {k: results.meta[k] for k in command.META}
    assert [row["gain"] for row in content["rows"]] == [1.333]
    assert chosen(tmp_path) == WANTED
    assert chosen(tmp_path, other) == estimated.choose(other)
    assert chosen(tmp_path, gpu="Fake H2") == estimated.choose(PROBLEM)


def test_what_was_measured_here_prevails(tmp_path, folder) -> None:
    results = results_of(tmp_path, PROBLEM)
    command.main([str(results.path), "--folder", str(folder)])
    here, own = fake_backend(tmp_path / "here"), estimated.shortlist(PROBLEM, CANDIDATES)[1]
    fake_tuner(here, FakeTimer(lambda plan: 1.0 if plan == own else 2.0)).tune(PROBLEM)
    assert here.plans.choose(PROBLEM) == own != WANTED


def test_a_gain_within_the_noise_is_not_shipped(tmp_path) -> None:
    (row,) = results_of(tmp_path, PROBLEM, wanted_us=3.95).rows
    assert row["plans"] == []


def test_problems_may_learn_to_ask_for_more(tmp_path, folder) -> None:
    """A file has nothing of what a problem does not ask for; and a plan may be one no more."""
    results = results_of(tmp_path, PROBLEM)
    command.main([str(results.path), "--folder", str(folder)])
    path = folder / "fake-h1.json"
    content = json.loads(path.read_text())
    (row,) = content["rows"]
    assert set(row["problem"]) == {"direction", "shape", "dtype", "activation"}
    row["plan"]["threads"] += 32
    path.write_text(json.dumps(content))
    shipped._read.cache_clear()
    assert chosen(tmp_path) == estimated.choose(PROBLEM)


def test_only_a_tuned_run_has_plans(tmp_path) -> None:
    results = Results(tmp_path / "results.json", {"gpu": "Fake H1"})
    results.begin({"op": "conv_fprop"})
    results.end(ours_us=1.0)
    with pytest.raises(ValueError, match=r"measure with --tune\. Received: 1 rows"):
        command.main([str(results.path), "--folder", str(tmp_path)])
    assert not [*tmp_path.glob("fake*")]


def test_the_packages_own_plans_are_candidates() -> None:
    for path in shipped.FOLDER.glob("*.json"):
        content = json.loads(path.read_text())
        assert path.name == shipped.file_name(content["meta"]["gpu"])
        for row in content["rows"]:
            asked = {**row["problem"], "shape": ConvShape(**_tuples(row["problem"]["shape"]))}
            assert shipped.find(Problem(**asked), content["meta"]["gpu"]) is not None, row


def _tuples(value):
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
