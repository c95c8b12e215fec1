"""The peer for 94 % of CIFAR-10: airbench94 written anew in PyTorch, from its description.

Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024: the data stay on the device in half
precision and channels last, an epoch is cropped and flipped at once, the loss is a sum. The numbers
in ``Settings`` are the paper's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpucnn.data import Split

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10, in shares of 255


@dataclass(frozen=True)
class Settings:
    """What airbench94 is trained with.

    Args:
        rate, decay: for 1024 images each, and for a step that momentum does not lengthen.
        bias_factor: of the rate of the batch norms' biases.
        whitening_epochs: in which the first layer's bias is trained.
        lookahead: whether slow weights follow every five steps (section 3.4).
    """

    epochs: float = 9.9
    batch_size: int = 1024
    rate: float = 11.5
    momentum: float = 0.85
    decay: float = 0.0153
    bias_factor: float = 64.0
    label_smoothing: float = 0.2
    whitening_epochs: int = 3
    translate: int = 2
    lookahead: bool = True
    widths: tuple[int, int, int] = (64, 256, 256)
    device: str = "cuda"
    dtype: torch.dtype = torch.half
    compiled: bool = False


class Images:
    """The images of a split on the device, normalised, (N, C, H, W) with channels last."""

    def __init__(self, split: Split, settings: Settings) -> None:
        self.settings = settings
        images = torch.from_numpy(split.images).to(settings.device).permute(0, 3, 1, 2)
        shares = images.to(settings.dtype) / 255
        mean, std = (
            torch.tensor(values, dtype=settings.dtype, device=settings.device)[:, None, None]
            for values in (MEAN, STD)
        )
        self.images = ((shares - mean) / std).contiguous(memory_format=torch.channels_last)
        self.labels = torch.from_numpy(split.labels).to(settings.device)
        self.side = split.images.shape[1]
        self.padded: Tensor | None = None

    def __len__(self) -> int:
        """The steps of an epoch; a rest that fills no batch is left out."""
        return len(self.images) // self.settings.batch_size

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield an epoch's batches (epochs count from 0): flips in turns, crops, a new order."""
        count, device, pad = len(self.images), self.images.device, self.settings.translate
        if self.padded is None:
            flipped = torch.rand(count, device=device) < 0.5
            first = torch.where(flipped[:, None, None, None], self.images.flip(-1), self.images)
            self.padded = F.pad(first, (pad,) * 4, "reflect")
        images = torch.empty_like(self.images)
        places = torch.randint(0, 2 * pad + 1, (2, count), device=device)
        for y in range(2 * pad + 1):
            for x in range(2 * pad + 1):
                those = (places[0] == y) & (places[1] == x)
                images[those] = self.padded[those, :, y : y + self.side, x : x + self.side]
        if number % 2:
            images = images.flip(-1)
        order = torch.randperm(count, device=device)
        for chosen in order[: len(self) * self.settings.batch_size].split(self.settings.batch_size):
            yield images[chosen], self.labels[chosen]


class Block(nn.Module):
    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.conv1 = convolution(channels, filters)
        self.norm1 = norm(filters)
        self.conv2 = convolution(filters, filters)
        self.norm2 = norm(filters)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Network(nn.Module):
    """Section 3.1: a whitening 2x2 convolution, three blocks, a pool and a dense layer."""

    def __init__(self, settings: Settings, classes: int = 10) -> None:
        super().__init__()
        self.whitening = nn.Conv2d(3, 24, 2)
        self.whitening.weight.requires_grad = False
        nn.init.zeros_(self.whitening.bias)
        channels = (24, *settings.widths)
        self.blocks = nn.Sequential(*map(Block, channels, channels[1:]))
        self.classifier = nn.Linear(channels[-1], classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.gelu(self.whitening(x)))
        return self.classifier(F.max_pool2d(x, 3).flatten(1)) / 9

    @torch.no_grad()
    def whiten(self, images: Tensor, epsilon: float = 5e-4) -> None:
        """Section 3.2, on some thousands of normalised images (N, C, H, W)."""
        patches = F.unfold(images.float(), 2).transpose(1, 2).flatten(0, 1)  # (N * P * Q, C*R*S)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + epsilon).sqrt()).T.flip(0).view(-1, 3, 2, 2)
        self.whitening.weight.copy_(torch.cat([filters, -filters]))

    @torch.no_grad()
    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Take the parameters of gpucnn's airbench94, by the paths of its ``state_dict``."""
        own = {"whitening": self.whitening, "classifier": self.classifier}
        for place, block in enumerate(self.blocks, 1):
            own |= {f"block{place}/{name}": layer for name, layer in block.named_children()}
        for path, layer in own.items():
            kernel = state.get(f"{path}/kernel")
            if kernel is not None:
                axes = (0, 3, 1, 2) if kernel.ndim == 4 else (0, 1)  # KRSC -> KCRS
                layer.weight.copy_(torch.from_numpy(kernel.transpose(axes).copy()))
            for key in ("bias", "beta"):
                if f"{path}/{key}" in state:
                    layer.bias.copy_(torch.from_numpy(state[f"{path}/{key}"]))


def convolution(channels: int, filters: int) -> nn.Conv2d:
    """Section 3.3: the first filters copy their channels."""
    made = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
    nn.init.dirac_(made.weight.data[:channels])
    return made


def norm(filters: int) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(filters, eps=1e-12, momentum=0.4)
    made.weight.requires_grad = False
    return made


def placed(settings: Settings) -> Network:
    """Return a new network on the device; with half precision its norms are in float32."""
    network = Network(settings).to(settings.device, settings.dtype)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and settings.dtype == torch.half:
            module.float()
    return network.to(memory_format=torch.channels_last)


@lru_cache(maxsize=1)
def compiled(settings: Settings) -> tuple[Network, Callable[[Tensor], Tensor]]:
    """Return a network, and itself compiled: all runs share it, for that takes minutes."""
    network = placed(settings)
    return network, torch.compile(network, mode="max-autotune")


class Training:
    """A network and its optimizer, step by step (section 3.4).

    Args:
        steps: of the whole training, for the schedule and the lookahead.
        state: gpucnn's parameters to start from; by default its own.
    """

    def __init__(
        self, settings: Settings, steps: int, steps_per_epoch: int,
        state: Mapping[str, np.ndarray] | None = None,
    ) -> None:  # fmt: skip
        self.settings, self.steps = settings, steps
        self.freeze_at = settings.whitening_epochs * steps_per_epoch
        self.network = placed(settings)
        self.run: Callable[[Tensor], Tensor] = self.network
        if settings.compiled:
            fresh = self.network.state_dict()
            self.network, self.run = compiled(settings)
            self.network.load_state_dict(fresh)
            self.network.whitening.bias.requires_grad = True
        if state is not None:
            self.network.load(state)
        self.made = 0
        # Nesterov's steps are 1 + 1 / (1 - momentum) times the gradient's.
        scale = 1024 * (1 + 1 / (1 - settings.momentum))
        rate, decay = settings.rate / scale, settings.decay * settings.batch_size / scale
        biases, others = [], []
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                (biases if "norm" in name else others).append(parameter)
        faster = rate * settings.bias_factor
        self.optimizer = torch.optim.SGD(
            [
                {"params": biases, "lr": faster, "weight_decay": decay / faster},
                {"params": others, "lr": rate, "weight_decay": decay / rate},
            ],
            momentum=settings.momentum,
            nesterov=True,
        )
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.slow: list[Tensor] = []

    def step(self, images: Tensor, labels: Tensor, share: float | None = None) -> Tensor:
        """Make a step and return the mean loss; ``share`` is the rate's, by default scheduled."""
        if self.made == 0:
            self.slow = [tensor.clone() for tensor in self._tensors()]
        if self.made == self.freeze_at:
            self.network.whitening.bias.requires_grad = False
        self.network.train()
        losses = F.cross_entropy(
            self.run(images), labels, label_smoothing=self.settings.label_smoothing,
            reduction="none",
        )  # fmt: skip
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        share = self._share(self.made) if share is None else share
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share
        self.optimizer.step()
        self.made += 1
        if self.settings.lookahead and self.made % 5 == 0:
            self._look_ahead(0.95**5 * (self.made / self.steps) ** 3)
        elif self.settings.lookahead and self.made == self.steps:
            self._look_ahead(1.0)  # the slow weights are the result
        return losses.detach().mean()

    def _share(self, step: int) -> float:
        """Up from a fifth within 23 % of the steps, and down to 7 %."""
        return float(np.interp(step, (0, int(0.23 * self.steps), self.steps), (0.2, 1.0, 0.07)))

    def _tensors(self) -> list[Tensor]:
        return [own.data for own in self.network.state_dict().values() if own.is_floating_point()]

    @torch.no_grad()
    def _look_ahead(self, kept: float) -> None:
        """The slow weights and statistics follow but for the share that is kept."""
        for slow, fast in zip(self.slow, self._tensors(), strict=True):
            slow.lerp_(fast, 1 - kept)
            fast.copy_(slow)

    @torch.no_grad()
    def accuracy(self, test: Images, views: bool = True) -> float:
        """Return the share of right answers, by one view or by six (section 3.5)."""
        self.network.eval()
        right = 0
        for x, labels in zip(test.images.split(2000), test.labels.split(2000), strict=True):
            logits = self._mirrored(x) if views else self.network(x)
            if views:
                padded, side = F.pad(x, (1,) * 4, "reflect"), test.side
                moved = padded[:, :, :side, :side], padded[:, :, 2:, 2:]
                logits = logits / 2 + sum(map(self._mirrored, moved)) / 4
            right += int((logits.argmax(1) == labels).sum())
        return right / len(test.labels)

    def _mirrored(self, x: Tensor) -> Tensor:
        return (self.network(x) + self.network(x.flip(-1))) / 2


def train(train: Split, test: Split, settings: Settings, seed: int) -> dict[str, object]:
    """Train once; the seconds are those of the training, with nothing evaluated in between."""
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = True
    wait = torch.cuda.synchronize if settings.device == "cuda" else lambda: None
    images, unseen = Images(train, settings), Images(test, settings)
    steps = math.ceil(len(images) * settings.epochs)
    training = Training(settings, steps, len(images))
    wait()
    start = time.perf_counter()
    training.network.whiten(images.images[:5000])
    losses: list[Tensor] = []
    for epoch in range(math.ceil(settings.epochs)):
        for x, labels in images.epoch(epoch):
            if training.made < steps:
                losses.append(training.step(x, labels))
    wait()
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "steps": steps,
        "accuracy": training.accuracy(unseen),
        "accuracy_one_view": training.accuracy(unseen, views=False),
        "losses": [float(loss) for loss in losses],
    }
