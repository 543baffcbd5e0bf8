"""The supernet of elastic MobileNetV3: one weight a layer, sliced by the active architecture."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture
from hwnas.engine.spaces.mobilenet_v3 import blocks
from hwnas.engine.spaces.mobilenet_v3.elastic import ElasticConv, ElasticMBConv, ElasticNorm, permute
from hwnas.latency.block import Block

if TYPE_CHECKING:
    from hwnas.engine.spaces.mobilenet_v3.space import MobileNetV3Space


class ElasticMobileNetV3(nn.Module):
    """A Supernet: `activate`, call, `subnet`."""

    def __init__(self, space: MobileNetV3Space) -> None:
        super().__init__()
        config = space.config
        self.space = space
        stem = space.stem_arguments
        self.stem = blocks.stem(**stem)
        self.stages = nn.ModuleList()
        incoming: tuple[int, ...] = (config.stem_width,)
        for stage in config.stages:
            members = nn.ModuleList()
            for b in range(stage.depths[-1]):
                widths = stage.widths if b else incoming
                members.append(
                    ElasticMBConv(
                        widths[-1],
                        stage.widths[-1],
                        config.hidden(widths[-1], stage.expansions[-1]),
                        kernels=stage.kernels,
                        stride=stage.stride if b == 0 else 1,
                        se=stage.se,
                        activation=stage.activation,
                        always_expands=all(config.hidden(w, stage.expansions[0]) != w for w in widths),
                        ever_expands=any(config.hidden(w, stage.expansions[-1]) != w for w in widths),
                    )
                )
            self.stages.append(members)
            incoming = stage.widths
        head = space.head_arguments
        self.head_conv = ElasticConv(incoming[-1], head["channels"])
        self.head_norm = ElasticNorm(head["channels"])
        self.head_act = blocks.ACTIVATIONS[head["activation"]]()
        self.mix = nn.Linear(head["channels"], head["features"], bias=False)
        self.classify = nn.Linear(head["features"], head["classes"])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        self.activate(arch.extreme(space.genes, largest=True))

    def activate(self, architecture: Architecture) -> None:
        """Make `forward` compute this architecture."""
        self.active = arch.check(self.space.genes, architecture)
        self._plan = self._stage_plan(self.active)

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) -> logits (n, classes)."""
        x: Tensor = self.stem(images)
        for members, (width, settings) in zip(self.stages, self._plan, strict=True):
            assert isinstance(members, nn.ModuleList)
            for block, (expansion, kernel) in zip(members, settings, strict=False):
                x = block(x, width, self.space.config.hidden(x.shape[1], expansion), kernel)
        x = self.head_act(self.head_norm(self.head_conv(x, self.head_norm.num_features)))
        logits: Tensor = self.classify(self.head_act(self.mix(x.mean((2, 3)))))
        return logits

    def subnet(self, architecture: Architecture) -> nn.Module:
        """A plain nn.Sequential of the space's blocks with a copy of the weights, in evaluation mode."""
        placed = arch.placed_blocks(self.space, arch.check(self.space.genes, architecture))
        return nn.Sequential(OrderedDict((slot.replace(".", "_"), self.part(slot, block)) for slot, block in placed))

    @torch.no_grad()
    def part(self, slot: str, block: Block) -> nn.Module:
        """The plain module of a block in the slot of that name, with a copy of the weights, in evaluation mode."""
        plain = block.recipe()().eval()
        if slot == "stem":
            plain.load_state_dict(self.stem.state_dict())
        elif slot == "head":
            assert isinstance(plain, blocks.Head)
            self.head_conv.copy_to(plain.conv.conv)
            self.head_norm.copy_to(plain.conv.norm)
            plain.mix.load_state_dict(self.mix.state_dict())
            plain.classify.load_state_dict(self.classify.state_dict())
        else:
            stage, number = (int(name[1:]) - 1 for name in slot.split("."))
            elastic = self.stages[stage][number]  # type: ignore[index]  # a ModuleList of ModuleLists
            assert isinstance(elastic, ElasticMBConv)
            assert isinstance(plain, blocks.MBConv)
            elastic.copy_to(plain)
        return plain

    def sort_channels(self) -> None:
        """Put the important channels first, so that slicing keeps them; the largest network stays the same function.

        Hidden channels are sorted by the L1 norm of the projection that reads them (Once-for-All), a stage's
        channels by the L1 norm of every layer that reads them. Channels that a residual or a block without an
        expanding convolution ties to other ones stay where they are.
        """
        stages = [list(members) for members in self.stages]  # type: ignore[call-overload]  # a ModuleList iterates
        config = self.space.config
        for members in stages:
            for block in members:
                if block.always_expands:
                    block.permute_hidden(block.hidden_importance().argsort(descending=True))
        for s, members in enumerate(stages):
            after = stages[s + 1][:1] if s + 1 < len(stages) else []
            readers = [*members[1:], *after]
            tied = any(not block.always_expands for block in readers) or self._joined(s) or self._joined(s + 1)
            if tied or len(config.stages[s].widths) == 1:
                continue
            convs = [block.expand for block in readers if block.expand is not None]
            convs += [] if after else [self.head_conv]
            importance = torch.stack([conv.weight.abs().sum((0, 2, 3)) for conv in convs]).sum(0)
            order = importance.argsort(descending=True)
            for block in members:
                block.permute_output(order)
            for conv in convs:
                permute(conv.weight, order, 1)

    def _joined(self, s: int) -> bool:
        """Whether a residual can tie the input of stage `s` to its output."""
        if not 0 < s < len(self.space.config.stages):
            return False
        before, stage = self.space.config.stages[s - 1 : s + 1]
        return stage.stride == 1 and bool(set(before.widths) & set(stage.widths))

    def _stage_plan(self, architecture: Architecture) -> list[tuple[int, list[tuple[float, int]]]]:
        """For each stage its width and the (expansion, kernel) of each of its blocks."""
        values: dict[str, float] = arch.options(self.space.genes, architecture)  # type: ignore[assignment]  # numbers
        plan = []
        for s in range(1, len(self.stages) + 1):
            depth = int(values[f"s{s}.depth"])
            settings = [(values[f"s{s}.b{b}.expansion"], int(values[f"s{s}.b{b}.kernel"])) for b in range(1, depth + 1)]
            plan.append((int(values[f"s{s}.width"]), settings))
        return plan
