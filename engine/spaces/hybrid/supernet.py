"""The supernet of a hybrid chain: one tensor a layer, which each operator reads through a map of its own."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture
from hwnas.engine.spaces._shift_adder import Operator, PiecewiseScale, convolve, power_of_two
from hwnas.engine.spaces.hybrid import blocks
from hwnas.engine.spaces.mobilenet_v3.elastic import ElasticNorm
from hwnas.latency.block import Block

if TYPE_CHECKING:
    from hwnas.engine.spaces.hybrid.space import HybridSpace, Layer, Sharing

# of the Laplace distribution of scale 2 that additions' weights are drawn towards (ShiftAddNAS)
ADD_STD = 2 * 2**0.5


class SharedLayer(nn.Module):
    """A layer that is any of its operators, at any of its widths. BatchNorm is never shared between operators."""

    def __init__(self, in_channels: int, layer: Layer, *, sharing: Sharing, bins: int) -> None:
        super().__init__()
        self.sharing, self.stride = sharing, layer.stride
        shape = (layer.widths[-1], in_channels, layer.kernel, layer.kernel)
        names = layer.operators if sharing == "separate" else ("shared",)
        self.weights = nn.ParameterDict({name: nn.Parameter(torch.empty(shape)) for name in names})
        for name, weight in self.weights.items():
            if name == "add":
                nn.init.normal_(weight)  # as in AdderNet
            else:
                nn.init.kaiming_normal_(weight, mode="fan_out")
        mapped = sharing == "mapped" and "add" in layer.operators
        self.scale = (
            PiecewiseScale(bins, scale=ADD_STD / float(self.weights["shared"].detach().std())) if mapped else None
        )
        self.norms = nn.ModuleDict({operator: ElasticNorm(layer.widths[-1]) for operator in layer.operators})

    def weight(self, operator: Operator) -> Tensor:
        """What the operator's weight is, all of it: (widest, in_channels, kernel, kernel)."""
        weight: Tensor = self.weights[operator if self.sharing == "separate" else "shared"]
        if operator == "shift":
            return power_of_two(weight)
        return self.scale(weight) if operator == "add" and self.scale is not None else weight

    def forward(self, x: Tensor, operator: Operator, width: int) -> Tensor:
        """(n, c, h, w) -> (n, width, ceil(h / stride), ceil(w / stride))."""
        weight = self.weight(operator)[:width, : x.shape[1]]
        return torch.relu(self.norms[operator](convolve(operator, x, weight, stride=self.stride)))

    def copy_to(self, plain: blocks.HybridLayer, operator: Operator) -> None:
        """Fill a plain layer with the slice that it has."""
        weight: Tensor = plain.op.weight  # type: ignore[assignment]  # every operator has one
        weight.copy_(self.weight(operator)[: weight.shape[0], : weight.shape[1]])
        norm = self.norms[operator]
        assert isinstance(norm, ElasticNorm)
        norm.copy_to(plain.norm)


class SharedChain(nn.Module):
    """A Supernet: `activate`, call, `subnet`, `part`; `operator_weights` is for penalties on their distribution."""

    def __init__(self, space: HybridSpace) -> None:
        super().__init__()
        config = space.config
        self.space = space
        self.stem = blocks.layer(
            in_channels=space.in_channels,
            out_channels=config.stem_width,
            operator="conv",
            kernel=3,
            stride=config.stem_stride,
        )
        incoming, members = config.stem_width, []
        for layer in config.layers:
            members.append(SharedLayer(incoming, layer, sharing=config.sharing, bins=config.bins))
            incoming = layer.widths[-1]
        self.layers = nn.ModuleList(members)
        self.classify = nn.Linear(incoming, space.classes)
        self.activate(arch.extreme(space.genes, largest=True))

    def activate(self, architecture: Architecture) -> None:
        """Make `forward` compute this architecture."""
        self.active = arch.check(self.space.genes, architecture)
        values = arch.options(self.space.genes, self.active)
        numbers = range(1, len(self.layers) + 1)
        self._plan: list[tuple[Operator, int]] = [
            (values[f"l{n}.operator"], values[f"l{n}.width"])  # type: ignore[misc]  # a gene's options are plain values
            for n in numbers
        ]

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) -> logits (n, classes)."""
        x: Tensor = self.stem(images)
        for layer, (operator, width) in zip(self.layers, self._plan, strict=True):
            x = layer(x, operator, width)
        x = x.mean((2, 3))
        return nn.functional.linear(x, self.classify.weight[:, : x.shape[1]], self.classify.bias)

    def operator_weights(self) -> tuple[tuple[Operator, Tensor], ...]:
        """Each active layer's operator and its weight, in the width of the layer; shifts before they are rounded."""
        found: list[tuple[Operator, Tensor]] = []
        for layer, (operator, width) in zip(self.layers, self._plan, strict=True):
            assert isinstance(layer, SharedLayer)
            rounded = operator == "shift"
            weight = layer.weights["shift" if layer.sharing == "separate" else "shared"] if rounded else None
            found.append((operator, (layer.weight(operator) if weight is None else weight)[:width]))
        return tuple(found)

    def subnet(self, architecture: Architecture) -> nn.Module:
        """A plain nn.Sequential of the space's blocks with a copy of the weights, in evaluation mode."""
        placed = arch.placed_blocks(self.space, arch.check(self.space.genes, architecture))
        return nn.Sequential(OrderedDict((slot, self.part(slot, block)) for slot, block in placed))

    @torch.no_grad()
    def part(self, slot: str, block: Block) -> nn.Module:
        """The plain module of a block in the slot of that name, with a copy of the weights, in evaluation mode."""
        plain = block.recipe()().eval()
        if slot == "stem":
            plain.load_state_dict(self.stem.state_dict())
        elif slot == "head":
            assert isinstance(plain, blocks.Head)
            plain.classify.weight.copy_(self.classify.weight[:, : plain.classify.in_features])
            plain.classify.bias.copy_(self.classify.bias)
        else:
            layer = self.layers[int(slot[1:]) - 1]
            assert isinstance(layer, SharedLayer)
            assert isinstance(plain, blocks.HybridLayer)
            operator: Operator = dict(block.kwargs)["operator"]  # type: ignore[assignment]  # one of the options
            layer.copy_to(plain, operator)
        return plain
