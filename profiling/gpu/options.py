"""The command's options, and what of them each measuring program is given."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from .jobs import ROOT

FILTERS = {
    "set": "benchmark these only: resnet50, vgg16, mobilenet_v2, resnext50, stems, ...",
    "op": "benchmark these only: conv_fprop, conv_bias_relu_pool, max_pool, ...",
    "dtype": "benchmark these only: float32, tf32, bfloat16, float16, float64, strict, ...",
}
STEP_FILTERS = {
    "network": "steps of these only: lenet5, vgg_small, resnet20, resnet50",
    "kind": "steps of these only: training_step, inference, cold_start, time_to_accuracy",
}
SWITCHES = {
    "compile": "hold fused rows against torch.compile, too",
    "jax": "hold fused rows against JAX, too",
    "tune": "tune each convolution before it is benchmarked, some seconds a row",
    "quick": "a sample of the tests, one dtype for the sanitizer, one row of each operation",
}


def parser(description: str, time_limit: float) -> argparse.ArgumentParser:
    """Return the command's."""
    parser = argparse.ArgumentParser(
        prog="python -m profiling.gpu", description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("parts", nargs="*", metavar="PART", help="by default all of them")
    parser.add_argument(
        "--time-limit", type=float, default=time_limit, metavar="SECONDS",
        help=f"stop cleanly after these and keep what there is; default {time_limit:.0f}",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=ROOT / "profiling" / "results", help="folder of the results"
    )
    parser.add_argument("--file", type=Path, help="a results file to go on with")
    parser.add_argument("--commit", help="what to call the sources where there is no git")
    parser.add_argument("--data", help="what LeNet-5 is trained on in steps; default: the digits")
    parser.add_argument("--cifar", metavar="PATH", help="CIFAR-10: train airbench94 in steps, too")
    for name, text in (FILTERS | STEP_FILTERS).items():
        parser.add_argument(f"--{name}", nargs="+", metavar="NAME", help=text)
    for name, text in SWITCHES.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser


def bench_options(options: argparse.Namespace) -> list[str]:
    given = [f"--{name}" for name in SWITCHES if getattr(options, name)]
    return given + _filters(options, FILTERS)


def steps_options(options: argparse.Namespace) -> list[str]:
    given = ["--data", options.data] if options.data else []
    return given + _filters(options, [*STEP_FILTERS, "dtype"])


def _filters(options: argparse.Namespace, names: Iterable[str]) -> list[str]:
    chosen = {name: getattr(options, name) for name in names}
    return [word for name, values in chosen.items() if values for word in (f"--{name}", *values)]
