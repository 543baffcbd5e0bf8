"""A run: its configuration, its folder, and what its stages share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from hwnas.devices.plugins import load_plugin
from hwnas.engine import architecture as arch
from hwnas.engine import spaces, tasks
from hwnas.engine.architecture import SearchSpace
from hwnas.engine.config import RunConfig
from hwnas.engine.dataset import Dataset, split
from hwnas.engine.evaluation.inherited import InheritedAccuracy, state_digest
from hwnas.engine.front import Front
from hwnas.engine.journal import Journal
from hwnas.engine.training import checkpoint as checkpoints
from hwnas.engine.training.checkpoint import CheckpointError, EpochRecord
from hwnas.engine.training.trainer import Trainer


class RunError(RuntimeError):
    """A stage that cannot start or go on; the message is one line with the cure."""


@dataclass
class Run:
    """The stages of one configuration. Each stage finds what earlier ones left in the folder."""

    config: RunConfig

    # ---- files ------------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Where everything of the run lies."""
        return self.config.folder

    @property
    def supernet_folder(self) -> Path:
        """Checkpoints."""
        return self.folder / "supernet"

    @property
    def table_path(self) -> Path | str:
        """Latency table: a file, or the URL of a database."""
        return self.config.table.path or self.folder / "latency.sqlite"

    @property
    def journal_path(self) -> Path | str:
        """Evaluations and searches: a file, or the URL of a database."""
        return self.config.run.journal or self.folder / "journal.sqlite"

    @property
    def front_path(self) -> Path:
        """The front, as JSON; of the run's first device where it has many."""
        return self._of_device("front.json")

    @property
    def fleet_path(self) -> Path:
        """The front over all devices of the run, as JSON."""
        return self.folder / "front.fleet.json"

    @property
    def search_path(self) -> Path:
        """Every candidate of the last search, as JSON."""
        return self.folder / "search.json"

    @property
    def measurements_path(self) -> Path:
        """Raw runs of the last verification, as JSON."""
        return self._of_device("front_runs.json")

    @property
    def export_folder(self) -> Path:
        """A folder a point of the verified front."""
        return self._of_device("export")

    @property
    def report_path(self) -> Path:
        """The report, one HTML file."""
        return self._of_device("report.html")

    def _of_device(self, name: str) -> Path:
        """A file of a device: `front.json` alone, `front.pi.json` among many."""
        stem, dot, suffix = name.partition(".")
        device = self.config.device
        return self.folder / (f"{stem}.{device.name}{dot}{suffix}" if len(device.names) > 1 else name)

    def on(self, device: str) -> Run:
        """This run with another of its devices as the first: what is loaded already is shared."""
        run = copy(self)
        run.config = self.config.with_device(device)
        return run

    def begin(self) -> None:
        """Make the folder with the configuration in it and set torch's threads. Raises RunError where it cannot."""
        if self.config.run.threads is not None:
            torch.set_num_threads(self.config.run.threads)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / "config.toml", self.config.text)
        except OSError as error:
            raise RunError(
                f"{self.folder}: cannot be written ({error.strerror}): give a writable folder by [run] folder or --out"
            ) from error

    # ---- what the stages share --------------------------------------------------------------------------------------

    @cached_property
    def data(self) -> Dataset:
        """The task's images in their splits."""
        task = self.config.task
        loaded = load_plugin(tasks, str(task.model_dump()["name"])).load(task)
        section = self.config.data
        return split(loaded, validation=section.validation, test=section.test, limit=section.limit)

    @cached_property
    def space(self) -> SearchSpace:
        """The search space for this task."""
        config = self.config.space
        plugin = load_plugin(spaces, str(config.model_dump()["name"]))
        space: SearchSpace = plugin.build(config, in_channels=self.data.channels, classes=len(self.data.classes))
        return space

    def trainer(self, on_epoch: Callable[[EpochRecord], None] | None = None) -> Trainer:
        """The supernet's trainer, at its seeded beginning."""
        torch.manual_seed(self.config.run.seed)
        training = self.config.training.model_copy(update={"seed": self.config.training.seed + self.config.run.seed})
        settings = json.dumps(self.config.space.model_dump(mode="json"), sort_keys=True)
        supernet = self.space.supernet()
        return Trainer(self.space, supernet, self.data, training, self.supernet_folder, settings, on_epoch)

    def train(self, on_epoch: Callable[[EpochRecord], None] | None = None) -> tuple[EpochRecord, ...]:
        """Train, or go on from the last checkpoint; the history."""
        return self.trainer(on_epoch).run()

    @cached_property
    def history(self) -> tuple[EpochRecord, ...]:
        """Epochs of the trained supernet. Raises CheckpointError where there is none, or not all of it."""
        if self.config.training.epochs == 0:
            return ()
        found = checkpoints.load(self.supernet_folder)
        if found is None or found.epoch < self.config.training.epochs:
            done = "no checkpoint" if found is None else f"{found.epoch} of {self.config.training.epochs} epochs"
            raise CheckpointError(f"{self.supernet_folder}: {done}: run `hwnas train` first")
        return found.history

    @cached_property
    def supernet(self) -> nn.Module:
        """The trained supernet, in evaluation mode. Raises CheckpointError."""
        _ = self.history
        trainer = self.trainer()
        trainer.run()
        return trainer.supernet

    @cached_property
    def journal(self) -> Journal:
        """Every evaluation of the run."""
        return Journal(str(self.journal_path))

    @cached_property
    def evaluator(self) -> InheritedAccuracy:
        """Accuracy from inherited weights."""
        images = self.config.search.calibration_images
        kept = self.config.search.kept_mib
        return InheritedAccuracy(
            self.space, self.supernet, self.data, self.journal, calibration=images, budget_mib=kept
        )

    def front(self) -> Front:
        """The front that the last search or verification left. Raises RunError."""
        return _read_front(self.front_path)

    def fleet_front(self) -> Front:
        """The front over all devices that the last search left. Raises RunError."""
        return _read_front(self.fleet_path)

    def write_front(self, front: Front) -> None:
        """Write the front as JSON and CSV; a verified one once more, under its own name."""
        front.write(self.front_path)
        front.write(self.front_path.with_suffix(".csv"))
        if any(point.verified for point in front.points):
            front.write(self._of_device("front.verified.json"))  # which a later search leaves alone

    def provenance(self) -> dict[str, object]:
        """What a front of this run depends on."""
        return {
            "run": self.config.run.name,
            "seed": self.config.run.seed,
            "space": self.config.space.model_dump(mode="json"),
            "architectures": arch.size(self.space.genes),
            "task": self.data.name,
            "images": self.data.sizes,
            "data_digest": self.data.digest,
            "supernet_digest": state_digest(self.supernet),
        }


def _read_front(path: Path) -> Front:
    if not path.exists():
        raise RunError(f"{path}: no front yet: run `hwnas search` first")
    try:
        return Front.read(path)
    except ValueError as error:
        raise RunError(str(error)) from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
