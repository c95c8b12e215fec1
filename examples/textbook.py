"""Convolutional networks by small examples, from one filter on paper to a network that slides.

    python examples/textbook.py

Read it from top to bottom: every lesson is a function whose docstring is the text and whose code is
the calculation. Each returns its results by name, and the program prints them. Arrays of pictures
are (batch, height, width, channels), and so are feature maps.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn import (
    Conv2D,
    Dense,
    Flatten,
    GlobalMaxPool2D,
    MaxPool2D,
    ReLU,
    Sequential,
    use_backend,
)
from gpucnn import functional as F
from gpucnn.filters import FILTERS, apply_filter

Results = dict[str, Any]


def picture(text: str, ink: float = 1.0, paper: float = -1.0) -> np.ndarray:
    """Return a drawing of # and . as an array (height, width)."""
    rows = textwrap.dedent(text).split()
    return np.array([[ink if mark == "#" else paper for mark in row] for row in rows])


def given(values: np.ndarray) -> Callable:
    """Return an initialiser that sets a layer's parameters to these values."""
    return lambda shape, generator: np.reshape(values, shape)


# ---- 1 -------------------------------------------------------------------------------------------


def a_filter_by_hand() -> Results:
    """A filter by hand

    Lay the 3x3 filter on the upper left corner of the picture. Multiply each number by the one
    that lies under it, and add the nine products: 4. Slide the filter one pixel to the right: 3.
    Then 4, then the next row. Each position gives one number of the feature map, and a 3x3 window
    has 3 x 3 positions on a 5x5 picture.

    (Signal processing would turn the filter by 180 degrees first and call only that a convolution.
    Networks learn their filters, turned or not, so nobody turns them.)
    """
    image = picture(
        """
        ###..
        .###.
        ..###
        ..##.
        .##..
        """,
        paper=0.0,
    )
    kernel = np.array([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])

    corner = image[0:3, 0:3] * kernel  # nine products
    by_loops = np.array(
        [[(image[p : p + 3, q : q + 3] * kernel).sum() for q in range(3)] for p in range(3)]
    )

    # The same by the library: a batch of 1 picture of 1 channel, and 1 filter.
    feature_map = F.conv_forward(image[None, :, :, None], kernel[None, :, :, None])
    return {
        "picture": image,
        "filter": kernel,
        "products at the upper left corner": corner,
        "their sum": corner.sum(),
        "feature map by two loops": by_loops,
        "feature map by gpucnn": feature_map[0, :, :, 0],
    }


# ---- 2 -------------------------------------------------------------------------------------------


def shapes_through_three_layers() -> Results:
    """Shapes through three layers

    A filter is as deep as its input has channels, and each filter makes one channel of the output.
    So 15 filters turn [5, 5, 1] into [3, 3, 15]. A 1x1 filter looks at one pixel only, but at all
    15 channels of it: 10 of them mix the channels into 10 new ones. A 3x3 window has only one
    position on a 3x3 map, and 6 filters leave 6 numbers: the picture has become a vector.

    Parameters are counted by filters: (window x channels + 1 bias) x filters. The size of the
    picture does not matter.
    """
    model = Sequential([Conv2D(15, 3), Conv2D(10, 1), Conv2D(6, 3)])
    x = np.zeros((1, 5, 5, 1))
    shapes = [list(x.shape[1:])]
    for layer in model.layers:
        x = layer.forward(x)
        shapes.append(list(x.shape[1:]))
    return {
        "shapes": " -> ".join(map(str, shapes)),
        "parameters of each layer": [layer.parameter_count() for layer in model.layers],
    }


# ---- 3 -------------------------------------------------------------------------------------------


def sizes_of_outputs() -> Results:
    """Sizes of outputs

    A window of R pixels that moves by S over H pixels, with a padding of p zeros at both ends, has

        (H + 2 p - R) // S + 1

    positions. A padding of (R - 1) / 2 keeps the size ("same"), a stride of 2 halves it.
    """

    def size(height: int, window: int, channels: int = 1, **options: Any) -> int:
        return Conv2D(1, window, **options).output_shape((height, height, channels))[0]

    return {
        "5 pixels, window 3": size(5, 3),
        "5 pixels padded by 1, window 3": size(5, 3, padding=1),
        "5 pixels, window 3, stride 2": size(5, 3, strides=2),
        "32 x 32 x 3 under one 6 x 6 x 3 filter": size(32, 6, channels=3),
    }


# ---- 4 -------------------------------------------------------------------------------------------

CROSS = """
    .........
    .#.....#.
    ..#...#..
    ...#.#...
    ....#....
    ...#.#...
    ..#...#..
    .#.....#.
    .........
    """

NOUGHT = """
    .........
    ...###...
    ..#...#..
    .#.....#.
    .#.....#.
    .#.....#.
    ..#...#..
    ...###...
    .........
    """

FEATURES = {
    "falling line": picture("#.. .#. ..#"),
    "crossing": picture("#.# .#. #.#"),
    "rising line": picture("..# .#. #.."),
}


def an_x_by_its_features() -> Results:
    """An X by its features

    Ink is +1 and paper is -1. A filter that is itself a little picture, divided by its 9 pixels,
    answers with the mean of 9 products: 1 where the picture is the same as the filter, less
    elsewhere, -1 where it is the negative. Three filters look for the pieces of an X: a falling
    line, a crossing, a rising line.

    ReLU sets the negative answers ("rather not here") to 0. Max pooling keeps the best answer of
    each 2x2 neighbourhood: a map of a quarter of the size, which hardly changes when the X moves
    by a pixel. What remains of each map in the end is its best answer: is this piece anywhere?

    An O has both lines in its corners, but its best crossing is poor. A dense layer adds the three
    answers and compares: above 2.75 it is an X, below an O. Nothing here was learned; training
    would find such filters and such a threshold by itself.
    """
    pieces = np.stack(list(FEATURES.values()))  # (3 filters, 3, 3)
    votes = np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])  # (X and O, 3 features)
    convolution = Conv2D(3, 3, use_bias=False, kernel_initializer=given(pieces / 9))
    pooling = MaxPool2D(2, ceil_mode=True)  # 7 -> 4: the last windows stick out
    decision = Dense(
        2, kernel_initializer=given(votes), bias_initializer=given(np.array([-2.75, 2.75]))
    )
    model = Sequential([convolution, ReLU(), pooling, GlobalMaxPool2D(), decision])

    cross, nought = picture(CROSS), picture(NOUGHT)
    damaged = cross.copy()
    damaged[1, 1] = damaged[4, 8] = damaged[8, 0] = 1.0
    damaged[7, 7] = -1.0
    pictures = {
        "X": cross,
        "O": nought,
        "X moved up and right": np.roll(cross, (-1, 1), (0, 1)),
        "O moved down": np.roll(nought, 1, 0),
        "X with spots and a gap": damaged,
    }
    x = np.stack(list(pictures.values()))[..., None]  # (5, 9, 9, 1)
    maps = convolution.forward(x)  # (5, 7, 7, 3)
    pooled = pooling.forward(np.maximum(maps, 0))  # (5, 4, 4, 3)
    scores = model.forward(x)  # (5, 2)
    results: Results = {"X": cross, "O": nought}
    for index, name in enumerate(FEATURES):
        results[f"{name} in X"] = maps[0, :, :, index]
        results[f"{name} in X, after ReLU and pooling"] = pooled[0, :, :, index]
    results["best answers in X"] = pooled[0].max((0, 1))
    results["best answers in O"] = pooled[1].max((0, 1))
    for name, (for_x, for_o) in zip(pictures, scores, strict=True):
        results[f"decision for {name}"] = "X" if for_x > for_o else "O"
    return results


# ---- 5 -------------------------------------------------------------------------------------------


def a_shifted_picture() -> Results:
    """A shifted picture

    The same filter works at every place, so a thing that moves in the picture moves in the feature
    map by as much, and keeps its answers. A dense layer would have to learn it anew at each place.
    """
    blot = np.random.default_rng(5).standard_normal((4, 4))
    here, there = np.zeros((2, 12, 12))
    here[2:6, 2:6] = blot
    there[5:9, 4:8] = blot  # 3 down, 2 to the right
    layer = Conv2D(1, 3, activation="relu")
    y = layer.forward(np.stack([here, there])[..., None])[..., 0]
    moved_back = np.roll(y[1], (-3, -2), (0, 1))
    return {
        "best answer here at (row, column)": _place(y[0]),
        "best answer there": _place(y[1]),
        "largest difference after moving the map back": np.abs(moved_back - y[0]).max(),
    }


def _place(feature_map: np.ndarray) -> tuple[int, int]:
    row, column = np.unravel_index(feature_map.argmax(), feature_map.shape)
    return int(row), int(column)


# ---- 6 -------------------------------------------------------------------------------------------


def what_one_output_sees() -> Results:
    """What one output sees

    Send a gradient of 1 backward from a single output. It arrives at just those inputs that the
    output depends on: the 9 under its window. (In a dense layer it would be all 49.) After a second
    3x3 layer it is 5 x 5, after a third 7 x 7: deep maps see far with small filters.
    """
    ones = {"use_bias": False, "kernel_initializer": "ones"}

    def seen(depth: int) -> np.ndarray:
        model = Sequential([Conv2D(1, 3, padding="same", **ones) for _ in range(depth)])
        dy = np.zeros_like(model.forward(np.zeros((1, 7, 7, 1))))
        dy[0, 3, 3, 0] = 1.0  # the output in the middle
        return model.backward(dy)[0, :, :, 0]

    dense = Sequential([Flatten(), Dense(1, **ones)])
    dense.forward(np.zeros((1, 7, 7, 1)))
    dx = dense.backward(np.ones((1, 1)))
    return {
        "gradient that arrives through one layer": seen(1),
        "inputs seen through 1, 2 and 3 layers": [
            int(np.count_nonzero(seen(n))) for n in (1, 2, 3)
        ],
        "inputs seen by a dense layer": np.count_nonzero(dx),
    }


# ---- 7 -------------------------------------------------------------------------------------------


def a_dense_layer_is_a_convolution() -> Results:
    """A dense layer is a convolution

    A dense unit on a 7 x 7 x 386 map has one weight for each of its numbers. So has a 7x7 filter,
    386 channels deep, which has one position on that map. Written as convolutions the two dense
    layers are a 7x7 and a 1x1 layer: the same parameters and the same answers.

    But convolutions slide. On a 9 x 9 map they give 3 x 3 answers at once, each what the dense
    layers say of that 7 x 7 window.
    """
    dense = Sequential([Flatten(), Dense(64, activation="relu"), Dense(10)])
    rng = np.random.default_rng(7)
    small = rng.standard_normal((2, 7, 7, 386))
    by_dense = dense.forward(small)  # (2, 10)

    _, first, second = dense.layers
    sliding = Sequential([first.as_conv((7, 7, 386)), second.as_conv((1, 1, 64))])
    by_convolution = sliding.forward(small)  # (2, 1, 1, 10)

    large = rng.standard_normal((1, 9, 9, 386))
    answers = sliding.forward(large)  # (1, 3, 3, 10)
    window = dense.forward(large[:, 1:8, 2:9])  # (1, 10)
    return {
        "parameters of Flatten, Dense(64), Dense(10)": dense.parameter_count(),
        "parameters of Conv2D(64, 7), Conv2D(10, 1)": sliding.parameter_count(),
        "largest difference of the answers": np.abs(by_convolution[:, 0, 0] - by_dense).max(),
        "answers on a 9 x 9 map": list(answers.shape[1:]),
        "largest difference at its window (1, 2)": np.abs(answers[:, 1, 2] - window).max(),
    }


# ---- 8 -------------------------------------------------------------------------------------------


def pooling_a_map() -> Results:
    """Pooling a map

    Max pooling keeps the largest number under the window. A 3x3 window that moves by 1 makes 3 x 3
    of 5 x 5; a 2x2 window moves by 2, and the last row and column drop out, unless the size is
    rounded up (ceil mode) and the last windows stick out.

    Backward, all of the gradient goes to the number that won, and none to the others.
    """
    x = np.array(
        [
            [3.0, 3.0, 2.0, 1.0, 0.0],
            [0.0, 0.0, 1.0, 3.0, 1.0],
            [3.0, 1.0, 2.0, 2.0, 3.0],
            [2.0, 0.0, 0.0, 2.0, 2.0],
            [2.0, 0.0, 0.0, 0.0, 1.0],
        ]
    )

    def pooled(*size: int, **options: Any) -> np.ndarray:
        return F.pool_forward(x[None, :, :, None], *size, **options)[0][0, :, :, 0]

    layer = MaxPool2D(2)
    y = layer.forward(x[None, :, :, None])
    return {
        "map": x,
        "maximum, 3x3 window, stride 1": pooled(3, strides=1),
        "average, 3x3 window, stride 1": pooled(3, strides=1, mode="average"),
        "maximum, 2x2 window, stride 2": pooled(2),
        "the same, rounded up": pooled(2, ceil_mode=True),
        "where a gradient of 1 arrives": layer.backward(np.ones_like(y))[0, :, :, 0],
    }


# ---- 9 -------------------------------------------------------------------------------------------


def filters_that_people_made() -> Results:
    """Filters that people made

    Long before filters were learned, people wrote them down. The numbers say what they do: a sum
    of 1 keeps the brightness, a sum of 0 answers nothing where the picture is even. Here is a
    bright square on dark ground under some of them.
    """
    image = np.zeros((7, 7))
    image[2:5, 2:5] = 16.0
    results: Results = {"picture": image}
    for name in ("sobel_x", "edge", "blur", "sharpen", "emboss"):
        results[f"{name}, whose numbers sum to {FILTERS[name].sum():.0f}"] = apply_filter(
            image, name
        )
    return results


LESSONS = (
    a_filter_by_hand,
    shapes_through_three_layers,
    sizes_of_outputs,
    an_x_by_its_features,
    a_shifted_picture,
    what_one_output_sees,
    a_dense_layer_is_a_convolution,
    pooling_a_map,
    filters_that_people_made,
)


def as_text(value: Any) -> str:
    """Return a result as lines: a map as a table, a number to 3 digits, a count in full."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if not isinstance(value, np.ndarray):
        return f"{value:,}" if isinstance(value, int) else str(value)
    if set(np.unique(value)) == {-1.0, 1.0}:  # a drawing
        return "\n".join(" ".join("#" if pixel > 0 else "." for pixel in row) for row in value)
    digits = 0 if np.array_equal(value, np.rint(value)) else 2
    cells = [[f"{number + 0.0:.{digits}f}" for number in row] for row in np.atleast_2d(value)]
    width = max(len(cell) for row in cells for cell in row)
    return "\n".join("  ".join(cell.rjust(width) for cell in row) for row in cells)


def main() -> None:
    for number, lesson in enumerate(LESSONS, 1):
        title, _, text = textwrap.dedent("    " + lesson.__doc__).strip().partition("\n")
        print(f"{number}. {title}\n{'=' * (len(title) + 3)}\n{text}\n")
        lines = []
        for name, value in lesson().items():
            shown = as_text(value)
            if "\n" in shown:
                lines.append(f"\n{name}:\n\n{textwrap.indent(shown, '    ')}\n")
            else:
                lines.append(f"{name}: {shown}")
        print("\n".join(lines).replace("\n\n\n", "\n\n").strip(), end="\n\n\n")


if __name__ == "__main__":
    with use_backend("numpy"):  # the lessons' arrays are NumPy's
        main()
