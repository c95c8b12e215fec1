"""README.md and CONTRIBUTING.md say what is so: their programs run, and what they name is there."""

import re
from pathlib import Path

import numpy as np
import pytest
import typer

import gpucnn
from gpucnn.backends import use_backend
from gpucnn.cli import app

from .pages import blocks, links, quoted

ROOT = Path(gpucnn.__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {"README.md": README, "CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text("utf-8")}
every_page = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)


def test_the_programs_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    on_arrays, training = blocks(README, "python")
    names: dict = {}
    with use_backend("numpy"):
        # As the README says: "`import numpy as cupy` and the same lines run on the CPU."
        assert "`import numpy as cupy`" in README and "import cupy, gpucnn" in on_arrays
        exec(on_arrays.replace("import cupy", "import numpy as cupy"), names)
        assert names["y"].shape == (32, 14, 14, 16) and names["dx"].shape == names["x"].shape
        assert all(layer.grads for layer in names["block"].layers if layer.params)
        exec(training, names)
        assert names["trainer"].evaluate(names["digits"].test)["accuracy"] > 0.95
    assert "Multiply-adds for one sample" in capsys.readouterr().out
    assert (tmp_path / "runs" / "first" / "last.json").is_file()


def test_the_function_under_the_layers_takes_the_arguments_that_are_shown():
    call = "gpucnn.functional.conv_forward(x, w, b, strides=2, padding="
    assert any(text.startswith(call) for text in quoted(README))
    x, w, b = np.ones((1, 5, 5, 2)), np.ones((4, 3, 3, 2)), np.zeros(4)
    y = gpucnn.functional.conv_forward(x, w, b, strides=2, padding="same")
    assert y.shape == (1, 3, 3, 4)


@every_page
def test_every_path_is_there(page):
    linked = links(page)
    named = [text for text in quoted(page) if re.fullmatch(r"[\w./]+(/|\.(py|cuh?|md))", text)]
    assert linked or named
    beside = {"base.py", "numpy/", "cuda/", "__init__.py"}  # named within their folder's row
    made = {"runs/digits/"}
    patterns = {"kernels/NAME.cu"}
    for path in {*linked, *named} - beside - made - patterns:
        assert (ROOT / path).exists(), path


@every_page
def test_every_target_of_make_is_there(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([\w-]+)", "\n".join(quoted(page) + blocks(README, "bash"))))
    assert named and named <= targets


def test_every_extra_is_there():
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    extras = project.partition("[project.optional-dependencies]")[2].partition("[project.scripts]")[
        0
    ]
    known = set(re.findall(r"^(\w+) = \[", extras, re.MULTILINE))
    named = {name for names in re.findall(r"\.\[([\w,]+)\]", README) for name in names.split(",")}
    assert named and {*named, "cuda12"} <= known


def test_every_command_is_there():
    commands = typer.main.get_command(app).commands
    named = re.findall(
        r"gpucnn ([a-z]+)((?: --[a-z-]+)*)", "\n".join(quoted(README) + blocks(README, "bash"))
    )
    assert {name for name, _ in named} >= {"train", "predict", "filters", "info"}
    for name, options in named:
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(options.split()) <= known, (name, options)


def test_every_environment_variable_is_there_and_no_other():
    """The README's table is what the program reads, name by name."""
    files = [*(ROOT / "gpucnn").rglob("*.py"), *(ROOT / "tests" / "emulator").rglob("*.py")]
    read = {
        name for file in files for name in re.findall(r"GPUCNN_[A-Z_]+", file.read_text("utf-8"))
    }
    rows = set(re.findall(r"^\| `(GPUCNN_[A-Z_]+)` \|", README, re.MULTILINE))
    assert rows == read
