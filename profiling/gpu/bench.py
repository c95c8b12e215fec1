"""Measure the benchmark set, row by row, until the time is up: ``python -m profiling.gpu.bench``.

Each row is written before it is measured and completed after. An operation that fails leaves its
text in the row. If it leaves the GPU unusable for this process, the process ends with
``DEVICE_LOST``, and whoever started it starts it again: rows that are there are not repeated.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from gpucnn.backends import get_backend
from gpucnn.backends.base import Array, Backend
from gpucnn.backends.cuda import plans
from gpucnn.backends.cuda.algorithms import Problem
from gpucnn.backends.cuda.tuning import DryRun, Entry, GraphTimer, Tuner
from gpucnn.backends.cuda.tuning.shipped import worth_shipping
from gpucnn.backends.cuda.tuning.timing import copies
from profiling.results import UNFINISHED, Results, Row

from . import ladder, ours, peers, rates
from .accuracy import LIMITS
from .arrays import Inputs, draw, size_in_bytes, to_torch
from .cases import ALONE, TORCH, Case, Lane, benchmark_set, fused_against, key, merge
from .check import Check
from .floors import Ceilings, fewest_bytes, flops
from .jobs import DEVICE_LOST, LOST, Deadline
from .launches import kernels_of
from .timing import CudaTimer, HostTimer, Side, Spread, on_the_host

ROW_SECONDS = 4.0  # of timing both sides, at most; what comes before is not counted
PROBE_SECONDS = 0.1  # of timing one candidate of the peer


class Bench:
    """Measures cases on one backend and device.

    Args:
        backend: gpucnn's, on CuPy arrays (or emulated, on NumPy arrays).
        device: PyTorch's name of where the tensors lie, "cuda" or "cpu".
        timer: how passes are made and timed.
        ceilings: the rates of the GPU, for the floors.
        cache, memory: bytes of the L2 cache, and of memory to be used.
        tuner: tunes what a case is made of before it is measured.
    """

    def __init__(
        self, backend: Backend, device: str, timer: CudaTimer | HostTimer, ceilings: Ceilings, *,
        cache: int, memory: int, seconds: float = ROW_SECONDS, tuner: Tuner | None = None,
    ) -> None:  # fmt: skip
        self.tuner = tuner
        self.backend, self.device, self.timer, self.ceilings = backend, device, timer, ceilings
        self.cache, self.memory, self.seconds = cache, memory, seconds
        self.generator = torch.Generator(device).manual_seed(0)

    def measure(self, case: Case) -> Row:
        """Return what a row is completed with; never raises, "error" says what went wrong."""
        try:
            use_math(case.math)
            with self._own_pool(), self.timer.current():
                return self._measure(case)
        except Exception as error:
            return {"error": brief(error)}

    def _measure(self, case: Case) -> Row:
        inputs = [draw(case, self.generator)]
        check = Check(case, inputs[0])
        of_one = max(fewest_bytes(case), size_in_bytes(inputs))
        # the peer may hold copies in two layouts, and the cache of PyTorch what it has freed
        count = copies(of_one, self.cache, self.memory // 2)
        inputs += [draw(case, self.generator) for _ in range(count - 1)]
        # the peer comes first: ours may update its inputs in place
        row, other = self._peer(case, inputs, check)
        row |= {"copies": len(inputs)}

        if self.tuner:
            row["plans"] = worth_shipping(tune(self.tuner, case, inputs[0]))
        calls = [ours.bind(self.backend, case, i) for i in inputs]
        with kernels_of(self.backend) as kernels:
            results = kept(calls[0]())
        row["algorithm"] = " + ".join(dict.fromkeys(kernels))
        if case.op not in ours.UPDATES_IN_PLACE:
            poison(results)
            del results
            results = kept(calls[0]())  # into the same memory: what is not written stays NaN
        row["err_ours"] = check.error([to_torch(array) for array in results])
        del results
        if not row["err_ours"] <= LIMITS[f"{case.dtype} {case.math}"]:
            row["error"] = f"ours is wrong, by {row['err_ours']:.3g}"

        side = self.timer.ours(calls)
        sides = [side] if other is None else [side, other]
        timed = on_the_host if case.against == "jax" else self.timer.compare
        spreads = timed(sides, self.seconds)
        row |= self._numbers(case, spreads)
        row["timing"] = "host" if case.against == "jax" else side.how
        if side.why:
            row["capture"] = side.why
        return row

    def _peer(self, case: Case, inputs: list[Inputs], check: Check) -> tuple[Row, Side | None]:
        """Return the fastest candidate's columns and its side, or why there is none."""
        if case.against == ALONE:
            return {"peer": ""}, None
        if case.against == "jax":
            from . import jax_peer

            side, results = jax_peer.side(case, inputs)
            return {"peer": "jax", "err_peer": check.error(results)}, side
        found = peers.candidates if case.against == TORCH else peers.compiled
        tried: dict[str, Any] = {}
        best: tuple[float, str, float, Side] | None = None
        for peer in found(case, self.device):
            try:
                calls = [peer.bind(case, i) for i in inputs]
                error = check.error(calls[0]())
                if not error <= LIMITS[f"{case.dtype} {case.math}"]:
                    raise ArithmeticError(f"wrong, by {error:.3g}")
                side = self.timer.peer(calls)
                time = self.timer.compare([side], PROBE_SECONDS)[0].median
            except Exception as failure:
                tried[peer.label] = brief(failure)
                continue
            tried[peer.label] = time
            if best is None or time < best[0]:
                best = (time, peer.label, error, side)
        row: Row = {"peers": tried}
        if best is None:
            return row | {"error": f"no peer ran: {next(iter(tried.values()))}"}, None
        _, label, error, side = best
        if side.why:
            row["peer_capture"] = side.why
        return row | {"peer": label, "err_peer": error, "peer_timing": side.how}, side

    def _numbers(self, case: Case, spreads: Sequence[Spread]) -> Row:
        mine = spreads[0]
        row = {
            "ours_us": mine.median, "ours_iqr_us": mine.iqr, "samples": mine.samples,
            "tflops": flops(case) / mine.median / 1e6,
            "gbps": fewest_bytes(case) / mine.median / 1e3,
            "floor_us": self.ceilings.floor_us(case),
        }  # fmt: skip
        if len(spreads) == 2:
            theirs = spreads[1]
            row |= {
                "peer_us": theirs.median, "peer_iqr_us": theirs.iqr,
                "speedup": theirs.median / mine.median,
            }  # fmt: skip
        return row

    def _own_pool(self) -> AbstractContextManager[Any]:
        """Give a row CuPy memory of its own, so that no other row's arrays share its graph's."""
        if self.device == "cpu":
            return nullcontext()
        cuda = self.backend.xp.cuda
        return cuda.using_allocator(cuda.MemoryPool().malloc)

    def healthy(self) -> bool:
        """Return whether the GPU still answers this process, and give back unused memory."""
        if self.device == "cpu":
            return True
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            return float(torch.ones(1, device="cuda").sum()) == 1.0
        except Exception:
            return False


def tune(tuner: Tuner, case: Case, inputs: Inputs) -> dict[Problem, Entry]:
    """Tune every convolution of an operation; return what was measured of each."""
    dry = DryRun(tuner.backend)
    ours.bind(dry.backend, case, inputs)()
    return {problem: tuner.tune(problem) for problem in dry.problems}


def kept(results: Sequence[Array | None]) -> list[Array]:
    """Return an operation's results without a pooling's index, which peers number otherwise."""
    return [array for array in results if array is not None and array.dtype.kind not in "iu"]


def poison(arrays: Sequence[Array]) -> None:
    """Fill arrays with bytes that are NaN in every floating dtype."""
    for array in arrays:
        if hasattr(array, "ctypes"):
            array.reshape(-1).view("u1")[...] = 0xFF
        else:
            array.data.memset_async(0xFF, array.nbytes)


def use_math(math: str) -> None:
    """Let PyTorch try every kernel of cuDNN, with TF32 only where it was asked for."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 0
    torch.backends.cudnn.allow_tf32 = math == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = math == "tf32"


def brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]


def chosen(options: argparse.Namespace) -> list[Case]:
    """Return the cases that the options ask for, in order."""
    cases = benchmark_set()
    lanes = [Lane(tuple(cases), 8)]
    for peer, wanted in (("torch.compile", options.compile), ("jax", options.jax)):
        lanes += [Lane(tuple(fused_against(peer, cases)))] if wanted else []
    cases = [
        case
        for case in merge(lanes)
        if (not options.set or case.set in options.set)
        and (not options.op or case.op in options.op)
        and (not options.dtype or {case.dtype, case.math} & set(options.dtype))
    ]
    if options.quick:
        first = {case.op: case for case in reversed(cases)}
        cases = [case for case in cases if case is first[case.op]]
    return cases


def run(bench: Bench, cases: Sequence[Case], results: Results, deadline: Deadline) -> int:
    """Measure the cases that the results do not have yet; return how many were left out.

    An operation that has cost the GPU twice in a dtype is not tried again in that dtype.

    Raises:
        SystemExit: with ``DEVICE_LOST``, when the GPU no longer answers this process.
    """
    done = {key(row) for row in results.rows}
    costs = Counter((r["op"], r["dtype"]) for r in results.rows if _cost_the_gpu(r))
    left = [case for case in cases if key(case.row()) not in done]
    todo = [case for case in left if costs[case.op, case.dtype] < 2]
    results.meta["left_out_rows"] = len(left)
    longest: dict[tuple[str, str], float] = {}  # row of an operation on a network
    for case in todo:
        before, kind = deadline.left(), (case.op, case.set)
        if before < 1.2 * longest.get(kind, max(longest.values(), default=0.0)):
            continue  # others take less
        results.begin(case.row())
        results.meta["left_out_rows"] -= 1
        results.end(**bench.measure(case))
        longest[kind] = max(longest.get(kind, 0.0), before - deadline.left())
        print(line(results.rows[-1]), flush=True)
        if not bench.healthy():
            results.rows[-1]["error"] = f"{results.rows[-1].get('error', 'measured')}; {LOST}"
            results.save()
            raise SystemExit(DEVICE_LOST)
    return results.meta["left_out_rows"]


def _cost_the_gpu(row: Row) -> bool:
    return (row.get("error") or "").endswith((LOST, UNFINISHED))


def line(row: Row) -> str:
    """Return a row as one line: us | x PyTorch | error | what it is."""
    what = " ".join(str(row[name]) for name in ("op", "set", "layer", "dtype", "math", "layout"))
    if row.get("error"):
        return f"{what}: {row['error']}"
    peer = f" | {row['speedup']:.2f}x {row['peer']}" if row["peer"] else ""
    return (
        f"{what}: {row['ours_us']:.1f} us | {row['tflops']:.1f} TFLOP/s | {row['gbps']:.0f} GB/s"
        f"{peer} | error {row['err_ours']:.1e}"
    )


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m profiling.gpu.bench", add_help=False)
    parser.add_argument("--set", nargs="+", metavar="NAME", help="resnet50, vgg16, ...")
    parser.add_argument("--op", nargs="+", metavar="NAME", help="conv_fprop, max_pool, ...")
    parser.add_argument("--dtype", nargs="+", metavar="NAME", help="float32, tf32, bfloat16, ...")
    parser.add_argument("--quick", action="store_true", help="one row of each operation")
    parser.add_argument("--compile", action="store_true", help="fused rows against torch.compile")
    parser.add_argument("--jax", action="store_true", help="fused rows against JAX")
    parser.add_argument("--tune", action="store_true", help="tune what is measured before")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    command = argparse.ArgumentParser(parents=[parser()], description=__doc__)
    command.add_argument("--ladder", action="store_true", help="the rungs of docs/ladder.md")
    command.add_argument("--file", type=Path, required=True)
    command.add_argument("--seconds", type=float, required=True)
    options = command.parse_args(arguments)
    deadline = Deadline(options.seconds)
    results = Results(options.file)
    backend = get_backend("cuda")
    tuner = Tuner(backend, GraphTimer()) if options.tune else None
    if tuner is None:
        backend.plans = plans  # the estimates, whatever was tuned on this machine
    timer = CudaTimer()
    if "measured" not in results.meta:
        results.meta["measured"] = rates.measure()
        results.meta["torch"] = torch.__version__
        results.meta["cudnn"] = torch.backends.cudnn.version()
        results.meta["tuned"] = options.tune
        results.save()
    properties = torch.cuda.get_device_properties(0)
    bench = Bench(
        backend, "cuda", timer, Ceilings.of(properties.name, results.meta["measured"]),
        cache=properties.L2_cache_size, memory=torch.cuda.mem_get_info()[0],
        seconds=0.3 if options.quick else ROW_SECONDS, tuner=tuner,
    )  # fmt: skip
    cases = chosen(options)
    if options.ladder:
        cases = ladder.cases(backend.launcher.architecture)
    run(bench, cases, results, deadline)


if __name__ == "__main__":
    sys.exit(main())
