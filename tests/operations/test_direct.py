"""Direct convolution of few channels: where it is chosen, several tiles of a block, and edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.cuda.algorithms import ALGORITHMS, Plan, Problem
from gpucnn.backends.cuda.plans import choose
from gpucnn.shapes import ConvShape
from tests import reference
from tests.cases import CONVS, in_layout, random
from tests.conftest import make_backend
from tests.operations.conftest import poisoned, same_bits

DIRECT = ALGORITHMS["direct"]
STEMS = {
    "vgg16": ConvShape.of((64, 224, 224, 3), (64, 3, 3, 3), padding=1),
    "resnet50": ConvShape.of((32, 224, 224, 3), (64, 7, 7, 3), strides=2, padding=3),
    "mobilenet_v2": ConvShape.of((32, 224, 224, 3), (32, 3, 3, 3), strides=2, padding=1),
    "cifar": ConvShape.of((512, 32, 32, 3), (32, 3, 3, 3), padding=1),
    "fashion_mnist": ConvShape.of((512, 28, 28, 1), (32, 3, 3, 1)),
}


@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("direction", ["fprop", "wgrad"])
@pytest.mark.parametrize("name", STEMS)
def test_chosen_for_a_stem(name: str, direction: str, dtype: str, channels_last: bool) -> None:
    """But tensor cores with channels added to the three take 64 filters of 16 bits sooner, and of
    many taps their gradients."""
    shape = replace(STEMS[name], channels_last=channels_last)
    padded = (dtype, channels_last, shape.filters) == ("float16", True, 64)
    padded &= direction == "fprop" or name == "resnet50"
    chosen = choose(Problem(direction, shape, dtype)).algorithm
    assert chosen == ("mma_padded" if padded else "direct")


def test_only_for_few_channels_of_one_group_and_windows_that_there_are_kernels_for() -> None:
    for shape in (
        ConvShape.of((1, 9, 9, 5), (4, 3, 3, 5)),
        ConvShape.of((1, 9, 9, 2), (4, 3, 3, 1), groups=2),
        ConvShape.of((1, 9, 9, 1), (4, 3, 5, 1)),
        ConvShape.of((1, 9, 9, 1), (4, 3, 3, 1), strides=(1, 2)),
        ConvShape.of((1, 9, 9, 1), (4, 3, 3, 1), dilation=(2, 1)),
        ConvShape.of((1, 9, 9, 1), (4, 7, 7, 1)),
        ConvShape.of((1, 9, 1), (4, 3, 1)),
        ConvShape.of((1, 9, 9, 9, 1), (4, 3, 3, 3, 1)),
    ):
        assert not list(DIRECT.plans(Problem("fprop", shape, "float32")))
    for direction, dtype in (("dgrad", "float32"), ("fprop", "float64"), ("wgrad", "float64")):
        assert not list(DIRECT.plans(Problem(direction, CONVS["stem"], dtype)))


def several_tiles(plan: Plan, tiles: int) -> Plan:
    settings = replace(plan.settings, tiles_per_block=tiles)
    return replace(plan, settings=settings, grid=(-(-plan.grid[0] // tiles), *plan.grid[1:]))


@pytest.mark.parametrize("mode", ["emulated", "checked"])
def test_a_block_may_compute_several_tiles(mode: str) -> None:
    backend, shape = make_backend(mode), replace(CONVS["stem"], batch=5)
    problem = Problem("fprop", shape, "float32")
    plan = next(DIRECT.plans(problem))
    x, w = random("x", shape.x_shape, np.float32), random("w", shape.w_shape, np.float32)
    tiles = plan.grid[0] // 2 + 1  # two blocks, of which the second has less to do
    assert plan.settings.tiles_per_block == 1 and tiles > 2
    with poisoned(np):
        several = DIRECT.run(backend, problem, several_tiles(plan, tiles), x, w, None)
        assert same_bits(several, DIRECT.run(backend, problem, plan, x, w, None))


@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("width", [13, 14, 15, 16])
@pytest.mark.parametrize("name", ["stem", "stem_strided"])
def test_inputs_of_outputs_that_do_not_exist_are_left_out(name, width, channels_last) -> None:
    """The last row and column of x hold NaN, which only some taps meet."""
    shape = replace(CONVS[name], input=(9, width), padding=((0, 0), (0, 0)))
    x, dy = (np.zeros(a, np.float32) for a in (shape.x_shape, shape.y_shape))
    x[:, -1] = x[:, :, -1] = np.nan
    expected = reference.conv_wgrad(x, dy, shape)
    given = replace(shape, channels_last=channels_last)
    problem = Problem("wgrad", given, "float32")
    x, dy = (in_layout(a, channels_last) for a in (x, dy))
    got = DIRECT.run(make_backend("checked"), problem, next(DIRECT.plans(problem)), x, dy)
    assert 0 < np.isnan(expected).sum() < expected.size
    assert (np.isnan(got) == np.isnan(expected)).all()
