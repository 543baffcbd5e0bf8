"""Logits of options -> weights that a network of mixtures can be differentiated through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hwnas.engine.architecture import BoolArray, Gene


@dataclass(frozen=True, slots=True)
class SubGraph:
    """One network to run: weights of the options (genes, options), and which of them run, a tuple a gene."""

    weights: Tensor
    executed: tuple[tuple[int, ...], ...]


def feasible(genes: Sequence[Gene]) -> BoolArray:
    """Which options each gene allows, (genes, most options of a gene)."""
    found = np.zeros((len(genes), max(len(gene.options) for gene in genes)), dtype=bool)
    for i, gene in enumerate(genes):
        found[i, gene.choices] = True
    return found


def whole_mixture(logits: Tensor, allowed: Tensor) -> SubGraph:
    """Every allowed option by the softmax of its logit (Liu et al., DARTS, ICLR 2019).

    `logits` (genes, options); `allowed` of the same shape, bool.
    """
    weights = torch.where(allowed, logits, -torch.inf).softmax(1)
    return SubGraph(weights, tuple(tuple(row.nonzero().flatten().tolist()) for row in allowed))


def gumbel_top_k(
    logits: Tensor, allowed: Tensor, k: int, *, temperature: float, generator: torch.Generator
) -> tuple[SubGraph, ...]:
    """`k` sub-graphs of one option an edge, no option of an edge in two of them.

    One Gumbel variable an option is drawn once and ranked: drawing without replacement by the softmax of `logits`
    (Kool et al., ICML 2019). The i-th sub-graph takes the i-th of each edge. Forward its weights are one-hot, backward
    they are the softmax, at `temperature`, over what the sub-graphs before it left (straight-through). One sub-graph
    is GDAS (Dong and Yang, CVPR 2019), several are those of MSG-DAS (Tan et al., 2021). An edge of fewer than `k`
    allowed options begins anew behind its last. Only the drawn option of an edge runs, so the gradient of an edge is
    what that option makes of its softmax.
    """
    if k < 1:
        raise ValueError(f"{k} sub-graphs a step: give at least one")
    # in double precision the variable is never infinite
    uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64).clamp_min(
        torch.finfo(torch.float64).tiny
    )
    noise = -(-uniform.log()).log()
    scores = torch.where(allowed, logits, -torch.inf).log_softmax(1) + noise.to(logits.dtype)
    left = allowed.clone()
    found = []
    for _ in range(k):
        left = torch.where(left.any(1, keepdim=True), left, allowed)
        soft = (torch.where(left, scores, -torch.inf) / temperature).softmax(1)
        chosen = soft.detach().argmax(1)
        hard = torch.nn.functional.one_hot(chosen, logits.shape[1]).to(soft.dtype)
        found.append(SubGraph(hard + soft - soft.detach(), tuple((option,) for option in chosen.tolist())))
        left = left & (hard == 0)
    return tuple(found)


def union(sub_graphs: Sequence[SubGraph], logits: Tensor, allowed: Tensor) -> SubGraph:
    """Every option of several sub-graphs at once, by the softmax of the logits over those alone; no gradient."""
    drawn = torch.zeros_like(allowed)
    for sub_graph in sub_graphs:
        for edge, options in enumerate(sub_graph.executed):
            drawn[edge, list(options)] = True
    return whole_mixture(logits.detach(), allowed & drawn)
