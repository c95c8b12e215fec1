"""The training that is run here and in PyTorch side by side."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from gpucnn import use_backend
from profiling.cpu import fashion


@pytest.fixture(autouse=True)
def numpy_and_as_many_threads():
    before = torch.get_num_threads()
    with use_backend("numpy"):
        yield
    torch.set_num_threads(before)


def test_both_sides_learn_the_same():
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((8, 28, 28, 1), np.float32), rng.integers(0, 10, 8)
    sides = fashion.gpucnn_side(), fashion.torch_side(1)
    answers = []
    for learn, predict in sides:
        for _ in range(3):
            learn(x, labels)
        learn(x[:3], labels[:3])  # a last batch may be smaller
        answers.append(predict(x))
    np.testing.assert_allclose(*answers, rtol=0.02, atol=0.02)
    assert np.ptp(answers[0]) > 0.1


CHILD = """
import sys
print("ready", flush=True)
for line in sys.stdin:
    print([{seconds} + int(line), 0.5], flush=True)
"""


def test_a_row_has_every_epoch(monkeypatch, tmp_path, capsys):
    def start(side, options):
        text = CHILD.format(seconds={"gpucnn": 1, "torch": 3}[side])
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, "-c", text], **pipes)

    monkeypatch.setattr(fashion, "start", start)
    fashion.main(["--epochs", "3", "--out", str(tmp_path), "--commit", "abc"])
    (path,) = tmp_path.glob("fashion-*-abc.json")
    (row,) = json.loads(path.read_text())["rows"]
    assert (row["ours_us"], row["peer_us"], row["speedup"]) == (2e6, 4e6, 2.0)
    assert row["epochs"] == {
        "gpucnn": [[s, 0.5] for s in (1, 2, 3)],
        "torch": [[s, 0.5] for s in (3, 4, 5)],
    }
    assert "0.50 of PyTorch's 4.00 s" in capsys.readouterr().out


def test_a_side_that_does_not_start_is_an_error(monkeypatch, tmp_path):
    command = [sys.executable, "-c", "raise SystemExit(1)"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    monkeypatch.setattr(fashion, "start", lambda *_: subprocess.Popen(command, **pipes))
    with pytest.raises(RuntimeError, match="a side did not start"):
        fashion.main(["--out", str(tmp_path), "--commit", "abc"])
    assert not list(tmp_path.iterdir())
