"""Block factories for tests: small convolutions, one that raises and one that crashes its process."""

from __future__ import annotations

import os
import signal

from torch import nn

from hwnas.latency import Block, block_factory


@block_factory("test.conv")
def conv(*, channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU())


@block_factory("test.raises")
def raises(*, channels: int) -> nn.Module:
    raise ValueError(f"no convolution has {channels} channels")


@block_factory("test.crashes")
def crashes(*, channels: int) -> nn.Module:
    os.kill(os.getpid(), signal.SIGSEGV)
    return conv(channels=channels)


def conv_block(channels: int) -> Block:
    return Block.of("test.conv", (1, channels, 4, 4), channels=channels)


def two_convs() -> nn.Module:
    return nn.Sequential(conv(channels=2), nn.Conv2d(2, 3, 1), conv(channels=3))
