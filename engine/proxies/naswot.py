"""How many images an untrained network tells apart by which of its units fire."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

UNITS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU, nn.PReLU, nn.LeakyReLU)


def proxy(network: nn.Module, images: Tensor, labels: Tensor, *, rng: np.random.Generator) -> float:  # noqa: ARG001
    """log |K| of the kernel K_ij = units that fire alike on images i and j: Mellor et al. (ICML 2021), no labels.

    One is added to the diagonal: a network that ignores its input has equal rows. Raises ValueError for a network
    without activation modules.
    """
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)
    met = 0

    def seen(module: nn.Module, given: tuple[Tensor, ...]) -> None:  # noqa: ARG001
        nonlocal met
        met += 1
        fires = (given[0].flatten(1) > 0).float()
        alike = fires @ fires.T + (1 - fires) @ (1 - fires).T
        kernel.add_(alike.double())

    units = [module for module in network.modules() if isinstance(module, UNITS)]
    hooks = [module.register_forward_pre_hook(seen) for module in units]
    try:
        with torch.no_grad():
            network.train()(images)
    finally:
        for hook in hooks:
            hook.remove()
    if met == 0:
        kinds = ", ".join(kind.__name__ for kind in UNITS)
        raise ValueError(f"no activation is a module: this proxy watches {kinds}; use them instead of functions")
    return float(torch.linalg.slogdet(kernel + torch.eye(len(images), dtype=torch.float64)).logabsdet)
