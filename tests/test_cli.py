"""The command line, from training to a prediction, each test in a folder of its own."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from typer.testing import CliRunner

import gpucnn
from gpucnn import epochs, models
from gpucnn.backends import get_backend
from gpucnn.bench.cases import Case
from gpucnn.bench.processes import Refused
from gpucnn.bench.runs import Benchmark
from gpucnn.cli import app, options
from gpucnn.cli.console import console, errors
from gpucnn.cli.info import VARIABLES, _describe_gpu
from gpucnn.cli.runs import Settings, Trained
from gpucnn.filters import apply_filter
from gpucnn.profiler.floors import Peaks
from gpucnn.trainer import Trainer

from .tuning import FakeTimer, fake_backend, fake_tuner

PICTURES = (
    "learning_curve.png", "confusion_matrix.png", "filters.png", "feature_maps.png",
    "overview.png", "example.png",
)  # fmt: skip
QUICK = ("--epochs", "2", "--batch-size", "64")


def run(*arguments: object, code: int = 0) -> str:
    """Run ``gpucnn`` on the NumPy backend and return what it prints, lines unbroken."""
    console.width = errors.width = 250  # rich asks a terminal before it asks COLUMNS
    environment = {"COLUMNS": "250", "GPUCNN_BACKEND": "numpy"}
    result = CliRunner(env=environment).invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
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


# ---- train ---------------------------------------------------------------------------------------


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
    for label, level in (("dark", 20), ("light", 200)):
        (folder / "paper" / label).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(level, level + 50, (9 + number, 14, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "paper" / label / f"{number}.png")
    assert "give size" in run("train", "--data", "paper", code=2)
    output = run("train", "--data", "paper", "--size", 10, "--grey", "--epochs", 4)
    assert "images of 10x10x1, 2 classes" in output
    output = run("predict", "paper/light/3.png", "paper/dark/4.png")
    assert re.search(r"light/3.png +light", output)
    assert re.search(r"dark/4.png +dark", output)


# ---- evaluate ------------------------------------------------------------------------------------


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


# ---- predict -------------------------------------------------------------------------------------


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


# ---- summary, filters, info ----------------------------------------------------------------------


def test_help_names_every_network():
    assert options.NETWORKS.split(", ") == list(models.MODELS)


def test_summary(newest):
    assert "Sequential 'digits_cnn'" in run("summary")
    assert run("summary") == run("summary", "--model", newest)
    output = run("summary", "--model", "vgg_small", "--input", "48,64,3", "--classes", 7)
    assert "(None, 24, 32, 32)" in output
    assert "(None, 7)" in output
    assert "61,932" in run("summary", "--model", "lenet5")


def test_plan():
    output = run("plan", "lenet5", "--batch-size", 16)
    kept = r"batch_norm\+re_lu\+max_pool2d +uint8\s16x14x14x6, float32\s16x28x28x6"
    assert re.search(kept, output)
    assert re.search(r"arena +[\d.]+ KB for \d+ arrays of [\d.]+ MB in all", output)
    assert re.search(r"weights +241\.9 KB", output)


@pytest.mark.parametrize("first", [False, True])
def test_export(trained, folder, first):
    layout = ["--channels-first"] if first else []
    output = run("export", trained, "--out", "made/a.onnx", *layout)
    size = "1, 8, 8" if first else "8, 8, 1"
    assert re.search(rf"input +\(batch, {size}\) float32, 0 to 16", output)
    assert re.search(r"output +\(batch, 10\) float32", output)
    assert re.search(r"written +made/a.onnx \(0.0\d+ MB\)", output)
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


def test_info_names_versions_kernels_and_variables(monkeypatch):
    monkeypatch.setenv("GPUCNN_DATA", "/elsewhere")
    monkeypatch.setitem(sys.modules, "cupy", None)
    output = run("info")
    assert gpucnn.__version__ in output
    assert re.search(r"\d+ files, \d+ kernels, [\d,]+ specialisations", output)
    assert re.search(r"GPUCNN_DATA +/elsewhere +~/.cache/gpucnn/data", output)


def test_info_knows_every_variable_that_the_package_reads():
    package = Path(gpucnn.__file__).parent
    read = set()
    for file in package.rglob("*.py"):
        read |= set(re.findall(r"""environ[^\n]*["'](GPUCNN_\w+)""", file.read_text()))
    assert set(VARIABLES) == read


def test_info_describes_a_gpu():
    runtime = SimpleNamespace(
        runtimeGetVersion=lambda: 13010,
        driverGetVersion=lambda: 13000,
        getDeviceProperties=lambda number: {"name": b"NVIDIA H200"},
    )
    device = SimpleNamespace(id=0, compute_capability="90", mem_info=(100 * 2**30, 139 * 2**30))
    cuda = SimpleNamespace(runtime=runtime, Device=lambda: device)
    backend = SimpleNamespace(name="cuda", xp=SimpleNamespace(cuda=cuda))
    assert _describe_gpu(backend) == (
        "NVIDIA H200, compute capability 9.0, 100.0 of 139.0 GiB free, CUDA 13.1,"
        " driver for CUDA 13.0"
    )


# ---- profile -------------------------------------------------------------------------------------


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


# ---- tune ----------------------------------------------------------------------------------------


class SlowEstimates(FakeTimer):
    """The first plan of a problem, which is the estimate's choice, is slower than the others."""

    def inputs(self, *what):
        self.first = True
        return super().inputs(*what)

    def time(self, calls):
        first, self.first = self.first, False
        return super().time(calls) + first


@pytest.fixture
def tuned_gpu(monkeypatch, folder) -> Iterator[FakeTimer]:
    """A GPU that is none."""
    timer = SlowEstimates(lambda plan: 2.0)
    monkeypatch.setattr("gpucnn.backends.cuda.cupy_backend", lambda: fake_backend(folder / "tuned"))
    monkeypatch.setattr("gpucnn.backends.cuda.tuning.GraphTimer", lambda: timer)
    monkeypatch.setattr("gpucnn.backends.cuda.tuning.Tuner", fake_tuner)
    get_backend.cache_clear()
    yield timer
    get_backend.cache_clear()


def test_tuning_a_named_network(tuned_gpu, folder):
    output = run("tune", "resnet20", "--batch-size", 2, "--input", "16,16,3")
    row = r"fprop 2x16x16x16 by 16x3x3x16 +\w+ \w+=.* \w+ \w+=.* 3.0 +2.0 +1.50x"
    assert re.search(row, output)
    assert re.search(r"dgrad 2x16x16x16 by 32x3x3x16 strides 2x2 ", output)
    assert re.search(r"network +resnet20, input 2x16x16x3 float32", output)
    assert re.search(r"gpu +Fake H1", output)
    found = re.search(r"result +(\d+) convolutions, (\d+) with another plan", output)
    files = list((folder / "tuned").glob("*.json"))
    assert len(files) == int(found[1]) == 26 and 0 < int(found[2]) <= 26
    assert re.search(rf"kept in +{folder / 'tuned'}", output)
    count = len(tuned_gpu.timed)
    assert found[0] in run("tune", "resnet20", "--batch-size", 2, "--input", "16,16,3")
    assert len(tuned_gpu.timed) == count
    run("tune", "resnet20", "--batch-size", 2, "--input", "16,16,3", "--inference", "--again")
    assert count < len(tuned_gpu.timed) < 2 * count


def test_tuning_for_data_and_in_a_dtype(tuned_gpu):
    output = run("tune", "digits_cnn", "--data", "digits", "--dtype", "float16")
    assert "digits_cnn, input 32x8x8x1 float16" in output


def test_tuning_a_trained_network(tuned_gpu, newest):
    assert "digits_cnn, input 64x8x8x1 float32" in run("tune")
    assert "digits_cnn, input 5x8x8x1 bfloat16" in run(
        "tune", newest, "--batch-size", 5, "--dtype", "bfloat16"
    )
    message = run("tune", newest, "--input", "9,9,1", code=2)
    assert "--data and --input are for a named network" in message


def test_tuning_tells_which_plans_do_not_run(tuned_gpu):
    tuned_gpu.microseconds = lambda plan: 1.0 if plan.algorithm == "implicit_gemm" else 1 / 0
    output = run("tune", "vgg_small", "--batch-size", 1)
    assert re.search(r"did not run +\d+ plans, the first: ZeroDivisionError", output)


# ---- bench ---------------------------------------------------------------------------------------


class FakeWorker:
    """Answers as a worker of the benchmark does: ours takes half of PyTorch's 4 ms."""

    pid = None

    def __init__(self, side: str, threads: int, core: str | None = None) -> None:
        self.side, self.core = side, core or "Zen"

    def ask(self, do: str, **arguments):
        if do == "about":
            return {
                "version": "2.4",
                "blas": "openblas 0.3",
                "core": self.core,
                "capability": "AVX2",
            }
        if do == "prepare":
            if self.side == "torch" and arguments["case"]["group"] == "1x1":
                raise Refused("RuntimeError: could not create a primitive")
            whole_step = "channels" not in Case(**arguments["case"]).shape
            return {"errors": {"way": None if whole_step else 3e-6}}
        return {"seconds": 0.002 if self.side == "gpucnn" else 0.004, "calls": 3}

    def close(self) -> None:
        pass


def fake_load(share: float) -> SimpleNamespace:
    return SimpleNamespace(
        known=True, rest=lambda: None, mark=lambda: None, foreign=lambda: share
    )  # fmt: skip


@pytest.fixture
def fake_bench(monkeypatch) -> None:
    """A benchmark on no processes, undisturbed, beside PyTorch."""
    load = fake_load(0.0)
    options = {
        "make_worker": FakeWorker, "make_load": lambda pids: load, "sleep": lambda seconds: None,
    }  # fmt: skip
    monkeypatch.setattr("gpucnn.bench.runs.Benchmark", partial(Benchmark, **options))
    monkeypatch.setattr("gpucnn.bench.runs.peers_here", lambda: ("torch", "jax"))


def test_the_benchmark_beside_pytorch(fake_bench):
    output = run("bench", "--threads", 3)
    row = r"cifar_64_64 +conv_dgrad +N32 C64 32x32, K64 3x3 +2.000 +3e-06 +4.000 +3e-06 +0.50"
    assert re.search(row, output)
    assert re.search(r"lenet5 +inference +N1 +2.000 +4.000 +0.50", output)
    assert re.search(r"resnet50_256_64 +conv_fprop .* 2.000 +3e-06 *$", output, re.MULTILINE)
    assert re.search(r"threads +3", output)
    assert re.search(r"gpucnn +NumPy 2.4, openblas 0.3, its core by own choice: Zen", output)
    assert re.search(r"PyTorch +2.4, AVX2, in its better layout", output)
    assert re.search(r"ratio +lenet5 0.50, .*3x3 0.50", output)
    assert "JAX" not in output and "disturbed" not in output and "left out" not in output


def test_the_benchmark_without_pytorch(fake_bench, monkeypatch):
    monkeypatch.setattr("gpucnn.bench.runs.peers_here", lambda: ())
    output = run("bench")
    assert re.search(r"cifar_64_64 +conv_dgrad +N32 C64 32x32, K64 3x3 +2.000 +3e-06", output)
    assert "PyTorch" not in output and not re.search(r"\bratio\b", output)


def test_the_whole_benchmark(fake_bench):
    output = run("bench", "--full")
    assert re.search(r"mobilenet_v2_small +training_step +N128 +own choice", output)
    assert re.search(r"JAX +2.4", output)


def test_the_benchmark_says_what_was_disturbed_and_left_out(fake_bench, monkeypatch):
    load = fake_load(0.9)
    options = {
        "make_worker": FakeWorker, "make_load": lambda pids: load, "sleep": lambda seconds: None,
        "clock": iter(range(0, 10_000, 10)).__next__,
    }  # fmt: skip
    monkeypatch.setattr("gpucnn.bench.runs.Benchmark", partial(Benchmark, **options))
    output = run("bench")
    assert re.search(r"0.50 \?", output)
    assert re.search(r"disturbed +3 rows, marked \?", output)
    assert re.search(r"left out +\d+ cases, for want of time", output)


# ---- help and mistakes ---------------------------------------------------------------------------


def test_help_names_every_command():
    output = run("--help")
    names = "train evaluate predict filters summary plan profile tune bench info"
    for name in names.split():
        assert re.search(rf"{name} +[A-Z]", output)
        assert "Usage: " in run(name, "--help")


def test_version():
    assert run("--version") == f"gpucnn {gpucnn.__version__}\n"


def test_help_loads_nothing_heavy():
    code = (
        "import sys, gpucnn.cli\n"
        "heavy = {'matplotlib', 'PIL', 'cupy', 'safetensors', 'pooch', 'gpucnn.trainer'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    root = Path(gpucnn.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --data nothing", "name_or_path must be one of digits"),
        ("train --data digit", "did you mean 'digits'"),
        ("train --model alexnet", "--model must be one of 'auto', 'digits_cnn'"),
        ("train --optimizer sdg", "--optimizer must be one of 'adamw', 'adam', 'sgd'"),
        ("train --dtype int8", "--dtype must be one of 'float16'"),
        ("train --learning-rate -1", "learning_rate must be a number in [0, inf)"),
        ("train --size 9", "--size and --grey are for folders of pictures"),
        ("train --model lenet5", "conv2d_1 fails"),
        ("train --resume", "runs/ holds no run yet; train a network first: gpucnn train"),
        ("train --resume --out here", "there is no such run; train a network first"),
        ("evaluate", "holds no run yet"),
        ("evaluate nowhere", "no such checkpoint; train a network first: gpucnn train"),
        ("predict cat.jpg", "holds no run yet"),
        ("summary --model alexnet", "--model must be one of digits_cnn, lenet5"),
        ("summary --model lenet5 --input 28", "--input must be height,width,channels"),
        ("profile alexnet", "MODEL must be one of digits_cnn, lenet5"),
        ("profile lenet5 --input 28", "--input must be height,width,channels"),
        ("tune lenet5", "the CUDA backend needs"),
        ("filters", "holds no run yet"),
        ("filters --apply edge", "--apply needs a picture"),
        ("filters --apply edge cat.jpg", "cat.jpg: no such picture"),
        ("filters --apply magic cat.jpg", "--apply must be one of 'sobel_x'"),
        ("filters --compare", "--compare goes with --apply"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(arguments, message):
    output = run(*arguments.split(), code=2)
    assert message in output
    assert output.startswith("Error: ")
    assert output.count("\n") == 1
    assert "Traceback" not in output


def test_mistakes_with_a_trained_network(newest, colours, folder):
    (folder / "broken.png").write_bytes(b"no picture")
    assert "broken.png: not a readable picture" in run("predict", "broken.png", code=2)
    assert "missing.png: no such picture" in run("predict", "missing.png", code=2)
    message = run("evaluate", "--data", "colours.npz", code=2)
    assert "takes images of shape (8, 8, 1)" in message
    test = gpucnn.data.load("digits").test
    np.savez(folder / "more.npz", images=test.images, labels=test.labels + 1)
    assert "tells 10 classes apart" in run("evaluate", "--data", "more.npz", code=2)
    (folder / "half").mkdir()
    (folder / "half" / "run.json").write_text("{}")
    assert "run.json: damaged" in run("train", "--resume", "--out", "half", code=2)


def test_the_traceback_is_shown_when_asked(monkeypatch):
    monkeypatch.setenv("GPUCNN_DEBUG", "1")
    with pytest.raises(FileNotFoundError, match="no such picture"):
        CliRunner().invoke(app, ["filters", "--apply", "edge", "cat.jpg"], catch_exceptions=False)


@pytest.fixture
def no_cupy(monkeypatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "cupy", None)
    get_backend.cache_clear()
    yield
    get_backend.cache_clear()


def test_cuda_without_a_gpu_is_a_clear_error(no_cupy, folder):
    message = run("train", "--backend", "cuda", code=2)
    assert message.startswith("Error: the CUDA backend needs CuPy, which is not installed")
    assert not list(folder.iterdir())
    assert "none: the CUDA backend needs CuPy" in run("info")
    assert run("tune", "lenet5", code=2) == message
    assert 'backend must be "numpy" or "cuda"' in run("train", "--backend", "tpu", code=2)


def test_settings_survive_json(trained):
    values = json.loads((trained / "run.json").read_text())["settings"]
    settings = Settings(**values)
    assert (settings.data, settings.epochs, settings.batch_size) == ("digits", 2, 64)
    assert settings.augment
