"""Recipes: how a network is trained on a data set where nobody says otherwise.

One table for each pair of a network and a data set, with the source of its numbers; a data set has
a recipe for all other networks. ``gpucnn train`` follows them, and so can a program:

>>> recipe = recipe_for("resnet20", "cifar10")
>>> recipe.epochs, recipe.batch_size, recipe.make_optimizer(images=45_000).rate
(182, 128, 0.1)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from .arguments import as_choice
from .callbacks import Callback, Freeze
from .data import AlternatingFlip, Augmentation, Compose, Crop, Flip, Shift
from .losses import CrossEntropy
from .models.whitening import LAYER
from .optimizers import SGD, Adam, AdamW, Lookahead, Optimizer
from .schedules import (
    Cosine,
    OneCycle,
    PiecewiseConstant,
    PiecewiseLinear,
    Polynomial,
    Schedule,
)

SCHEDULES = ("one_cycle", "cosine", "staircase", "triangle")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Args:
        epochs, batch_size: of the training.
        augment: what is done to training images, and in words ``changes``; ``augmented`` says
            whether it is done by default.
        optimizer: one of ``RATES``.
        learning_rate: the peak; by default the one that suits the optimizer.
        schedule: its way in the whole training: "one_cycle" (``OneCycle``), "cosine" (``Cosine``),
            "staircase" (a tenth from one half on, a hundredth from three quarters on), or
            "triangle" (up from a fifth in the first 23 %, down to 7 %).
        momentum, nesterov: SGD's.
        weight_decay: by default the optimizer's usual one.
        decay_all, rate_factors: as for every ``Optimizer``.
        lookahead: whether slow weights follow every fifth step (``Lookahead``): at first all the
            way, in the end by 1 - 0.95^5 of it.
        label_smoothing: of the cross-entropy.
        views: how many views of a test image are averaged (see ``gpucnn.views``).
        validation: the share of the training images that is held out.
        whitened: for so many epochs the bias of a whitening first layer is trained; None for a
            network that has none.

    Raises:
        ValueError: the optimizer or the schedule is another.
    """

    epochs: int
    batch_size: int
    augment: Augmentation
    changes: str
    augmented: bool = True
    optimizer: str = "adamw"
    learning_rate: float | None = None
    schedule: str = "one_cycle"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float | None = None
    decay_all: bool = False
    rate_factors: tuple[tuple[str, float], ...] = ()
    lookahead: bool = False
    label_smoothing: float = 0.0
    views: int = 1
    validation: float = 0.1
    whitened: int | None = None

    def __post_init__(self) -> None:
        as_choice("Recipe", "optimizer", self.optimizer, tuple(RATES))
        as_choice("Recipe", "schedule", self.schedule, SCHEDULES)

    @property
    def peak(self) -> float:
        """The highest learning rate."""
        return RATES[self.optimizer] if self.learning_rate is None else self.learning_rate

    def using(self, optimizer: str) -> Recipe:
        """Return the recipe with one of ``RATES``, where it is another with what is usual there."""
        if optimizer == self.optimizer:
            return self
        return replace(
            self,
            optimizer=optimizer,
            learning_rate=None,
            schedule="one_cycle",
            momentum=0.9,
            nesterov=True,
            weight_decay=None,
            decay_all=False,
            rate_factors=(),
            lookahead=False,
        )

    def steps(self, images: int) -> int:
        """Return the steps of a training on so many images."""
        return self.epochs * math.ceil(images / self.batch_size)

    def make_schedule(self, steps: int) -> Schedule:
        """Return the learning rate as a function of the step."""
        peak = self.peak
        if self.schedule == "cosine":
            return Cosine(peak, steps)
        if self.schedule == "staircase":
            half = max(steps // 2, 1)
            falls = half, max(3 * steps // 4, half + 1)
            return PiecewiseConstant(falls, (peak, peak / 10, peak / 100))
        if self.schedule == "triangle":
            top = max(round(0.23 * steps), 1)
            return PiecewiseLinear((0, top, max(steps, top + 1)), (0.2 * peak, peak, 0.07 * peak))
        return OneCycle(peak, steps)

    def make_optimizer(self, images: int) -> Optimizer:
        """Return the optimizer for a training on so many images.

        Raises:
            ValueError: the peak is negative.
        """
        options: dict[str, Any] = {
            "decay_all": self.decay_all, "rate_factors": self.rate_factors,
        }  # fmt: skip
        if self.weight_decay is not None:
            options["weight_decay"] = self.weight_decay
        steps = self.steps(images)
        if self.lookahead:
            share = Polynomial(1.0, steps, final=1 - 0.95**5, power=3)
            options["lookahead"] = Lookahead(period=5, share=share)
        schedule = self.make_schedule(steps)
        if self.optimizer == "sgd":
            options = {"weight_decay": 5e-4, **options}
            return SGD(schedule, momentum=self.momentum, nesterov=self.nesterov, **options)
        return {"adam": Adam, "adamw": AdamW}[self.optimizer](schedule, **options)

    def make_loss(self) -> CrossEntropy:
        return CrossEntropy(self.label_smoothing)

    def make_callbacks(self) -> list[Callback]:
        return [] if self.whitened is None else [Freeze(f"{LAYER}/*", after=self.whitened)]


# The peak of the learning rate that suits each optimizer on networks of this size (our own runs).
RATES = {"adamw": 0.01, "adam": 0.01, "sgd": 0.1}

CROP_AND_FLIP = Compose((Crop(4, "zero"), Flip()))

# For each data set, from our own runs: the epochs in which its usual network learns well.
BY_DATA = {
    "digits": Recipe(epochs=30, batch_size=32, augment=Shift(1), changes="shifts by 1"),
    "mnist": Recipe(epochs=5, batch_size=128, augment=Shift(2), changes="shifts by 2"),
    "fashion-mnist": Recipe(epochs=5, batch_size=128, augment=Flip(), changes="flips"),
    "cifar10": Recipe(
        epochs=15, batch_size=128, augment=Compose((Crop(4), Flip())), changes="crops and flips"
    ),
}
# Nobody knows whether a stranger's pictures may be mirrored.
OTHERS = Recipe(epochs=20, batch_size=32, augment=Shift(2), changes="shifts by 2", augmented=False)

# https://github.com/kuangliu/pytorch-cifar, main.py: 200 epochs down half a cosine, plain momentum,
# and 5e-4 of decay, biases and norms included.
_PYTORCH_CIFAR = Recipe(
    epochs=200,
    batch_size=128,
    augment=CROP_AND_FLIP,
    changes="crops and flips",
    optimizer="sgd",
    learning_rate=0.1,
    schedule="cosine",
    nesterov=False,
    weight_decay=5e-4,
    decay_all=True,
    validation=0.0,
)

PAIRS = {
    # He et al., "Deep residual learning for image recognition", 2016, section 4.2: 64,000 steps
    # of 128 images, 0.1 divided by 10 at 32,000 and 48,000, on 45,000 images: 182 epochs.
    ("resnet20", "cifar10"): Recipe(
        epochs=182,
        batch_size=128,
        augment=CROP_AND_FLIP,
        changes="crops and flips",
        optimizer="sgd",
        learning_rate=0.1,
        schedule="staircase",
        nesterov=False,
        weight_decay=1e-4,
        decay_all=True,
    ),
    **{
        (name, "cifar10"): _PYTORCH_CIFAR
        for name in (
            "resnet18_cifar", "resnet50_cifar", "vgg11_cifar", "vgg13_cifar", "vgg16_cifar",
            "mobilenet_v2_cifar",
        )
    },
    # Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, and its code. There the loss
    # is a sum over 1024 images, the rate 11.5 / (1024 * (1 + 1 / (1 - momentum))), and a step
    # decays by 0.0153 / 11.5 of it; for the mean over 1024 images that is a rate of 1.5. Batches of
    # 1000 divide the data, and ten epochs of them are 500 steps in place of 476.
    ("airbench94", "cifar10"): Recipe(
        epochs=10,
        batch_size=1000,
        augment=Compose((AlternatingFlip(), Crop(2))),
        changes="flips in turns and crops",
        optimizer="sgd",
        learning_rate=1.5 * 1000 / 1024,
        schedule="triangle",
        momentum=0.85,
        weight_decay=0.0153 / 11.5,
        decay_all=True,
        rate_factors=(("*/norm?/beta", 64.0),),
        lookahead=True,
        label_smoothing=0.2,
        views=6,
        validation=0.0,
        whitened=3,
    ),
}  # fmt: skip


def recipe_for(model: str, data: str) -> Recipe:
    """Return the recipe of a network of ``gpucnn.models`` on a data set, both by their names."""
    return PAIRS.get((model, data)) or BY_DATA.get(data, OTHERS)
