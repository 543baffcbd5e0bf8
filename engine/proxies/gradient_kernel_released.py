"""What the released code of KNAS computes instead of the mean of the gradient kernel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.engine.proxies.gradient_kernel import gradients

BATCHES = 50
TENSORS, FEWEST, ENTRIES = 11, 50, 100  # the first tensors with so many entries, and the first entries of each


def proxy(network: nn.Module, images: Tensor, labels: Tensor, *, rng: np.random.Generator) -> float:  # noqa: ARG001
    """Sum over entries of the covariance of the gradients of batches k and k + 25, as we read the code.

    Two batches are independent draws, so it is 0 in expectation: the sign is noise and the size the gradient's
    variance. For reproduction only. The images are cut into 50 batches, or into as many as leave two images in each.
    """
    batches = min(BATCHES, len(images) // 2) // 2 * 2
    if batches < 4:
        raise ValueError(f"{len(images)} images: give 8 or more, since a covariance needs two pairs of batches of two")
    rows = []
    for part, right in zip(torch.chunk(images, batches), torch.chunk(labels, batches), strict=True):
        large = [g.flatten()[:ENTRIES] for g in gradients(network, part, right) if g.numel() >= FEWEST]
        rows.append(torch.cat(large[:TENSORS]))
    first, second = torch.stack(rows).double().chunk(2)
    return float(((first - first.mean(0)) * (second - second.mean(0))).sum())
