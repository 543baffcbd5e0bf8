"""Genes and slots of elastic MobileNetV3, from a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator
from torch import nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, Gene, Slot
from hwnas.engine.spaces.mobilenet_v3.blocks import make_divisible
from hwnas.latency.block import Block

Activation = Literal["relu", "hswish"]


def _from_small_to_large(options: tuple[int, ...]) -> tuple[int, ...]:
    if not options or list(options) != sorted(set(options)):
        raise ValueError(f"list each resolution once, from small to large, got {options}")
    return options


Resolutions = Annotated[tuple[PositiveInt, ...], AfterValidator(_from_small_to_large)]


class Stage(BaseModel):
    """Blocks that share a width; the first of them has the stride. Options are listed from small to large."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    widths: tuple[PositiveInt, ...]
    depths: tuple[PositiveInt, ...]
    kernels: tuple[Literal[3, 5, 7], ...] = (3,)
    expansions: tuple[float, ...] = (4,)
    stride: Literal[1, 2] = 1
    se: bool = False
    activation: Activation = "relu"

    @field_validator("widths", "depths", "kernels", "expansions")
    @classmethod
    def _ascending(cls, options: tuple[float, ...]) -> tuple[float, ...]:
        if not options or list(options) != sorted(set(options)):
            raise ValueError(f"list each option once, from small to large, got {options}")
        return options

    @field_validator("expansions")
    @classmethod
    def _at_least_one(cls, options: tuple[float, ...]) -> tuple[float, ...]:
        if options[0] < 1:
            raise ValueError(f"an expansion is at least 1, got {options[0]}")
        return options


class Config(BaseModel):
    """What makes one elastic MobileNetV3."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["mobilenet_v3"] = "mobilenet_v3"
    resolutions: Resolutions
    stem_width: PositiveInt = 16
    stem_stride: Literal[1, 2] = 2
    stem_activation: Activation = "hswish"
    stages: tuple[Stage, ...] = Field(min_length=1)
    head_width: PositiveInt = 96
    head_features: PositiveInt = 128
    head_activation: Activation = "hswish"
    divisor: PositiveInt = 8  # expanded channels are multiples of it

    @model_validator(mode="after")
    def _different_networks(self) -> Config:
        incoming: tuple[int, ...] = (self.stem_width,)
        for number, stage in enumerate(self.stages, 1):
            for width in {*incoming, *stage.widths}:
                hidden = [self.hidden(width, expansion) for expansion in stage.expansions]
                if len(set(hidden)) != len(hidden):
                    raise ValueError(
                        f"stage {number}: expansions {stage.expansions} of {width} channels, rounded to multiples of "
                        f"{self.divisor}, are {hidden}, twice the same network: space them wider or lower the divisor"
                    )
            incoming = stage.widths
        return self

    def hidden(self, width: int, expansion: float) -> int:
        """Expanded channels of a block whose input has `width` channels."""
        return width if expansion == 1 else make_divisible(width * expansion, self.divisor)

    def size_at(self, resolution: int, stage: int) -> int:
        """Height and width at the input of `stage` (0-based; the number of stages means the head)."""
        strides = [self.stem_stride, *(s.stride for s in self.stages[:stage])]
        for stride in strides:
            resolution = (resolution + stride - 1) // stride
        return resolution


@dataclass(frozen=True)
class MobileNetV3Space:
    """The search space: see `Config`. Gene names: resolution; s1.depth, s1.width; s1.b1.kernel, s1.b1.expansion."""

    config: Config
    in_channels: int
    classes: int
    mask: tuple[tuple[bool, ...], ...] | None = None
    weights: Path | None = None  # a checkpoint of Once-for-All that every supernet begins with

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """Resolution, then stage by stage depth, width and the kernels and expansions of its blocks."""
        genes = [Gene("resolution", self.config.resolutions)]
        for s, stage in enumerate(self.config.stages, 1):
            depth = f"s{s}.depth"
            genes += [Gene(depth, stage.depths), Gene(f"s{s}.width", stage.widths)]
            for b in range(1, stage.depths[-1] + 1):
                deep_enough = frozenset(i for i, d in enumerate(stage.depths) if d >= b)
                needs = None if len(deep_enough) == len(stage.depths) else (depth, deep_enough)
                genes += [
                    Gene(f"s{s}.b{b}.kernel", stage.kernels, needs),
                    Gene(f"s{s}.b{b}.expansion", stage.expansions, needs),
                ]
        return tuple(genes) if self.mask is None else arch.restrict(genes, self.mask)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Stem, every block a stage can hold, head."""
        slots = [Slot("stem", ("resolution",), self._stem)]
        for s, stage in enumerate(self.config.stages, 1):
            for b in range(1, stage.depths[-1] + 1):
                scope = ["resolution", f"s{s}.depth", f"s{s}.width", f"s{s}.b{b}.kernel", f"s{s}.b{b}.expansion"]
                if b == 1 and s > 1:
                    scope.append(f"s{s - 1}.width")
                slots.append(Slot(f"s{s}.b{b}", tuple(scope), partial(self._mbconv, s, b)))
        slots.append(Slot("head", ("resolution", f"s{len(self.config.stages)}.width"), self._head))
        return tuple(slots)

    def input_shape(self, architecture: Architecture) -> tuple[int, int, int]:
        """(channels, height, width) at the architecture's resolution."""
        resolution = self.config.resolutions[architecture[0]]
        return self.in_channels, resolution, resolution

    def supernet(self) -> nn.Module:
        """An ElasticMobileNetV3, freshly initialised or with the weights of the checkpoint. Raises DataError."""
        from hwnas.engine.spaces.mobilenet_v3.once_for_all_weights import load_weights, read_weights
        from hwnas.engine.spaces.mobilenet_v3.supernet import ElasticMobileNetV3

        supernet = ElasticMobileNetV3(self)
        if self.weights is not None:
            load_weights(supernet, read_weights(self.weights), source=str(self.weights))
        return supernet

    def restrict(self, mask: Sequence[Sequence[bool]]) -> MobileNetV3Space:
        """The same space with only the masked options allowed."""
        narrowed = arch.restrict(self.genes, mask)
        allowed = tuple(gene.allowed or (True,) * len(gene.options) for gene in narrowed)
        return replace(self, mask=allowed)

    def _stem(self, genes: Mapping[str, Any]) -> Block:
        shape = (1, self.in_channels, genes["resolution"], genes["resolution"])
        return Block.of("mobilenet_v3.stem", shape, **self.stem_arguments)

    def _mbconv(self, s: int, b: int, genes: Mapping[str, Any]) -> Block | None:
        if genes[f"s{s}.depth"] < b:
            return None
        stage, width = self.config.stages[s - 1], genes[f"s{s}.width"]
        incoming = width if b > 1 else self.config.stem_width if s == 1 else genes[f"s{s - 1}.width"]
        size = self.config.size_at(genes["resolution"], s - 1 if b == 1 else s)
        return Block.of(
            "mobilenet_v3.mbconv",
            (1, incoming, size, size),
            in_channels=incoming,
            out_channels=width,
            kernel=genes[f"s{s}.b{b}.kernel"],
            stride=stage.stride if b == 1 else 1,
            hidden=self.config.hidden(incoming, genes[f"s{s}.b{b}.expansion"]),
            se=stage.se,
            activation=stage.activation,
        )

    def _head(self, genes: Mapping[str, Any]) -> Block:
        stages = len(self.config.stages)
        width, size = genes[f"s{stages}.width"], self.config.size_at(genes["resolution"], stages)
        return Block.of("mobilenet_v3.head", (1, width, size, size), in_channels=width, **self.head_arguments)

    @property
    def stem_arguments(self) -> dict[str, Any]:
        """Keyword arguments of the stem's factory."""
        config = self.config
        return {
            "in_channels": self.in_channels,
            "out_channels": config.stem_width,
            "stride": config.stem_stride,
            "activation": config.stem_activation,
        }

    @property
    def head_arguments(self) -> dict[str, Any]:
        """Keyword arguments of the head's factory, without its input width."""
        config = self.config
        return {
            "channels": config.head_width,
            "features": config.head_features,
            "classes": self.classes,
            "activation": config.head_activation,
        }


def build(config: Config, *, in_channels: int, classes: int) -> MobileNetV3Space:
    """The space for images of `in_channels` in `classes`."""
    return MobileNetV3Space(config, in_channels, classes)
