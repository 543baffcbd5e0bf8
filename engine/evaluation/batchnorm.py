"""BatchNorm statistics of a subnet: those it inherits are averages over other subnets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Replace BatchNorm's running statistics by their averages over `batches`; returns `network`, in evaluation mode.

    The average is cumulative (momentum None), so every batch weighs the same and their order does not matter but
    for rounding. A network without BatchNorm is left as it is.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    network.eval()
    if not norms:
        return network
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for batch in batches:
        network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Within, forward passes in training mode normalise by their batch and leave the running statistics alone."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
