"""Zen-score: how strongly a network with normal weights reacts to its input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

SHIFT = 0.01  # of the input
SMALLEST = 1e-12  # below it a reaction is none: a network that ignores its input has a score, the lowest


def proxy(network: nn.Module, images: Tensor, labels: Tensor, *, rng: np.random.Generator) -> float:  # noqa: ARG001
    """Expressivity of the features before pooling, corrected for BatchNorm (Lin et al., ICCV 2021); no data, no labels.

    log mean_i |f(x_i) - f(x_i + 0.01 e_i)|_1 + sum over BatchNorms of log sqrt(mean variance of the batch), all weights
    and inputs normal. Only the shape of `images` counts. Variances are the batch's, not running ones that mix networks.
    Average several seeds.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    _normal(network, generator)
    inputs = torch.randn(images.shape, generator=generator)
    shifted = inputs + SHIFT * torch.randn(images.shape, generator=generator)
    network.train()
    with torch.no_grad():
        features, variances = _features(network, inputs)
        other, _ = _features(network, shifted)
    reaction = (features - other).abs().flatten(1).sum(1).mean()
    scale = sum(0.5 * float(torch.log(variance.clamp_min(SMALLEST))) for variance in variances)
    return float(torch.log(reaction.clamp_min(SMALLEST))) + scale


def _normal(network: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator))
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)


def _features(network: nn.Module, inputs: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
    """The last map with a height and a width that some layer gives, and the mean variance of what each BatchNorm reads.

    Raises ValueError where no layer gives a map.
    """
    maps: list[Tensor] = []
    variances: list[Tensor] = []

    def seen(module: nn.Module, given: tuple[Tensor, ...], output: object) -> None:
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            variances.append(given[0].var((0, *range(2, given[0].ndim)), correction=0).mean())
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            maps[:] = [output]

    hooks = [module.register_forward_hook(seen) for module in network.modules() if not list(module.children())]
    try:
        network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not maps:
        raise ValueError(
            "no layer gives a map of (n, channels, height, width): Zen-score is for convolutional networks"
        )
    return maps[0].clone(), variances
