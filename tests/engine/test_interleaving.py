"""Which edges of a chain interleave, the periodic sampler that avoids them, and the loss that makes edges sparse."""

from __future__ import annotations

import json
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Gene
from hwnas.engine.interleaving import chain_edges, interleaved, is_interleaving_free, kept, reach
from hwnas.engine.spaces import long_chain
from hwnas.engine.spaces.long_chain import LongChainSpace, Stage
from hwnas.engine.training import criteria, samplers
from hwnas.engine.training.criteria import TrainedPath
from hwnas.engine.training.criteria.edge_discretisation import unevenness
from hwnas.engine.training.samplers import Sampler
from tests.engine.toy_spaces import GATED

edges = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda edge: edge[0] < edge[1]), max_size=8, unique=True
)


def space(nodes: tuple[int, ...] = (12,), reach: int = 4) -> LongChainSpace:
    stages = tuple(Stage(nodes=n, channels=4) for n in nodes)
    config = long_chain.Config(resolution=4, stages=stages, reach=reach)
    return long_chain.build(config, in_channels=1, classes=3)


def sampler(genes: tuple[Gene, ...], *, seed: int = 0, **options: object) -> Sampler:
    return samplers.make("interleaving_free", options, genes, seed=seed, prior=lambda _: lambda X: np.ones(len(X)))


def trained(genes: tuple[Gene, ...], step_sampler: Sampler, step: int) -> dict[str, tuple[tuple[int, int], ...]]:
    (path,) = step_sampler.paths(step)
    return kept(chain_edges(genes), arch.check(genes, path.architecture))


# ---- edges ----------------------------------------------------------------------------------------------------------


@given(edges)
def test_edges_interleave_where_two_of_them_do(pairs: list[tuple[int, int]]) -> None:
    slow = any(a < c < b < d or c < a < d < b for (a, b), (c, d) in combinations(pairs, 2))
    assert is_interleaving_free(pairs) == (not slow)
    found = interleaved(pairs)
    if found is not None:
        (a, b), (c, d) = found
        assert a < c < b < d
        assert {found[0], found[1]} <= set(pairs)


def test_edges_that_share_an_end_follow_each_other_or_lie_inside_do_not_interleave() -> None:
    assert is_interleaving_free([(0, 5), (0, 3), (3, 5), (5, 8), (1, 2)])
    assert interleaved([(0, 3), (2, 5)]) == ((0, 3), (2, 5))


def test_an_edge_that_leads_back_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"to a later one, got \(3, 3\)"):
        is_interleaving_free([(3, 3)])


# ---- the periodic sampler -------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.integers(1, 8), st.sampled_from(["cyclic", "shuffled"]))
def test_no_step_interleaves_exactly_where_the_period_is_the_reach_or_more(reach: int, period: int, order: str) -> None:
    genes = space((14,), reach=reach).genes
    free = [
        is_interleaving_free(trained(genes, sampler(genes, period=period, order=order), step)["s1"])
        for step in range(period)
    ]
    assert all(free) == (period >= reach)


@given(st.integers(1, 5), st.integers(1, 7), st.sampled_from(["cyclic", "shuffled"]))
def test_a_period_trains_every_edge_once_and_links_always(reach: int, period: int, order: str) -> None:
    genes = space((9, 6), reach=reach).genes
    counts: dict[tuple[str, tuple[int, int]], int] = {}
    for step in range(period):
        for stage, pairs in trained(genes, sampler(genes, period=period, order=order), step).items():
            for pair in pairs:
                counts[stage, pair] = counts.get((stage, pair), 0) + 1
    for edge in chain_edges(genes):
        assert counts[edge.stage, (edge.source, edge.target)] == (period if edge.is_link else 1)


def test_the_period_is_one_more_than_the_reach_where_nothing_is_said() -> None:
    genes = space(reach=4).genes
    assert reach(chain_edges(genes)) == 4
    paths = [sampler(genes).paths(step) for step in range(10)]
    assert paths[:5] == paths[5:]
    assert len(set(paths)) == 5


def test_a_phase_lasts_as_many_steps_as_asked() -> None:
    genes = space().genes
    paths = [sampler(genes, steps=3, order="shuffled").paths(step) for step in range(15)]
    assert all(paths[i] == paths[i + 1] == paths[i + 2] for i in range(0, 15, 3))
    assert len(set(paths)) == 5


def test_shuffled_phases_come_in_another_order_each_period_and_after_another_seed() -> None:
    genes = space().genes
    orders = [
        [sampler(genes, order="shuffled", seed=seed).paths(5 * cycle + place) for place in range(5)]
        for seed, cycle in ((0, 0), (0, 1), (1, 0))
    ]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]
    assert {*orders[0]} == {*orders[1]} == {*orders[2]}


def test_scattered_nodes_train_as_often_and_do_interleave() -> None:
    genes = space((14,)).genes
    control = sampler(genes, period=4, order="scattered")
    steps = [trained(genes, control, step)["s1"] for step in range(400)]
    assert np.mean([(2, 5) in pairs for pairs in steps]) == pytest.approx(1 / 4, abs=0.07)
    assert 0.1 < np.mean([is_interleaving_free(pairs) for pairs in steps]) < 0.9


def test_what_a_restricted_space_must_have_is_kept_and_what_it_may_not_have_is_left_out() -> None:
    whole = space()
    names = [gene.name for gene in whole.genes]
    mask = [[True] * len(gene.options) for gene in whole.genes]
    mask[names.index("s1.n5.from2")] = [False, True, False, False]
    mask[names.index("s1.n6.from3")] = [True, False, False, False]
    genes = whole.restrict(mask).genes
    for step in range(5):
        pairs = trained(genes, sampler(genes), step)["s1"]
        assert (2, 5) in pairs
        assert (3, 6) not in pairs


def test_it_has_no_state_and_names_what_it_does_not_know() -> None:
    assert json.loads(json.dumps(sampler(space().genes).state())) == {}
    with pytest.raises(ValueError, match="no_such_option"):
        sampler(space().genes, no_such_option=1)
    with pytest.raises(ValueError, match=r"no gene is an edge of a chain.*'depth'"):
        sampler(GATED)


# ---- the loss of edges ----------------------------------------------------------------------------------------------


def loss(weights: tuple[Tensor, ...], progress: float, **options: float) -> Tensor:
    criterion = criteria.make("edge_discretisation", options, label_smoothing=0.0)
    supernet = SimpleNamespace(edge_weights=lambda _: weights)
    path = TrainedPath(supernet, (0,), "random", torch.zeros(1, 2), torch.zeros(1), progress, {})  # type: ignore[arg-type]
    return criterion(path)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6))
def test_equal_weights_cost_most_and_one_of_many_least(weights: list[float]) -> None:
    n, found = len(weights), float(unevenness(torch.tensor(weights, dtype=torch.float64)))
    assert float(np.log(1 + n)) - 1e-9 <= found <= n * float(np.log(2)) + 1e-9


@pytest.mark.parametrize(("sign", "sparser"), [(1, True), (-1, False)])
def test_minimising_makes_weights_sparse_and_maximising_makes_them_equal(sign: int, sparser: bool) -> None:
    strengths = torch.tensor([0.3, 0.0, -0.1, -0.2], requires_grad=True)
    optimizer = torch.optim.SGD([strengths], lr=2.0)
    for _ in range(150):
        optimizer.zero_grad()
        (sign * loss((strengths.sigmoid(),), 1.0)).backward()
        optimizer.step()
    shares = (strengths.sigmoid() / strengths.sigmoid().sum()).tolist()
    assert (max(shares) > 0.6) == sparser
    assert (max(shares) - min(shares) < 0.05) == (not sparser)


def test_it_sets_in_late_and_rises_to_its_whole() -> None:
    weights = (torch.tensor([0.5, 0.5]), torch.tensor([0.2, 0.2, 0.2]))
    figures = [float(loss(weights, progress, start=0.6)) for progress in (0.0, 0.6, 0.8, 1.0)]
    assert figures == pytest.approx([0, 0, 2.5 * np.log(2), 5 * np.log(2)])
    assert float(loss((), 1.0)) == 0


def test_it_reads_the_strengths_of_the_edges_that_a_path_has() -> None:
    network = space((6,), reach=3).supernet()
    genes = network.space.genes
    (path,) = sampler(genes).paths(2)
    weights = network.edge_weights(path.architecture)
    assert [len(w) for w in weights] == [2, 3]  # nodes 2 and 6 of a period of 4
    sum(unevenness(w) for w in weights).backward()
    moved = {edge.target for edge, slope in zip(network.edges, network.strengths.grad.tolist(), strict=True) if slope}
    assert moved <= {2, 6}


def test_a_supernet_without_strengths_is_named() -> None:
    criterion = criteria.make("edge_discretisation", {}, label_smoothing=0.0)
    with pytest.raises(ValueError, match="Identity has no edge_weights"):
        criterion.prepare(nn.Identity(), {})
    with pytest.raises(ValueError, match="no_such_option"):
        criteria.make("edge_discretisation", {"no_such_option": 1}, label_smoothing=0.0)
