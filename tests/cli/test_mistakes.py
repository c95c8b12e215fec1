"""``--help``, ``info``, and what a person's mistake is answered with."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import gpucnn
from gpucnn import models
from gpucnn.backends import get_backend
from gpucnn.cli import app, options
from gpucnn.cli.info import VARIABLES, _describe_gpu

from . import run


def test_help_names_every_network():
    assert options.NETWORKS.split(", ") == list(models.MODELS)


def test_info_names_versions_kernels_and_variables(monkeypatch):
    monkeypatch.setenv("GPUCNN_DATA", "/elsewhere")
    monkeypatch.setitem(sys.modules, "cupy", None)
    output = run("info")
    assert gpucnn.__version__ in output
    assert re.search(r"\d+ files, \d+ kernels, [\d,]+ specialisations", output)
    assert re.search(r"GPUCNN_DATA +/elsewhere +~/.cache/gpucnn/data", output)
    assert re.search(r'cupy +missing: pip install "gpucnn\[cuda13\]" +the GPU', output)


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
        "NVIDIA H200, compute capability 9.0, 100.0 GiB of 139.0 GiB free, CUDA 13.1,"
        " driver for CUDA 13.0"
    )


def test_help_names_every_command():
    output = run("--help")
    names = "train evaluate predict export filters summary plan profile tune bench info"
    for name in names.split():
        assert re.search(rf"{name} +[A-Z]", output)
        assert "Usage: " in run(name, "--help")


def test_version():
    assert run("--version") == f"gpucnn {gpucnn.__version__}\n"


def test_the_package_runs_as_the_command():
    root = Path(gpucnn.__file__).parents[1]
    command = [sys.executable, "-m", "gpucnn", "--version"]
    output = subprocess.run(command, check=True, cwd=root, capture_output=True, text=True).stdout
    assert output == run("--version")


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
        ("summary alexnet", "MODEL must be one of digits_cnn, lenet5"),
        ("summary lenet5 --input 28", "--input must be height,width,channels"),
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
    assert "gpucnn filters --apply edge broken.png" in run("filters", "broken.png", code=2)
    message = run("evaluate", "--data", "colours.npz", code=2)
    assert "takes images of shape (8, 8, 1)" in message
    test = gpucnn.data.load("digits").test
    np.savez(folder / "more.npz", images=test.images, labels=test.labels + 1)
    assert "tells 10 classes apart" in run("evaluate", "--data", "more.npz", code=2)
    (folder / "half").mkdir()
    (folder / "half" / "run.json").write_text("{}")
    assert "run.json: damaged" in run("train", "--resume", "--out", "half", code=2)


FILE, FOLDER = "must be a file to write", "must be a folder to fill"


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("evaluate", FILE),
        ("export", FILE),
        ("filters --apply blur cat.png", FILE),
        ("filters --apply blur cat.png --compare", FILE),
        ("filters", FOLDER),
        ("profile lenet5", FOLDER),
        ("train", FOLDER),
    ],
)
def test_where_nothing_can_be_written_is_told_before_the_work(command, kind, folder):
    Path("taken").write_text("a file")
    Path("made").mkdir()
    path = "made" if kind == FILE else "taken"
    message = run(*command.split(), "--out", path, code=2)
    assert message.startswith(f"Error: --out {kind}. Received: {path}, which is a ")
    message = run(*command.split(), "--out", "taken/below/x.png", code=2)
    received = "Received: taken/below/x.png, but taken is no folder\n"
    assert message == f"Error: --out must be a place to write to. {received}"
    assert {path.name for path in folder.iterdir()} == {"taken", "made"}


@pytest.mark.parametrize("compare", [[], ["--compare"]])
def test_the_folder_of_a_file_is_made(newest, folder, compare):
    picture = folder / "cat.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture)
    run("filters", "--apply", "blur", picture, *compare, "--out", "new/a/cat.png")
    run("evaluate", "--out", "new/b/matrix.png")
    for name in ("a/cat.png", "b/matrix.png"):
        with Image.open(Path("new", name)) as written:
            written.verify()


def test_a_folder_that_may_not_be_written_to(folder, monkeypatch):
    Path("closed").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: path != Path("closed"))  # root may all
    message = run("profile", "lenet5", "--out", "closed/here", code=2)
    assert "closed may not be written to" in message


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
