"""The pages in docs/ say what is so: their examples run, and their links lead somewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpucnn

from .pages import links, program

ROOT = Path(gpucnn.__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
every_page = pytest.mark.parametrize("page", PAGES, ids=[path.stem for path in PAGES])


def run(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the page's Python blocks as one program, in a process and an empty folder of its own.

    The program bears the page's name and has each line where the page has it, so that an error
    names both. It sees no GPU.
    """
    script, work = folder / "docs" / page.name, folder / "work"
    script.parent.mkdir()
    work.mkdir()
    script.write_text(program(page.read_text("utf-8")), "utf-8")
    on_the_cpu = {"GPUCNN_BACKEND": "numpy", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(ROOT), **on_the_cpu},
        capture_output=True,
        text=True,
        timeout=300,
    )


@every_page
def test_the_examples_run(page, tmp_path):
    assert program(page.read_text("utf-8")), f"{page.name} shows no example"
    done = run(page, tmp_path)
    assert done.returncode == 0, f"{page.name} fails:\n{done.stdout}{done.stderr}"


@every_page
def test_every_link_leads_somewhere(page):
    for path in links(page.read_text("utf-8")):
        assert (page.parent / path).exists(), path


def test_an_example_that_fails_is_named_by_page_and_line(tmp_path):
    page = tmp_path / "broken.md"
    page.write_text(
        "# Broken\n\n```python\none = 1\n```\n\nInstall it:\n\n```bash\nexit 1\n```\n\n"
        "```python\nassert one == 1\nassert one == 2\n```\n"
    )
    done = run(page, tmp_path)
    assert done.returncode != 0 and 'broken.md", line 15' in done.stderr
