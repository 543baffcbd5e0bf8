"""A space, its supernet, data and objectives of one's own, all in this file: python examples/own_space.py [FOLDER]"""

import sys
import tempfile
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel
from sklearn.datasets import load_digits
from torch import nn

from hwnas.engine import algorithms
from hwnas.engine import architecture as arch
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import Gene, Slot
from hwnas.engine.dataset import LabelledImages, split
from hwnas.engine.evaluation.complexity import block_macs, block_params
from hwnas.engine.evaluation.inherited import InheritedAccuracy
from hwnas.engine.journal import Journal
from hwnas.engine.objective import Objective, objective_of
from hwnas.engine.search import search
from hwnas.engine.training.trainer import Trainer, TrainingConfig
from hwnas.latency import Block, block_factory

OPERATIONS, LAYERS, WIDTH = ("skip", "separable5", "conv3", "conv5"), 5, 12


@block_factory("own.stem")
def stem():
    return nn.Sequential(nn.Conv2d(1, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU())


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


@block_factory("own.layer")
def layer(*, operation):
    kernel = int(operation[-1])
    conv = nn.Conv2d(WIDTH, WIDTH, kernel, padding=kernel // 2, groups=WIDTH if "separable" in operation else 1)
    mix = [nn.Conv2d(WIDTH, WIDTH, 1)] if "separable" in operation else []
    return Residual(conv, *mix, nn.BatchNorm2d(WIDTH), nn.ReLU())


@block_factory("own.head")
def head(*, classes):
    return nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(WIDTH * 16, classes))


def slot_of(gene):
    """A place that holds the gene's operation, or nothing."""
    shape = (1, WIDTH, 8, 8)
    return Slot(gene, (gene,), lambda v: None if v[gene] == "skip" else Block.of("own.layer", shape, operation=v[gene]))


@dataclass(frozen=True)
class Space:
    classes: int
    genes: tuple[Gene, ...] = tuple(Gene(f"layer{i}", OPERATIONS) for i in range(LAYERS))

    @property
    def slots(self):
        stem = Slot("stem", (), lambda _: Block.of("own.stem", (1, 1, 8, 8)))
        head = Slot("head", (), lambda _: Block.of("own.head", (1, WIDTH, 8, 8), classes=self.classes))
        return (stem, *(slot_of(gene.name) for gene in self.genes), head)

    def input_shape(self, architecture):  # noqa: ARG002  # the same for all
        return 1, 8, 8

    def restrict(self, mask):
        return replace(self, genes=arch.restrict(self.genes, mask))

    def supernet(self):
        return Supernet(self)


class Config(BaseModel):
    name: str


def build(config, *, in_channels, classes):  # noqa: ARG001  # what own_space.toml asks for
    return Space(classes)


class Supernet(nn.Module):
    """Every block that the space can need, each with its own weights; an architecture is a path through them."""

    def __init__(self, space):
        super().__init__()
        self.space = space
        self.held = nn.ModuleList(
            nn.ModuleDict({block.key: block.recipe()() for _, block in arch.scope_blocks(space, slot) if block})
            for slot in space.slots
        )
        self.activate(arch.extreme(space.genes, largest=True))

    def path(self, architecture):
        values = arch.options(self.space.genes, arch.check(self.space.genes, architecture))
        blocks = [slot.block(values) for slot in self.space.slots]
        return [held[block.key] for held, block in zip(self.held, blocks, strict=True) if block]

    def activate(self, architecture):
        self.active = architecture

    def forward(self, images):
        return nn.Sequential(*self.path(self.active))(images)

    def subnet(self, architecture):
        return deepcopy(nn.Sequential(*self.path(architecture))).eval()


def buffer_kib(space, architecture):
    """My accelerator has to hold the weights of its largest layer: a maximum, so no sum over layers tells it."""
    return max((block_params(block) for block in arch.blocks(space, architecture)[1:-1]), default=0) * 4 / 1024


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)  # more do no better on networks this small
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    digits = load_digits()
    images = LabelledImages("mine", digits.images[:, None].astype(np.float32) / 16, digits.target, tuple("0123456789"))
    data = split(images, validation=0.2, test=0.3)
    space = Space(len(data.classes))
    trainer = Trainer(
        space, space.supernet(), data, TrainingConfig(sampler="uniform", criterion="cross_entropy", epochs=30), folder
    )
    trainer.run()
    accuracy = InheritedAccuracy(space, trainer.supernet, data, Journal(f"sqlite:///{folder / 'journal.sqlite'}"))
    objectives = [
        Objective("accuracy", "", accuracy.errors, maximised=True),
        Objective("macs", "MACs", AdditiveCost.of(space, block_macs), cheap=True),  # of all rows at once
        objective_of("buffer", partial(buffer_kib, space), unit="KiB", vectorised=False, cheap=True),  # of one network
    ]
    algorithm = algorithms.make("nsga2", space.genes, population=20, rng=np.random.default_rng(0))
    found = search(algorithm, objectives, evaluations=120)
    for i in found.layers()[0]:
        figures = [float(o.shown(cost)) for o, cost in zip(objectives, found.costs[i], strict=True)]
        values = " ".join(str(v) for v in arch.options(space.genes, arch.to_architecture(found.X[i])).values())
        print("accuracy {:.3f}  {:9,.0f} MACs  {:5.2f} KiB  {}".format(*figures, values))
