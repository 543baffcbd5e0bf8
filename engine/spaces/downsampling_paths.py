"""Where a network halves height and width, and what its layers compute: a path down a lattice of resolutions.

The spatial part of Zhang, Yao, Kwok and Bai, TREFE, TPAMI 2023: every layer keeps the height or halves it, and may
halve the width along; by the end both were halved a given number of times. Channels follow the height. Which layers
halve is encoded so that every architecture is a path and every path one architecture: how the halvings spread over the
blocks (`heights`), which layers of a block they fall on (`b2.at3` where there are three), and which of them halve the
width (`widths`). Differences from the paper: classification, by the mean over all positions; its sequence model and its
decoders are no part of this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import combinations, product
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator
from torch import nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, Gene, IntArray, Slot
from hwnas.engine.pruning import sample_architectures
from hwnas.engine.spaces._downsampling_paths import DownsamplingPaths
from hwnas.engine.spaces._lattice import MOVES, Lattice
from hwnas.latency.block import Block

Operation = Literal["k3_e1", "k5_e1", "k3_e3", "k3_e6", "k5_e6"]  # kernel and expansion, from small to large


class Config(BaseModel):
    """What makes one such space; its images have this height and width (of tasks here both are equal)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["downsampling_paths"] = "downsampling_paths"
    height: PositiveInt
    width: PositiveInt
    stem_stride: Literal[1, 2] = 2
    blocks: tuple[PositiveInt, ...] = Field(min_length=1)  # layers of each
    height_halvings: NonNegativeInt
    width_halvings: NonNegativeInt
    channels: tuple[PositiveInt, ...]  # before any halving of height, after the first, and so on
    operations: tuple[Operation, ...] = ("k3_e1", "k5_e1", "k5_e6")  # inverted residuals with squeeze-and-excite
    activation: Literal["relu", "hswish"] = "relu"

    @model_validator(mode="after")
    def _possible(self) -> Config:
        Lattice(sum(self.blocks), self.height_halvings, self.width_halvings)  # raises ValueError
        if len(self.channels) != self.height_halvings + 1:
            raise ValueError(
                f"{self.height_halvings} halvings of height need {self.height_halvings + 1} numbers of channels, "
                f"got {self.channels}"
            )
        order = ("k3_e1", "k5_e1", "k3_e3", "k3_e6", "k5_e6")
        if not self.operations or list(self.operations) != sorted(set(self.operations), key=order.index):
            raise ValueError(f"list each operation once, from small to large ({', '.join(order)})")
        return self

    @property
    def lattice(self) -> Lattice:
        """The paths without the layers' operations."""
        return Lattice(sum(self.blocks), self.height_halvings, self.width_halvings)


# Handwriting: 64 x 1200 pixels, four blocks of five layers from 32 x 600 down to 1 x 150.
PAPER = Config(
    height=64,
    width=1200,
    blocks=(5, 5, 5, 5),
    height_halvings=5,
    width_halvings=2,
    channels=(16, 16, 32, 64, 128, 256),
)
EXAMPLE = Config(
    height=8,
    width=8,
    stem_stride=1,
    blocks=(2, 2),
    height_halvings=2,
    width_halvings=1,
    channels=(8, 10, 12),
    operations=("k3_e1", "k3_e3"),
)


@dataclass(frozen=True)
class DownsamplingPathSpace:
    """The search space: see `Config`. Options of what halves are listed by where it does, first to last."""

    config: Config
    in_channels: int
    classes: int
    mask: tuple[tuple[bool, ...], ...] | None = None

    @cached_property
    def spreads(self) -> tuple[tuple[int, ...], ...]:
        """Every way to spread the halvings of height over the blocks, the earliest first."""
        ways = product(*(range(layers + 1) for layers in self.config.blocks))
        return tuple(sorted((way for way in ways if sum(way) == self.config.height_halvings), reverse=True))

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """How halvings spread over blocks, which halve the width; block by block where they are, then operations."""
        config = self.config
        halved = combinations(range(1, config.height_halvings + 1), config.width_halvings)
        genes = [
            Gene("heights", tuple(map(_words, self.spreads))),
            Gene("widths", tuple(_words(ordinals) for ordinals in halved)),
        ]
        for b, layers in enumerate(config.blocks, 1):
            for k in range(1, min(layers, config.height_halvings + 1)):
                here = frozenset(i for i, spread in enumerate(self.spreads) if spread[b - 1] == k)
                if here:
                    places = tuple(_words(places) for places in combinations(range(1, layers + 1), k))
                    genes.append(
                        Gene(f"b{b}.at{k}", places, None if len(here) == len(self.spreads) else ("heights", here))
                    )
            genes += [Gene(f"b{b}.l{layer}.op", config.operations) for layer in range(1, layers + 1)]
        return tuple(genes) if self.mask is None else arch.restrict(genes, self.mask)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Stem; a layer's reduction and operation, in slots of their own for every number of halvings of its block.

        So a slot's scope is a few genes, and of the slots of one layer one pair at most is filled.
        """
        names = {gene.name for gene in self.genes}
        slots = [Slot("stem", (), self._stem)]
        for b, layers in enumerate(self.config.blocks, 1):
            for layer in range(1, layers + 1):
                for k in sorted({spread[b - 1] for spread in self.spreads}):
                    at = f"b{b}.at{k}"
                    scope = ("heights", "widths", *([at] if at in names else []))
                    place = f"b{b}.l{layer}"
                    slots.append(Slot(f"{place}.reduce{k}", scope, partial(self._reduction, b, layer, k)))
                    slots.append(Slot(f"{place}.op{k}", (*scope, f"{place}.op"), partial(self._layer, b, layer, k)))
        return (*slots, Slot("head", (), self._head))

    def count_paths(self) -> int:
        """Ways to halve height and width, whatever the layers compute."""
        return self.config.lattice.count_paths()

    def sample_uniform(self, n: int, rng: np.random.Generator) -> IntArray:
        """`n` rows whose paths are all alike (n, genes): `architecture.sample` draws a gene's options alike instead."""
        return sample_architectures(self.genes, n, rng)

    def moves(self, architecture: Architecture) -> tuple[int, ...]:
        """What each layer does to the resolution: indices into the lattice's MOVES."""
        values = arch.options(self.genes, architecture)
        spread = _numbers(values["heights"])
        halved: list[int] = []  # layers, counted through all blocks
        start = 0
        for b, (layers, k) in enumerate(zip(self.config.blocks, spread, strict=True), 1):
            halved += [start + place for place in _places(values, b, k, layers)]
            start += layers
        wide = {halved[ordinal - 1] for ordinal in _numbers(values["widths"])}
        return tuple((2 if i in wide else 1) if i in halved else 0 for i in range(1, start + 1))

    def encoded(self, moves: Sequence[int], operations: Sequence[int]) -> Architecture:
        """The architecture of these moves and of these operations (an index a layer). Raises ValueError."""
        halved = [i for i, move in enumerate(moves, 1) if move > 0]
        values: dict[str, str] = {"widths": _words(n for n, i in enumerate(halved, 1) if moves[i - 1] == 2)}
        spread, start = [], 0
        for b, layers in enumerate(self.config.blocks, 1):
            places = [i - start for i in halved if start < i <= start + layers]
            spread.append(len(places))
            values[f"b{b}.at{len(places)}"] = _words(places)
            start += layers
        values["heights"] = _words(spread)
        row, numbers = [], iter(operations)
        for gene in self.genes:
            if gene.name.endswith(".op"):
                row.append(next(numbers))
            elif gene.name in values and values[gene.name] not in gene.options:
                raise ValueError(
                    f"moves {tuple(moves)} are no path of this space: {gene.name} would be {values[gene.name]}"
                )
            else:
                row.append(gene.options.index(values[gene.name]) if gene.name in values else 0)
        return arch.check(self.genes, row)

    def input_shape(self, architecture: Architecture) -> tuple[int, int, int]:  # noqa: ARG002  # the same for all
        """(channels, height, width)."""
        return self.in_channels, self.config.height, self.config.width

    def supernet(self) -> nn.Module:
        """A DownsamplingPaths, freshly initialised."""
        return DownsamplingPaths(self)

    def restrict(self, mask: Sequence[Sequence[bool]]) -> DownsamplingPathSpace:
        """The same space with only the masked options allowed."""
        narrowed = arch.restrict(self.genes, mask)
        return replace(self, mask=tuple(gene.allowed or (True,) * len(gene.options) for gene in narrowed))

    def shape(self, heights: int, widths: int) -> tuple[int, int, int, int]:
        """What flows after so many halvings, for one image."""
        sizes = []
        for size, halvings in ((self.config.height, heights), (self.config.width, widths)):
            stemmed = -(-size // self.config.stem_stride)
            sizes.append(-(-stemmed // 2**halvings))
        return 1, self.config.channels[heights], sizes[0], sizes[1]

    def _stem(self, genes: Mapping[str, Any]) -> Block:  # noqa: ARG002  # no gene decides it
        config = self.config
        return Block.of(
            "mobilenet_v3.stem",
            (1, self.in_channels, config.height, config.width),
            in_channels=self.in_channels,
            out_channels=config.channels[0],
            stride=config.stem_stride,
            activation=config.activation,
        )

    def _head(self, genes: Mapping[str, Any]) -> Block:  # noqa: ARG002  # no gene decides it
        shape = self.shape(self.config.height_halvings, self.config.width_halvings)
        return Block.of("downsampling_paths.head", shape, channels=shape[1], classes=self.classes)

    def _states(
        self, b: int, layer: int, k: int, genes: Mapping[str, Any]
    ) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """Halvings before and behind a layer of a block of k halvings; None where the block has another number."""
        spread = _numbers(genes["heights"])
        if spread[b - 1] != k:
            return None
        places = _places(genes, b, k, self.config.blocks[b - 1])
        before = sum(spread[: b - 1]) + sum(place < layer for place in places)
        behind = before + (layer in places)
        ordinals = _numbers(genes["widths"])
        width = [sum(ordinal <= heights for ordinal in ordinals) for heights in (before, behind)]
        return (before, width[0]), (behind, width[1])

    def _reduction(self, b: int, layer: int, k: int, genes: Mapping[str, Any]) -> Block | None:
        states = self._states(b, layer, k, genes)
        if states is None or states[0] == states[1]:
            return None
        before, behind = (self.shape(*state) for state in states)
        return Block.of(
            "downsampling_paths.reduction",
            before,
            in_channels=before[1],
            out_channels=behind[1],
            halves_width=states[0][1] != states[1][1],
        )

    def _layer(self, b: int, layer: int, k: int, genes: Mapping[str, Any]) -> Block | None:
        states = self._states(b, layer, k, genes)
        if states is None:
            return None
        shape = self.shape(*states[1])
        kernel, expansion = (int(word[1:]) for word in genes[f"b{b}.l{layer}.op"].split("_"))
        return Block.of(
            "mobilenet_v3.mbconv",
            shape,
            in_channels=shape[1],
            out_channels=shape[1],
            kernel=kernel,
            stride=1,
            hidden=shape[1] * expansion,
            se=True,
            activation=self.config.activation,
        )


def build(config: Config, *, in_channels: int, classes: int) -> DownsamplingPathSpace:
    """The space for images of `in_channels` in `classes`."""
    return DownsamplingPathSpace(config, in_channels, classes)


def _words(numbers: Any) -> str:
    return "-".join(map(str, numbers)) or "none"


def _numbers(words: Any) -> tuple[int, ...]:
    return () if words == "none" else tuple(map(int, words.split("-")))


def _places(values: Mapping[str, Any], b: int, k: int, layers: int) -> tuple[int, ...]:
    """Layers of a block, 1-based, that halve the height; of a block that halves nowhere or everywhere no gene says."""
    if 0 < k < layers:
        return _numbers(values[f"b{b}.at{k}"])
    return tuple(range(1, layers + 1)) if k else ()


__all__ = ["EXAMPLE", "MOVES", "PAPER", "Config", "DownsamplingPathSpace", "Lattice", "build"]
