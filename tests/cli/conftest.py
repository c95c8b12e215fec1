"""A folder of its own for each test, and what commands are run on."""

from pathlib import Path

import numpy as np
import pytest

from . import QUICK, run


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A run of two epochs on the digits."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    run("train", *QUICK, "--out", out)
    return out


@pytest.fixture
def newest(trained, folder) -> Path:
    """The same run, where commands look for the newest."""
    (folder / "runs").mkdir()
    (folder / "runs" / "digits").symlink_to(trained)
    return folder / "runs" / "digits"


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Spares a test the time of drawing pictures."""
    monkeypatch.setattr("gpucnn.cli.pictures.draw_training", lambda *_: [])


@pytest.fixture
def colours(folder) -> Path:
    """An .npz file of pictures that are higher than wide: mostly red, green or blue."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 120, (60, 12, 9, 3), dtype=np.uint8)
    images[np.arange(60), :, :, labels] += 120
    path = folder / "colours.npz"
    np.savez(path, images=images, labels=labels, classes=np.array(["red", "green", "blue"]))
    return path
