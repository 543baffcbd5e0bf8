"""Architecture and precision in one space: any space with a gene a slot for the bits of its weights.

The supernet trains in floats, whatever bits a path has; precision is applied to the weights that a subnet inherits.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, field_validator
from torch import Tensor, nn

from hwnas.devices.plugins import load_plugin, plugin_names
from hwnas.engine import architecture as arch
from hwnas.engine import spaces
from hwnas.engine.architecture import Architecture, Gene, SearchSpace, Slot
from hwnas.engine.quantisation import quantisable, quantise_
from hwnas.latency.block import Block, block_factory

Bits = Literal[2, 3, 4, 5, 6, 7, 8, 32]
FLOAT_BITS = 32


class Config(BaseModel):
    """Which space, and the precisions to choose from, 32 being floats. `slots` are those with a choice: all if none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["mixed_precision"] = "mixed_precision"
    space: dict[str, Any]  # the configuration of the other space, with its name
    bits: tuple[Bits, ...] = (4, 8, 32)
    activation_bits: Literal[4, 5, 6, 7, 8] = 8
    slots: tuple[str, ...] = ()

    @field_validator("bits")
    @classmethod
    def _ascending(cls, options: tuple[int, ...]) -> tuple[int, ...]:
        if not options or list(options) != sorted(set(options)):
            raise ValueError(f"list each precision once, from small to large, got {options}")
        return options

    @field_validator("space")
    @classmethod
    def _known(cls, section: dict[str, Any]) -> dict[str, Any]:
        name = section.get("name")
        if not isinstance(name, str) or name == "mixed_precision":
            raise ValueError(f'name = {name!r}: name the space to wrap, e.g. "mobilenet_v3"')
        try:
            plugin = load_plugin(spaces, name)
        except LookupError as error:
            raise ValueError(str(error)) from None
        found: dict[str, Any] = plugin.Config.model_validate(section).model_dump(mode="json")
        return found


@dataclass(frozen=True)
class MixedPrecisionSpace:
    """The genes of a space, then `<slot>.bits` for each of its slots that holds weights."""

    inner: SearchSpace
    bits: tuple[int, ...] = (4, 8, FLOAT_BITS)
    activation_bits: int = 8
    chosen: tuple[str, ...] = ()  # names of the slots with a choice; all if empty
    mask: tuple[tuple[bool, ...], ...] | None = None  # of the bits
    whole: SearchSpace | None = None  # the inner space before it was restricted: a gene stays a gene

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """Those of the inner space, then the bits; a slot that is empty has none."""
        bits = [Gene(_gene(slot), self.bits, needs) for slot, needs in self._precise.items()]
        return (*self.inner.genes, *(bits if self.mask is None else arch.restrict(bits, self.mask)))

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Those of the inner space, decided by their bits too."""
        return tuple(
            Slot(slot.name, (*slot.scope, _gene(slot.name)), partial(self._block, slot))
            if slot.name in self._precise
            else slot
            for slot in self.inner.slots
        )

    @cached_property
    def _precise(self) -> dict[str, tuple[str, frozenset[int]] | None]:
        """By name of each slot with a choice, what switches it on."""
        inner = self.inner if self.whole is None else self.whole
        names = [slot.name for slot in inner.slots]
        unknown = [name for name in self.chosen if name not in names]
        if unknown:
            raise ValueError(f"no slot is called {unknown[0]!r}: choose from {', '.join(names)}")
        return {
            slot.name: _filled_by(inner, slot)
            for slot in inner.slots
            if (not self.chosen or slot.name in self.chosen) and _holds_weights(inner, slot)
        }

    def input_shape(self, architecture: Architecture) -> tuple[int, ...]:
        """That of the inner architecture."""
        return self.inner.input_shape(self.inner_architecture(architecture))

    def inner_architecture(self, architecture: Architecture) -> Architecture:
        """The architecture without its bits."""
        return architecture[: len(self.inner.genes)]

    def supernet(self) -> nn.Module:
        """The inner space's supernet in a PreciseSupernet."""
        return PreciseSupernet(self, self.inner.supernet())

    def restrict(self, mask: Sequence[Sequence[bool]]) -> MixedPrecisionSpace:
        """The same space with only the masked options allowed."""
        narrowed, own = arch.restrict(self.genes, mask), len(self.inner.genes)
        allowed = tuple(gene.allowed or (True,) * len(gene.options) for gene in narrowed[own:])
        return replace(self, inner=self.inner.restrict(mask[:own]), mask=allowed, whole=self.whole or self.inner)

    def at(self, bits: int) -> MixedPrecisionSpace:
        """The same space with every slot at `bits`. Raises ValueError where that is no option."""
        own = len(self.inner.genes)
        free = [[True] * len(gene.options) for gene in self.genes[:own]]
        return self.restrict([*free, *([option == bits for option in gene.options] for gene in self.genes[own:])])

    def _block(self, slot: Slot, values: Mapping[str, Any]) -> Block | None:
        block = slot.block({name: values[name] for name in slot.scope})
        if block is None or not _quantisable(block):
            return block
        return block_of(block, bits=int(values[_gene(slot.name)]), activation_bits=self.activation_bits)


class PreciseSupernet(nn.Module):
    """A Supernet over another: in training mode it computes in floats, in evaluation mode at the active bits.

    What a range of activations is, is known after `recalibrate` alone.
    """

    def __init__(self, space: MixedPrecisionSpace, inner: nn.Module) -> None:
        super().__init__()
        self.space, self.inner = space, inner
        self.plain: nn.Module | None = None
        # only what the inner supernet can do: see PartedSupernet
        self.part = self._part if hasattr(inner, "part") else None
        self.register_state_dict_post_hook(_without_plain)  # type: ignore[no-untyped-call]  # torch's own
        self.activate(arch.extreme(space.genes, largest=True))

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self.plain = None  # it is of other weights now, and has no state of its own
        super()._load_from_state_dict(*arguments)

    def activate(self, architecture: Architecture) -> None:
        """Make `forward` compute this architecture."""
        self.active = arch.check(self.space.genes, architecture)
        self.inner.activate(self.space.inner_architecture(self.active))  # type: ignore[operator]  # a Supernet
        blocks = arch.blocks(self.space, self.active)
        precise = not self.training and any(block.factory == "quantised.block" for block in blocks)
        self.plain = self.subnet(self.active) if precise else None

    def forward(self, images: Tensor) -> Tensor:
        """As the inner supernet."""
        logits: Tensor = self.inner(images) if self.plain is None or self.training else self.plain(images)
        return logits

    def subnet(self, architecture: Architecture) -> nn.Module:
        """A plain nn.Sequential of the space's blocks, quantised, in evaluation mode; its ranges want calibration."""
        inner = self.space.inner_architecture(arch.check(self.space.genes, architecture))
        network: nn.Module = self.inner.subnet(inner)  # type: ignore[operator]  # a Supernet
        placed = arch.placed_blocks(self.space, architecture)
        if not isinstance(network, nn.Sequential) or len(network) != len(placed):
            raise TypeError(f"{type(self.inner).__name__}: subnet() must answer an nn.Sequential of one module a block")
        named = zip(network.named_children(), placed, strict=True)
        return nn.Sequential(OrderedDict((name, _at(module, block)) for (name, module), (_, block) in named)).eval()

    def sort_channels(self) -> None:
        """As the inner supernet, where it can."""
        sort = getattr(self.inner, "sort_channels", None)
        if sort is not None:
            sort()

    def _part(self, slot: str, block: Block) -> nn.Module:
        """The module of a block of this space in the slot of that name."""
        part: nn.Module = self.inner.part(slot, _inner(block))  # type: ignore[operator]  # a PartedSupernet
        return _at(part, block)


def _without_plain(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    """What is only made of the inner weights is no state."""
    del module, metadata
    for name in [name for name in state if name.startswith(f"{prefix}plain.")]:
        del state[name]


def _at(module: nn.Module, block: Block) -> nn.Module:
    """The module of an inner block, an own copy of its weights, as `block` has it."""
    if block.factory != "quantised.block":
        return module
    values: dict[str, Any] = dict(block.kwargs)
    return quantise_(module, bits=values["bits"], activation_bits=values["activation_bits"])


def _inner(block: Block) -> Block:
    if block.factory != "quantised.block":
        return block
    return _read(str(dict(block.kwargs)["block"]))


@cache
def _read(text: str) -> Block:
    return Block.from_json(json.loads(text))


def _gene(slot: str) -> str:
    return f"{slot}.bits"


@cache
def _quantisable(block: Block) -> bool:
    with torch.device("meta"):
        return quantisable(block.recipe()())


def _holds_weights(space: SearchSpace, slot: Slot) -> bool:
    return any(block is not None and _quantisable(block) for _, block in arch.scope_blocks(space, slot))


def _filled_by(space: SearchSpace, slot: Slot) -> tuple[str, frozenset[int]] | None:
    """The gene, with its options, that tells whether the slot holds a block; None where it always does."""
    held = [(indices, block is not None) for indices, block in arch.scope_blocks(space, slot)]
    if all(is_filled for _, is_filled in held):
        return None
    for position, name in enumerate(slot.scope):
        filled = frozenset(indices[position] for indices, is_filled in held if is_filled)
        if filled.isdisjoint(indices[position] for indices, is_filled in held if not is_filled):
            return name, filled
    raise ValueError(f"slot {slot.name!r}: several genes decide whether it is empty: leave it out of `slots`")


@block_factory("quantised.block")
def quantised_block(*, block: str, bits: int, activation_bits: int) -> nn.Module:
    """The block whose JSON text is given, quantised."""
    inner = _read(block)
    try:
        recipe = inner.recipe()
    except LookupError:  # a compiling process has imported this file alone
        for name in plugin_names(spaces):
            load_plugin(spaces, name)
        recipe = inner.recipe()
    return quantise_(recipe().eval(), bits=bits, activation_bits=activation_bits)


def block_of(block: Block, *, bits: int, activation_bits: int) -> Block:
    """The same block with its weights in `bits` bits; itself at 32."""
    if bits == FLOAT_BITS:
        return block
    text = json.dumps(block.to_json(), sort_keys=True)
    return Block.of("quantised.block", *block.inputs, block=text, bits=bits, activation_bits=activation_bits)


def build(config: Config, *, in_channels: int, classes: int) -> MixedPrecisionSpace:
    """The space for images of `in_channels` in `classes`."""
    plugin = load_plugin(spaces, str(config.space["name"]))
    inner = plugin.build(plugin.Config.model_validate(config.space), in_channels=in_channels, classes=classes)
    return MixedPrecisionSpace(inner, tuple(config.bits), config.activation_bits, config.slots)
