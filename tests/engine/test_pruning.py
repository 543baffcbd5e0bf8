"""Pruning leaves the options that good architectures hold, within every bound that was asked for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import FloatArray, Gene, IntArray, SearchSpace
from hwnas.engine.pruning import OperationPruner, diversity, feasible_sample, sample_architectures, shrink
from tests.engine.toy_spaces import ToySpace, every, gene_sets

seeds = st.integers(0, 2**32 - 1)
LAYERS = tuple(Gene(f"layer{i}", ("a", "b", "c", "d")) for i in range(6))
EFFECTS = np.random.default_rng(3).permuted(np.tile(np.arange(4.0), (6, 1)), axis=1)  # of each option on the value
SCORES = ("additive", "marginal", "topk_freq", "cost_adjusted")


def additive(X: IntArray) -> FloatArray:
    return EFFECTS[np.arange(6), X].sum(1)


def drawn(n: int = 400, seed: int = 0) -> IntArray:
    return arch.sample(LAYERS, n, np.random.default_rng(seed))


def free(X: IntArray) -> FloatArray:
    return np.zeros(len(X))


@pytest.mark.parametrize("score", SCORES)
def test_the_better_half_of_every_layers_options_stays(score: str) -> None:
    X = drawn(3000)
    mask = OperationPruner(score=score, keep=0.5).mask(LAYERS, X, additive(X), np.ones(len(X)))  # type: ignore[arg-type]
    assert np.array_equal(np.array(mask), EFFECTS < 2)


def test_a_regression_sees_through_a_limit_that_misleads_means() -> None:
    """Everybody gains by the costly option, but under the limit it leaves no room for the first layer's good one."""
    genes = (Gene("first", (0, 1)), *(Gene(f"g{i}", (0, 1, 2, 3)) for i in range(4)))
    weights = np.array([3, 1, 1, 1, 1])
    rng = np.random.default_rng(0)
    X = feasible_sample(genes, 2000, rng, lambda X: np.maximum(X @ weights - 6, 0))
    values = -(1.0 * X[:, 0] + X[:, 1:].sum(1))  # the first layer's option 1 is better, by as much as any step
    scores = {score: OperationPruner(score=score).scores(genes, X, values)[0] for score in ("additive", "marginal")}  # type: ignore[arg-type]
    assert scores["additive"][1] < scores["additive"][0]
    assert scores["marginal"][1] > scores["marginal"][0]


def test_what_only_pays_by_costing_more_is_not_kept_by_the_adjusted_score() -> None:
    genes = (Gene("a", (0, 1)), Gene("b", (0, 1)))
    X = arch.sample(genes, 500, np.random.default_rng(0))
    costs = X[:, 0] * 5.0 + 1.0 * X[:, 1]
    values = -costs - 0.5 * X[:, 1]  # both pay as they cost, b more than that
    adjusted = OperationPruner(score="cost_adjusted").scores(genes, X, values, costs)
    plain = OperationPruner(score="marginal").scores(genes, X, values)
    assert np.diff(plain[0]) < -4
    assert abs(np.diff(adjusted[0])) < 0.1
    assert np.diff(adjusted[1]) < -0.4


@given(gene_sets(), seeds)
def test_effects_are_those_of_ridge_regression(genes: tuple[Gene, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = arch.sample(genes, 30, rng)
    values = rng.normal(size=30)
    columns = [
        [on and x == j for x, on in zip(X[:, i], arch.active(genes, X)[:, i], strict=True)]
        for i, gene in enumerate(genes)
        for j in range(len(gene.options))
    ]
    expected = Ridge(alpha=1.0).fit(np.array(columns).T.astype(float), values).coef_
    found = OperationPruner(score="additive").scores(genes, X, values)
    flat = np.concatenate([row[: len(gene.options)] for gene, row in zip(genes, found, strict=True)])
    assert flat[np.isfinite(flat)] == pytest.approx(expected[np.isfinite(flat)], abs=1e-8)
    assert np.isfinite(flat).tolist() == [any(column) for column in columns]


@given(gene_sets(), seeds, st.sampled_from(SCORES), st.floats(0.1, 1), st.integers(1, 3))
def test_a_mask_keeps_enough_options_and_only_those_that_were_allowed(
    genes: tuple[Gene, ...], seed: int, score: str, keep: float, fewest: int
) -> None:
    rng = np.random.default_rng(seed)
    X, values = arch.sample(genes, 12, rng), rng.normal(size=12)
    pruner = OperationPruner(score=score, keep=keep, min_options=fewest)  # type: ignore[arg-type]
    mask = pruner.mask(genes, X, values, rng.random(12))
    for gene, row in zip(genes, mask, strict=True):
        assert sum(row) >= min(fewest, len(gene.choices))
        assert set(np.flatnonzero(row)) <= set(gene.choices)
    assert every(arch.restrict(genes, mask)) <= every(genes)


def test_a_margin_keeps_what_is_nearly_as_good_and_never_less_than_the_floor() -> None:
    X = drawn(3000)
    pruner = OperationPruner(score="additive", keep=None, margin=1.5, min_options=1)
    assert np.array_equal(np.array(pruner.mask(LAYERS, X, additive(X))), EFFECTS < 1.5)
    assert (
        np.array(OperationPruner(score="additive", keep=None, margin=0.1).mask(LAYERS, X, additive(X))).sum(1).tolist()
        == [2] * 6
    )


def test_an_option_that_nobody_drew_stays() -> None:
    X = drawn(200)
    X = X[X[:, 0] != 3]
    assert OperationPruner(score="additive", keep=0.25, min_options=1).mask(LAYERS, X, additive(X))[0][3]


def test_pruning_again_goes_on_from_what_is_left() -> None:
    X = drawn(3000)
    genes = arch.restrict(LAYERS, OperationPruner(score="additive", keep=0.5).mask(LAYERS, X, additive(X)))
    X = arch.sample(genes, 500, np.random.default_rng(1))
    mask = OperationPruner(score="additive", keep=0.5, min_options=1).mask(genes, X, additive(X))
    assert np.array_equal(np.array(mask), EFFECTS < 1)


def test_stages_train_in_what_the_stage_before_left() -> None:
    sizes: list[int] = []
    space, records = shrink(
        ToySpace(LAYERS, ()),
        OperationPruner(score="additive", keep=0.5, min_options=1),
        stages=2,
        draws=600,
        train=lambda space, stage: sizes.append(arch.size(space.genes)),
        values=lambda space, X: additive(X),
        violation=free,
        rng=np.random.default_rng(0),
    )
    assert sizes == [4**6, 2**6]
    assert arch.size(space.genes) == 1
    assert records[1].mean_value < records[0].mean_value
    assert records[1].hamming < records[0].hamming
    assert records[0].log10_size == pytest.approx(6 * np.log10(4))


def test_stages_that_leave_nothing_within_the_limit_are_an_error() -> None:
    """Every option that pays costs more: a score that does not weigh costs leaves none but the most expensive."""

    def left(score: str) -> SearchSpace:
        return shrink(
            ToySpace(LAYERS, ()),
            OperationPruner(score=score, keep=0.25, min_options=1),  # type: ignore[arg-type]
            stages=1,
            draws=200,
            train=lambda space, stage: None,
            values=lambda space, X: -1.0 * X.sum(1) + 0.3 * (X[:, 0] == 3),
            violation=lambda X: np.maximum(X.sum(1) - 9, 0),
            rng=np.random.default_rng(0),
            costs=lambda X: 1.0 * X.sum(1),
        )[0]

    with pytest.raises(ValueError, match=r"stage 1 of pruning by additive leaves too little within the limit \(only 0"):
        left("additive")


def test_rows_within_the_limit_are_drawn_and_an_impossible_limit_is_named() -> None:
    X = feasible_sample(LAYERS, 50, np.random.default_rng(0), lambda X: np.maximum(X.sum(1) - 7, 0))
    assert len(X) == 50
    assert X.sum(1).max() <= 7
    with pytest.raises(ValueError, match="only 0 of 10000 random networks keep the limit"):
        feasible_sample(LAYERS, 50, np.random.default_rng(0), lambda X: np.ones(len(X)))


@settings(max_examples=20)
@given(gene_sets(), seeds)
def test_every_architecture_is_drawn_alike(genes: tuple[Gene, ...], seed: int) -> None:
    known = every(genes)
    n = 200 * len(known)
    counts = Counter(map(arch.to_architecture, sample_architectures(genes, n, np.random.default_rng(seed))))
    assert set(counts) <= known
    deviations = [(counts[row] - 200) / np.sqrt(200) for row in known]
    assert max(map(abs, deviations)) < 6


def test_a_space_of_more_networks_than_64_bits_count_is_drawn_from_too() -> None:
    genes = tuple(Gene(f"g{i}", tuple(range(3))) for i in range(60))
    X = sample_architectures(genes, 600, np.random.default_rng(0))
    assert np.stack([np.bincount(column, minlength=3) for column in X.T]).min() > 120


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=2, max_size=8))
def test_diversity_is_the_mean_over_all_pairs(rows: list[list[int]]) -> None:
    X = np.array(rows)
    pairs = [(a != b).sum() for i, a in enumerate(X) for b in X[:i]]
    assert diversity(X) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"keep": None}, "keeps nothing"),
        ({"keep": 0.0}, "are shares"),
        ({"min_options": 0}, "without options"),
    ],
)
def test_a_pruner_that_cannot_prune_is_named(options: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        OperationPruner(**options)  # type: ignore[arg-type]


def test_an_adjusted_score_without_costs_is_an_error() -> None:
    X = drawn(10)
    with pytest.raises(ValueError, match="needs a cost for each row"):
        OperationPruner(score="cost_adjusted").scores(LAYERS, X, additive(X))
