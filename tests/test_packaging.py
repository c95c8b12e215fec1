"""What is installed is what lies in the checkout: wheel and source distribution, run elsewhere."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: object, cwd: Path, path: Path | None = None) -> str:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd)}
    if path:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution, and from it the wheel, as ``python -m build`` does."""
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def installed(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel, without its dependencies, in a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    (wheel,) = distributions.glob("*.whl")
    run("-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel, cwd=target)
    return target


def files(folder: Path, *patterns: str) -> set[str]:
    return {
        str(path.relative_to(folder))
        for pattern in patterns
        for path in folder.rglob(pattern)
        if "__pycache__" not in path.parts
    }


def test_wheel_holds_every_file(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = {f"gpucnn/{name}" for name in files(ROOT / "gpucnn", "*.py", "files/*")}
    kernels = {f"gpucnn/kernels/{name}" for name in files(ROOT / "kernels", "*.cu", "*.cuh")}
    assert inside == sources | kernels


def test_source_distribution_builds_what_it_holds(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "kernels/conv_fprop.cu"} <= names


def test_it_runs_from_elsewhere(installed: Path, tmp_path: Path) -> None:
    program = (
        "import gpucnn, numpy as np;"
        "from gpucnn.backends.cuda.compiler import kernel_folder, source;"
        "print(gpucnn.__file__, kernel_folder(), len(source('conv_fprop.cu')) > 1000,"
        " gpucnn.Conv2D(15, 3).forward(np.ones((1, 5, 5, 1), np.float32)).shape,"
        " gpucnn.data.load('digits').train.images.shape, sep='|')"
    )
    package, kernels, found, shape, images = run("-c", program, cwd=tmp_path, path=installed).split(
        "|"
    )
    assert Path(package).is_relative_to(installed)
    assert Path(kernels) == installed / "gpucnn" / "kernels"
    assert found == "True"
    assert shape == "(1, 3, 3, 15)"
    assert images == "(1437, 8, 8, 1)"


def test_kernels_are_found_in_a_checkout() -> None:
    from gpucnn.backends.cuda.compiler import kernel_folder

    assert kernel_folder() == ROOT / "kernels"
