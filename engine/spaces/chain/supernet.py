"""The supernet of a chain: for each layer one weight an operator, sliced by the active widths."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture
from hwnas.engine.spaces.chain import blocks
from hwnas.engine.spaces.chain.blocks import WEIGHTLESS, Operator
from hwnas.engine.spaces.mobilenet_v3.elastic import ElasticConv, ElasticDepthwise, ElasticNorm
from hwnas.latency.block import Block

if TYPE_CHECKING:
    from hwnas.engine.spaces.chain.space import ChainSpace


class ElasticOperator(nn.Module):
    """An operator with weights, of elastic width on both sides."""

    def __init__(self, operator: Operator, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        kernel = blocks.kernel_of(operator)
        separable = operator.startswith("separable")
        self.depthwise = ElasticDepthwise(in_channels, (kernel,), stride) if separable else None
        self.kernel = kernel
        self.conv = ElasticConv(
            in_channels, out_channels, 1 if separable else kernel, stride=1 if separable else stride
        )
        self.norm = ElasticNorm(out_channels)

    def forward(self, x: Tensor, out_channels: int) -> Tensor:
        """(n, in, h, w) -> (n, out_channels, ceil(h / stride), ceil(w / stride))."""
        y = x if self.depthwise is None else self.depthwise(x, self.kernel)
        return torch.relu(self.norm(self.conv(y, out_channels)))

    def copy_to(self, plain: nn.Module) -> None:
        """Fill a plain layer."""
        if self.depthwise is not None:
            self.depthwise.copy_to(plain.get_submodule("depthwise"))  # type: ignore[arg-type]  # made by blocks.layer
        self.conv.copy_to(plain.get_submodule("conv"))  # type: ignore[arg-type]
        self.norm.copy_to(plain.get_submodule("norm"))  # type: ignore[arg-type]


class ElasticLayer(nn.Module):
    """All operators that a layer may be."""

    def __init__(self, operators: tuple[Operator, ...], in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.operators = nn.ModuleDict(
            {
                operator: blocks.weightless(operator, stride)
                if operator in WEIGHTLESS
                else ElasticOperator(operator, in_channels, out_channels, stride)
                for operator in operators
            }
        )

    def forward(self, x: Tensor, operator: Operator, out_channels: int) -> Tensor:
        """(n, in, h, w) -> (n, out_channels, ceil(h / stride), ceil(w / stride))."""
        chosen = self.operators[operator]
        out: Tensor = chosen(x) if operator in WEIGHTLESS else chosen(x, out_channels)
        return out


class ElasticChain(nn.Module):
    """A Supernet: `activate`, call, `subnet`. `taps` are the layers, first to last."""

    def __init__(self, space: ChainSpace) -> None:
        super().__init__()
        self.space = space
        config = space.config
        widest = space.in_channels
        self.stem: ElasticLayer | None = None
        if config.stem_width is not None:
            self.stem = ElasticLayer(("conv3x3",), widest, config.stem_width, 1)
            widest = config.stem_width
        self.layers = nn.ModuleDict()
        for s, stage in enumerate(config.stages, 1):
            for b in range(1, stage.depths[-1] + 1):
                stride = stage.stride if b == 1 else 1
                self.layers[f"s{s}_b{b}"] = ElasticLayer(stage.operators, widest, stage.widths[-1], stride)
                widest = stage.widths[-1]
        self.classify = nn.Linear(widest, space.classes)
        self.taps = tuple(f"layers.{name}" for name in self.layers)
        self.activate(arch.extreme(space.genes, largest=True))

    def activate(self, architecture: Architecture) -> None:
        """Make `forward` compute this architecture."""
        space = self.space
        self.active = arch.check(space.genes, architecture)
        values = arch.options(space.genes, self.active)
        self._plan = [
            (f"s{s}_b{b}", space.operator(s, b, values), space.width(s, b, values))
            for s in range(1, len(space.config.stages) + 1)
            for b in range(1, space.depth(s, values) + 1)
        ]

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) -> logits (n, classes)."""
        x = images
        if self.stem is not None and self.space.config.stem_width is not None:
            x = self.stem(x, "conv3x3", self.space.config.stem_width)
        for name, operator, width in self._plan:
            x = self.layers[name](x, operator, width)
        x = x.mean((2, 3))
        return F.linear(x, self.classify.weight[:, : x.shape[1]], self.classify.bias)

    def subnet(self, architecture: Architecture) -> nn.Module:
        """A plain nn.Sequential of the space's blocks with a copy of the weights, in evaluation mode."""
        placed = arch.placed_blocks(self.space, arch.check(self.space.genes, architecture))
        return nn.Sequential(OrderedDict((slot.replace(".", "_"), self.part(slot, block)) for slot, block in placed))

    @torch.no_grad()
    def part(self, slot: str, block: Block) -> nn.Module:
        """The plain module of a block in the slot of that name, with a copy of the weights, in evaluation mode."""
        plain = block.recipe()().eval()
        if slot == "head":
            assert isinstance(plain, blocks.Head)
            blocks.copy_linear(self.classify, plain.classify)
            return plain
        elastic = self.stem if slot == "stem" else self.layers[slot.replace(".", "_")]
        assert isinstance(elastic, ElasticLayer)
        shared = elastic.operators[str(dict(block.kwargs)["operator"])]
        if isinstance(shared, ElasticOperator):
            shared.copy_to(plain)
        return plain
