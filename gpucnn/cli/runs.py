"""Runs: the folder that ``gpucnn train`` leaves, and what the other commands read in it.

runs/digits/run.json      how it was begun, and what the network takes: enough to resume it
runs/digits/last.json     the checkpoint, with its last-<hash>.safetensors
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import checkpoint, data
from ..data import Dataset, Normalize
from ..models import probabilities
from ..network import Network
from ..recipes import Recipe, recipe_for
from ..views import averaged

RUNS = Path("runs")
BEGIN = "train a network first: gpucnn train"


@dataclass(frozen=True)
class Settings:
    """The options of ``gpucnn train``, each with its value (see ``gpucnn train --help``)."""

    data: str
    size: int | None
    grey: bool
    model: str
    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str
    augment: bool
    validation: float
    seed: int
    dtype: str
    label_smoothing: float = 0.0
    views: int = 1

    def load(self) -> Dataset:
        return load_data(self.data, self.size, self.grey)

    @property
    def recipe(self) -> Recipe:
        """The recipe of the network on the data, with what was chosen otherwise."""
        recipe = recipe_for(self.model, self.data).using(self.optimizer)
        known = {field.name for field in fields(Recipe)} - {"augment"}
        return replace(recipe, **{k: v for k, v in asdict(self).items() if k in known})


def load_data(name: str, size: int | None = None, grey: bool = False) -> Dataset:
    """Read a data set; ``size`` and ``grey`` are for folders of pictures.

    Raises:
        FileNotFoundError, ValueError: it is not there, or damaged; the text says what to do.
    """
    options: dict[str, Any] = {}
    if size is not None:
        options["size"] = size
    if grey:
        options["channels"] = 1
    try:
        return data.load(name, **options)
    except TypeError as error:
        raise ValueError(f"--size and --grey are for folders of pictures. {error}") from error


def begin(folder: Path, settings: Settings, dataset: Dataset) -> None:
    """Write run.json."""
    folder.mkdir(parents=True, exist_ok=True)
    images = {"shape": list(dataset.image_shape), "peak": dataset.peak}
    text = json.dumps({"settings": asdict(settings), "images": images}, indent=2)
    (folder / "run.json").write_text(text + "\n", encoding="utf-8")


def read_begin(folder: Path) -> tuple[Settings, dict[str, Any]]:
    """Return what ``begin`` wrote: the settings, and the shape and peak of the images.

    Raises:
        FileNotFoundError: no run was begun there.
        ValueError: run.json is damaged.
    """
    file = folder / "run.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such run; {BEGIN}")
    try:
        values = json.loads(file.read_bytes())
        images = {"shape": tuple(values["images"]["shape"]), "peak": values["images"]["peak"]}
        known = {field.name for field in fields(Settings)}
        return Settings(**{k: v for k, v in values["settings"].items() if k in known}), images
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: damaged, or of another version. {error}") from error


def newest() -> Path:
    """Return the folder in runs/ whose checkpoint was written last.

    Raises:
        FileNotFoundError: there is none.
    """
    files = sorted(RUNS.glob("*/last.json"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise FileNotFoundError(f"{RUNS}/ holds no run yet; {BEGIN}")
    return files[-1].parent


def fresh(name: str) -> Path:
    """Return runs/name, or runs/name-2 and so on where a run was begun, which may still go on."""
    folder, number = RUNS / name, 1
    while (folder / "run.json").exists():
        number += 1
        folder = RUNS / f"{name}-{number}"
    return folder


@dataclass(frozen=True)
class Trained:
    """A network that was trained, and how to give it pictures.

    peak: the value of a full-bright pixel as in training. settings: None for a checkpoint that
        ``gpucnn train`` did not make.
    """

    file: Path
    model: Network
    normalize: Normalize | None
    classes: Sequence[str]
    peak: float
    settings: Settings | None

    @classmethod
    def read(cls, path: Path | None) -> Trained:
        """Read a checkpoint, a run's folder, or the newest run where ``path`` is None.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged.
        """
        file = checkpoint.json_path(newest() if path is None else path)
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such checkpoint; {BEGIN}")
        info, arrays = checkpoint.read(file)
        model = checkpoint.model_of(file, info, arrays)
        normalize = info["normalize"] and Normalize.from_config(info["normalize"])
        settings, peak = None, 255.0
        if (file.parent / "run.json").is_file():
            settings, images = read_begin(file.parent)
            peak = images["peak"]
        count = model.output_shape(model.input_shape)[-1]
        classes = info["classes"] or [str(label) for label in range(count)]
        return cls(file, model, normalize, classes, peak, settings)

    @property
    def folder(self) -> Path:
        return self.file.parent

    def load_data(self, name: str | None, size: int | None = None, grey: bool = False) -> Dataset:
        """Read the data set called ``name``, or the one that the network was trained on.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is damaged, does not fit the network, or is not known.
        """
        if name is None and self.settings is None:
            raise ValueError(f"{self.file}: says no data set; give one with --data")
        dataset = self.settings.load() if name is None else load_data(name, size, grey)
        if dataset.image_shape != self.model.input_shape:
            raise ValueError(
                f"the network of {self.file} takes images of shape {self.model.input_shape}."
                f" Received: {dataset}"
            )
        if len(dataset.classes) > len(self.classes):
            raise ValueError(
                f"the network of {self.file} tells {len(self.classes)} classes apart."
                f" Received: {dataset}"
            )
        return dataset

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Return images of the training's range as the network takes them."""
        return images if self.normalize is None else self.normalize(images)

    def views(self, flips: bool | None) -> int:
        """Return how many views of an image are averaged: as the recipe says, where None is given.

        With flips they are two at least, without them one.
        """
        usual = self.settings.views if self.settings else 1
        return usual if flips is None else max(usual, 2) if flips else 1

    def probabilities(self, images: np.ndarray, views: int = 1) -> np.ndarray:
        """Return the probability of each class (N, classes) for images (N, H, W, C).

        Args:
            views: how many views of each the outputs are averaged over (``gpucnn.views``).
        """
        return probabilities(averaged(self.model.predict, self.prepare(images), views))
