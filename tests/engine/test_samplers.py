"""Every sampler keeps the role's contract; each does what its paper says."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from hwnas.devices.plugins import load_plugin, plugin_names
from hwnas.engine import architecture as arch
from hwnas.engine.architecture import FloatArray, Gene, IntArray
from hwnas.engine.training import samplers
from hwnas.engine.training.samplers import Sampler
from tests.engine.toy_spaces import GATED
from tests.engine.training_runs import SPACE

# a sampler that is for the genes of one space alone says so, and has tests of its own
NAMES = [name for name in plugin_names(samplers) if not hasattr(load_plugin(samplers, name), "SPACE")]
PLAIN = tuple(Gene(f"layer{i}", ("a", "b", "c")) for i in range(4))


def index_sum(X: IntArray) -> FloatArray:
    """MACs that grow with every option."""
    return 1.0 + X.sum(1)


def make(name: str, genes: tuple[Gene, ...] = SPACE.genes, *, seed: int = 3, **options: object) -> Sampler:
    return samplers.make(name, options, genes, seed=seed, prior=lambda _: index_sum)


# ---- contract -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("genes", [SPACE.genes, GATED, PLAIN], ids=["mobilenet", "gated", "plain"])
@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_draws_the_same_again_and_something_else_later(name: str, genes: tuple[Gene, ...]) -> None:
    first, second = ([sampler.paths(step) for step in range(30)] for sampler in (make(name, genes), make(name, genes)))
    assert first == second
    assert len(set(first)) > 1


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_draws_other_architectures(name: str) -> None:
    first, second = ([make(name, seed=seed).paths(step) for step in range(30)] for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_sampler_goes_on_as_the_unbroken_one(name: str) -> None:
    unbroken = make(name)
    before = [unbroken.paths(step) for step in range(7)]
    state = json.loads(json.dumps(unbroken.state()))
    resumed = make(name)
    resumed.restore(state)
    assert [resumed.paths(step) for step in range(7, 20)] == [unbroken.paths(step) for step in range(7, 20)]
    assert before[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_draws_architectures_of_the_space(name: str) -> None:
    mask = [[gene.name != "s1.width" or i == 0 for i in range(len(gene.options))] for gene in SPACE.genes]
    genes = arch.restrict(SPACE.genes, mask)
    sampler = make(name, genes)
    width = [gene.name for gene in genes].index("s1.width")
    for step in range(20):
        for path in sampler.paths(step):
            assert arch.check(genes, path.architecture)[width] == 0
            assert path.weight > 0


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="no_such_option"):
        make(name, no_such_option=1)


# ---- each its own ---------------------------------------------------------------------------------------------------


def test_the_sandwich_begins_with_the_largest() -> None:
    paths = make("sandwich").paths(0)
    assert [path.role for path in paths] == ["largest", "smallest", "random", "random"]
    assert paths[0].architecture == arch.extreme(SPACE.genes, largest=True)
    assert paths[1].architecture == arch.extreme(SPACE.genes, largest=False)


@pytest.mark.parametrize("name", ["sandwich", "cost_weighted"])
def test_the_smaller_of_a_pair_comes_first(name: str) -> None:
    sampler = make(name, pairs=3)
    for step in range(10):
        pairs = [path for path in sampler.paths(step) if path.role == "pair"]
        assert len(pairs) == 6
        costs = index_sum(np.array([path.architecture for path in pairs]))
        assert (costs[::2] <= costs[1::2]).all()


@pytest.mark.parametrize("name", ["sandwich", "cost_weighted"])
def test_pairs_are_ordered_by_the_prior_that_is_named(name: str) -> None:
    promises = {"macs": index_sum, "zen": lambda X: -index_sum(X)}
    sampler = samplers.make(name, {"pairs": 3, "prior": "zen"}, SPACE.genes, seed=0, prior=promises.__getitem__)
    for step in range(10):
        costs = index_sum(np.array([path.architecture for path in sampler.paths(step) if path.role == "pair"]))
        assert (costs[::2] >= costs[1::2]).all()


def test_the_gradients_of_an_ensemble_are_averaged() -> None:
    assert [path.weight for path in make("ensemble", paths=4).paths(0)] == [0.25] * 4


def test_a_fair_step_trains_every_option_of_every_gene_once() -> None:
    sampler = make("fair", PLAIN)
    for step in range(10):
        rows = np.array([path.architecture for path in sampler.paths(step)])
        assert rows.shape == (3, 4)
        assert (np.sort(rows, axis=0) == np.arange(3)[:, None]).all()


def test_a_fair_step_goes_round_the_options_of_shorter_genes() -> None:
    genes = (Gene("short", (0, 1)), Gene("long", (0, 1, 2, 3, 4)))
    counts = Counter(path.architecture[0] for path in make("fair", genes).paths(0))
    assert sorted(counts.values()) == [2, 3]


def test_balanced_draws_take_large_networks_more_often_by_their_share() -> None:
    genes = (Gene("width", (0, 1)),)  # MACs 1 and 2
    sampler = make("cost_weighted", genes, candidates=2, middle=1, sandwich=False)
    drawn = np.mean([sampler.paths(step)[0].architecture[0] for step in range(4000)])
    assert drawn == pytest.approx(0.25 * 1 + 0.5 * 2 / 3, abs=0.03)  # both large, or one of each and that one taken


def test_a_walk_changes_one_gene_a_step() -> None:
    sampler = make("gradual", PLAIN)
    rows = [np.array(sampler.paths(step)[0].architecture) for step in range(300)]
    assert all((before != after).sum() == 1 for before, after in pairwise(rows))


def test_a_walk_changes_only_genes_that_are_on_and_comes_everywhere() -> None:
    sampler = make("gradual", GATED)
    rows = [sampler.paths(step)[0].architecture for step in range(3000)]
    assert all(before != after for before, after in pairwise(rows))
    assert len(set(rows)) == arch.size(GATED)


def test_a_walk_has_the_uniform_law_in_the_limit() -> None:
    sampler = make("gradual", PLAIN, chains=8)
    rows = np.array([path.architecture for step in range(3000) for path in sampler.paths(step)])
    shares = np.stack([np.bincount(column, minlength=3) for column in rows.T]) / len(rows)
    assert np.abs(shares - 1 / 3).max() < 0.03


def test_walks_side_by_side_are_different() -> None:
    first, second = (path.architecture for path in make("gradual", chains=2).paths(0))
    assert first != second


def test_a_walk_of_another_space_is_not_gone_on_with() -> None:
    with pytest.raises(ValueError, match="genes"):
        make("gradual", PLAIN).restore(make("gradual", GATED).state())
