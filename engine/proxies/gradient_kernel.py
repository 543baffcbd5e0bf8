"""Mean of the gradient kernel at initialisation: how fast the loss begins to fall."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def proxy(network: nn.Module, images: Tensor, labels: Tensor, *, rng: np.random.Generator) -> float:  # noqa: ARG001
    """Mean over all pairs of images of the product of their gradients: KNAS (Xu et al., ICML 2021).

    (1 / n^2) sum_ij <g_i, g_j> = |(1 / n) sum_i g_i|^2, the squared norm of the gradient of the batch's mean loss: one
    pass back. BatchNorm is in training mode and couples the images, so only the batch's gradient means anything. It
    grows with parameters and depth: judge it beside them.
    """
    return float(sum(gradient.square().sum() for gradient in gradients(network, images, labels)))


def gradients(network: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Gradient of the mean cross-entropy for each parameter; 0 for those that the loss does not depend on."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    loss = F.cross_entropy(network.train()(images), labels)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
