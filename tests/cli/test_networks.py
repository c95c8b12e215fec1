"""What is said of a network by its name: ``summary``, ``plan`` and ``profile``."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gpucnn.cli import app
from gpucnn.cli.console import console
from gpucnn.profiler.floors import Peaks

from . import run


def test_summary(newest):
    assert "Sequential 'digits_cnn'" in run("summary")
    assert run("summary") == run("summary", newest)
    output = run("summary", "vgg_small", "--input", "48,64,3", "--classes", 7)
    assert "(None, 24, 32, 32)" in output
    assert "(None, 7)" in output
    assert "61,932" in run("summary", "lenet5")


def test_plan():
    output = run("plan", "lenet5", "--batch-size", 16)
    kept = r"batch_norm\+re_lu\+max_pool2d +uint8\s16x14x14x6, float32\s16x28x28x6"
    assert re.search(kept, output)
    assert re.search(r"arena +[\d.]+ KiB for \d+ arrays of [\d.]+ MiB in all", output)
    assert re.search(r"weights +241\.9 KiB", output)


@pytest.fixture
def known_peaks(monkeypatch) -> None:
    monkeypatch.setattr("gpucnn.profiler.floors.measure", lambda *_: Peaks(1234.0, 56.0))


def test_a_profile_by_layer(known_peaks, folder):
    output = run("profile", "digits_cnn", "--data", "digits", "--steps", 2)
    row = r"conv2d_1 +\(32, 8, 8, 32\) +[\d.,]+ +[\d.,]+ +[\d.]+% +9.44 M .* arithmetic"
    assert re.search(row, output)
    assert re.search(r"between layers +[\d.,]+ +[\d.]+%", output)
    assert re.search(r"step +[\d.,]+ +100.0%", output)
    assert re.search(r"network +digits_cnn, input 32x8x8x1 float32", output)
    assert re.search(r"backend +numpy", output)
    assert re.search(r"step +2 measured, [\d.]+ to [\d.]+ ms, median [\d.]+", output)
    assert "1,234 GFLOP/s of a matrix product, 56 GB/s of a copy" in output
    assert re.search(r"files +profile/digits_cnn: profile.json, profile.png", output)
    numbers = json.loads((folder / "profile" / "digits_cnn" / "profile.json").read_text())
    assert [row["path"] for row in numbers["rows"]][:2] == [
        "conv2d+batch_norm+re_lu", "conv2d_1",
    ]  # fmt: skip
    with Image.open(folder / "profile" / "digits_cnn" / "profile.png") as picture:
        assert np.asarray(picture).std() > 1


def test_a_profile_of_answers_of_a_trained_network(known_peaks, newest, folder):
    output = run("profile", newest, "--inference", "--steps", 1, "--batch-size", 4, "--out", "here")
    assert re.search(r"conv2d\+batch_norm\+re_lu +\(4, 8, 8, 16\) ", output)
    assert "optimizer" not in output
    assert {path.name for path in (folder / "here").iterdir()} == {"profile.json", "profile.png"}


def test_a_profile_is_not_cut_by_a_narrow_terminal(known_peaks, monkeypatch):
    wide = run("profile", "digits_cnn", "--steps", 1, "--batch-size", 2)
    monkeypatch.setattr(console, "_width", 40)
    narrow = CliRunner().invoke(app, ["profile", "digits_cnn", "--steps", "1"]).output
    assert "batch_norm+re_lu" in wide
    assert re.search(r"batch_norm\+re_lu +\(32, 8, 8, 16\) .* memory", narrow)
