from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau
from torch import Tensor

from hwnas.engine.architecture import FloatArray, Gene
from hwnas.engine.rankers._description import Description
from hwnas.engine.rankers._graph import Graph
from hwnas.engine.rankers._losses import LambdaNdcg, Loss, PairwiseLogistic, SquaredError
from hwnas.engine.rankers._networks import GraphConvolution
from hwnas.engine.rankers._neural import Neural
from hwnas.engine.ranking import Relevance
from tests.engine.ranker_contract import GENES, rows, values_of

CELL = Graph.cell([(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)])
EDGES = tuple(Gene(f"edge{i}", ("none", "skip", "conv1x1", "conv3x3", "avgpool")) for i in range(6))
LOSSES: dict[str, Loss] = {
    "squared error": SquaredError(),
    "pairwise": PairwiseLogistic(),
    "lambdarank": LambdaNdcg(scale=5),
    "lambdarank by target": LambdaNdcg("target_ascending", scale=5),
}


def neural(loss: Loss, *, graph: Graph | None = None, seed: int = 1, steps: int = 70) -> Neural:
    return Neural(GENES, rng=np.random.default_rng(seed), loss=loss, graph=graph, steps=steps)


# ---- losses ---------------------------------------------------------------------------------------------------------


def slow_lambdas(scores: FloatArray, relevance: FloatArray, rank_by: str) -> FloatArray:
    """Gradients as the papers write them, pair by pair."""
    n = len(scores)
    place = np.empty(n)
    place[np.argsort(-scores if rank_by == "prediction" else relevance, kind="stable")] = np.arange(1, n + 1)
    gain = 2.0**relevance - 1
    ideal = sum(np.sort(gain)[::-1] / np.log2(1 + np.arange(1, n + 1)))
    found = np.zeros(n)
    for i in range(n):
        for j in range(n):
            if relevance[i] > relevance[j]:
                change = abs(gain[i] - gain[j]) * abs(1 / np.log2(1 + place[i]) - 1 / np.log2(1 + place[j])) / ideal
                found[i] -= change / (1 + np.exp(scores[i] - scores[j]))
                found[j] += change / (1 + np.exp(scores[i] - scores[j]))
    return found


def gradient(loss: Loss, scores: FloatArray, targets: FloatArray, weights: FloatArray | None = None) -> Tensor:
    leaf = torch.tensor(scores[None], dtype=torch.float32, requires_grad=True)
    held = torch.ones_like(leaf) if weights is None else torch.from_numpy(weights[None]).float()
    loss(leaf, torch.from_numpy(targets).float(), held).backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    return leaf.grad[0]


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 999), n=st.integers(2, 9), rank_by=st.sampled_from(["prediction", "target_ascending"]))
def test_lambdas_are_those_of_the_papers(seed: int, n: int, rank_by: str) -> None:
    rng = np.random.default_rng(seed)
    scores, relevance = rng.normal(size=n), rng.permutation(n) * 2.0
    found = gradient(LambdaNdcg(rank_by), scores, relevance)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, slow_lambdas(scores, relevance, rank_by), atol=2e-5)


def test_rows_that_a_member_does_not_have_change_nothing() -> None:
    rng = np.random.default_rng(0)
    scores, relevance = rng.normal(size=6), rng.permutation(6) * 2.0
    held = np.array([1.0, 1, 0, 1, 1, 0])
    found = gradient(LambdaNdcg(), scores, relevance, held)
    without = slow_lambdas(scores[held > 0], relevance[held > 0], "prediction")
    np.testing.assert_allclose(found[held > 0], without, atol=2e-5)
    assert (found[held == 0] == 0).all()


def test_pairwise_loss_is_the_mean_over_pairs_that_differ() -> None:
    scores, gains = np.array([0.3, -1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    terms = [np.log1p(np.exp(2.0 - 0.3)), np.log1p(np.exp(2.0 + 1.0))]
    loss = PairwiseLogistic()(torch.tensor(scores[None]), torch.tensor(gains), torch.ones(1, 3))
    assert float(loss) == pytest.approx(np.mean(terms))


@pytest.mark.parametrize("name", LOSSES)
def test_equal_gains_pull_nowhere(name: str) -> None:
    loss = LOSSES[name]
    found = gradient(loss, np.zeros(4), loss.targets(np.full(4, 0.7)))
    assert (found == 0).all()


def test_relevance_bounds_are_the_pools_and_not_the_lists() -> None:
    gains = np.arange(10.0)
    np.testing.assert_array_equal(LambdaNdcg().targets(gains)[:5], Relevance(1.8, 9.0)(gains[:5]))


# ---- graphs ---------------------------------------------------------------------------------------------------------


def test_operations_of_a_cell_follow_each_other_where_edges_meet() -> None:
    # edge 0 is 0-1 and leads to 1-2 (2) and 1-3 (4); 6 comes in, 7 goes out
    assert {end for start, end in CELL.arrows if start == 0} == {2, 4}
    assert {end for start, end in CELL.arrows if start == 6} == {0, 1, 3}
    assert {start for start, end in CELL.arrows if end == 7} == {3, 4, 5}


def test_a_chain_has_an_arrow_from_each_gate() -> None:
    assert (0, 6) in Graph.chain(GENES).arrows
    assert (2, 3) in Graph.chain(GENES).arrows


def test_an_edge_that_leads_back_is_an_error() -> None:
    with pytest.raises(ValueError, match="each lead to a later feature map"):
        Graph.cell([(0, 1), (1, 1)])


def test_a_graph_for_another_space_is_an_error() -> None:
    with pytest.raises(ValueError, match="a graph of 6 genes for a space of 9"):
        CELL.spread(Description.of(GENES))


def test_an_operation_is_the_same_feature_on_every_edge() -> None:
    X = np.array([[3, 0, 0, 0, 0, 3]])
    features = (Description.of(EDGES).indicators(X) @ CELL.spread(Description.of(EDGES))).reshape(8, 5)
    np.testing.assert_array_equal(features[0], features[5])
    assert (features[6:] == 0).all()


def test_a_graph_network_sees_where_an_operation_stands() -> None:
    spread = CELL.spread(Description.of(EDGES))
    network = GraphConvolution(2, CELL, spread, np.random.default_rng(0), width=8, rounds=2)
    X = np.array([[3, 0, 0, 0, 0, 0], [0, 0, 0, 3, 0, 0]])
    found = network(torch.from_numpy(Description.of(EDGES).indicators(X)).float())
    assert found.shape == (2, 2, network.width)
    assert not torch.allclose(found[:, 0], found[:, 1])


def test_members_have_weights_of_their_own() -> None:
    X = rows(40)
    scores = neural(SquaredError(), steps=5).fit(X, values_of(X))._scores(X)
    assert not np.allclose(scores[0], scores[1])


# ---- ranker ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "graph"), [*((name, None) for name in LOSSES), ("lambdarank", Graph.chain(GENES))])
def test_every_loss_learns_an_order_and_so_does_a_graph_network(name: str, graph: Graph | None) -> None:
    X, unseen = rows(80), rows(150, 3)
    ranker = neural(LOSSES[name], graph=graph).fit(X, values_of(X))
    assert kendalltau(-ranker.score(unseen), values_of(unseen)).statistic > 0.7


def test_predictions_have_the_order_of_the_scores() -> None:
    X, unseen = rows(40), rows(100, 3)
    ranker = neural(LambdaNdcg(), steps=50).fit(X, values_of(X))
    order = np.argsort(-ranker.score(unseen))
    assert (np.diff(ranker.predict(unseen)[0][order]) >= 0).all()


def test_lambdarank_looks_at_the_top() -> None:
    """Pairs with one of the best tenth are a fifth of all, and have nearly all of the importance."""
    relevance = torch.linspace(0, 20, 50)
    swaps = LambdaNdcg().swaps(torch.zeros(1, 50), relevance, torch.ones(1, 50, dtype=torch.bool))[0]
    rest = swaps[:45, :45].sum() / swaps.sum()
    assert rest < 0.3
    assert swaps[:25, :25].sum() / swaps.sum() < 1e-3


def test_a_cheap_label_is_a_start() -> None:
    """Ten values alone say little; 150 labels that go along with them say more."""
    X, few, unseen = rows(150, 8), rows(10), rows(150, 3)

    def label(X: np.ndarray) -> FloatArray:  # type: ignore[type-arg]
        return values_of(X) + 0.02 * np.sin(X.sum(1) * 2.3)

    def tau(ranker: Neural) -> float:
        return float(kendalltau(ranker.predict(unseen)[0], values_of(unseen)).statistic)

    alone = neural(PairwiseLogistic()).fit(few, values_of(few))
    started = neural(PairwiseLogistic())
    started.pretrain(X, {"supernet": label(X), "size": X.sum(1).astype(float)}).fit(few, values_of(few))
    assert tau(started) > tau(alone) + 0.1


def test_a_fit_begins_at_what_was_pretrained_every_time() -> None:
    X = rows(30)
    ranker = neural(SquaredError(), steps=20).pretrain(X, {"label": values_of(X)})
    assert ranker._started is not None
    before = {key: value.clone() for key, value in ranker._started.state_dict().items()}
    ranker.fit(X, values_of(X))
    assert all(torch.equal(before[key], value) for key, value in ranker._started.state_dict().items())


def test_another_loss_begins_where_this_one_does() -> None:
    X = rows(30)
    squared = neural(SquaredError(), steps=20).pretrain(X, {"label": values_of(X)})
    pairwise = squared.with_loss(PairwiseLogistic())
    # the same draws from here on: the loss alone differs
    again = squared.with_loss(SquaredError()).fit(X, values_of(X)).score(X)
    differs = pairwise.fit(X, values_of(X)).score(X)
    np.testing.assert_array_equal(squared.fit(X, values_of(X)).score(X), again)
    assert not np.allclose(again, differs)


def test_labels_that_are_none_are_an_error() -> None:
    with pytest.raises(ValueError, match="no labels"):
        neural(SquaredError()).pretrain(rows(4), {})
    with pytest.raises(ValueError, match="value of row 1 is not finite"):
        neural(SquaredError()).pretrain(rows(2), {"label": np.array([0.0, np.nan])})


def test_one_member_has_no_doubt_to_tell() -> None:
    with pytest.raises(ValueError, match="doubt needs two members"):
        Neural(GENES, rng=np.random.default_rng(0), loss=SquaredError(), members=1)


def test_more_rows_than_a_list_holds_are_learned_from_list_by_list() -> None:
    X, unseen = rows(60), rows(150, 3)
    ranker = Neural(GENES, rng=np.random.default_rng(1), loss=PairwiseLogistic(), rows_a_list=20)
    assert kendalltau(ranker.fit(X, values_of(X)).predict(unseen)[0], values_of(unseen)).statistic > 0.7
