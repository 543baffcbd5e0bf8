"""Genes and slots of a hybrid chain, from a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator
from torch import nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, Gene, Slot
from hwnas.engine.spaces._shift_adder import Operator
from hwnas.engine.spaces.hybrid import blocks as _blocks  # noqa: F401  # who has the space has its factories
from hwnas.latency.block import Block

Sharing = Literal["mapped", "naive", "separate"]


class Layer(BaseModel):
    """A searched layer. Options are listed from small to large, which for operators is from cheap to dear."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    widths: tuple[PositiveInt, ...]
    operators: tuple[Operator, ...] = ("add", "shift", "conv")
    kernel: Literal[1, 3, 5, 7] = 3
    stride: Literal[1, 2] = 1

    @field_validator("widths")
    @classmethod
    def _ascending(cls, options: tuple[int, ...]) -> tuple[int, ...]:
        if not options or list(options) != sorted(set(options)):
            raise ValueError(f"list each width once, from small to large, got {options}")
        return options

    @field_validator("operators")
    @classmethod
    def _each_once(cls, options: tuple[Operator, ...]) -> tuple[Operator, ...]:
        if not options or len(set(options)) != len(options):
            raise ValueError(f"list each operator once, got {options}")
        return options


class Config(BaseModel):
    """What makes one hybrid chain.

    `sharing` says how a layer's operators have their weights: one tensor that additions read through a learnt
    piecewise scale ("mapped"), one tensor as it is ("naive"), or a tensor each ("separate").
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["hybrid"] = "hybrid"
    resolution: PositiveInt
    stem_width: PositiveInt = 12
    stem_stride: Literal[1, 2] = 2
    layers: tuple[Layer, ...] = Field(min_length=1)
    sharing: Sharing = "mapped"
    bins: PositiveInt = 100  # of the piecewise scale

    def size_at(self, number: int) -> int:
        """Height and width at the input of layer `number` (0-based; the number of layers means the head)."""
        size = self.resolution
        for stride in (self.stem_stride, *(layer.stride for layer in self.layers[:number])):
            size = (size + stride - 1) // stride
        return size


@dataclass(frozen=True)
class HybridSpace:
    """The search space: see `Config`. Gene names: l1.operator, l1.width."""

    config: Config
    in_channels: int
    classes: int
    mask: tuple[tuple[bool, ...], ...] | None = None

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """Layer by layer its operator and width."""
        genes = []
        for number, layer in enumerate(self.config.layers, 1):
            genes += [Gene(f"l{number}.operator", layer.operators), Gene(f"l{number}.width", layer.widths)]
        return tuple(genes) if self.mask is None else arch.restrict(genes, self.mask)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Stem, layers, head."""
        slots = [Slot("stem", (), self._stem)]
        for number in range(1, len(self.config.layers) + 1):
            scope = (f"l{number}.operator", f"l{number}.width")
            before = (f"l{number - 1}.width",) if number > 1 else ()
            slots.append(Slot(f"l{number}", (*scope, *before), partial(self._layer, number)))
        return (*slots, Slot("head", (f"l{len(self.config.layers)}.width",), self._head))

    def input_shape(self, architecture: Architecture) -> tuple[int, int, int]:
        """(channels, height, width), of every architecture."""
        del architecture
        return self.in_channels, self.config.resolution, self.config.resolution

    def supernet(self) -> nn.Module:
        """A freshly initialised SharedChain."""
        from hwnas.engine.spaces.hybrid.supernet import SharedChain

        return SharedChain(self)

    def restrict(self, mask: Sequence[Sequence[bool]]) -> HybridSpace:
        """The same space with only the masked options allowed."""
        narrowed = arch.restrict(self.genes, mask)
        return replace(self, mask=tuple(gene.allowed or (True,) * len(gene.options) for gene in narrowed))

    def with_operators(self, *operators: Operator) -> HybridSpace:
        """The same space with these operators alone."""
        return self.restrict(
            [[not gene.name.endswith(".operator") or o in operators for o in gene.options] for gene in self.genes]
        )

    def _stem(self, genes: Mapping[str, Any]) -> Block:
        del genes
        config = self.config
        return Block.of(
            "hybrid.layer",
            (1, self.in_channels, config.resolution, config.resolution),
            in_channels=self.in_channels,
            out_channels=config.stem_width,
            operator="conv",
            kernel=3,
            stride=config.stem_stride,
        )

    def _layer(self, number: int, genes: Mapping[str, Any]) -> Block:
        layer, size = self.config.layers[number - 1], self.config.size_at(number - 1)
        incoming = self.config.stem_width if number == 1 else genes[f"l{number - 1}.width"]
        return Block.of(
            "hybrid.layer",
            (1, incoming, size, size),
            in_channels=incoming,
            out_channels=genes[f"l{number}.width"],
            operator=genes[f"l{number}.operator"],
            kernel=layer.kernel,
            stride=layer.stride,
        )

    def _head(self, genes: Mapping[str, Any]) -> Block:
        width, size = genes[f"l{len(self.config.layers)}.width"], self.config.size_at(len(self.config.layers))
        return Block.of("hybrid.head", (1, width, size, size), in_channels=width, classes=self.classes)


def build(config: Config, *, in_channels: int, classes: int) -> HybridSpace:
    """The space for images of `in_channels` in `classes`."""
    return HybridSpace(config, in_channels, classes)
