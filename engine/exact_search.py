"""Uses of exact fronts: rows along one, sums that stand for other costs, how far a front found is from the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

from hwnas.engine.additive import AdditiveCost, gates
from hwnas.engine.architecture import BoolArray, FloatArray, Gene, IntArray
from hwnas.engine.exact import ExactFront, exact_front
from hwnas.engine.front import hypervolume

PENALTIES = np.logspace(-3, 3, 13)  # of ridge regression, for costs of unit variance
FOLDS = 5
MOST = 1_000_000  # partial networks, a few seconds' work, to tell a gap


def seed_rows(front: ExactFront, n: int) -> IntArray:
    """`n` rows spread evenly along the front, (n, genes), in its order; all where there are no more.

    The best of each cost first, then again and again the point farthest from those taken, with each cost scaled to
    0..1 over the front (Gonzalez, Theoretical Computer Science 38, 1985).
    """
    if len(front) <= n:
        return front.X
    low, high = front.costs.min(0), front.costs.max(0)
    scaled = (front.costs - low) / np.where(high > low, high - low, 1.0)
    taken = list(dict.fromkeys(scaled.argmin(0).tolist()))[:n]
    distance = np.full(len(front), np.inf)
    for k in range(n):
        if k == len(taken):
            taken.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[taken[k]], axis=1))
    return front.X[sorted(taken)]


def additive_surrogate(
    genes: Sequence[Gene], X: IntArray, values: FloatArray, *, scopes: Sequence[tuple[int, ...]] = ()
) -> AdditiveCost:
    """A sum that comes near `values` (n,) of the rows `X` (n, genes): an offset, and one array a gene.

    A gene has an effect of its own for each option, and none while it is off. `scopes` (gene positions) name genes
    whose combinations matter beyond that, for example those of a slot; a combination not seen adds nothing. Ridge
    regression; leave-one-out error chooses the penalty. Raises ValueError for fewer than 3 rows or values that are
    not finite.
    """
    if len(X) < 3 or len(X) != len(values) or not np.isfinite(values).all():
        raise ValueError(f"{len(X)} rows with {int(np.isfinite(values).sum())} finite values: a fit needs 3 at least")
    from sklearn.linear_model import RidgeCV

    parts = [*_own_effects(genes), *_joint_effects(genes, X, scopes)]
    columns = [part.array[(..., *X[:, part.scope].T)].T for part in parts]  # each (n, effects)
    design = np.hstack(columns)
    scale = float(np.std(values)) or 1.0
    fitted = RidgeCV(alphas=PENALTIES).fit(design, (values - np.mean(values)) / scale)
    effects = np.split(scale * fitted.coef_, np.cumsum([column.shape[1] for column in columns])[:-1])
    offset = float(np.mean(values) + scale * fitted.intercept_)
    arrays = [np.tensordot(effect, part.array, axes=1) for effect, part in zip(effects, parts, strict=True)]
    return AdditiveCost(tuple(genes), ((), *(part.scope for part in parts)), (np.array(offset), *arrays))


@dataclass(frozen=True, slots=True)
class _Effects:
    scope: tuple[int, ...]
    array: FloatArray  # (effects, options of the scope...) 1 where the effect is there


def _own_effects(genes: Sequence[Gene]) -> list[_Effects]:
    found = []
    for i, gene in enumerate(genes):
        chain, on = gates(genes, i)
        each = np.eye(len(gene.options))[gene.choices]
        found.append(_Effects((*chain, i), np.multiply.outer(on, each).transpose(len(chain), *range(len(chain)), -1)))
    return found


def _joint_effects(genes: Sequence[Gene], X: IntArray, scopes: Sequence[tuple[int, ...]]) -> list[_Effects]:
    found = []
    for scope in scopes:
        seen = np.unique(X[:, scope], axis=0)
        array = np.zeros((len(seen), *(len(genes[g].options) for g in scope)))
        array[(np.arange(len(seen)), *seen.T)] = 1
        found.append(_Effects(tuple(scope), array))
    return found


def agreement(
    genes: Sequence[Gene], X: IntArray, values: FloatArray, *, scopes: Sequence[tuple[int, ...]] = ()
) -> float:
    """Kendall's rank correlation of `values` with what `additive_surrogate` says of rows it was not fitted to.

    Each fifth row in turn is left out. NaN where a correlation says nothing, for example of equal values.
    """
    said = np.zeros(len(X))
    for fold in range(FOLDS):
        out = np.arange(len(X)) % FOLDS == fold
        said[out] = additive_surrogate(genes, X[~out], values[~out], scopes=scopes)(X[out])
    return float(kendalltau(said, values).statistic)


def optimality_gap(found: FloatArray, exact: FloatArray, reference: Sequence[float]) -> float:
    """Which share of the exact front's hypervolume the rows found have, 0 to 1, under the same costs.

    `found` (n, objectives), `exact` (points, objectives); `reference` bounds both from above. 0.996 says "the front
    found has 99.6 % of the hypervolume of the exact front", of a surrogate where one of the costs is one: it bounds
    what searching longer could bring, not the surrogate's own error. Raises ValueError where the exact front has no
    point below the reference.
    """
    whole = hypervolume(exact, reference)
    if whole <= 0:
        raise ValueError(f"no point of the exact front is below the reference {tuple(reference)}: move it up")
    return hypervolume(found, reference) / whole


@dataclass(frozen=True, slots=True)
class Gap:
    """How far what a search found is from the best that an additive surrogate of its evaluations promises."""

    share: float  # of the hypervolume of the surrogate's exact front, 0 to 1
    agreement: float  # of the surrogate with evaluations that it was not fitted to, Kendall's tau


def gap(
    sums: Sequence[AdditiveCost | None], X: IntArray, costs: FloatArray, *, allowed: Callable[[IntArray], BoolArray]
) -> Gap | None:
    """The gap of the rows `X` (n, genes) with `costs` (n, objectives); None where nothing can be said.

    `sums` has one entry an objective; exactly one is None, and a sum over genes is fitted to its costs. `allowed`
    tells which rows keep the limits. Nothing is said of fewer rows than 20 or than genes, or of a front that is too
    large to compute. The reference lies a tenth of the range behind the worst of all costs.
    """
    modelled = [i for i, each in enumerate(sums) if each is None]
    genes = next((each.genes for each in sums if each is not None), ())
    if len(modelled) != 1 or not genes or len(X) < max(20, len(genes)):
        return None
    surrogate = additive_surrogate(genes, X, costs[:, modelled[0]])
    whole = [each or surrogate for each in sums]
    try:
        front = exact_front(whole, most=MOST)
    except ValueError:
        return None
    best = front.costs[allowed(front.X)]
    found = np.stack([each(X) for each in whole], axis=1)
    if len(best) == 0:
        return None
    both = np.concatenate([found, best])
    low, high = both.min(0), both.max(0)
    reference = (high + 0.1 * np.maximum(high - low, 1e-12)).tolist()
    return Gap(optimality_gap(found, best, reference), agreement(genes, X, costs[:, modelled[0]]))
