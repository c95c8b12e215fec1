"""The numbers of examples/textbook.py, which were worked by hand, and its output."""

from collections.abc import Iterator

import numpy as np
import pytest

from examples import textbook as t
from gpucnn.backends import use_backend


@pytest.fixture(autouse=True)
def numpy_backend() -> Iterator[None]:
    with use_backend("numpy"):
        yield


def test_a_filter_by_hand() -> None:
    results = t.a_filter_by_hand()
    expected = [[4, 3, 4], [2, 4, 3], [2, 3, 4]]
    np.testing.assert_array_equal(
        results["products at the upper left corner"], [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    )
    assert results["their sum"] == 4
    np.testing.assert_array_equal(results["feature map by two loops"], expected)
    np.testing.assert_array_equal(results["feature map by gpucnn"], expected)


def test_shapes_through_three_layers() -> None:
    results = t.shapes_through_three_layers()
    assert results["shapes"] == "[5, 5, 1] -> [3, 3, 15] -> [3, 3, 10] -> [1, 1, 6]"
    # (3*3*1 + 1) * 15, (1*1*15 + 1) * 10, (3*3*10 + 1) * 6
    assert results["parameters of each layer"] == [150, 160, 546]


def test_sizes_of_outputs() -> None:
    assert list(t.sizes_of_outputs().values()) == [3, 5, 2, 27]


def test_an_x_by_its_features() -> None:
    results = t.an_x_by_its_features()
    # Nine products of the falling line on the X's upper left corner: 8 agree, (0, 0) does not.
    falling = results["falling line in X"]
    ninths = np.rint(falling * 9)
    np.testing.assert_allclose(falling, ninths / 9, rtol=1e-12)
    np.testing.assert_array_equal(ninths[0], [7, -1, 1, 3, 5, -1, 3])
    np.testing.assert_array_equal(ninths[1], [-1, 9, -1, 3, -1, 1, -1])
    np.testing.assert_allclose(
        results["falling line in X, after ReLU and pooling"],
        np.array([[9, 3, 5, 3], [3, 9, 3, 5], [5, 3, 9, 1], [3, 5, 1, 7]]) / 9,
        rtol=1e-12,
    )
    np.testing.assert_allclose(  # the mirror turns the X into itself, and one line into the other
        results["rising line in X"], falling[:, ::-1], rtol=1e-12
    )
    crossing = results["crossing in X"]
    assert crossing[3, 3] == crossing.max() == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(results["best answers in X"], [1, 1, 1], rtol=1e-12)
    np.testing.assert_allclose(results["best answers in O"], [1, 5 / 9, 1], rtol=1e-12)
    decisions = {key: value for key, value in results.items() if key.startswith("decision")}
    assert decisions == {
        "decision for X": "X",
        "decision for O": "O",
        "decision for X moved up and right": "X",
        "decision for O moved down": "O",
        "decision for X with spots and a gap": "X",
    }


def test_a_shifted_picture() -> None:
    results = t.a_shifted_picture()
    row, column = results["best answer here at (row, column)"]
    assert results["best answer there"] == (row + 3, column + 2)
    assert results["largest difference after moving the map back"] < 1e-14  # sums of 9 products


def test_what_one_output_sees() -> None:
    results = t.what_one_output_sees()
    gradient = np.zeros((7, 7))
    gradient[2:5, 2:5] = 1
    np.testing.assert_array_equal(results["gradient that arrives through one layer"], gradient)
    assert results["inputs seen through 1, 2 and 3 layers"] == [9, 25, 49]
    assert results["inputs seen by a dense layer"] == 49


def test_a_dense_layer_is_a_convolution() -> None:
    results = t.a_dense_layer_is_a_convolution()
    parameters = 7 * 7 * 386 * 64 + 64 + 64 * 10 + 10
    assert results["parameters of Flatten, Dense(64), Dense(10)"] == parameters == 1_211_210
    assert results["parameters of Conv2D(64, 7), Conv2D(10, 1)"] == parameters
    assert results["answers on a 9 x 9 map"] == [3, 3, 10]
    # Answers of size 1, and sums of 18,914 products: a few hundred roundings of 1e-16.
    assert results["largest difference of the answers"] < 1e-12
    assert results["largest difference at its window (1, 2)"] < 1e-12


def test_pooling_a_map() -> None:
    results = t.pooling_a_map()
    np.testing.assert_array_equal(
        results["maximum, 3x3 window, stride 1"], [[3, 3, 3], [3, 3, 3], [3, 2, 3]]
    )
    np.testing.assert_allclose(
        results["average, 3x3 window, stride 1"] * 9,
        [[15, 15, 15], [9, 11, 16], [10, 7, 12]],
        rtol=1e-12,
    )
    np.testing.assert_array_equal(results["maximum, 2x2 window, stride 2"], [[3, 3], [3, 2]])
    np.testing.assert_array_equal(
        results["the same, rounded up"], [[3, 3, 1], [3, 2, 3], [2, 0, 1]]
    )
    arrives = np.zeros((5, 5))
    arrives[0, 0] = arrives[1, 3] = arrives[2, 0] = arrives[2, 2] = 1  # the first of equal ones
    np.testing.assert_array_equal(results["where a gradient of 1 arrives"], arrives)


def test_filters_that_people_made() -> None:
    results = t.filters_that_people_made()
    edges = results["sobel_x, whose numbers sum to 0"]
    np.testing.assert_array_equal(edges[3], [0, 64, 64, 0, -64, -64, 0])
    blurred = results["blur, whose numbers sum to 1"]
    assert blurred[3, 3] == 14 * 14 / 16 and blurred.sum() == 9 * 16
    assert results["sharpen, whose numbers sum to 1"][2, 2] == 5 * 16 - 2 * 16
    assert results["edge, whose numbers sum to 0"][3, 3] == 0


def test_the_program_prints_every_lesson(capsys: pytest.CaptureFixture[str]) -> None:
    t.main()
    printed = capsys.readouterr().out
    for number, lesson in enumerate(t.LESSONS, 1):
        assert f"\n{number}. {lesson.__doc__.splitlines()[0]}\n" in "\n" + printed
    assert "parameters of Conv2D(64, 7), Conv2D(10, 1): 1,211,210\n" in printed
