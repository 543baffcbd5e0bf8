"""The Gumbel top-k sampler: architectures of a step share no option, and their order follows Plackett and Luce."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Gene
from hwnas.engine.objective import Costs
from hwnas.engine.policy import CategoricalPolicy
from hwnas.engine.training.samplers.gumbel_top_k import Config, build, ranked
from tests.engine.toy_spaces import GATED, gene_sets

EDGES = (Gene("a", ("none", "skip", "conv", "pool")), Gene("b", ("none", "skip", "conv", "pool")))


def nothing(_: str) -> Costs:
    return lambda X: np.zeros(len(X))


def test_ordered_pairs_follow_plackett_and_luce() -> None:
    genes = tuple(Gene(f"e{i}", EDGES[0].options) for i in range(20_000))  # many equal genes are many draws
    policy = CategoricalPolicy.of(genes, np.tile([0.5, 0.1, 0.3, 0.1], (20_000, 1)))
    first, second = ranked(policy, 2, np.random.default_rng(0))
    found = np.zeros((4, 4))
    np.add.at(found, (first, second), 1 / 20_000)
    p = policy.table[0]
    expected = p[:, None] * p[None] / (1 - p[:, None])
    np.fill_diagonal(expected, 0)
    assert np.abs(found - expected).max() < 0.013  # four standard errors of a share of 0.3


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(0, 1000))
def test_the_architectures_of_a_step_differ_in_every_gene(paths: int, step: int) -> None:
    drawn = build(Config(paths=paths), EDGES, seed=0, prior=nothing).paths(step)
    for gene in range(len(EDGES)):
        assert len({path.architecture[gene] for path in drawn}) == paths
    assert sum(path.weight for path in drawn) == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(gene_sets(), st.integers(1, 5), st.integers(0, 1000))
def test_paths_are_architectures_of_any_space(genes: tuple[Gene, ...], paths: int, seed: int) -> None:
    drawn = build(Config(paths=paths), genes, seed=seed, prior=nothing).paths(0)
    assert [arch.check(genes, path.architecture) for path in drawn] == [path.architecture for path in drawn]


def test_a_gene_of_fewer_options_begins_anew() -> None:
    genes = (Gene("a", (1, 2)), Gene("b", (1, 2, 3)))
    first, _, third = build(Config(paths=3), genes, seed=1, prior=nothing).paths(0)
    assert first.architecture[0] == third.architecture[0]
    assert first.architecture[1] != third.architecture[1]


def test_paths_follow_the_policy_in_a_file(tmp_path: Path) -> None:
    policy = CategoricalPolicy.of(EDGES, np.array([[0, 1, 0, 0], [0, 0, 0.5, 0.5]]))
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(policy.to_json()))
    sampler = build(Config(paths=2, policy=path), EDGES, seed=0, prior=nothing)
    for step in range(20):
        drawn = [path.architecture for path in sampler.paths(step)]
        assert {architecture[0] for architecture in drawn} == {1}
        assert {architecture[1] for architecture in drawn} == {2, 3}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [(None, "no policy can be read"), ("{", "policy.json"), ("[]", "policy.json"), ("{}", "'depth' is in the policy")],
)
def test_a_file_that_is_no_policy_of_the_space_is_named(tmp_path: Path, text: str | None, complaint: str) -> None:
    path = tmp_path / "policy.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        build(Config(policy=path), GATED, seed=0, prior=nothing)
