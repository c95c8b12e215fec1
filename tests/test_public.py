"""The package's face: its names, and an import that is light and needs NumPy alone."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import gpucnn

ROOT = Path(gpucnn.__file__).parents[1]


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_every_public_name_is_there():
    assert len(set(gpucnn.__all__)) == len(gpucnn.__all__)
    for name in gpucnn.__all__:
        assert getattr(gpucnn, name) is not None
    assert set(gpucnn.__all__) <= set(dir(gpucnn))
    for name in ("Conv2D", "MaxPooling2D", "Sequential", "Trainer", "use_backend", "load"):
        assert name in gpucnn.__all__


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'gpucnn' has no attribute 'Conv9D'"):
        gpucnn.Conv9D  # noqa: B018 - the access is the test


def test_the_import_loads_nothing_heavy():
    heavy = "cupy", "matplotlib", "onnx", "PIL", "pooch", "rich", "safetensors", "typer"
    heavy += "dask", "jax", "torch"
    heavy += "gpucnn.backends.cuda", "gpucnn.cli", "gpucnn.data", "gpucnn.trainer"
    code = f"import sys, gpucnn; print([name for name in {heavy} if name in sys.modules])"
    assert python(code) == "[]"
    code = code.replace("gpucnn;", "gpucnn; gpucnn.interop, gpucnn.as_torch_module;")
    assert python(code) == "[]"


def test_the_import_is_fast():
    code = (
        "import time, numpy; start = time.process_time(); import gpucnn;"
        "print(time.process_time() - start)"
    )
    # Beside NumPy's own 0.1 s. One quiet moment in five will do: on a busy machine the same work
    # takes twice as long, and no import gets faster than it is.
    assert any(float(python(code)) < 0.2 for _ in range(5))


def test_it_runs_where_numpy_is_all_there_is():
    assert (
        python(
            "import sys;"
            "sys.modules.update(dict.fromkeys(('cupy', 'ml_dtypes', 'matplotlib', 'PIL', 'nvtx')));"
            "import gpucnn, numpy as np;"
            "print(gpucnn.Conv2D(15, 3).forward(np.ones((1, 5, 5, 1))).shape)"
        )
        == "(1, 3, 3, 15)"
    )


def test_the_version_is_the_one_of_the_package():
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None and found[1] == gpucnn.__version__
