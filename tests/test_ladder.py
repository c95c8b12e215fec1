"""docs/ladder.md is true: it quotes the kernels, its counts are the compiler's, every rung runs."""

from __future__ import annotations

import doctest
import json
import re
import shutil

import pytest

from gpucnn.backends.cuda.algorithms import ALGORITHMS, LADDER, Problem
from gpucnn.backends.cuda.compiler import kernel_folder
from gpucnn.backends.cuda.plans import candidates
from profiling.gpu import figures, ladder, report, sanitized
from profiling.gpu.accuracy import LIMITS
from profiling.gpu.bench import Bench
from profiling.gpu.cases import key
from profiling.gpu.floors import Ceilings
from profiling.gpu.timing import HostTimer
from profiling.ladder import BY_NAME, LAYERS, RUNGS, counts, measured, page, rows
from profiling.ladder.picture import svg
from profiling.results import Results
from profiling.sass import disassembler

from .emulator.build import CXX
from .pages import blocks

PAGE = page.PAGE.read_text("utf-8")
PARTS = page.parts(PAGE)
QUOTES = blocks(PAGE, "cuda")
RENEW = "write the page anew: python -m profiling.ladder"


def test_every_rung_is_quoted():
    quoted = {quote.partition("\n")[0].removeprefix("// kernels/") for quote in QUOTES}
    assert len(QUOTES) == len(RUNGS) - 1  # both Winograds are one section
    assert quoted <= {path.name for path in kernel_folder().iterdir()}
    for rung in RUNGS:
        assert f"](../kernels/{rung.file})" in PAGE


@pytest.mark.parametrize("quote", QUOTES, ids=lambda quote: quote.partition("\n")[0])
def test_a_quotation_is_what_the_file_says(quote):
    first, _, text = quote.partition("\n")
    source = (kernel_folder() / first.removeprefix("// kernels/")).read_text("utf-8")
    at = 0
    for passage in text.split("// ...\n"):
        found = source.find(passage, at)
        assert found >= 0, f"not in {first[3:]}, or not in this order:\n{passage}"
        at = found + len(passage)


# ---- what is counted ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counted() -> list[counts.Counts]:
    pytest.importorskip("cupy", reason="NVRTC is reached through CuPy")
    if disassembler() is None:
        pytest.skip("there is no nvidia-cuda-nvdisasm")
    return [counts.count(rung) for rung in counts.COUNTED]


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def numbers(cell: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"[\d.,]+", cell)]


def test_the_table_says_what_is_counted(counted):
    """The next compiler may move registers and instructions a little, but not what follows."""
    head = page.counted([]).splitlines()[0]
    assert PARTS["counted"].startswith(head)
    compiled = {"registers", "multiply", "multiply-adds an instruction",
                "ceiling, TFLOP/s"}  # fmt: skip
    names = [name.strip() for name in head.split("|")[1:-1]]
    for said, now in zip(cells(PARTS["counted"]), cells(page.counted(counted)), strict=True):
        for name, a, b in zip(names, said, now, strict=True):
            if name in compiled:
                assert numbers(a) == pytest.approx(numbers(b), rel=0.1), (said[1], name, RENEW)
            else:
                assert a == b, (said[1], name, RENEW)


def test_each_rung_lifts_the_ceiling(counted):
    ceilings = [each.ceiling for each in counted]
    assert ceilings == sorted(ceilings)
    bounds = {each.rung.name: each.bound for each in counted}
    assert bounds["naive"] == "first cache" and bounds["tiled"] == "shared memory"
    assert bounds["registers"] == bounds["pipelined"] == "instructions"
    assert (bounds["wgmma"], bounds["patches"]) == ("second cache", "arithmetic")
    assert bounds["clusters"] == "arithmetic"
    naive, pipelined = (counts.count(BY_NAME[name]) for name in ("naive", "pipelined"))
    assert naive.times["first cache"] > 100 * naive.times["arithmetic"]
    assert pipelined.loop.multiplying > 0.8 * pipelined.loop.instructions


def test_nothing_beats_its_ceiling(counted):
    """Neither of what was measured, on any layer: a count that is wrong would show here."""
    ceilings = {each.rung.name: each.ceiling for each in counted}
    results = measured.newest()
    seen = 0
    for row in results.rows:
        rung = measured.rung_of(row) if not row.get("error") else None
        if rung and rung.name in ceilings and row["dtype"] == rung.dtype:
            assert row["tflops"] < ceilings[rung.name], (rung.name, row["layer"])
            seen += 1
    assert seen


def test_the_picture_is_of_these_tiles(counted):
    assert page.PICTURE.read_text("utf-8") == svg(counted), RENEW


def test_the_conflicts_of_banks():
    assert PARTS["banks"] == page.banks(), RENEW
    assert doctest.testmod(counts).failed == 0
    assert counts.bank_clocks([0] * 32) == 1, "all lanes want one word"
    assert counts.bank_clocks([16 * lane for lane in range(32)], 16) == 4, "512 bytes"
    assert [cell[3] for cell in cells(PARTS["banks"])] == ["32", "4", "8"]
    assert [cell[5] for cell in cells(PARTS["banks"])] == ["1", "1", "1"]


LISTING = """
.L_x_0:
        /*0000*/                   LDS.128 R0, [R8] ;
        /*0010*/                   LDS R4, [R9] ;
        /*0020*/                   FFMA.FTZ R5, R0, R4, R5 ;
        /*0030*/              @!P0 BRA `(.L_x_0) ;
.L_x_1:
        /*0040*/                   LDS R4, [R9] ;
        /*0050*/                   IADD3 R1, R1, 1, RZ ;
        /*0060*/                   FFMA R5, R0, R4, R5 ;
        /*0070*/                   NOP ;
        /*0080*/               @P1 BRA `(.L_x_1) ;
"""


def test_a_loop_is_read():
    loop = counts.loop_of(LISTING)
    assert loop == counts.Loop(
        multiply_adds=32, instructions=4, multiplying=1, reads=3, clocks=0.25
    )
    wgmma = LISTING.replace("LDS.128", "HGMMA.64x256x16.F32.BF16").replace("FFMA.FTZ", "NOP")
    # 64 x 256 x 16 by four warps; (64 + 256) x 32 bytes, 128 in a clock, a quarter of them a warp's
    loop = counts.loop_of(wgmma)
    assert (loop.multiply_adds, loop.clocks, loop.reads) == (65536, 32, 20 + 1)


# ---- what was measured --------------------------------------------------------------------------


def test_the_measured_part_is_its_files():
    (name,) = set(re.findall(r"\(\.\./profiling/results/([\w.-]+\.json)\)", PARTS["measured"]))
    results = Results(measured.FOLDER / name)
    assert PARTS["measured"] == page.results_part(results), RENEW


def test_kernels_are_told_by_their_names():
    for layer, shape in LAYERS.items():
        for rung in RUNGS:
            plan = rung.plan(shape)
            assert (plan is None) == (layer == "1x1" and rung.name[:4] in ("wino", "patc"))
            if plan is not None and rung in counts.COUNTED:
                symbol = counts.kernel_of(rung, plan, shape).symbol
                assert measured.rung_of({"op": "conv_fprop", "algorithm": symbol}) is rung
    four = "winograd4_filters_nhwc_f32 + conv_fprop_implicit_gemm_2d_nhwc_f32_64x128_v8"
    assert measured.rung_of({"op": "conv_fprop", "algorithm": four}) is BY_NAME["winograd4"]
    assert measured.rung_of({"op": "conv_dgrad", "algorithm": four}) is None


RATES = dict(zip(BY_NAME, (0.4, 8, 32, 45, 60, 110, 430, 760, 800, 810), strict=True))


@pytest.fixture
def on_a_gpu(tmp_path) -> Results:
    """A file of the ladder's rows, in another order, and a row of a network's."""
    meta = {"gpu": "NVIDIA H200", "date": "2026-01-31", "commit": "1a2b3c4"}
    results = Results(tmp_path / "h200-2026-01-31-1a2b3c4.json", meta)
    every = ladder.cases(90)
    assert len({key(case.row()) for case in every}) == len(every) == 17
    for case in reversed(every):
        rate = RATES[case.rung]
        us = 2 * case.shape.multiply_adds / rate / 1e6
        speedup = {"speedup": 1.25} if case.against else {}
        results.begin(case.row())
        results.end(ours_us=us, tflops=rate, gbps=1.0, floor_us=us / 2, peer="", **speedup)
    return results


def test_a_page_of_measured_rungs(on_a_gpu):
    text = page.results_part(on_a_gpu)
    found = cells(text[text.index("| layer") :])
    assert [row[1] for row in found[:10]] == list(BY_NAME)
    assert found[1] == ["3x3", "tiled", "float32", "29,595.0", "8.0", "50%", "20.0", ""]
    assert found[10][:2] == ["1x1", "naive"] and found[10][6] == "", "no gain over another layer"
    against = ["winograd4", "clusters", "pipelined", "clusters"]
    assert [row[1] for row in found if row[7]] == against
    assert "No results file" not in text


def test_a_rung_that_failed_has_no_line(on_a_gpu):
    failed = {**on_a_gpu.rows[0], "error": "no"}
    assert len(rows.rows_of_ladder([*on_a_gpu.rows, failed])) == 17


def test_a_report_has_the_ladder_and_no_mean_of_it(on_a_gpu, tmp_path):
    assert report.counted(on_a_gpu.rows) == [] and report.groups(on_a_gpu.rows) == {}
    text = report.markdown(on_a_gpu)
    assert "## The ladder of docs/ladder.md" in text and "| 1x1 | wgmma | bfloat16 |" in text
    (picture,) = figures.write(on_a_gpu, on_a_gpu.path)
    assert picture.name == f"{on_a_gpu.path.stem}-ladder.png"
    assert f"results/{picture.name})" in page.results_part(on_a_gpu)


def test_the_newest_with_a_ladder_comes_first(on_a_gpu, tmp_path):
    later = {"meta": {"gpu": "NVIDIA H200", "date": "2026-05-01", "commit": "2"}, "rows": []}
    (tmp_path / "h200-2026-05-01-2.json").write_text(json.dumps(later))
    (tmp_path / "cpu.json").write_text(json.dumps({"meta": {}, "rows": []}))
    on_a_gpu.save()
    assert measured.newest(tmp_path).path == on_a_gpu.path
    on_a_gpu.path.unlink()
    assert measured.newest(tmp_path).path.name == "h200-2026-05-01-2.json"
    assert measured.newest(tmp_path / "nowhere") is None


# ---- the rungs run ------------------------------------------------------------------------------


def test_no_plan_is_of_the_ladder():
    assert not set(ALGORITHMS) & set(LADDER)
    for shape in (*LAYERS.values(), *ladder.SMALL.values()):
        problem = Problem("fprop", shape, "float32")
        assert all(next(rung.plans(problem)).is_legal() for rung in LADDER.values())
        assert not {plan.algorithm for plan in candidates(problem)} & set(LADDER)


# Each on the layer that takes the emulator less, where there are two.
ON_SMALL = {case.rung: case for case in ladder.cases(90, ladder.SMALL)}


@pytest.mark.skipif(shutil.which(CXX) is None, reason=f"there is no {CXX}")
@pytest.mark.parametrize("case", ON_SMALL.values(), ids=ON_SMALL)
def test_a_rung_is_a_row_of_the_benchmark(case):
    """By its own kernels, and as exact as its format."""
    backend = sanitized.backend_named("emulated")
    ceilings = Ceilings.of("NVIDIA H200")
    bench = Bench(backend, "cpu", HostTimer(), ceilings, cache=0, memory=2**30, seconds=0.001)
    row = {**case.row(), **bench.measure(case)}
    assert "error" not in row
    assert row["err_ours"] <= LIMITS[f"{case.dtype} {case.math}"]
    assert measured.rung_of(row) is BY_NAME[case.rung]
    assert bool(row["peer"]) == bool(case.against) == ("speedup" in row)


@pytest.mark.skipif(shutil.which(CXX) is None, reason=f"there is no {CXX}")
def test_without_a_gpu_the_rungs_are_held_against_float64(capsys, monkeypatch):
    monkeypatch.setattr(ladder, "SMALL", {"1x1": ladder.SMALL["1x1"]})
    assert ladder.main() == 0
    assert "7 rungs, 0 wrong" in capsys.readouterr().out
    monkeypatch.setitem(LIMITS, "bfloat16 mixed", 0.0)
    assert ladder.main() == 1
    assert "7 rungs, 3 wrong" in capsys.readouterr().out


def test_a_gpu_without_a_rung_says_so():
    backend = sanitized.backend_named("emulated")
    backend.launcher.architecture = 80
    assert {case.rung for case in ladder.cases(80)} == set(BY_NAME) - {
        "wgmma", "patches", "clusters",
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"wgmma has no plan on sm_80\. Received: ConvShape"):
        ladder.run(backend, BY_NAME["wgmma"], LAYERS["1x1"], None, None)
