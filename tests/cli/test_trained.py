"""What becomes of a trained network: ``evaluate``, ``predict``, ``export`` and ``filters``."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import gpucnn
from gpucnn import models
from gpucnn.cli.runs import Trained
from gpucnn.filters import apply_filter

from . import run


def accuracy_by_hand(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted and the true test labels of the digits."""
    test = gpucnn.data.load("digits").test
    info = json.loads((path / "last.json").read_text())["normalize"]
    mean, std = np.float32(info["mean"]), np.float32(info["std"])
    logits = gpucnn.load(path).forward((test.images.astype(np.float32) - mean) / std)
    return logits.argmax(axis=1), test.labels


def test_evaluation_counts_each_class(newest):
    predicted, labels = accuracy_by_hand(newest)
    (newest / "confusion_matrix.png").unlink()
    output = run("evaluate")
    wrong = int((predicted != labels).sum())
    assert f"({wrong} of 360 wrong)" in output
    for label in range(10):
        mine = labels == label
        recall = (predicted[mine] == label).mean()
        precision = (labels[predicted == label] == label).mean()
        pattern = rf" {label} .* {mine.sum()} +{100 * recall:.1f} % +{100 * precision:.1f} %"
        assert re.search(pattern, output), pattern
    assert (newest / "confusion_matrix.png").is_file()


def test_evaluation_on_other_data(newest, folder):
    test = gpucnn.data.load("digits").test
    np.savez(folder / "few.npz", images=test.images[:50], labels=test.labels[:50])
    output = run("evaluate", newest, "--data", "few.npz", "--out", "few.png")
    assert "few: 10 test images" in output
    assert (folder / "few.png").is_file()


def test_a_checkpoint_that_the_command_line_did_not_make(folder):
    with gpucnn.use_backend("numpy"):
        model = models.make("digits_cnn", 10, (8, 8, 1))
        gpucnn.save(model, folder / "mine", classes=[f"digit {i}" for i in range(10)])
    assert "mine.json: says no data set; give one with --data" in run("evaluate", "mine", code=2)
    assert "digit 3" in run("evaluate", "mine", "--data", "digits")


def shares(output: str) -> list[str]:
    return re.findall(r"\S+ +[\d.]+ %", output)


def test_the_example_is_predicted_as_in_the_test(newest):
    predicted, _ = accuracy_by_hand(newest)
    output = run("predict", newest / "example.png")
    best, second, third = (line.split() for line in shares(output))
    assert best[0] == str(predicted[0])
    assert float(best[1]) >= float(second[1]) >= float(third[1])
    assert "8x8x1 (grey), values 0 to 16 as in training, not inverted" in output
    assert "--invert" not in output


def test_ink_on_paper_is_inverted_when_asked(newest, folder):
    with Image.open(newest / "example.png") as picture:
        pixels = np.asarray(picture)
    Image.fromarray(255 - pixels).save(folder / "ink.png")
    plain = run("predict", newest / "example.png", "--checkpoint", newest)
    assert "try --invert" in run("predict", "ink.png")
    inverted = run("predict", "ink.png", "--invert")
    assert shares(inverted) == shares(plain)
    assert "leave out --invert" in run("predict", newest / "example.png", "--invert")


def test_many_pictures_of_any_size(undrawn, colours, folder):
    run("train", "--data", colours, "--epochs", 12)
    for name, colour in (("red", (200, 60, 60)), ("blue", (60, 60, 200))):
        Image.new("RGB", (90, 40), colour).save(folder / f"{name}.jpg")
    output = run("predict", "red.jpg", "blue.jpg", "red.jpg")
    assert [line.split()[1] for line in re.findall(r"\w+\.jpg +\w+", output)] == [
        "red", "blue", "red",
    ]  # fmt: skip


@pytest.mark.parametrize("first", [False, True])
def test_export(trained, folder, first):
    layout = ["--channels-first"] if first else []
    output = run("export", trained, "--out", "made/a.onnx", *layout)
    size = "1, 8, 8" if first else "8, 8, 1"
    assert re.search(rf"input +\(batch, {size}\) float32, 0 to 16", output)
    assert re.search(r"output +\(batch, 10\) float32", output)
    assert re.search(r"written +made/a.onnx \([\d.]+ KiB\)", output)
    images = gpucnn.data.load("digits").test.images[:5].astype(np.float32)
    session = onnxruntime.InferenceSession("made/a.onnx")
    (logits,) = session.run(None, {"input": np.moveaxis(images, -1, 1) if first else images})
    known = Trained.read(trained)
    np.testing.assert_allclose(
        models.probabilities(logits), known.probabilities(images), rtol=1e-4, atol=1e-6
    )
    names = session.get_modelmeta().custom_metadata_map["classes"]
    assert json.loads(names) == list(known.classes)


def test_export_into_the_newest_run(newest):
    assert "model.onnx" in run("export")
    assert (newest / "model.onnx").stat().st_size > 10_000


def test_filters_of_a_network(colours, folder):
    run("train", "--data", colours, "--epochs", 1)
    output = run("filters", "--out", "drawn")
    assert output.splitlines() == ["wrote drawn/filters.png", "wrote drawn/feature_maps.png"]
    # example.png is the first test image, which the feature maps are drawn for
    run("filters", "runs/colours", "--picture", "runs/colours/example.png", "--out", "again")
    for place in ("drawn", "again"):
        with (
            Image.open(folder / place / "feature_maps.png") as drawn,
            Image.open("runs/colours/feature_maps.png") as left_by_training,
        ):
            np.testing.assert_array_equal(np.asarray(drawn), np.asarray(left_by_training))


@pytest.mark.parametrize("name", ["edge", "blur", "sharpen", "emboss"])
def test_filtered_pictures(folder, name):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "noise.png")
    assert run("filters", "--apply", name, "noise.png") == f"wrote noise-{name}.png\n"
    with Image.open(folder / f"noise-{name}.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), apply_filter(pixels, name))


def test_a_filtered_picture_beside_the_picture(folder):
    Image.new("L", (30, 20), 90).save(folder / "flat.png")
    run("filters", "--apply", "edge", "flat.png", "--compare", "--out", "both.png")
    with Image.open(folder / "both.png") as picture:
        assert picture.width > 1000
