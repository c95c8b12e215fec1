"""What a checkpoint of a trainer holds, and how a trainer takes it over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import checkpoint
from .callbacks import Callback
from .data import Normalize
from .network import Network
from .optimizers import LossScale

if TYPE_CHECKING:
    from .trainer import Trainer


def write_state(trainer: Trainer, path: str | Path) -> Path:
    """Write a checkpoint that ``read_state`` continues from; return its JSON file."""
    optimizer, scale = trainer.optimizer.state_dict(), trainer.loss_scale
    arrays = {"model": trainer.model.state_dict()}
    for slot, members in optimizer["slots"].items():
        arrays[f"optimizer.{slot}"] = {
            path: trainer.backend.to_numpy(array) for path, array in members.items()
        }
    callbacks: dict[str, dict[str, Any]] = {}
    for key, callback in _keyed(trainer.callbacks):
        state = callback.state_dict()
        kept = {name: value for name, value in state.items() if hasattr(value, "shape")}
        arrays[f"callbacks.{key}"] = kept
        callbacks[key] = {name: value for name, value in state.items() if name not in kept}
    info = checkpoint.describe(trainer.model, trainer.classes, trainer.normalize)
    info["training"] = {
        "loss": trainer.loss.config(),
        "optimizer": trainer.optimizer.config(),
        "steps": optimizer["steps"],
        "skipped": optimizer["skipped"],
        "loss_scale": scale and {"arguments": scale.config(), "state": scale.state_dict()},
        "metrics": list(trainer.metrics),
        "seed": trainer.seed,
        "callbacks": callbacks,
        "history": trainer.history.records,
    }
    return checkpoint.write(path, info, arrays)


@dataclass(frozen=True)
class SavedState:
    """A trainer's checkpoint as it was read."""

    file: Path
    info: dict[str, Any]
    arrays: checkpoint.Arrays

    @property
    def training(self) -> dict[str, Any]:
        return self.info["training"]

    def model(self) -> Network:
        """Build the network."""
        return checkpoint.model_of(self.file, self.info, self.arrays)

    def loss_scale(self) -> LossScale | None:
        """Return a loss scale with the arguments of the checkpoint's."""
        saved = self.training.get("loss_scale")
        return saved and LossScale.from_config(saved["arguments"])

    def restore(self, trainer: Trainer) -> None:
        """Give a trainer with the same architecture and kind of optimizer this state.

        Its loss, the optimizer's arguments and the schedule stay its own. Shuffling and
        augmentation are functions of the seed and the epoch, dropout of a seed and a counter in the
        model: no other random state is needed.

        Raises:
            ValueError: the model or the optimizer is of another kind.
        """
        kind = self.training["optimizer"]["type"]
        if kind != trainer.optimizer.alias:
            raise ValueError(
                f"{self.file}: the optimizer must be {kind!r}, as in the checkpoint."
                f" Received: {trainer.optimizer.alias!r}"
            )
        try:
            trainer.model.load_state_dict(self.arrays["model"])
        except ValueError as error:
            raise ValueError(f"{self.file}: {error}") from error
        slots = {name: self._group(f"optimizer.{name}") for name in trainer.optimizer.slots}
        skipped = self.training.get("skipped", 0)  # earlier versions had none
        trainer.optimizer.load_state_dict(
            {"steps": self.training["steps"], "skipped": skipped, "slots": slots}
        )
        if self.loss_scale() and trainer.loss_scale:
            trainer.loss_scale.load_state_dict(self.training["loss_scale"]["state"])
        for key, callback in _keyed(trainer.callbacks):
            if key in self.training["callbacks"]:
                values = self.training["callbacks"][key]
                callback.load_state_dict(values | self._group(f"callbacks.{key}"))
        trainer.seed = self.training["seed"]
        trainer.history.records[:] = self.training["history"]
        trainer.classes = self.info["classes"]
        normalize = self.info["normalize"]
        trainer.normalize = normalize and Normalize.from_config(normalize)

    def _group(self, name: str) -> dict[str, Any]:
        """Return a group of arrays; one without members left no trace in the file."""
        return self.arrays.get(name, {})


def read_state(path: str | Path) -> SavedState:
    """Read a trainer's checkpoint.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is damaged, or holds a model alone.
    """
    file = checkpoint.json_path(path)
    info, arrays = checkpoint.read(file)
    if "training" not in info:
        raise ValueError(
            f"{file}: holds a model and no training to continue; read it with gpucnn.load"
        )
    return SavedState(file, info, arrays)


def _keyed(callbacks: list[Callback]) -> Iterator[tuple[str, Callback]]:
    """Yield the callbacks by names that a later run finds them by: the class, numbered."""
    seen: list[str] = []
    for callback in callbacks:
        name = type(callback).__name__
        yield f"{name}_{seen.count(name)}", callback
        seen.append(name)
