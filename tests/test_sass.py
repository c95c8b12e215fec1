"""The machine code that NVRTC makes: the instructions that a kernel was written for are there."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from gpucnn.backends.cuda.activation import FORWARD as ACTIVATION_FORWARD
from gpucnn.backends.cuda.algorithms import (
    ALGORITHMS,
    DIRECTIONS,
    direct,
    grouped,
    mma,
    mma_tiles,
    mma_wgrad,
    wgmma,
    wgmma_dgrad,
    wgmma_tiles,
    wgmma_wgrad,
    winograd,
)
from gpucnn.backends.cuda.algorithms.implicit_gemm import FLAT_KERNELS, FLAT_TILES, VECTOR_KERNELS
from gpucnn.backends.cuda.algorithms.tiles import SLIM, SQUARE, TALL, TILE_K, Tile
from gpucnn.backends.cuda.change_layout import CHANGE_LAYOUT, PICTURES
from gpucnn.backends.cuda.channels import SUMS
from gpucnn.backends.cuda.compiler import compile_cubin
from gpucnn.backends.cuda.global_pool import WHOLE
from gpucnn.backends.cuda.kernel import Kernel
from gpucnn.backends.cuda.norm import BATCH_BACKWARD, BATCH_FORWARD
from gpucnn.backends.cuda.optimizer import SGD
from gpucnn.backends.cuda.pool import BACKWARD, FORWARD, STRIPS
from gpucnn.backends.cuda.softmax_loss import CROSS_ENTROPY
from profiling import sass
from profiling.sass import INSTRUCTION, disassembler, loops, spans

pytest.importorskip("cupy", reason="NVRTC is reached through CuPy")


@pytest.fixture(scope="module")
def nvdisasm() -> Path:
    """The disassembler of the package nvidia-cuda-nvdisasm."""
    return disassembler() or pytest.skip("there is no nvidia-cuda-nvdisasm")


# Touches global memory, or leaves.
NOT_ABOVE_THE_WAIT = {
    "LD", "ST", "LDG", "STG", "LDGSTS", "ATOM", "ATOMG", "RED", "REDG", "UTMALDG", "UTMASTG",
    "EXIT", "RET", "CALL",
}  # fmt: skip


def listing(nvdisasm: Path, folder: Path, kernel: Kernel, architecture: str) -> str:
    """Return a kernel's machine code, in which the compiler has left the wait at the top."""
    code = sass.listing(nvdisasm, folder, kernel, architecture)
    if int(architecture[3:]) >= 90:
        names = INSTRUCTION.findall(code)
        assert names.count("PREEXIT") == names.count("ACQBULK") == 1, "griddepcontrol's two"
        assert not mnemonics(set(names[: names.index("ACQBULK")])) & NOT_ABOVE_THE_WAIT
    return code


def instructions(nvdisasm: Path, folder: Path, kernel: Kernel, architecture: str) -> set[str]:
    """Return the instructions that occur in a kernel, "DMMA.16x8x16", "LDG.E.64" ..."""
    return set(INSTRUCTION.findall(listing(nvdisasm, folder, kernel, architecture)))


def multiplying_loop(code: str, multiply: str) -> list[str]:
    """Return the loop with the largest share of these instructions: an epilogue has loops, too."""
    return max(loops(code), key=lambda loop: sum(i.startswith(multiply) for i in loop) / len(loop))


def longest_loop(code: str) -> list[str]:
    return max(loops(code), key=len)


# Local memory, and memory of which the compiler does not know that it is global: each such access
# waits for those to shared memory.
UNWANTED = {"LDL", "STL", "LD", "ST"}


def mnemonics(found: set[str]) -> set[str]:
    return {instruction.split(".")[0] for instruction in found}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("architecture, mma", [("sm_80", "DMMA.884"), ("sm_90", "DMMA.16x8x16")])
def test_doubles_are_multiplied_on_tensor_cores(
    nvdisasm: Path, tmp_path: Path, architecture: str, mma: str, direction: str
) -> None:
    dmma = ALGORITHMS["dmma"]
    kernel = dmma.kernels[direction](2, True, "float64", dmma.tiles[0])
    code = listing(nvdisasm, tmp_path, kernel, architecture)
    found = set(INSTRUCTION.findall(code))
    assert mma in found
    assert "LDS.64" in found
    assert not mnemonics(found) & UNWANTED
    assert "DFMA" not in mnemonics(multiplying_loop(code, mma))


@pytest.mark.parametrize("direction", mma.KERNELS)
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_halves_are_multiplied_on_tensor_cores(
    nvdisasm: Path, tmp_path: Path, architecture: str, direction: str
) -> None:
    tile = mma_tiles.SQUARE
    kernel = mma.KERNELS[direction]("float16", tile)
    code = listing(nvdisasm, tmp_path, kernel, architecture)
    found = set(INSTRUCTION.findall(code))
    assert {"HMMA.16816.F32", "LDSM.16.M88.4", "STG.E.128"} <= found
    assert ("LDSM.16.MT88.4" in found) == (direction == "dgrad")
    assert direction == "dgrad" or "STG.E.64" in found, "of the places of maxima"
    assert not mnemonics(found) & UNWANTED
    assert "FFMA" not in mnemonics(multiplying_loop(code, "HMMA"))
    # the barrier's part, which the last slab has not, stands before the rest: loops that overlap
    found = [name.split(".")[0] for name in INSTRUCTION.findall(code)]
    copying = [span for span in spans(code) if "LDGSTS" in found[slice(*span)]]
    loop = found[min(begin for begin, _ in copying) : max(end for _, end in copying)]
    chunks = (tile.m + tile.n) * tile.k // 8 // tile.threads
    assert loop.count("LDGSTS") == chunks
    assert loop.count("LDSM") == (tile.warp_m + tile.warp_n) * tile.k // 256
    assert loop.count("HMMA") == tile.warp_m * tile.warp_n * tile.k // 2048 > 0.3 * len(loop)
    assert loop.count("BAR") == 1


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("math", ["tf32", "fp32x3"])
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_floats_are_multiplied_on_tensor_cores_where_that_is_permitted(
    nvdisasm: Path, tmp_path: Path, architecture: str, math: str, direction: str
) -> None:
    if direction == "wgrad":
        tiles, family = mma_wgrad.WAYS[math]
        tile = next(iter(tiles))
        kernel, terms = family(2, math, tile), 2 * 8  # two steps are a turn of the loop
    else:
        tiles, families = mma.WAYS[math]
        tile = tiles[1] if math == "tf32" else tiles[0]
        kernel, terms = families[direction](math, tile), tile.k
    code = listing(nvdisasm, tmp_path, kernel, architecture)
    found = set(INSTRUCTION.findall(code))
    assert "HMMA.1688.F32.TF32" in found
    assert ("LDSM.16.M88.4" in found) == (direction != "wgrad")
    assert not {"LDSM.16.MT88.4"} & found and not mnemonics(found) & UNWANTED
    assert "FFMA" not in mnemonics(multiplying_loop(code, "HMMA"))
    names = [name.split(".")[0] for name in INSTRUCTION.findall(code)]
    turn = tile.warp_m // 8 * tile.warp_n // 16 * terms // 8 * tile.products
    copying = [span for span in spans(code) if "LDGSTS" in names[slice(*span)]]
    loop = names[min(begin for begin, _ in copying) : max(end for _, end in copying)]
    # tensor cores take 8 clocks for one of them, in which others are issued
    assert loop.count("HMMA") == turn > len(loop) / {1: 7, 3: 9}[tile.products]
    # what a step adds to the sums, and what is left of a number, are ordinary additions
    assert (loop.count("FADD") > turn) == (math == "fp32x3")


@pytest.mark.parametrize(
    ("direction", "tile"),
    [
        pytest.param(direction, tile, id=f"{direction}-{tile.m}x{tile.n}")
        for direction in DIRECTIONS
        for tile in (*FLAT_TILES[direction], TALL, SQUARE, SLIM)
    ],
)
def test_float32_means_float32_and_multiply_adds_fill_the_loop(
    nvdisasm: Path, tmp_path: Path, direction: str, tile: Tile
) -> None:
    flat = tile in FLAT_TILES[direction]
    family = FLAT_KERNELS[direction] if flat else VECTOR_KERNELS[direction, True]
    kernel = family(2, True, "float32", tile)
    code = listing(nvdisasm, tmp_path, kernel, "sm_90")
    found = set(INSTRUCTION.findall(code))
    assert "LDS.128" in found and any(re.match(r"LDGSTS\.E\.\S*128", name) for name in found)
    assert not mnemonics(found) & {"HMMA", "DMMA", *UNWANTED}
    loop = multiplying_loop(code, "FFMA")
    multiply_adds = sum(name.startswith("FFMA") for name in loop)
    assert multiply_adds == tile.thread_m * tile.thread_n * TILE_K
    assert multiply_adds > (0.8 if tile.thread_n == 8 else 0.7) * len(loop)


def test_a_norm_on_load_takes_nine_instructions_for_two_numbers(
    nvdisasm: Path, tmp_path: Path
) -> None:
    strip, tall = mma_tiles.NORM_TILES[-1], next(iter(mma_wgrad.NORM_EFFICIENCY))
    for kernel, tile, terms in (
        (mma.KERNELS["fprop"]("float16", strip), strip, strip.k),
        (mma_wgrad.NORMED_WGRAD(2, "bfloat16", tall), tall, 2 * 16),
    ):
        code = listing(nvdisasm, tmp_path, kernel, "sm_90")
        assert not mnemonics(set(INSTRUCTION.findall(code))) & UNWANTED
        loop = multiplying_loop(code, "HMMA")
        names = [name.split(".")[0] for name in loop]
        pairs = tile.warp_m * terms // 64
        assert [names.count(name) for name in ("FADD", "FFMA", "F2FP")] == [
            2 * pairs,
            2 * pairs,
            pairs,
        ]
        assert names.count("HMNMX2") == 2 * pairs, "the bounds of two numbers at once"
        assert all(".NAN" in name for name in loop if name.startswith("HMNMX2"))


@pytest.mark.parametrize("tile", mma_wgrad.TILES, ids=lambda tile: f"{tile.m}x{tile.n}")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_halves_are_copied_turned_and_multiplied_on_tensor_cores(
    nvdisasm: Path, tmp_path: Path, architecture: str, tile: mma_wgrad.Tile
) -> None:
    for dtype, multiply in (("float16", "HMMA.16816.F32"), ("bfloat16", "HMMA.16816.F32.BF16")):
        code = listing(nvdisasm, tmp_path, mma_wgrad.WGRAD(2, dtype, tile), architecture)
        found = set(INSTRUCTION.findall(code))
        assert {multiply, "LDSM.16.MT88.4", "STG.E.128", "STG.E.64"} <= found
        assert re.search(r"LDGSTS\.E\.BYPASS\.\S*128 ", code), "16 bytes, past the L1 cache"
        assert not mnemonics(found) & {"FFMA", "STS", *UNWANTED}
        # a step of the loop: 32 pixels
        loop = [name.split(".")[0] for name in longest_loop(code)]
        assert loop.count("HMMA") == tile.warp_m // 8 * tile.warp_n // 16 * 2
        assert loop.count("LDSM") == (tile.warp_m + tile.warp_n) // 16 * 2
        assert loop.count("LDGSTS") == 32 * (tile.m + tile.n) // 8 // tile.threads
        multiplied = loop.count("HMMA") + loop.count("LDSM") + loop.count("LDGSTS")
        assert multiplied > {64: 0.42, 48: 0.35, 16: 0.22}[loop.count("HMMA")] * len(loop)
        # copies are under way, and the next part is being loaded, while tensor cores work
        assert loop.index("HMMA") < loop.index("LDGSTS") < len(loop) - loop[::-1].index("HMMA")


ALONE = [tile for tile in wgmma_tiles.TILES if tile.cluster == 1]


@pytest.mark.parametrize("tile", ALONE, ids=lambda tile: tile.name)
def test_hopper_brings_multiplies_and_stores_by_its_own_instructions(
    nvdisasm: Path, tmp_path: Path, tile: wgmma_tiles.Tile
) -> None:
    family, loads, store = (
        (wgmma.PATCH, {"UTMALDG.3D", "UTMALDG.4D"}, "UTMASTG.4D")
        if tile.patches
        else (wgmma.CONV, {"UTMALDG.3D", "UTMALDG.4D.IM2COL"}, "UTMASTG.2D")
    )
    floats = [("float32", False)] if tile in (wgmma_tiles.SMALL, wgmma_tiles.LOW) else []
    halves = [("float16", False), ("bfloat16", True)][ALONE.index(tile) % 2]  # in turn
    for operands in (halves, *floats):
        code = listing(nvdisasm, tmp_path, family(operands, tile), "sm_90")
        found = set(INSTRUCTION.findall(code))
        assert {store, *loads} <= found
        in_16_bits = operands[0] != "float32"
        assert ("STSM.16.MT88.4" in found) == in_16_bits != ("STS" in found)
        assert ("LDSM.16.MT88.4" in found) == in_16_bits, "of the residual"
        pools = operands == ("float16", False) and wgmma_tiles.pools(tile, 2)
        assert ("STG.E.64" in found) == pools, "of the places of maxima"
        assert ("STG.E.U8" in found) != operands[1], "of the mask, which gradients have not"
        multiplies_without_pause(code, tile, *operands)


@pytest.mark.parametrize("tile", [wgmma_tiles.SOLO_CLUSTER, wgmma_tiles.LOW_CLUSTER])
def test_a_cluster_brings_what_its_blocks_have_in_common_to_all(
    nvdisasm: Path, tmp_path: Path, tile: wgmma_tiles.Tile
) -> None:
    family, shared, own = (
        (wgmma.PATCH, "UTMALDG.3D", "UTMALDG.4D")
        if tile.patches
        else (wgmma.CONV, "UTMALDG.4D.IM2COL", "UTMALDG.3D")
    )
    operands = "bfloat16", bool(tile.patches)
    kernel = family(operands, tile)
    assert struct.pack("<2BH3I", 4, 0x3D, 12, 2, 1, 1) in compile_cubin(kernel, "sm_90")[0]
    code = listing(nvdisasm, tmp_path, kernel, "sm_90")
    found = INSTRUCTION.findall(code)
    assert {f"{shared}.MULTICAST", own} <= set(found) and shared not in found
    assert f"{own}.MULTICAST" not in found
    # the blocks meet twice; beside that no thread waits until the whole GPU sees what it wrote
    assert found.count("UCGABAR_ARV") == found.count("UCGABAR_WAIT") == 2
    assert found.count("MEMBAR.ALL.GPU") == 2
    assert "SYNCS.ARRIVE.TRANS64.RED.A1T0" in found, "at another block's barrier"
    multiplies_without_pause(code, tile, *operands)


@pytest.mark.parametrize("tile", wgmma_dgrad.TILES, ids=lambda tile: tile.name)
def test_hopper_gathers_gradients_of_strided_convolutions(
    nvdisasm: Path, tmp_path: Path, tile: wgmma_tiles.Tile
) -> None:
    for operands in wgmma_dgrad.READ:
        code = listing(nvdisasm, tmp_path, wgmma_dgrad.CLASSES(operands, tile), "sm_90")
        found = set(INSTRUCTION.findall(code))
        assert {"UTMALDG.3D", "UTMALDG.4D.IM2COL", "STG.E.128"} <= found
        multiplies_without_pause(code, tile, *operands)


def multiplies_without_pause(code: str, tile: wgmma_tiles.Tile, dtype: str, turned: bool) -> None:
    """A step is four multiplications, one after the other, and not much beside them."""
    kind = {"float16": "x16.F32", "bfloat16": "x16.F32.BF16", "float32": "x8.F32.TF32"}[dtype]
    multiply = f"HGMMA.64x{tile.group_pixels}{kind}"
    loop = min((loop for loop in loops(code) if multiply in loop), key=len)
    assert loop.count(multiply) == 4 and len(loop) < 100
    first = loop.index(multiply)
    assert not any(name.startswith("WARPGROUP.DEPBAR") for name in loop[first : first + 4])
    assert code.count(".tnspA") == (code.count("HGMMA") if turned else 0)
    assert not mnemonics(set(loop)) & {"FFMA", "LDS", "STS"}
    assert not mnemonics(set(INSTRUCTION.findall(code))) & {"HMMA", *UNWANTED}


@pytest.mark.parametrize("tile", wgmma_wgrad.TILES, ids=lambda t: f"{t.filters}x{t.weights}")
def test_hopper_turns_both_operands_of_the_filters_gradient(
    nvdisasm: Path, tmp_path: Path, tile: wgmma_wgrad.Tile
) -> None:
    family = wgmma_wgrad.PATCHES if tile.patches else wgmma_wgrad.GATHERED
    for dtype, suffix in (("float16", ""), ("bfloat16", ".BF16")):
        code = listing(nvdisasm, tmp_path, family(dtype, tile), "sm_90")
        found = set(INSTRUCTION.findall(code))
        multiply = f"HGMMA.64x{tile.group_weights}x16.F32{suffix}"
        assert {multiply, "UTMALDG.4D" + ("" if tile.patches else ".IM2COL")} <= found
        assert code.count("HGMMA") == code.count(".tnspA.tnspB")
        loop = min((loop for loop in loops(code) if multiply in loop), key=len)
        assert loop.count(multiply) == tile.pixels // 16 and len(loop) < 100
        assert not mnemonics(found) & {"FFMA", "STS", *UNWANTED}


@pytest.mark.parametrize("channels_last", [True, False])
def test_winograd_fetches_multiplies_and_then_transforms(
    nvdisasm: Path, tmp_path: Path, channels_last: bool
) -> None:
    for family, share in ((winograd.CONV, 0.7), (winograd.WGRAD, 0.6)):
        kernel = family(channels_last, "float32", winograd.WGRAD_BLOCK)
        code = listing(nvdisasm, tmp_path, kernel, "sm_90")
        found = set(INSTRUCTION.findall(code))
        assert "LDS.128" in found and not mnemonics(found) & UNWANTED
        loop = [name.split(".")[0] for name in multiplying_loop(code, "FFMA")]
        # 8 x 8 multiply-adds for 2 points and the slab's 4 channels or tiles
        assert loop.count("FFMA") == 512 > share * len(loop)
        # what is fetched has until the transform, before the last channel or tile, to arrive
        loads = [i for i, name in enumerate(loop) if name == "LDG"]
        between = loop[loads[-1] : loop.index("STS")]
        assert between.count("FFMA") >= 512 * 3 // 4 - 16


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_few_channels_are_multiplied_out_of_registers(
    nvdisasm: Path, tmp_path: Path, dtype: str
) -> None:
    wide = ".128" if dtype == "float32" else ".64"  # of a chunk of gradients
    for kernel, multiply_adds, share, access in (
        (direct.FPROP(dtype, (3, 1)), 9 * 32, 0.85, "STG.E.128"),
        # the loop has other copies, for other layouts, poolings and outputs at the end of a row
        (direct.WGRAD(dtype, (3, 1, 3)), 27 * 16, 0.5, f"LDG.E{wide}"),
    ):
        code = listing(nvdisasm, tmp_path, kernel, "sm_90")
        found = set(INSTRUCTION.findall(code))
        assert {"LDS.128", access} <= found and not mnemonics(found) & UNWANTED
        innermost = min((loop for loop in loops(code) if "FFMA.FTZ" in loop), key=len)
        assert multiply_adds <= innermost.count("FFMA.FTZ") > share * len(innermost)


def test_few_channels_a_group_are_one_load(nvdisasm: Path, tmp_path: Path) -> None:
    for family in (grouped.GATHER, grouped.WGRAD):
        kernel = family("float32", grouped.TILES[0])
        found = instructions(nvdisasm, tmp_path, kernel, "sm_90")
        assert any(instruction.startswith("LDG.E.128") for instruction in found)
        assert "LDS.128" in found and "FFMA" in mnemonics(found)
        assert not mnemonics(found) & UNWANTED


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_norms_move_16_bytes_at_a_time(
    nvdisasm: Path, tmp_path: Path, dtype: str, channels_last: bool
) -> None:
    where = channels_last, dtype
    for kernel in (BATCH_FORWARD(*where), BATCH_BACKWARD(*where), SUMS("batch_gradient", *where)):
        found = instructions(nvdisasm, tmp_path, kernel, "sm_90")
        assert any(instruction.startswith("LDG.E.128") for instruction in found)
        assert "STG.E.128" in found
        assert not mnemonics(found) & UNWANTED


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_norms_ask_for_several_packs_before_they_use_any(
    nvdisasm: Path, tmp_path: Path, dtype: str
) -> None:
    """In 16 bits the compiler likes to take a pack apart, and so wait for it, before the next."""
    where = True, dtype
    for kernel, packs in (
        (BATCH_FORWARD(*where), 4), (BATCH_BACKWARD(*where), 4), (SUMS("moments", *where), 4),
        (SUMS("batch_gradient", *where), 8),
    ):  # fmt: skip
        found = INSTRUCTION.findall(listing(nvdisasm, tmp_path, kernel, "sm_90"))
        marked = (n for n in found if n.startswith(("LDG.E.128", "FADD", "FFMA", "HADD2", "PRMT")))
        order = "".join("L" if name.startswith("LDG") else "m" for name in marked)
        assert "L" * packs in order, kernel.symbol


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gelu_leaves_time_for_memory_in_16_bits(nvdisasm: Path, tmp_path: Path, dtype: str) -> None:
    """Some 27 instructions an element take as long as its four bytes on an H200."""
    code = listing(nvdisasm, tmp_path, ACTIVATION_FORWARD("gelu", dtype), "sm_90")
    found = INSTRUCTION.findall(code)
    first, last = (
        max(i for i, name in enumerate(found) if name.startswith(move))
        for move in ("LDG.E.128", "STG.E.128")
    )
    assert not mnemonics(set(found[first + 1 : last])) & {"BRA", "CALL", "LDG"}
    assert (last - first) / 8 < 20


def loads_16_bytes(found: set[str]) -> bool:
    return any(instruction.startswith("LDG.E.128") for instruction in found)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_pools_and_layouts_move_16_bytes_at_a_time(
    nvdisasm: Path, tmp_path: Path, dtype: str
) -> None:
    moving = [
        FORWARD("max", "channels", dtype), CHANGE_LAYOUT({"float16": 2, "float32": 4}[dtype]),
        *(family(True, "channels", dtype) for family in BACKWARD.values()),
    ]  # fmt: skip
    for kernel in moving:
        found = instructions(nvdisasm, tmp_path, kernel, "sm_90")
        assert loads_16_bytes(found) and "STG.E.128" in found, kernel.symbol
        assert not mnemonics(found) & UNWANTED
    found = instructions(nvdisasm, tmp_path, moving[0], "sm_90")
    assert {"float16": "STG.E.64", "float32": "STG.E"}[dtype] in found, "an index of one byte each"
    halving = instructions(nvdisasm, tmp_path, FORWARD("max", "pairs", dtype), "sm_90")
    assert loads_16_bytes(halving) and "STG.E.64" in halving
    for kernel in (WHOLE(True, channels_last, dtype) for channels_last in (True, False)):
        assert loads_16_bytes(instructions(nvdisasm, tmp_path, kernel, "sm_90"))
    assert "STG.E.128" in instructions(
        nvdisasm, tmp_path, BACKWARD["cells"](True, "pairs", dtype), "sm_90"
    )


def test_tensors_of_a_table_are_known_to_be_global(nvdisasm: Path, tmp_path: Path) -> None:
    found = instructions(nvdisasm, tmp_path, SGD("float32"), "sm_90")
    assert {"LDG", "STG"} <= mnemonics(found) and not mnemonics(found) & UNWANTED


@pytest.mark.parametrize("dtype, packs", [("float32", 8), ("float16", 4)])
def test_a_warp_asks_for_a_row_of_logits_at_once(
    nvdisasm: Path, tmp_path: Path, dtype: str, packs: int
) -> None:
    code = listing(nvdisasm, tmp_path, CROSS_ENTROPY("int64", "held", dtype), "sm_90")
    used = "LDG.E.128", "FADD", "FSETP", "FMNMX", "HADD2", "PRMT"
    marked = (name for name in INSTRUCTION.findall(code) if name.startswith(used))
    order = "".join("L" if name.startswith("LDG") else "m" for name in marked)
    assert packs * "L" in order and "BAR" not in code


def test_a_strip_of_windows_is_loaded_at_once(nvdisasm: Path, tmp_path: Path) -> None:
    code = listing(nvdisasm, tmp_path, STRIPS("max", "one", "float32"), "sm_90")
    marked = (name for name in INSTRUCTION.findall(code) if name.startswith(("LDG", "FSETP")))
    order = "".join("L" if name.startswith("LDG") else "m" for name in marked)
    assert order.startswith(9 * "L" + "m") and order.count("L") == 9


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_pictures_move_16_bytes_at_a_time(
    nvdisasm: Path, tmp_path: Path, size: int, last: bool
) -> None:
    found = INSTRUCTION.findall(listing(nvdisasm, tmp_path, PICTURES[last](size), "sm_90"))
    for name in ("LDG.E.128.CONSTANT", "STS.128", "LDS.128", "STG.E.128"):
        assert found.count(name) == 3
    assert not {name for name in found if name.startswith(("LDG", "STS", "LDS", "STG"))} - {
        "LDG.E.128.CONSTANT", "STS.128", "LDS.128", "STG.E.128",
    }  # fmt: skip
    assert not mnemonics(set(found)) & UNWANTED


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_pool_asks_for_a_whole_window_before_it_uses_any(
    nvdisasm: Path, tmp_path: Path, dtype: str
) -> None:
    code = listing(nvdisasm, tmp_path, FORWARD("max", "channels", dtype), "sm_90")
    marks = {"LDG": "L", "FMNMX": "m", "FSETP": "m", "BRA": " "}
    order = "".join(marks.get(name.split(".")[0], "") for name in INSTRUCTION.findall(code))
    assert re.search(r"(?<!L)L{9}m", order), "3x3"
    assert re.search(r"(?<!L)L{4}m", order), "2x2"
