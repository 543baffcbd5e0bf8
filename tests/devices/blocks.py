"""Small blocks of every form, on sizes that fill no vector, for tests of what is compiled."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Gated(nn.Module):
    """Expand, depthwise, squeeze and excite, project, residual: a MobileNetV3 block, written apart from the space's."""

    def __init__(self, channels: int, hidden: int, kernel: int, stride: int, *, gate: bool) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.Hardswish())
        depthwise = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(hidden), nn.ReLU())
        self.reduce, self.widen = nn.Conv2d(hidden, 8, 1), nn.Conv2d(8, hidden, 1)
        self.project = nn.Sequential(nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.gate, self.residual = gate, stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        if self.gate:
            y = y * nn.functional.hardsigmoid(self.widen(torch.relu(self.reduce(y.mean((2, 3), keepdim=True)))))
        y = self.project(y)
        return x + y if self.residual else y


class DataDependent(nn.Module):
    """fx cannot trace it, so that its BatchNorm is not folded in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) if x.shape[0] < 9 else x


def head() -> nn.Module:
    pooled = [nn.Conv2d(24, 40, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*pooled, nn.Linear(40, 56), nn.ReLU(), nn.Linear(56, 10))


def with_statistics(model: nn.Module) -> nn.Module:
    """BatchNorm as after training: folding an identity would prove nothing."""
    generator = torch.Generator().manual_seed(1)
    for norm in [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]:
        for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
            assert values is not None
            values.uniform_(0.5, 2.0, generator=generator)
    return model.eval()


BLOCKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "a point": (lambda: Gated(8, 24, 5, 1, gate=True), (1, 8, 1, 1)),
    "2x2, stride 2": (lambda: Gated(16, 40, 7, 2, gate=False), (1, 16, 2, 2)),
    "3x3": (lambda: Gated(8, 48, 7, 1, gate=True), (1, 8, 3, 3)),
    "5x5, stride 2": (lambda: Gated(24, 72, 5, 2, gate=True), (1, 24, 5, 5)),
    "a prime width beyond the registers": (lambda: Gated(8, 16, 3, 1, gate=True), (1, 8, 5, 37)),
    "a batch": (lambda: Gated(8, 16, 3, 2, gate=True), (3, 8, 6, 7)),
    "a stem": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()), (1, 3, 33, 31)),
    "a head": (head, (2, 24, 4, 3)),
    "a network that fx cannot trace": (DataDependent, (1, 8, 6, 6)),
    "groups that are no channels": (lambda: nn.Conv2d(8, 16, 3, groups=4), (1, 8, 9, 9)),
}
