"""What is measured, and the least time that it can take."""

from __future__ import annotations

import doctest
import importlib
from types import SimpleNamespace

import pytest

from gpucnn.shapes import ConvShape, PoolShape
from profiling.gpu import bench, cases, floors, networks, ours, report
from profiling.gpu.cases import BFLOAT16, FLOAT32, Case, ParameterShape

from . import H200, SET

MODULES = ("accuracy", "cases", "figures", "floors", "jobs", "machine", "networks", "report")


@pytest.mark.parametrize("name", [*(f"gpu.{m}" for m in MODULES), "gpu.timing", "results"])
def test_examples(name):
    assert doctest.testmod(importlib.import_module(f"profiling.{name}")).failed == 0


@pytest.mark.parametrize(
    "network, convolutions, distinct, pools, giga",
    [
        (networks.resnet50, 53, 23, 2, 4.087),
        (networks.resnext50, 53, 24, 2, 4.228),
        (networks.vgg16, 13, 9, 5, 15.347),
        (networks.mobilenet_v2, 52, 30, 0, 0.2995),
        (networks.lenet, 2, 2, 2, 0.000358),
        (networks.m5, 4, 4, 3, 0.13696),
        (networks.c3d, 8, 7, 4, 38.50),
    ],
)
def test_networks_are_as_published(network, convolutions, distinct, pools, giga):
    """Layers and multiply-adds of one sample (ResNet-50 has 4.09 G with its dense layer)."""
    layers = network(1)
    found = networks.convolutions(layers)
    assert len(found) == convolutions
    assert len(networks.distinct(found)) == distinct
    assert len(networks.pools(layers)) == pools
    assert sum(layer.count for layer in networks.distinct(found)) == convolutions
    assert sum(layer.shape.multiply_adds for layer in found) / 1e9 == pytest.approx(giga, rel=2e-3)


def test_last_maps_and_special_layers():
    assert networks.resnet50(2)[-1].shape.x_shape == (2, 7, 7, 2048)
    assert networks.vgg16(2)[-1].shape.y_shape == (2, 7, 7, 512)
    depthwise = [
        layer.shape
        for layer in networks.convolutions(networks.mobilenet_v2(1))
        if layer.shape.groups > 1
    ]
    assert len(depthwise) == 17
    assert all(shape.groups == shape.channels == shape.filters for shape in depthwise)
    grouped = [layer for layer in networks.resnext50(1) if "3x3" in layer.name]
    assert {layer.shape.groups for layer in grouped} == {32} and len(grouped) == 16


def test_the_set_has_what_was_asked_for():
    rows = [case.row() for case in SET]
    assert len({cases.key(row) for row in rows}) == len(rows)
    assert {row["op"] for row in rows} == set(ours.OPERATIONS)
    assert {row["op"] for row in rows} == set(report.OPERATIONS)
    for name, batches in (
        ("resnet50", {1, 32, 256}), ("vgg16", {1, 64}), ("cifar_vgg", {128, 512}),
        ("lenet", {128, 512}),
    ):  # fmt: skip
        plain = [r for r in rows if r["set"] == name and r["op"] == "conv_fprop"]
        assert {row["shape"]["batch"] for row in plain} == batches
    forward = [r for r in rows if r["op"] == "conv_fprop" and r["dtype"] == "float32"]
    resnet = [r for r in forward if r["set"] == "resnet50" and r["layout"] == "NHWC"]
    assert sum(row["shape"]["batch"] == 256 for row in resnet) == 23
    assert {row["math"] for row in rows} == {"strict", "mixed", "tf32", "fp32x3"}
    no_picture = [r for r in rows if r["op"] == "conv_dgrad" and r["shape"]["channels"] <= 4]
    assert no_picture == []


def test_a_short_run_has_some_of_everything():
    early = [case.row() for case in SET[:70]]
    assert {row["op"] for row in early} >= set(ours.OPERATIONS) - {
        "average_pool", "average_pool_backward",
    }  # fmt: skip
    assert {row["dtype"] for row in early} == {"float32", "float64", "bfloat16"}
    kinds = {cases.conv_kind(row["shape"]) for row in early if row["op"].startswith("conv")}
    assert kinds == set(report.KINDS)
    assert [case.set for case in SET[:9]] == ["resnet50"] * 9


def options(**given):
    names = ("set", "op", "dtype", "quick", "compile", "jax")
    return SimpleNamespace(**dict.fromkeys(names) | given)


def test_the_options_choose():
    only = bench.chosen(options(set=["vgg16"], op=["conv_wgrad"], dtype=["bfloat16"]))
    assert only and all((c.set, c.op, c.dtype) == ("vgg16", "conv_wgrad", "bfloat16") for c in only)
    quick = bench.chosen(options(quick=True))
    assert sorted(case.op for case in quick) == sorted(ours.OPERATIONS)
    peers = bench.chosen(options(compile=True, jax=True, set=["stems"]))
    assert {case.against for case in peers} == {"torch", "torch.compile", "jax"}
    assert all("bias" in case.op for case in peers if case.against != "torch")
    in_tf32 = bench.chosen(options(dtype=["tf32"]))
    assert {case.op for case in in_tf32} == set(cases.DIRECTIONS)
    assert {(case.dtype, case.math) for case in in_tf32} == {("float32", "tf32")}


def case_of(op, shape, mode=FLOAT32, **given):
    return Case(op, "some", "layer", shape, *mode, **given)


def test_a_floor_of_arithmetic_by_hand():
    """VGG-16's conv1_2 at N = 64: 64 * 224 * 224 * 64 * 64 * 9 multiply-adds at 67 TFLOP/s."""
    shape = ConvShape.of((64, 224, 224, 64), (64, 3, 3, 64), padding=1)
    case = case_of("conv_fprop", shape)
    assert floors.flops(case) == 236_760_072_192
    assert H200.floor_us(case) == pytest.approx(3533.7, rel=1e-4)
    half = floors.Ceilings.of("NVIDIA H200", {"bfloat16 mixed": 780.0, "bandwidth": 4300.0})
    # at 780 TFLOP/s it would take 304 us, less than 822 MB at 4.3 TB/s
    assert floors.fewest_bytes(case_of("conv_fprop", shape, BFLOAT16)) == 822_157_312
    assert half.floor_us(case_of("conv_fprop", shape, BFLOAT16)) == pytest.approx(303.5, rel=1e-3)


def test_a_floor_of_memory_by_hand():
    """A 1x1 window of stride 2 on 8x8 maps reads 16 of 64 pixels; all of dx is written."""
    shape = ConvShape.of((1, 8, 8, 32), (16, 1, 1, 32), strides=2)
    assert floors.fewest_bytes(case_of("conv_fprop", shape)) == 4 * (16 * 32 + 512 + 16 * 16)
    assert floors.fewest_bytes(case_of("conv_dgrad", shape)) == 4 * (64 * 32 + 512 + 16 * 16)
    pool = PoolShape.of((2, 8, 8, 3), 2, mode="max", rank=2)
    # x, y, and an index of one byte
    assert floors.fewest_bytes(case_of("max_pool", pool)) == 4 * 384 + 96 * (4 + 1)
    vector = case_of("activation_forward", cases.VectorShape(4800, "relu"))
    assert H200.floor_us(vector) == pytest.approx(8 * 4800 / 4.8e6)
    adam = case_of("adam_update", ParameterShape((1000, 24)))
    assert floors.fewest_bytes(adam) == 7 * 4 * 1024


def test_ceilings():
    measured = {"float32 strict": 51.0, "float64 strict": 60.0, "bandwidth": 4300.0}
    known = floors.Ceilings.of("NVIDIA H200", measured)
    assert known.tflops["float32 strict"] == 67 and known.tflops["float64 strict"] == 60
    assert known.bandwidth == 4300
    unknown = floors.Ceilings.of("NVIDIA Later", measured)
    assert unknown.tflops["float32 strict"] == 51
    nothing = floors.Ceilings.of("NVIDIA Later")
    assert nothing.floor_us(case_of("max_pool", PoolShape.of((1, 4, 4, 1), 2, mode="max", rank=2)))\
        is None  # fmt: skip
