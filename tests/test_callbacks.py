"""Callbacks, the history and what is shown of it."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from gpucnn import progress
from gpucnn.backends import use_backend
from gpucnn.callbacks import (
    EVENTS,
    Best,
    Callback,
    CSVLogger,
    EarlyStopping,
    Freeze,
    LambdaCallback,
)
from gpucnn.history import History
from gpucnn.layers import from_config, to_config
from gpucnn.plots import style
from gpucnn.trainer import Trainer

from .training import network, stripes

X, Y = stripes(40)


@pytest.fixture(autouse=True)
def on_numpy() -> Iterator[None]:
    with use_backend("numpy"):
        yield


def fit(*callbacks: Callback, epochs: int = 2, shown: bool = False) -> Trainer:
    trainer = Trainer(network(), callbacks=callbacks, progress=shown)
    trainer.fit(X, Y, epochs=epochs, batch_size=18)  # 36 for training: two batches
    return trainer


class Scores(Callback):
    """Gives the epochs' records these scores."""

    def __init__(self, *scores: float) -> None:
        self.scores = scores

    def on_epoch_end(self, epoch, record):
        record["score"] = self.scores[epoch - 1]


# ---- callbacks -----------------------------------------------------------------------------------


def test_events_come_in_order():
    seen = []
    functions = {
        name: lambda *arguments, name=name: seen.append((name, *arguments[:1])) for name in EVENTS
    }
    fit(LambdaCallback(**functions))
    epoch = [("on_batch_end", 1), ("on_batch_end", 2)]
    assert seen == [
        ("on_train_begin",),
        ("on_epoch_begin", 1), *epoch, ("on_epoch_end", 1),
        ("on_epoch_begin", 2), *epoch, ("on_epoch_end", 2),
        ("on_train_end",),
    ]  # fmt: skip


def test_an_unknown_event_is_named():
    with pytest.raises(ValueError, match=r"LambdaCallback: .*'on_train_begin'.*'on_lunch'"):
        LambdaCallback(on_lunch=print)
    with pytest.raises(TypeError, match=r"on_epoch_end must be a function. Received: 3"):
        LambdaCallback(on_epoch_end=3)


@pytest.mark.parametrize(
    ("options", "scores", "stops", "best"),
    [
        ({"patience": 2}, [3, 2, 2.5, 2, 1], 4, 2),
        ({"patience": 1}, [3, 2, 1, 0.5, 0.4], 5, 5),
        ({"patience": 2, "mode": "max"}, [1, 2, 1.9, 2, 3], 4, 2),
        ({"patience": 2, "min_delta": 0.5}, [3, 2.8, 2.6, 1, 0.9], 3, 1),
        ({"patience": 2}, [float("nan"), 2, 3, float("nan"), 1], 4, 2),
    ],
)
def test_early_stopping(options, scores, stops, best):
    weights = []

    class Keep(Callback):
        def on_epoch_end(self, epoch, record):
            weights.append(self.trainer.model.state_dict())

    trainer = fit(Scores(*scores), Keep(), EarlyStopping("score", **options), epochs=5)
    assert trainer.epoch == stops
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(value, weights[best - 1][name], err_msg=name)


def test_early_stopping_starts_anew_with_each_training():
    trainer = fit(Scores(1, 2, 3, 4, 5), EarlyStopping("score", patience=2), epochs=5)
    assert trainer.epoch == 3
    trainer.fit(X, Y, epochs=2)
    assert trainer.epoch == 5


def test_early_stopping_may_leave_the_last_weights():
    last = {}

    class Keep(Callback):
        def on_epoch_end(self, epoch, record):
            last.update(self.trainer.model.state_dict())

    stopping = EarlyStopping("score", patience=2, restore_best=False)
    trainer = fit(Scores(1, 2, 3, 4, 5), Keep(), stopping, epochs=5)
    assert trainer.epoch == 3
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(value, last[name], err_msg=name)


def test_frozen_parameters_stay_as_they_are_from_an_epoch_on():
    seen = []

    class Keep(Callback):
        def on_epoch_end(self, epoch, record):
            seen.append(self.trainer.model.state_dict())

    trainer = fit(Freeze("*/bias", after=2), Keep(), epochs=4)
    frozen = {layer.frozen for _, layer in trainer.model.walk() if "bias" in layer.params}
    assert frozen == {("bias",)}
    for before, after, moves in zip(seen, seen[1:], (True, False, False), strict=False):
        for path in (path for path in before if path.endswith(("/kernel", "/bias"))):
            changed = not np.array_equal(before[path], after[path])
            assert changed == (moves or not path.endswith("/bias")), path
    twin = from_config(to_config(trainer.model))
    paths = [parameter.path for parameter in twin.parameters()]
    assert paths and not any(path.endswith("bias") for path in paths)


def test_a_monitor_that_is_not_recorded_is_named():
    with pytest.raises(ValueError, match=r"EarlyStopping: monitor must be .* loss, .*'acc'"):
        fit(EarlyStopping("acc"))


def test_a_pattern_that_freezes_nothing_is_named():
    with pytest.raises(ValueError, match=r"Freeze: pattern must match .*Received: .*'dens/\*'"):
        fit(Freeze("dens/*", after=0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping(patience=0), "EarlyStopping: patience must be .*patience=0"),
        (lambda: Best(min_delta="little"), "Best: min_delta must be a number"),
        (lambda: Best(mode="up"), "Best: mode must be one of 'auto', 'min', 'max'.*'up'"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- the history ---------------------------------------------------------------------------------


def test_a_record_says_all(tmp_path):
    trainer = fit(CSVLogger(tmp_path / "new folder" / "log.csv"))
    assert trainer.history.names == [
        "epoch", "loss", "accuracy", "val_loss", "val_accuracy",
        "learning_rate", "images_per_second", "seconds",
    ]  # fmt: skip
    assert trainer.history["epoch"] == [1, 2]
    assert all(0 < second < 60 for second in trainer.history["seconds"])
    with open(tmp_path / "new folder" / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{k: float(v) for k, v in row.items()} for row in rows] == trainer.history.records


def test_csv_of_records_that_differ(tmp_path):
    History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "val_loss": 0.25}]).to_csv(tmp_path / "h.csv")
    assert (tmp_path / "h.csv").read_bytes() == b"epoch,loss,val_loss\n1,0.5,\n2,,0.25\n"


def test_a_column_that_is_missing_is_named():
    with pytest.raises(KeyError, match="epoch, loss; not 'accuracy'"):
        History([{"epoch": 1, "loss": 0.5}])["accuracy"]


def test_the_picture_shows_training_and_validation(tmp_path):
    before = sys.modules.get("matplotlib.pyplot")
    records = [
        {"epoch": e, "loss": 1 / e, "accuracy": e / 5, "val_loss": 2 / e, "seconds": 1.0}
        for e in range(1, 5)
    ]
    History(records).plot(tmp_path / "curve.png")
    picture = matplotlib.image.imread(tmp_path / "curve.png")[..., :3]

    def drawn(part: np.ndarray, colour: str) -> bool:
        return bool(np.isclose(part, to_rgb(colour), atol=1 / 255).all(axis=-1).any())

    loss, accuracy = np.array_split(picture, 2, axis=1)  # (H, W, 3) -> a panel each
    assert drawn(loss, style.BLUE) and drawn(loss, style.RED)
    assert drawn(accuracy, style.BLUE) and not drawn(accuracy, style.RED)
    assert sys.modules.get("matplotlib.pyplot") is before


def test_an_empty_history_has_no_picture(tmp_path):
    with pytest.raises(ValueError, match="learning_curve: needs one epoch or more"):
        History().plot(tmp_path / "curve.png")


# ---- what is shown -------------------------------------------------------------------------------


def test_a_pipe_gets_a_line_an_epoch(capsys):
    trainer = fit(shown=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(f"epoch 2/2  loss {trainer.history['loss'][1]:.4f}  accuracy ")
    assert "images/s" in lines[1] and lines[1].endswith(" s")


def test_a_terminal_gets_a_bar_and_a_line_an_epoch(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert isinstance(progress.choose(True), progress.Bar)
    fit(shown=True)
    out = capsys.readouterr().out
    assert "epoch 1/2  loss" in out and "epoch 2/2  loss" in out


def test_silence(capsys):
    fit(shown=False)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_early_stopping_is_said(capsys):
    fit(Scores(1, 2, 3), EarlyStopping("score", patience=1), epochs=3, shown=True)
    assert capsys.readouterr().out.splitlines()[-1] == "stopped after 2 of 3 epochs"


def test_silent_training_needs_numpy_alone():
    program = (
        "import sys, numpy as np, gpucnn\n"
        "gpucnn.use_backend('numpy')\n"
        "model = gpucnn.Sequential([gpucnn.Dense(2, input_shape=(3,))])\n"
        "x = np.ones((4, 3), np.float32)\n"
        "gpucnn.Trainer(model, progress=False).fit(x, [0, 1, 0, 1], epochs=1)\n"
        "heavy = {'rich', 'safetensors', 'matplotlib', 'typer', 'ml_dtypes', 'torch'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
