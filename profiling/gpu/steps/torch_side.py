"""PyTorch's sides, each as a user who knows it would have it.

Channels last, float32 that is float32 (no TF32) or autocast to bfloat16 over float32 weights, the
fused optimizer, gradients set to None, cuDNN's benchmark over all its algorithms.

torch                eager
torch graph          the whole eager step, optimizer too, captured by hand in one CUDA graph
torch.compile        model and loss by mode="max-autotune", which has CUDA graphs of its own
torch.compile graph  the same without them, and the whole step captured by hand
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpucnn import Sequential
from gpucnn.bench.torch_network import translate

from .cases import BFLOAT16, TRAINING, StepCase
from .networks import MOMENTUM, rate
from .ours import Batches
from .sides import Machine, Side

WARM_STEPS = 3  # as they stand, before a step is captured
MODE = "max-autotune"
Step = Callable[..., Tensor]


def side(case: StepCase, model: Sequential, batches: Batches, machine: Machine, name: str) -> Side:
    """Return one of the sides above, of a network that lies on NumPy."""
    before = _give_back(machine)
    use_the_best()
    module = translate(model).to(machine.device, memory_format=torch.channels_last)
    prepare = training if case.kind == TRAINING else inference
    function = prepare(case, module, machine, name)
    inputs = [_on_device(case, machine, *batch) for batch in batches]
    if name.endswith("graph") and machine.device == "cuda":
        function = Graphed(function)
    turns = itertools.cycle(inputs)

    def step() -> Tensor:
        return function(*next(turns))

    def memory() -> int | None:
        if _give_back(machine) is None:
            return None
        step()
        torch.cuda.synchronize()
        return torch.cuda.memory_reserved() - before

    return Side(
        name,
        step,
        lambda result: result.double().cpu().numpy().astype(np.float64),
        torch.cuda.synchronize if machine.device == "cuda" else lambda: None,
        way=_way(case, name),
        memory=memory,
    )


def use_the_best() -> None:
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 0
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def training(case: StepCase, module: nn.Module, machine: Machine, name: str) -> Step:
    """Return (x, labels) -> loss, a step."""
    optimizer = torch.optim.SGD(module.parameters(), lr=rate(case), momentum=MOMENTUM, fused=True)
    mixed = case.dtype == BFLOAT16

    def loss_of(x: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(machine.device, torch.bfloat16, enabled=mixed):
            return nn.functional.cross_entropy(module(x), labels)

    loss_of = _compiled(loss_of, machine, name)

    def step(x: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(x, labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def inference(case: StepCase, module: nn.Module, machine: Machine, name: str) -> Step:
    """Return x -> answers; weights of 16 bits need no autocast."""
    module = module.eval().to(getattr(torch, case.dtype))
    answer = _compiled(module, machine, name)

    def step(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return answer(x)

    return step


def _compiled(function: Callable, machine: Machine, name: str) -> Callable:
    if not name.startswith("torch.compile"):
        return function
    given: dict[str, Any] = {"mode": MODE if name == "torch.compile" else f"{MODE}-no-cudagraphs"}
    if machine.compiler != "inductor":
        given = {"backend": machine.compiler}
    else:  # batch norms into the weights before them, where weights stay as they are
        torch._inductor.config.freezing = isinstance(function, nn.Module)
    return torch.compile(function, fullgraph=True, dynamic=False, **given)


def _on_device(
    case: StepCase, machine: Machine, x: np.ndarray, labels: np.ndarray
) -> tuple[Tensor, ...]:
    """Return a batch; images (N, H, W, C) in memory are (N, C, H, W) with channels last."""
    images = torch.from_numpy(x).to(machine.device, getattr(torch, case.dtype)).permute(0, 3, 1, 2)
    if case.kind != TRAINING:
        return (images,)
    return images, torch.from_numpy(labels).to(machine.device)


class Graphed:
    """A step in one CUDA graph, as PyTorch's notes on whole-network capture have it.

    The first steps run as they stand, on a stream beside; each call makes one step.
    """

    def __init__(self, function: Step) -> None:
        self.function, self.calls = function, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.beside = torch.cuda.Stream()

    def __call__(self, *inputs: Tensor) -> Tensor:
        self.calls += 1
        if self.calls <= WARM_STEPS:
            return self._beside(inputs)
        if self.graph is None:
            self._capture(inputs)
        for place, tensor in zip(self.inputs, inputs, strict=True):
            place.copy_(tensor)
        self.graph.replay()
        return self.result

    def _beside(self, inputs: tuple[Tensor, ...]) -> Tensor:
        self.beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.beside):
            result = self.function(*inputs)
        torch.cuda.current_stream().wait_stream(self.beside)
        return result

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = [torch.empty_like(tensor).copy_(tensor) for tensor in inputs]
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="relaxed"):
            self.result = self.function(*self.inputs)


def forget() -> None:
    """Give back what compiled functions and unused memory hold."""
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def _give_back(machine: Machine) -> int | None:
    """Give back what PyTorch's allocator does not need, and return the bytes that it still has."""
    if machine.device != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved()


def _way(case: StepCase, name: str) -> str:
    words: list[Any] = ["channels_last"]
    words += ["autocast"] if case.kind == TRAINING and case.dtype == BFLOAT16 else []
    if name.startswith("torch.compile"):
        words += [] if case.kind == TRAINING else ["frozen"]
        words.append(f"{MODE}, {'its own graphs' if name == 'torch.compile' else 'one graph'}")
    elif name.endswith("graph"):
        words.append("one graph")
    return ", ".join(words)
