"""Errors of the NumPy backend's 3x3 convolutions against float64, beside PyTorch's.

    python -m profiling.cpu.errors                      a table
    python -m profiling.cpu.errors --out ROWS.json      ... and its rows

"columns" is a matrix product over the columns of all windows by NumPy's BLAS: its error is a root
mean square over the result, relative to that of the result itself. The others' are multiples of it;
PyTorch's is left out where it is not installed. "after ReLU" has half of x and of dy 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.backends.numpy.convolution import Algorithm, Finish
from gpucnn.backends.numpy.convolution.taps import Taps
from gpucnn.backends.numpy.convolution.winograd import Winograd
from gpucnn.backends.numpy.memory import as_activation, pixel_major
from gpucnn.shapes import ConvShape

CHANNELS = (16, 32, 64, 128, 256, 512)
IMAGES, SIZE = 4, 14
DIRECTIONS = ("fprop", "dgrad", "wgrad")
DATA = ("normal", "after ReLU")
ALGORITHMS: tuple[Algorithm, ...] = (Taps(), Winograd(2), Winograd(4))

Arrays = dict[str, np.ndarray]


def draw(shape: ConvShape, data: str) -> Arrays:
    """Return x, w and dy."""
    rng = np.random.default_rng(shape.channels)
    sizes = {"x": shape.x_shape, "w": shape.w_shape, "dy": shape.y_shape}
    arrays = {name: rng.standard_normal(size, np.float32) for name, size in sizes.items()}
    if data == "after ReLU":
        arrays["x"] = np.maximum(arrays["x"], 0)
        arrays["dy"] *= rng.random(shape.y_shape) < 0.5
    return arrays


def by_columns(direction: str, a: Arrays) -> np.ndarray:
    """Return y, dx or dw as one matrix product, in the dtype of the arrays."""
    if direction == "fprop":  # (N*P*Q, T*C) @ (T*C, K)
        return _columns(a["x"]) @ a["w"].reshape(len(a["w"]), -1).T
    if direction == "dgrad":  # (N*P*Q, T*K) @ (T*K, C)
        turned = a["w"][:, ::-1, ::-1].transpose(1, 2, 0, 3)
        return _columns(a["dy"]) @ turned.reshape(-1, turned.shape[-1])
    # (K, N*P*Q) @ (N*P*Q, T*C)
    return a["dy"].reshape(-1, a["dy"].shape[-1]).T @ _columns(a["x"])


def _columns(x: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    # (N, P, Q, C, R, S) -> (N*P*Q, T*C)
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 9 * x.shape[-1])


def ours(algorithm: Algorithm, direction: str, a: Arrays, shape: ConvShape) -> np.ndarray:
    x, dy = pixel_major(a["x"], True), pixel_major(a["dy"], True)
    if direction == "wgrad":
        return algorithm.wgrad(x, dy, shape)
    finish = Finish(shape.batch)
    source, out = (x, np.empty_like(dy)) if direction == "fprop" else (dy, np.empty_like(x))
    getattr(algorithm, direction)(source, a["w"], out, shape, finish)
    return as_activation(out, True)


def by_torch(direction: str, a: Arrays) -> np.ndarray:
    import torch

    x, w, dy = (torch.from_numpy(a[name]).permute(0, 3, 1, 2) for name in ("x", "w", "dy"))
    if direction == "fprop":
        result = torch.nn.functional.conv2d(x, w, padding=1)
    else:
        wanted = [direction == "dgrad", direction == "wgrad", False]
        results = torch.ops.aten.convolution_backward(
            dy, x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
        )
        result = results[wanted.index(True)]
    return result.permute(0, 2, 3, 1).numpy()


def _has_torch() -> bool:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def _root_mean_square(array: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))


def measure(channels: Sequence[int] = CHANNELS) -> Iterator[dict[str, Any]]:
    """Yield a row for each kind of data, direction and number of channels."""
    ways: dict[str, Callable[[str, Arrays, ConvShape], np.ndarray]] = {
        "columns": lambda direction, a, shape: by_columns(direction, a)
    }
    if _has_torch():
        ways["torch"] = lambda direction, a, shape: by_torch(direction, a)
    for each in ALGORITHMS:
        ways[each.name] = lambda direction, a, shape, each=each: ours(each, direction, a, shape)
    for data in DATA:
        for direction in DIRECTIONS:
            for count in channels:
                shape = ConvShape.of((IMAGES, SIZE, SIZE, count), (count, 3, 3, count), padding=1)
                arrays = draw(shape, data)
                wide = {name: array.astype(np.float64) for name, array in arrays.items()}
                expected = by_columns(direction, wide)
                size = _root_mean_square(expected)
                errors = {
                    name: _root_mean_square(
                        way(direction, arrays, shape).reshape(expected.shape) - expected
                    )
                    / size
                    for name, way in ways.items()
                }
                yield {"data": data, "direction": direction, "channels": count, "errors": errors}


def line(row: dict[str, Any]) -> str:
    """Return a row of the table: the errors of columns, the multiples of that of the others."""
    base = row["errors"]["columns"]
    others = [f"{error / base:10.2f}" for name, error in row["errors"].items() if name != "columns"]
    return f"{row['data']:10s} {row['direction']:5s} {row['channels']:5d} {base:10.2e}" + "".join(
        others
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m profiling.cpu.errors", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="where to write the rows, as JSON")
    parser.add_argument("--channels", type=int, nargs="+", default=CHANNELS)
    options = parser.parse_args(arguments)
    rows = []
    for row in measure(options.channels):
        if not rows:
            names = "".join(f"{name:>10s}" for name in row["errors"] if name != "columns")
            print(f"{'':10s} {'':5s} {'C':>5s} {'columns':>10s}{names}")
        rows.append(row)
        print(line(row), flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
