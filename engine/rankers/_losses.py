"""What makes a network order architectures: losses of its scores, so that the loss alone differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from hwnas.engine.architecture import FloatArray
from hwnas.engine.ranking import Relevance

RankBy = Literal["prediction", "target_ascending"]


class Loss(Protocol):
    """A loss of lists of scores."""

    def targets(self, gains: FloatArray) -> FloatArray:
        """What scores are compared with, (n,), of the gains of the whole pool (n,), larger is better."""
        ...

    def __call__(self, scores: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Sum over members, a scalar: scores (members, rows) of one list, targets (rows,), weights (members, rows).

        A weight says how often the member has the row; 0 means that it must not learn from it.
        """
        ...


@dataclass(frozen=True, slots=True)
class SquaredError:
    """Mean squared error of standardised gains: regression, what every other loss is to beat."""

    def targets(self, gains: FloatArray) -> FloatArray:
        """Mean 0, deviation 1."""
        standard: FloatArray = (gains - gains.mean()) / (gains.std() or 1.0)
        return standard

    def __call__(self, scores: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Weighted mean over the rows."""
        return (weights * (scores - targets) ** 2).mean(1).sum()


@dataclass(frozen=True, slots=True)
class PairwiseLogistic:
    """Minus the log-likelihood that the better of two has the higher score: RankNet (Burges et al., ICML 2005)."""

    def targets(self, gains: FloatArray) -> FloatArray:
        """The gains themselves: only their order counts."""
        return gains

    def __call__(self, scores: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Mean over the pairs that differ."""
        return _pairs(scores, targets, weights, torch.ones(())).sum()


@dataclass(frozen=True, slots=True)
class LambdaNdcg:
    """RankNet's pairs weighted by what swapping the two would do to NDCG: LambdaRank.

    Burges, Ragno and Le (NeurIPS 2006); relevance as AceNAS (Zhang et al., arXiv 2108.03001) has it. Ranks in the
    discount are by "prediction" (the textbook) or by "target_ascending", the worst first, as AceNAS' released code
    does. The lambdas are constants to the gradient, which is that of the papers, while the loss stays one that autograd
    can add to others. A gain of 2^20 leaves the gradient to the best few of a list: see `scale`.
    """

    rank_by: RankBy = "prediction"
    scale: float = 20.0  # relevance of the best; its gain is 2^scale - 1
    lower: float = 0.2  # share of the pool that is not relevant at all

    def targets(self, gains: FloatArray) -> FloatArray:
        """Relevances, with the bounds of the whole pool."""
        return Relevance.of(gains, lower=self.lower, scale=self.scale)(gains)

    def __call__(self, scores: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Sum over the pairs that differ, each times the change of NDCG."""
        return _pairs(scores, targets, weights, self.swaps(scores.detach(), targets, weights > 0), mean=False).sum()

    def swaps(self, scores: Tensor, relevance: Tensor, held: Tensor) -> Tensor:
        """|change of NDCG| if two rows of a list changed places, (members, rows, rows).

        `held` (members, rows) says which rows are in the member's list; pairs with another one mean nothing.
        """
        by = scores if self.rank_by == "prediction" else -relevance.expand_as(scores)
        discount = 1 / torch.log2(1 + _places(by, held))
        gains = torch.exp2(relevance.double()) - 1  # 2^20 leaves single precision four digits
        best = 1 / torch.log2(1 + _places(relevance.expand_as(scores), held))
        ideal = (gains * best.double() * held).sum(1).clamp_min(1e-12)
        change = (gains[:, None] - gains).abs() / ideal[:, None, None]
        return change.to(scores.dtype) * (discount[:, :, None] - discount[:, None, :]).abs()


def _places(scores: Tensor, held: Tensor) -> Tensor:
    """Place of each row from the highest score on, 1 the first; rows that are not held come last."""
    order = torch.where(held, scores, -torch.inf).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(1, scores.shape[1] + 1, dtype=scores.dtype).expand_as(scores)
    return torch.empty_like(scores).scatter_(1, order, places)


def _pairs(scores: Tensor, targets: Tensor, weights: Tensor, importance: Tensor, *, mean: bool = True) -> Tensor:
    """Logistic loss of all pairs of which the first is better, (members,)."""
    better = (targets[:, None] > targets).to(scores.dtype)
    pairs = better * weights[:, :, None] * weights[:, None, :]
    each = pairs * importance * F.softplus(scores[:, None, :] - scores[:, :, None])
    return each.sum((1, 2)) / pairs.sum((1, 2)).clamp_min(1) if mean else each.sum((1, 2))
