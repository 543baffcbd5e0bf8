"""Checkpoints of a training: tensors in safetensors, everything else in JSON, committed by one rename."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used."""


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What one epoch came to; accuracies on the validation split are None where they were not evaluated."""

    epoch: int  # 1-based
    loss: float  # mean over steps, summed over paths
    learning_rate: float
    accuracy_largest: float | None = None
    accuracy_smallest: float | None = None
    accuracy_random: float | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State behind an epoch."""

    epoch: int
    settings: str  # digest of what the training depends on
    history: tuple[EpochRecord, ...]
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    criterion: dict[str, Tensor] = field(default_factory=dict)  # weights that a criterion trains along
    remembered: dict[str, dict[str, Any]] = field(default_factory=dict)  # by sampler and criterion, as JSON


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the tensors under a new name, then make checkpoint.json point to them: a kill leaves the old or the new."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{k}": v.detach().contiguous() for k, v in checkpoint.model.items()}
    tensors |= {f"optimizer.{k}": v.detach().contiguous() for k, v in checkpoint.optimizer.items()}
    tensors |= {f"criterion.{k}": v.detach().contiguous() for k, v in checkpoint.criterion.items()}
    target = folder / f"epoch-{checkpoint.epoch:04d}.safetensors"
    written = target.with_suffix(".tmp")
    save_file(tensors, written)
    digest = hashlib.sha256(written.read_bytes()).hexdigest()
    os.replace(written, target)
    record = {
        "epoch": checkpoint.epoch,
        "settings": checkpoint.settings,
        "tensors": target.name,
        "sha256": digest,
        "remembered": checkpoint.remembered,
        "history": [asdict(epoch) for epoch in checkpoint.history],
    }
    index = folder / "checkpoint.json"
    written = index.with_suffix(".tmp")
    written.write_text(json.dumps(record, indent=1))
    os.replace(written, index)
    for old in folder.glob("epoch-*.safetensors"):
        if old != target:
            old.unlink()


def load(folder: Path) -> Checkpoint | None:
    """The last checkpoint of a folder, or None where there is none. Raises CheckpointError."""
    index = folder / "checkpoint.json"
    if not index.exists():
        return None
    cure = f"delete {folder} and train again, or copy the checkpoint back"
    try:
        record = json.loads(index.read_text())
        tensors_path = folder / record["tensors"]
        history = tuple(EpochRecord(**epoch) for epoch in record["history"])
        epoch, settings, sha256 = int(record["epoch"]), str(record["settings"]), str(record["sha256"])
        remembered = dict(record.get("remembered", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index}: not a whole checkpoint ({error!r}): {cure}") from error
    try:
        found = hashlib.sha256(tensors_path.read_bytes()).hexdigest()
        if found != sha256:
            raise CheckpointError(f"{tensors_path}: corrupt, its SHA-256 is {found[:12]}, not {sha256[:12]}: {cure}")
        tensors = load_file(tensors_path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{tensors_path}: cannot be read ({error}): {cure}") from error
    model, optimizer, criterion = (_under(f"{part}.", tensors) for part in ("model", "optimizer", "criterion"))
    return Checkpoint(epoch, settings, history, model, optimizer, criterion, remembered)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
