"""``gpucnn train``: what a run leaves, and how it is resumed."""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpucnn
from gpucnn import epochs
from gpucnn.cli.runs import Settings, read_begin
from gpucnn.trainer import Trainer

from . import PICTURES, run


@pytest.mark.slow
def test_training_as_it_stands_reads_digits(folder):
    output = run("train")
    accuracy = re.search(r"test accuracy\s+([\d.]+) %", output)
    assert float(accuracy[1]) >= 98.0
    for name in PICTURES:
        with Image.open(folder / "runs" / "digits" / name) as picture:
            assert np.asarray(picture).std() > 1
    label = gpucnn.data.load("digits").test.labels[0]
    assert re.search(rf"example.png +{label}  [\d.]+ %", run("predict", "runs/digits/example.png"))


def test_a_run_leaves_its_files(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"run.json", "last.json", "history.csv", *PICTURES} <= names
    with (trained / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert 0 < float(rows[1]["val_accuracy"]) <= 1


def test_the_end_of_a_training_says_what_to_do_next(colours):
    output = run("train", "--data", colours, "--epochs", 1)
    assert "48 training and 12 test images of 12x9x3, 3 classes" in output
    assert "digits_cnn on colours" in output
    assert re.search(r"files +runs/colours: last.json, history.csv, learning_curve.png", output)
    assert re.search(r"next +gpucnn predict runs/colours/example.png", output)


def test_images_of_five_channels_leave_no_example(folder):
    images = np.random.default_rng(0).integers(0, 256, (20, 9, 8, 5), dtype=np.uint8)
    np.savez(folder / "bands.npz", images=images, labels=np.arange(20) % 2)
    output = run("train", "--data", "bands.npz", "--epochs", 1)
    assert "overview.png" in output
    assert "example.png" not in output
    assert re.search(r"next +gpucnn evaluate runs/bands", output)


def test_without_matplotlib_the_training_says_how_to_get_pictures(colours, folder, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("gpucnn.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(gpucnn, "plots", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    output = run("train", "--data", colours, "--epochs", 1)
    assert 'pip install "gpucnn[plots]"' in output
    assert "next" in output
    assert not list(folder.rglob("*.png"))
    assert (folder / "runs" / "colours" / "last.json").is_file()
    assert 'pip install "gpucnn[plots]"' in run("evaluate")
    assert 'pip install "gpucnn[plots]"' in run("filters", code=2)


def test_the_same_seed_gives_the_same_network(undrawn, colours):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("train", "--data", colours, "--epochs", 1, "--seed", seed, "--out", name)
    a, b, c = (gpucnn.load(name).state_dict()["dense/kernel"] for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_a_run_that_was_interrupted_is_resumed_to_the_same_end(undrawn, colours, monkeypatch):
    options = ("--data", colours, "--epochs", 3, "--batch-size", 16, "--augment")
    run("train", *options, "--out", "whole")

    def interrupt(trainer: Trainer, epoch: int, *arguments: object) -> dict[str, float]:
        if epoch == 2:
            raise KeyboardInterrupt
        return original(trainer, epoch, *arguments)

    original = epochs._epoch
    with monkeypatch.context() as patch:
        patch.setattr(epochs, "_epoch", interrupt)
        output = run("train", *options, "--out", "runs/parts", code=130)
    assert "gpucnn train --resume --out runs/parts" in output
    output = run("train", "--resume", "--data", colours.name)
    assert "epoch 1/3" not in output
    whole, parts = (gpucnn.load(name).state_dict() for name in ("whole", "runs/parts"))
    assert list(whole) == list(parts)
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)


def test_a_run_is_never_overwritten(undrawn, colours, folder):
    options = ("--data", colours, "--epochs", 1)
    run("train", *options)
    run("train", *options)
    assert {path.name for path in (folder / "runs").iterdir()} == {"colours", "colours-2"}
    assert "give another --out" in run("train", *options, "--out", "runs/colours", code=2)


def test_a_run_that_failed_before_its_first_checkpoint_is_begun_anew(undrawn, colours):
    options = ("--data", colours, "--epochs", 1, "--out", "first")
    message = run("train", *options, "--learning-rate", 1e30, code=2)
    assert "the loss" in message
    assert "test accuracy" in run("train", *options)
    settings, _ = read_begin(Path("first"))
    assert settings.learning_rate < 1
    assert "give another --out" in run("train", *options, code=2)


def test_a_run_is_resumed_as_it_was_begun(undrawn, newest):
    message = run("train", "--resume", "--epochs", 9, "--seed", 0, code=2)
    assert "leave out --epochs, or start anew" in message
    assert "test accuracy" in run("train", "--resume", "--out", newest, "--seed", 0)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_optimizers_and_dtypes(undrawn, colours, optimizer, dtype):
    output = run(
        "train", "--data", colours, "--epochs", 6, "--dtype", dtype, "--optimizer", optimizer,
        "--validation", 0, "--learning-rate", 0.01, "--model", "digits_cnn",
    )  # fmt: skip
    assert "val_accuracy" not in output
    assert gpucnn.load("runs/colours").dtype == dtype
    assert float(re.search(r"test accuracy\s+([\d.]+) %", output)[1]) > 60


def test_a_folder_of_pictures(undrawn, folder):
    rng = np.random.default_rng(0)
    for label, level in (("dark", 20), ("[light]", 200)):
        (folder / "paper" / label).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(level, level + 50, (9 + number, 14, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "paper" / label / f"{number}.png")
    assert "give size" in run("train", "--data", "paper", code=2)
    output = run("train", "--data", "paper", "--size", 10, "--grey", "--epochs", 4)
    assert "images of 10x10x1, 2 classes" in output
    output = run("predict", "paper/[light]/3.png", "paper/dark/4.png")
    assert re.search(r"\[light\]/3.png +\[light\]", output)
    assert re.search(r"dark/4.png +dark", output)


def test_settings_survive_json(trained):
    values = json.loads((trained / "run.json").read_text())["settings"]
    settings = Settings(**values)
    assert (settings.data, settings.epochs, settings.batch_size) == ("digits", 2, 64)
    assert settings.augment
