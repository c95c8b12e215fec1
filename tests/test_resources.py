"""The table of what kernels take, with a compiler that pretends."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from gpucnn.backends.cuda.compiler import Resources, kernel_folder
from gpucnn.backends.cuda.kernel import Kernel, modules
from profiling import resources


def pretended(kernel: Kernel, architecture: str) -> tuple[bytes, dict[str, Resources]]:
    """A later architecture takes fewer registers, float64 memory, and the oldest one spills."""
    together = next(group for group in modules().values() if kernel in group)
    wide = kernel.tags[:1] == ("f64",)
    used = Resources(
        registers=200 - int(architecture[3:]), shared_bytes=4096 * wide, stack_bytes=0,
        spill_bytes=8 * (architecture == "sm_75"),
    )  # fmt: skip
    return b"", {other.symbol: used for other in together}


@pytest.fixture(autouse=True)
def compiler(monkeypatch) -> None:
    monkeypatch.setattr(resources, "compile_cubin", pretended)


def test_a_row_is_brief():
    with ThreadPoolExecutor(1) as executor:
        found = resources.rows_of("dropout.cu", executor)
    rows = {row["variant"]: row for row in found if row["kernel"] == "dropout"}
    assert set(rows) == {"f16", "bf16", "f32", "f64"}
    assert rows["f32"] == {
        "file": "dropout.cu", "kernel": "dropout", "variant": "f32",
        "registers": [125, 120, 114, 111, 110, 100, 80], "shared_bytes": 0, "stack_bytes": 0,
        "spill_bytes": [8, 0, 0, 0, 0, 0, 0],
    }  # fmt: skip


def test_the_table_sums_up_each_kernel():
    row = {"file": "a.cu", "kernel": "a", "stack_bytes": 0, "spill_bytes": [0, 8]}
    rows = [
        {**row, "variant": "f32", "registers": [20, 31], "shared_bytes": 0},
        {**row, "variant": "f64", "registers": [None, 30], "shared_bytes": [None, 1024]},
        {**row, "kernel": "b", "variant": "", "registers": [None, 9], "shared_bytes": 0},
    ]
    about = {"architectures": ["sm_75", "sm_80"], "compiler": "NVRTC 1.2", "commit": "abc"}
    text = resources.markdown({**about, "date": "2026-01-31"}, rows)
    assert "3 specialisations of 2 kernels, by NVRTC 1.2 at abc, 2026-01-31" in text
    assert text.splitlines()[-4:] == [
        "| file | kernel | | sm_75 | sm_80 | shared | stack | spilled |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
        "| a.cu | a | 2 | 20 | 31 | 1,024 | 0 | 8 |",
        "| a.cu | b | 1 |  | 9 | 0 | 0 | 8 |",
    ]


def test_the_command_writes_all_or_prints_some(tmp_path, capsys):
    pytest.importorskip("cupy", reason="it says which NVRTC")
    resources.main(["dropout.cu", "--out", str(tmp_path)])
    assert "8 specialisations of 2 kernels" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        resources.main(["nothing.cu"])
    assert "FILE must be one of" in capsys.readouterr().err
    resources.main(["--out", str(tmp_path)])
    content = json.loads((tmp_path / "resources.json").read_text())
    assert content["meta"]["architectures"] == list(resources.ARCHITECTURES)
    assert len(content["rows"]) == sum(map(len, modules().values()))
    newest = [row for row in content["rows"] if isinstance(row["registers"], list)]
    assert any(None in row["registers"] for row in newest), "float64 tensor cores need sm_80"
    table = (tmp_path / "resources.md").read_text()
    assert table.count("\n| ") == 1 + len({(r["file"], r["kernel"]) for r in content["rows"]})
    assert (tmp_path / "resources.json").stat().st_size < 250 * len(content["rows"])


def test_what_is_as_it_was_stays(tmp_path, capsys, monkeypatch):
    pytest.importorskip("cupy", reason="it says which NVRTC")
    monkeypatch.setattr(resources, "FILES", ["add.cu", "dropout.cu"])
    before = resources.code_hash("dropout.cu")
    monkeypatch.setattr(resources, "code_hash", lambda file: before if file != "add.cu" else "old")
    table = tmp_path / "resources.json"
    resources.main(["--out", str(tmp_path)])
    first = json.loads(table.read_text())
    assert first["meta"]["sources"] == {"add.cu": "old", "dropout.cu": before}
    compiled = []
    monkeypatch.setattr(
        resources, "compile_cubin", lambda *of: compiled.append(of[0].file) or pretended(*of)
    )
    resources.main(["--out", str(tmp_path)])
    assert not compiled and json.loads(table.read_text())["rows"] == first["rows"]
    monkeypatch.setattr(resources, "code_hash", lambda file: before if file != "add.cu" else "new")
    resources.main(["--out", str(tmp_path)])
    assert set(compiled) == {"add.cu"} and json.loads(table.read_text())["rows"] == first["rows"]
    assert capsys.readouterr().err.endswith("dropout.cu: as before\n")
    monkeypatch.setattr(resources, "compiler", lambda: "NVRTC 1.2")
    compiled.clear()
    resources.main(["--out", str(tmp_path)])
    assert set(compiled) == {"add.cu", "dropout.cu"}


def test_code_is_what_is_compiled(tmp_path):
    """A header's counts, too; comments and the width of spaces do not."""
    shutil.copytree(kernel_folder(), tmp_path, dirs_exist_ok=True)
    file, header = tmp_path / "add.cu", tmp_path / "neighbours.cuh"
    was = resources.code_hash("add.cu", tmp_path)
    assert was == resources.code_hash("add.cu")
    file.write_text(f"// more\n{file.read_text()}\n\n")
    assert resources.code_hash("add.cu", tmp_path) == was
    header.write_text(f"{header.read_text()}\nconst int MORE = 1;\n")
    assert resources.code_hash("add.cu", tmp_path) != was
