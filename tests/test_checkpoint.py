"""Checkpoints: nothing is lost, a crash leaves the last one whole, and damage is named."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import torch

import gpucnn
from gpucnn import checkpoint
from gpucnn.backends import use_backend
from gpucnn.callbacks import Callback, ModelCheckpoint
from gpucnn.data import Normalize
from gpucnn.optimizers import SGD
from gpucnn.trainer import Trainer

from .training import CLASSES, assert_same_arrays, network, stripes

X, Y = stripes(60)
DTYPES = [
    np.dtype(name)
    for name in (
        "float64", "float32", "float16", ml_dtypes.bfloat16, "complex64",
        "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool",
    )
]  # fmt: skip


@pytest.fixture(autouse=True)
def on_numpy() -> Iterator[None]:
    with use_backend("numpy"):
        yield


def tensors_of(path: Path) -> Path:
    """Return the safetensors file that a checkpoint's JSON names."""
    return path.parent / json.loads(checkpoint.json_path(path).read_text())["tensors"]


def names(folder: Path) -> set[str]:
    """Return the files of a folder, the hashes left out."""
    return {re.sub("-[0-9a-f]{16}[.]", "-#.", file.name) for file in folder.iterdir()}


def test_a_layer_is_no_network(tmp_path):
    with pytest.raises(TypeError, match="save: model must be a network"):
        checkpoint.save(gpucnn.Dense(3), tmp_path / "model")


# ---- what comes back -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_model_comes_back_the_same(dtype, tmp_path):
    model = network(dtype=dtype)
    x = X.astype(np.float32)
    for _ in range(3):  # so that the norm's statistics and dropout's count are no initial ones
        model.forward(x, training=True)
    file = gpucnn.save(model, tmp_path / "model")
    assert file == tmp_path / "model.json"
    gpucnn.set_seed(99)
    twin = gpucnn.load(tmp_path / "model")
    assert_same_arrays(twin.state_dict(), model.state_dict())
    for training in (False, True):
        np.testing.assert_array_equal(twin.forward(x, training), model.forward(x, training))


def test_nested_networks_and_graphs_come_back(tmp_path):
    inputs = gpucnn.Input((8, 6, 1))
    stem = gpucnn.Conv2D(4, 3, padding="same")(inputs)
    block = gpucnn.Residual([gpucnn.Conv2D(4, 3, padding="same")], activation="relu")(stem)
    model = gpucnn.Graph(inputs, gpucnn.Dense(3)(gpucnn.GlobalAveragePool2D()(block)))
    gpucnn.save(model, tmp_path / "graph")
    twin = gpucnn.load(tmp_path / "graph")
    np.testing.assert_array_equal(twin.predict(X), model.predict(X))


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 3, 5)])
def test_arrays_keep_dtype_shape_and_bits(shape, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "first": {dtype.name: (100 * rng.random(shape)).astype(dtype) for dtype in DTYPES},
        "second.part": {"a/b/c": np.asarray(rng.random(shape))},
    }
    checkpoint.write(tmp_path / "all", {"note": ["ä", 1, None]}, arrays)
    info, back = checkpoint.read(tmp_path / "all")
    assert info["note"] == ["ä", 1, None]
    assert list(back) == sorted(arrays)
    for group, members in arrays.items():
        for name, array in members.items():
            assert back[group][name].shape == shape
            assert back[group][name].dtype == array.dtype
            assert back[group][name].tobytes() == array.tobytes()


def test_pytorch_reads_the_tensors(tmp_path):
    model = network(dtype="bfloat16")
    gpucnn.save(model, tmp_path / "model")
    with safetensors.safe_open(tensors_of(tmp_path / "model"), framework="pt") as file:
        kernel = file.get_tensor("model/conv2d/kernel")
    assert kernel.dtype == torch.bfloat16
    np.testing.assert_array_equal(
        kernel.float().numpy(), model.layers[0].params["kernel"].astype(np.float32)
    )


def test_the_json_says_what_a_user_of_the_model_needs(tmp_path):
    normalize = Normalize((100.0,), (50.0,))
    gpucnn.save(network(), tmp_path / "model", classes=CLASSES, normalize=normalize)
    info = json.loads((tmp_path / "model.json").read_text())
    assert info["classes"] == list(CLASSES)
    assert Normalize.from_config(info["normalize"]) == normalize
    assert info["model"]["class"] == "Sequential"


def test_a_name_may_have_dots_and_a_suffix_and_a_folder_stands_for_last(tmp_path):
    model = network()
    gpucnn.save(model, tmp_path / "v1.2")
    gpucnn.save(model, tmp_path / "other.json")
    gpucnn.save(model, tmp_path)
    assert names(tmp_path) == {
        f"{name}{end}" for name in ("v1.2", "other", "last") for end in (".json", "-#.safetensors")
    }
    for path in ("v1.2", "v1.2.json", "other", ""):
        assert_same_arrays(gpucnn.load(tmp_path / path).state_dict(), model.state_dict())


def test_equal_models_make_equal_files(tmp_path):
    files = []
    for name in ("one", "other"):
        gpucnn.save(network(), tmp_path / name / "model")
        files.append(sorted((tmp_path / name).iterdir()))
    for one, other in zip(*files, strict=True):
        assert one.name == other.name and one.read_bytes() == other.read_bytes()


def test_a_new_checkpoint_takes_the_place_of_the_old_one_alone(tmp_path):
    model = network()
    gpucnn.save(model, tmp_path / "best")
    gpucnn.save(model, tmp_path / "best-of-all")
    kept = tensors_of(tmp_path / "best-of-all")
    (tmp_path / "best-notes.safetensors").write_bytes(b"mine")
    old = tensors_of(tmp_path / "best")
    model.layers[0].params["kernel"][...] += 1
    gpucnn.save(model, tmp_path / "best")
    assert not old.exists() and kept.exists()
    assert names(tmp_path) == {
        "best.json", "best-#.safetensors", "best-of-all.json", "best-of-all-#.safetensors",
        "best-notes.safetensors",
    }  # fmt: skip


# ---- crashes -------------------------------------------------------------------------------------


class Crash(Exception):
    pass


def test_numbers_that_the_format_has_no_name_for_are_refused(tmp_path):
    model = gpucnn.Sequential([gpucnn.Conv2D(2, 2)], input_shape=(4, 4, 1), dtype="complex128")
    with pytest.raises(ValueError, match=r"model/conv2d/kernel of dtype complex128"):
        checkpoint.save(model, tmp_path / "deep" / "model")
    assert not list(tmp_path.iterdir())


def test_a_crash_at_any_point_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    """Let each call of the system in turn fail; the old or the new checkpoint must be there."""
    old, new = network(), network()
    new.layers[0].params["kernel"][...] += 1
    countdown = 0

    def failing(function):
        def call(*arguments, **options):
            nonlocal countdown
            countdown -= 1
            if countdown == 0:
                raise Crash
            return function(*arguments, **options)

        return call

    outcomes = []
    for step in range(1, 100):
        path = tmp_path / str(step) / "model"
        gpucnn.save(old, path)
        countdown = step
        with monkeypatch.context() as patch:
            for owner, name in ((os, "replace"), (os, "fsync"), (Path, "unlink"), (Path, "mkdir")):
                patch.setattr(owner, name, failing(getattr(owner, name)))
            try:
                gpucnn.save(new, path)
            except Crash:
                outcomes.append("crashed")
            else:
                outcomes.append("done")
        kernel = gpucnn.load(path).layers[0].params["kernel"]
        found = [m for m in (old, new) if (m.layers[0].params["kernel"] == kernel).all()]
        assert len(found) == 1
        outcomes.append("new" if found[0] is new else "old")
        gpucnn.save(new, path)  # and the next save clears up
        assert names(path.parent) == {"model.json", "model-#.safetensors"}
        if "done" in outcomes:
            break
    crashes = outcomes[1:-2:2]
    # mkdir; tensors: fsync, replace, unlink, fsync; JSON: fsync, replace | unlink, fsync; unlink
    assert crashes == ["old"] * 7 + ["new"] * 3
    assert outcomes[-2:] == ["done", "new"]


# ---- damage --------------------------------------------------------------------------------------


def saved(folder: Path) -> tuple[Path, Path]:
    path = folder / "model"
    gpucnn.save(network(), path)
    return folder / "model.json", tensors_of(path)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.json: no such checkpoint"):
        gpucnn.load(tmp_path / "nothing")


@pytest.mark.parametrize("where", [0, 300, -1])
def test_a_changed_byte_of_the_tensors_is_found(where, tmp_path):
    file, tensors = saved(tmp_path)
    data = bytearray(tensors.read_bytes())
    data[where] ^= 1
    tensors.write_bytes(data)
    with pytest.raises(ValueError, match=f"{tensors.name}: damaged"):
        gpucnn.load(file)


def test_truncated_tensors_are_found(tmp_path):
    file, tensors = saved(tmp_path)
    tensors.write_bytes(tensors.read_bytes()[:-10])
    with pytest.raises(ValueError, match=f"{tensors.name}: damaged"):
        gpucnn.load(file)


def test_missing_tensors_are_found(tmp_path):
    file, tensors = saved(tmp_path)
    tensors.unlink()
    with pytest.raises(ValueError, match=rf"{tensors.name}: .*missing.* model\.json"):
        gpucnn.load(file)


def test_the_tensors_of_another_checkpoint_are_found(tmp_path):
    file, tensors = saved(tmp_path)
    other = network()
    other.layers[0].params["kernel"][...] += 1
    gpucnn.save(other, tmp_path / "other")
    tensors_of(tmp_path / "other").replace(tensors)
    with pytest.raises(ValueError, match=f"{tensors.name}: .* not the file that model.json"):
        gpucnn.load(file)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[1, 2]",
        lambda text: text.replace('"gpucnn"', '"other"', 1),
        lambda text: text.replace('"version": 1', '"version": 2', 1),
        lambda text: text.replace('"sha256"', '"sha1"', 1),
    ],
)
def test_a_damaged_json_is_named(damage, tmp_path):
    file, _ = saved(tmp_path)
    file.write_text(damage(file.read_text()))
    with pytest.raises(ValueError, match=r"model\.json: not a gpucnn checkpoint.*Received: "):
        gpucnn.load(file)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"filters": 4', '"filters": 5'),
        lambda text: text.replace('"class": "Dense"', '"class": "Density"'),
        lambda text: text.replace('"units"', '"unit"'),
        lambda text: text.replace('"model"', '"modell"'),
    ],
)
def test_an_architecture_that_does_not_fit_is_named(damage, tmp_path):
    file, _ = saved(tmp_path)
    file.write_text(damage(file.read_text()))
    with pytest.raises(ValueError, match=r"model\.json: no network can be made of it: "):
        gpucnn.load(file)


# ---- trainers ------------------------------------------------------------------------------------


def make_trainer(**options) -> Trainer:
    model = options.pop("model", None) or network()
    return Trainer(model, **({"optimizer": SGD(0.1, momentum=0.9), "progress": False} | options))


def test_a_trainers_checkpoint_is_a_model_too(tmp_path):
    trainer = make_trainer()
    trainer.fit(X, Y, epochs=1, classes=CLASSES, checkpoint_dir=tmp_path)
    assert_same_arrays(gpucnn.load(tmp_path).state_dict(), trainer.model.state_dict())
    resumed = Trainer.resume(tmp_path, progress=False)
    assert resumed.classes == list(CLASSES)
    assert resumed.evaluate(X, Y) == trainer.evaluate(X, Y)


def test_frozen_layers_stay_frozen(tmp_path):
    head = gpucnn.Sequential([gpucnn.Flatten(), gpucnn.Dense(3)])
    model = gpucnn.Sequential([gpucnn.Conv2D(1, 1, input_shape=(8, 6, 1)), head])
    model.layers[0].trainable = head.trainable = False
    assert not list(model.parameters())
    gpucnn.save(model, tmp_path / "model")
    twin = gpucnn.load(tmp_path / "model")
    assert not list(twin.parameters())
    twin.layers[0].trainable = True
    assert [p.path for p in twin.parameters()] == ["conv2d/kernel", "conv2d/bias"]


def test_a_checkpoint_before_the_first_step(tmp_path):
    trainer = make_trainer()
    trainer.save(tmp_path / "start")
    assert Trainer.resume(tmp_path / "start").epoch == 0


def test_the_best_epoch_is_kept(tmp_path):
    class Score(Callback):
        scores = iter([0.5, 0.2, 0.9, 0.9])
        weights = []  # noqa: RUF012 - of this test alone

        def on_epoch_end(self, epoch, record):
            record["accuracy"] = next(self.scores)
            self.weights.append(self.trainer.model.state_dict())

    score = Score()
    trainer = make_trainer(callbacks=[score, ModelCheckpoint(tmp_path / "best", "accuracy")])
    trainer.fit(X, Y, epochs=4)
    assert_same_arrays(gpucnn.load(tmp_path / "best").state_dict(), score.weights[2])
    assert Trainer.resume(tmp_path / "best").epoch == 3


def test_a_model_alone_is_no_training(tmp_path):
    file = gpucnn.save(network(), tmp_path / "model")
    with pytest.raises(ValueError, match=r"model\.json: holds a model and no training"):
        Trainer.resume(file)


def test_another_optimizer_is_refused(tmp_path):
    make_trainer().fit(X, Y, epochs=1, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"last\.json: the optimizer must be 'sgd'.*'adam'"):
        make_trainer(optimizer="adam").fit(X, Y, epochs=2, checkpoint_dir=tmp_path, resume=True)


def test_another_model_is_refused(tmp_path):
    make_trainer().fit(X, Y, epochs=1, checkpoint_dir=tmp_path)
    other = gpucnn.Sequential([gpucnn.Flatten(input_shape=(8, 6, 1)), gpucnn.Dense(3)])
    with pytest.raises(ValueError, match=r"last\.json: .*unexpected: .*conv2d/kernel"):
        make_trainer(model=other).fit(X, Y, epochs=2, checkpoint_dir=tmp_path, resume=True)


def test_a_training_is_not_saved_within_an_epoch(tmp_path):
    class Save(Callback):
        def on_batch_end(self, batch):
            self.trainer.save(tmp_path / "now")

    with pytest.raises(RuntimeError, match=r"Trainer\.save: .*on_epoch_end"):
        make_trainer(callbacks=[Save()]).fit(X, Y, epochs=1)
    assert not list(tmp_path.iterdir())
