"""A categorical policy is a distribution over architectures, and its gradients are the gradients of expectations."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Gene
from hwnas.engine.policy import CategoricalPolicy
from tests.engine.toy_spaces import GATED, every, gene_sets

seeds = st.integers(0, 2**32 - 1)
some = settings(max_examples=30, deadline=None)
PAIR = (Gene("a", (1, 2, 3)), Gene("b", ("x", "y")))


def any_policy(genes: tuple[Gene, ...], seed: int) -> CategoricalPolicy:
    most = max(len(gene.options) for gene in genes)
    return CategoricalPolicy.of(genes, np.random.default_rng(seed).dirichlet(np.ones(most), len(genes)))


def expectation(policy: CategoricalPolicy, cost_of: dict[arch.Architecture, float]) -> float:
    """Sum over every architecture of its chance and its cost."""
    X = np.array(sorted(cost_of))
    return float((np.exp(policy.log_probability(X)) * np.array([cost_of[tuple(row)] for row in X.tolist()])).sum())


@some
@given(gene_sets(), seeds)
def test_the_chances_of_all_architectures_add_to_one(genes: tuple[Gene, ...], seed: int) -> None:
    assert expectation(any_policy(genes, seed), dict.fromkeys(every(genes), 1.0)) == pytest.approx(1)


@some
@given(gene_sets(), seeds)
def test_draws_and_the_mode_are_architectures_of_the_space(genes: tuple[Gene, ...], seed: int) -> None:
    policy = any_policy(genes, seed)
    drawn = {arch.to_architecture(row) for row in policy.sample(20, np.random.default_rng(seed))}
    assert {*drawn, policy.mode()} <= every(genes)


def test_options_are_drawn_as_often_as_the_policy_says() -> None:
    policy = any_policy(GATED, 3)
    X = policy.sample(100_000, np.random.default_rng(0))
    found = np.array([(row == X).all(1).mean() for row in np.array(sorted(every(GATED)))])
    expected = np.exp(policy.log_probability(np.array(sorted(every(GATED)))))
    assert np.abs(found - expected).max() < 0.006  # four standard errors of a share of one half


@given(seeds)
def test_one_seed_draws_the_same(seed: int) -> None:
    first, second = (any_policy(PAIR, 0).sample(5, np.random.default_rng(seed)) for _ in range(2))
    assert (first == second).all()


@some
@given(gene_sets(), seeds)
def test_json_brings_the_policy_back(genes: tuple[Gene, ...], seed: int) -> None:
    policy = any_policy(genes, seed)
    assert CategoricalPolicy.from_json(genes, json.loads(json.dumps(policy.to_json()))).probabilities == (
        policy.probabilities
    )


def test_json_keeps_what_was_restricted() -> None:
    policy = CategoricalPolicy.uniform(PAIR).restrict([[True, False, True], [True, True]])
    again = CategoricalPolicy.from_json(PAIR, policy.to_json())
    assert again == policy
    assert again.genes[0].choices.tolist() == [0, 2]


def test_a_restricted_policy_keeps_proportions() -> None:
    policy = CategoricalPolicy.of(PAIR, np.array([[0.5, 0.3, 0.2], [1, 0, 0]]))
    narrowed = policy.restrict([[False, True, True], [False, True]])
    assert narrowed.probabilities[0] == pytest.approx((0, 0.6, 0.4))
    assert narrowed.probabilities[1] == (0, 1)  # nothing was left of it: uniform over what is allowed


def test_entropy_of_a_coin_is_the_logarithm_of_two() -> None:
    assert CategoricalPolicy.uniform(PAIR).entropy == pytest.approx([np.log(3), np.log(2)])


@some
@given(gene_sets(), seeds)
def test_the_gradient_is_that_of_the_expected_cost(genes: tuple[Gene, ...], seed: int) -> None:
    """Against finite differences of the exact expectation over every architecture."""
    rng = np.random.default_rng(seed)
    policy, cost_of = any_policy(genes, seed), {row: float(rng.normal()) for row in sorted(every(genes))}
    X = np.array(sorted(cost_of))
    chances = np.exp(policy.log_probability(X))
    costs = np.array([cost_of[tuple(row)] for row in X.tolist()])
    exact = policy.gradient(X, costs * chances * len(X))  # rows weighted by their chance stand for draws
    for i, j in np.argwhere(policy.table > 0):
        moved = np.where(np.arange(policy.table.shape[1]) == j, np.exp(1e-5), 1.0)
        weights = policy.table.copy()
        weights[i] *= moved
        slope = (expectation(CategoricalPolicy.of(genes, weights), cost_of) - expectation(policy, cost_of)) / 1e-5
        assert exact[i, j] == pytest.approx(slope, abs=1e-3)


def test_the_natural_gradient_is_the_plain_one_through_the_inverse_fisher_information() -> None:
    policy, gradient = any_policy(PAIR[:1], 1), np.array([[0.3, -0.1, -0.2]])
    p = policy.table[0]
    fisher = np.diag(p) - np.outer(p, p)
    towards = np.linalg.pinv(fisher) @ gradient[0]  # direction in logits
    moved = policy.descended(gradient, rate=1e-6, natural=True).table[0]
    assert (moved - p) / 1e-6 == pytest.approx(-(fisher @ towards), abs=1e-4)


@pytest.mark.parametrize("natural", [False, True])
@pytest.mark.parametrize("genes", [PAIR, GATED])
def test_descending_finds_the_cheapest_architecture(genes: tuple[Gene, ...], natural: bool) -> None:
    policy, rng = CategoricalPolicy.uniform(genes), np.random.default_rng(0)
    for _ in range(200):
        X = policy.sample(16, rng)
        costs = X @ np.arange(1.0, len(genes) + 1)
        policy = policy.descended(policy.gradient(X, costs - costs.mean()), rate=0.05, natural=natural, floor=0.01)
    assert policy.mode() == (0,) * len(genes)
    assert expectation(policy, {row: float(sum(row)) for row in every(genes)}) < 0.4
    assert min(min(row) for row in policy.probabilities) >= 0.01 - 1e-9


@some
@given(gene_sets(), seeds, st.booleans())
def test_a_step_leaves_masked_options_at_zero(genes: tuple[Gene, ...], seed: int, natural: bool) -> None:
    policy = any_policy(genes, seed)
    gradient = np.random.default_rng(seed).normal(size=policy.table.shape)
    moved = policy.descended(gradient, rate=0.5, natural=natural, floor=1e-3)  # the policy checks itself
    assert moved.genes == policy.genes


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: CategoricalPolicy(PAIR, ((0.5, 0.5, 0.5), (0.5, 0.5))), "'a'.*no distribution"),
        (lambda: CategoricalPolicy(PAIR, ((1.0, 0.0, 0.0),)), "2 genes has 1 rows"),
        (lambda: CategoricalPolicy(PAIR, ((0.5, 0.5), (0.5, 0.5))), "'a' has 3 options, its policy 2"),
        (lambda: CategoricalPolicy.uniform(PAIR).floored(0.4), "floor of 0.4 for 3 options"),
        (lambda: CategoricalPolicy.from_json(PAIR, {}), "'a' is in the policy or in the space alone"),
        (lambda: CategoricalPolicy.from_json(PAIR, {"a": {}, "b": {}}), "'a': no whole policy"),
        (
            lambda: CategoricalPolicy(arch.restrict(PAIR, [[True, True, False], [True, True]]), ((0, 0, 1), (1, 0))),
            "option 2 is masked",
        ),
    ],
)
def test_what_is_no_policy_is_named(build, complaint: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=complaint):
        build()
