"""The comparison of airbench94 with PyTorch's, whole but tiny, on the CPU."""

import json

import numpy as np
import pytest
import torch

from profiling.gpu import airbench
from profiling.gpu.airbench_torch import Images, Settings
from profiling.results import problems


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(50) % 10
    images = rng.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    path = tmp_path / "pictures.npz"
    np.savez(path, images=images, labels=labels)
    return path


def test_both_sides_write_rows(pictures, tmp_path, capsys):
    airbench.main(
        [
            "--runs", "2", "--data", str(pictures), "--epochs", "1", "--batch-size", "20",
            "--widths", "4", "6", "5", "--peer-dtype", "float32", "--out", str(tmp_path),
            "--commit", "abc",
        ]
    )  # fmt: skip
    (file,) = tmp_path.glob("airbench-*-abc.json")
    rows = json.loads(file.read_text())["rows"]
    assert [(row["peer"], row["run"]) for row in rows] == [
        ("gpucnn", 1), ("torch", 1), ("torch", 2), ("gpucnn", 2),
    ]  # fmt: skip
    for row in rows:
        assert problems(row) == [] and row["ours_us"] == pytest.approx(row["seconds"] * 1e6)
        assert np.isfinite(row["losses"]).all() and 0 <= row["accuracy"] <= 1
        assert row["steps"] == 2
    assert rows[1]["losses"] != rows[2]["losses"]  # another seed
    assert "94% not reached" in capsys.readouterr().out


def test_the_peers_images_are_flipped_in_turns_and_moved_by_two_at_most():
    ramp = np.zeros((8, 32, 32, 3), np.uint8)
    ramp[..., 0] = np.arange(32)  # brighter to the right
    split = airbench.Split(ramp, np.arange(8))
    images = Images(split, Settings(batch_size=8, device="cpu", dtype=torch.float))
    ((first, labels),), ((second, others),) = list(images.epoch(0)), list(images.epoch(1))
    assert sorted(labels.tolist()) == list(range(8))
    rising = [
        dict(zip(known.tolist(), (x[:, 0, 16, 20] > x[:, 0, 16, 12]).tolist(), strict=True))
        for x, known in ((first, labels), (second, others))
    ]
    assert all(rising[0][label] != rising[1][label] for label in range(8))
    steps = (first[:, 0, 5, 16] - images.images[:1, 0, 5, 16]).abs()
    one = float(images.images[0, 0, 0, 1] - images.images[0, 0, 0, 0])
    assert float(steps.max()) <= 3.1 * one  # two pixels, and one between the middle's neighbours
