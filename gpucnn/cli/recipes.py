"""How each data set is trained where the command line does not say otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..data import Augmentation, Compose, Crop, Flip, Shift
from ..optimizers import SGD, Adam, AdamW, Optimizer
from ..schedules import OneCycle

# The peak of the learning rate that suits each optimizer on networks of this size.
RATES = {"adamw": 0.01, "adam": 0.01, "sgd": 0.1}


@dataclass(frozen=True)
class Recipe:
    """augment: what ``--augment`` does, ``changes`` in words; augmented: whether by default."""

    epochs: int
    batch_size: int
    augment: Augmentation
    changes: str
    augmented: bool = True
    optimizer: str = "adamw"


RECIPES = {
    "digits": Recipe(epochs=30, batch_size=32, augment=Shift(1), changes="shifts by 1"),
    "mnist": Recipe(epochs=5, batch_size=128, augment=Shift(2), changes="shifts by 2"),
    "fashion-mnist": Recipe(epochs=5, batch_size=128, augment=Flip(), changes="flips"),
    "cifar10": Recipe(
        epochs=15, batch_size=128, augment=Compose((Crop(4), Flip())), changes="crops and flips"
    ),
}
# Nobody knows whether a stranger's pictures may be mirrored.
OTHERS = Recipe(epochs=20, batch_size=32, augment=Shift(2), changes="shifts by 2", augmented=False)


def recipe_for(data: str) -> Recipe:
    return RECIPES.get(data, OTHERS)


def make_optimizer(name: str, peak: float, steps: int) -> Optimizer:
    """Return the optimizer, one of ``RATES``; its rate rises to ``peak`` and falls in ``steps``.

    Raises:
        ValueError: the peak is negative.
    """
    schedule = OneCycle(peak, steps)
    if name == "sgd":
        return SGD(schedule, momentum=0.9, nesterov=True, weight_decay=5e-4)
    return {"adam": Adam, "adamw": AdamW}[name](schedule)


def steps_of(images: int, batch_size: int, epochs: int) -> int:
    """
    >>> steps_of(images=100, batch_size=32, epochs=2)
    8
    """
    return epochs * math.ceil(images / batch_size)
