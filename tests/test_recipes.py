"""The table of recipes: every network and data set in it is there, and the CLI follows it."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from gpucnn import data, models
from gpucnn.cli.runs import read_begin
from gpucnn.data import cifar, public
from gpucnn.models.airbench import airbench94
from gpucnn.recipes import BY_DATA, OTHERS, PAIRS, RATES, recipe_for

from .cli import run
from .test_data_cifar import binary

BY_ITSELF = {("auto", name): recipe for name, recipe in {**BY_DATA, "others": OTHERS}.items()}
EVERY = {**PAIRS, **BY_ITSELF}


def test_networks_and_data_of_the_table_are_there():
    assert {name for name, _ in PAIRS} <= set(models.MODELS)
    assert {name for _, name in PAIRS} | set(BY_DATA) == set(data.available())
    assert recipe_for("resnet20", "cifar10").epochs == 182
    assert recipe_for("lenet5", "mnist") is BY_DATA["mnist"]
    assert recipe_for("resnet20", "flowers") is OTHERS


@pytest.mark.parametrize("recipe", EVERY.values(), ids=["-".join(pair) for pair in EVERY])
def test_rates_rise_to_the_peak_and_end_far_below(recipe):
    optimizer = recipe.make_optimizer(images=50_000)
    steps = recipe.steps(50_000)
    rates = [optimizer.rate_of(step) for step in range(steps)]
    assert max(rates) == pytest.approx(recipe.peak) and 0 <= rates[-1] < 0.09 * recipe.peak
    assert recipe.make_loss().label_smoothing == recipe.label_smoothing


@pytest.mark.parametrize("recipe", EVERY.values(), ids=["-".join(pair) for pair in EVERY])
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_the_shortest_training_has_rates_too(recipe, epochs):
    optimizer = replace(recipe, epochs=epochs).make_optimizer(images=1)
    assert all(0 <= optimizer.rate_of(step) <= recipe.peak for step in range(epochs))


def test_a_recipe_is_for_known_names():
    with pytest.raises(ValueError, match=r"Recipe: schedule must be one of .*'linear'"):
        replace(OTHERS, schedule="linear")
    with pytest.raises(ValueError, match=r"Recipe: optimizer must be one of .*'muon'"):
        replace(OTHERS, optimizer="muon")


def test_resnet20s_rate_falls_where_the_paper_says():
    recipe = recipe_for("resnet20", "cifar10")
    optimizer = recipe.make_optimizer(images=45_000)
    falls = [s for s in range(1, 64_100) if optimizer.rate_of(s) < optimizer.rate_of(s - 1)]
    assert recipe.steps(45_000) == 64_064 and falls == [32_032, 48_048]


@pytest.mark.parametrize("optimizer", RATES)
def test_another_optimizer_comes_with_what_is_usual_there(optimizer):
    recipe = recipe_for("airbench94", "cifar10")
    other = recipe.using(optimizer)
    if optimizer == "sgd":
        assert other is recipe
    else:
        assert other.peak == RATES[optimizer] and other.schedule == "one_cycle"
        assert other.make_optimizer(1000).rate_factors == ()
        assert (other.views, other.epochs) == (recipe.views, recipe.epochs)


@pytest.fixture
def tiny_cifar(tmp_path, monkeypatch):
    """CIFAR-10 of six files with eight images each, red or blue, where the program looks for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPUCNN_DATA", str(tmp_path / "home"))
    read = partial(cifar.load, images_per_file=None)
    monkeypatch.setitem(public.SETS, "cifar10", replace(public.SETS["cifar10"], read=read))
    monkeypatch.setattr("gpucnn.cli.pictures.draw_training", lambda *_: [])
    folder, rng = tmp_path / "home" / "cifar10", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name in cifar.BATCHES:
        labels = np.arange(8, dtype=np.uint8) % 2
        images = rng.integers(0, 100, (8, 32, 32, 3), np.uint8)
        images[labels == 0, :, :, 0] += 100
        images[labels == 1, :, :, 2] += 100
        (folder / f"{name}.bin").write_bytes(binary(images, labels))
    return tmp_path


def test_the_fast_recipe_from_training_to_a_test(tiny_cifar, monkeypatch):
    narrow = partial(airbench94, widths=(8, 8, 8))
    monkeypatch.setitem(models.MODELS, "airbench94", narrow)
    output = run("train", "--model", "airbench94", "--data", "cifar10", "--batch-size", 20)
    assert "10 epochs in batches of 20, sgd up to 1.46484, flips in turns and crops" in output
    assert "labels smoothed by 0.2, 6 views of a test image" in output
    settings, _ = read_begin(tiny_cifar / "runs" / "cifar10")
    assert (settings.views, settings.label_smoothing, settings.validation) == (6, 0.2, 0.0)
    assert "8 test images" in run("evaluate", "--no-flips")
    assert "accuracy" in run("evaluate", "--flips")


def test_options_change_the_recipe_and_are_resumed(tiny_cifar):
    options = ("--model", "resnet20", "--data", "cifar10", "--out", "a")
    output = run("train", *options, "--epochs", 1, "--label-smoothing", 0.1, "--optimizer", "adamw")
    assert "1 epochs in batches of 128, adamw up to 0.01, crops and flips" in output
    assert "labels smoothed by 0.1" in output
    settings, _ = read_begin(tiny_cifar / "a")
    assert settings.recipe.label_smoothing == 0.1 and settings.recipe.schedule == "one_cycle"
    assert "leave out --label-smoothing" in run(
        "train", "--resume", "--out", "a", "--label-smoothing", 0.2, code=2
    )
