"""What goes on inside a supernet: who pulls its weights where, and what its scores depend on beside the networks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, FloatArray, Gene, IntArray, SearchSpace
from hwnas.engine.dataset import resize
from hwnas.engine.evaluation.batchnorm import recalibrate, statistics_kept

Gradients = dict[str, Tensor]  # by parameter name, (elements,)


# ---- interference between two architectures (Xu et al., MAGIC, ICML 2022) -------------------------------------------


@dataclass(frozen=True, slots=True)
class Interference:
    """Cosine of the gradients of two architectures, by the weights that they share."""

    distance: int  # genes in which the two differ
    cosines: dict[str, float]  # parameter -> -1 (they undo each other) to 1 (they agree)

    @property
    def mean(self) -> float:
        """Mean cosine over the shared weights; NaN where none is shared."""
        return float(np.mean(list(self.cosines.values()))) if self.cosines else float("nan")


def gradients_of(
    supernet: nn.Module, space: SearchSpace, architecture: Architecture, images: Tensor, labels: Tensor
) -> Gradients:
    """Gradient of the cross-entropy of a batch in every weight of two axes or more that the architecture uses.

    BatchNorm normalises by the batch, as in training; nothing in the supernet changes.
    """
    was_training = supernet.training
    names, weights = zip(*((name, p) for name, p in supernet.named_parameters() if p.dim() > 1), strict=True)
    with statistics_kept(supernet.train()):
        supernet.activate(architecture)  # type: ignore[operator]  # a Supernet is a Module
        loss = F.cross_entropy(supernet(resize(images, space.input_shape(architecture)[-1])), labels)
        found = torch.autograd.grad(loss, weights, allow_unused=True)
    supernet.train(was_training)
    return {name: g.flatten() for name, g in zip(names, found, strict=True) if g is not None and bool(g.any())}


def interference(
    supernet: nn.Module,
    space: SearchSpace,
    pairs: Sequence[tuple[Architecture, Architecture]],
    images: Tensor,
    labels: Tensor,
) -> list[Interference]:
    """How much the two of each pair agree on the weights that they share, on one batch and with the same weights.

    Weights that every architecture of the pairs uses (a stem, a classifier) are left out: they are shared by
    construction, and would say nothing of the pair.
    """
    taken = [[gradients_of(supernet, space, architecture, images, labels) for architecture in pair] for pair in pairs]
    common = set.intersection(*(set(each) for pair in taken for each in pair)) if taken else set()
    found = []
    for pair, (first, second) in zip(pairs, taken, strict=True):
        shared = sorted((set(first) & set(second)) - common)
        cosines = {name: float(F.cosine_similarity(first[name], second[name], dim=0)) for name in shared}
        found.append(Interference(int(np.sum(np.array(pair[0]) != np.array(pair[1]))), cosines))
    return found


def pairs_at(
    genes: Sequence[Gene], distance: int, n: int, rng: np.random.Generator
) -> list[tuple[Architecture, Architecture]]:
    """`n` pairs of architectures that differ in exactly `distance` genes. Raises ValueError where there are none."""
    found: list[tuple[Architecture, Architecture]] = []
    for _ in range(1000 * n):
        if len(found) == n:
            return found
        row = arch.sample(genes, 1, rng)[0]
        on = arch.active(genes, row[None])[0]
        movable = [i for i, gene in enumerate(genes) if on[i] and len(gene.choices) > 1]
        if len(movable) < distance:
            continue
        other = row.copy()
        for i in rng.choice(movable, distance, replace=False):
            other[i] = rng.choice([option for option in genes[i].choices if option != row[i]])
        other = arch.canonical(genes, other[None])[0]
        if int((row != other).sum()) == distance:  # a gate that moves takes others with it
            found.append((arch.to_architecture(row), arch.to_architecture(other)))
    if len(found) == n:
        return found
    raise ValueError(f"no {n} pairs that differ in {distance} of {len(genes)} genes: ask for a smaller distance")


def by_distance(found: Sequence[Interference]) -> dict[int, float]:
    """Mean cosine of the pairs at each distance that share a weight."""
    means = {d: [each.mean for each in found if each.distance == d and each.cosines] for d in _distances(found)}
    return {d: float(np.mean(values)) for d, values in means.items() if values}


def _distances(found: Sequence[Interference]) -> list[int]:
    return sorted({each.distance for each in found})


# ---- what scores depend on beside the networks ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the BatchNorm statistics that a subnet inherits are from its own, mean over channels."""

    mean: float  # of |difference of means|, in the subnet's own standard deviations
    scale: float  # of |log of the ratio of standard deviations|


def batchnorm_drift(subnet: nn.Module, batches: Sequence[Tensor]) -> Drift | None:
    """Drift of a subnet as it is made from the supernet; None of one without BatchNorm. The subnet is left alone."""
    own = recalibrate(copy.deepcopy(subnet), batches)
    shifts, scales = [], []
    for before, after in zip(_norms(subnet), _norms(own), strict=True):
        assert before.running_mean is not None
        assert after.running_mean is not None
        assert before.running_var is not None
        assert after.running_var is not None
        deviation = (after.running_var + after.eps).sqrt()
        shifts.append(((before.running_mean - after.running_mean) / deviation).abs().mean())
        scales.append((((before.running_var + before.eps).sqrt()) / deviation).log().abs().mean())
    return Drift(float(torch.stack(shifts).mean()), float(torch.stack(scales).mean())) if shifts else None


def recency(scores: FloatArray, X: IntArray, last: Sequence[Architecture]) -> float:
    """Spearman correlation of scores (n,) with the nearness of canonical rows (n, genes) to what was trained last.

    Nearness is minus the least Hamming distance to an architecture of `last`. About 0 in a training that ended well;
    clearly above it, the weights still favour the neighbours of the last step.
    """
    away = np.min([(np.array(each) != X).sum(1) for each in last], axis=0)
    if np.ptp(scores) == 0 or np.ptp(away) == 0:
        return 0.0
    return float(spearmanr(scores, -away).statistic)


def permuted(found: Sequence[Interference], rng: np.random.Generator) -> list[Interference]:
    """The same pairs with their distances dealt out anew: what `by_distance` says where distance means nothing."""
    distances = rng.permutation([each.distance for each in found])
    return [Interference(int(d), each.cosines) for d, each in zip(distances, found, strict=True)]


def _norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
