from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Self

import numpy as np
import pytest

from hwnas.engine import rankers
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.algorithms import Known
from hwnas.engine.algorithms.active_ranking import ActiveRanking, two_stages
from hwnas.engine.architecture import FloatArray, Gene, IntArray, size
from hwnas.engine.genome import Genome
from hwnas.engine.objective import Costs
from tests.engine.algorithm_contract import GENES, asks

BITS = tuple(Gene(f"bit{i}", (0, 1)) for i in range(10))
MANY = tuple(Gene(f"bit{i}", (0, 1)) for i in range(40))
WEIGHTS = np.arange(1.0, 11.0)


def zeros(X: IntArray) -> FloatArray:
    return np.zeros(len(X))


def weighted(X: IntArray) -> FloatArray:
    return -(X @ WEIGHTS)


def told(algorithm: ActiveRanking, rounds: int, costs: Costs = weighted) -> list[IntArray]:
    asked = []
    for _ in range(rounds):
        asked.append(algorithm.ask())
        algorithm.tell(asked[-1], costs(asked[-1])[:, None], zeros(asked[-1]))
    return asked


def test_the_first_batch_is_random_and_half_of_every_later_one_is_what_the_ranker_puts_first() -> None:
    algorithm = ActiveRanking(BITS, population=20, rng=np.random.default_rng(0), ranker="ridge")
    first, *later = told(algorithm, 4)
    assert abs(weighted(first).mean() + WEIGHTS.sum() / 2) < 8
    for X in later:
        # ridge learns a sum from 20 rows: its ten are the best that are left
        assert weighted(X[:10]).max() < weighted(X[10:]).min() + 15
        assert abs(weighted(X[10:]).mean() + WEIGHTS.sum() / 2) < 8
    everything = np.unique(np.concatenate([first, *later]), axis=0)
    best = np.sort(weighted(Genome.of(BITS).decode(range(size(BITS)))))[:15]
    assert np.isin(best, weighted(everything)).mean() > 0.9


def test_a_share_of_nothing_is_random_search() -> None:
    algorithm = ActiveRanking(BITS, population=100, rng=np.random.default_rng(0), exploit=0.0)
    for X in told(algorithm, 3):
        assert abs(weighted(X).mean() + WEIGHTS.sum() / 2) < 4


def test_batches_of_one_exploit_half_of_the_time() -> None:
    algorithm = ActiveRanking(BITS, population=1, rng=np.random.default_rng(0), score=weighted)
    every = np.sort(weighted(Genome.of(BITS).decode(range(size(BITS)))))
    exploited = np.isin(np.concatenate([weighted(X) for X in told(algorithm, 40)]), every[:20]).sum()
    assert 10 <= exploited <= 30


def test_two_stages_evaluate_what_the_score_puts_first_and_nothing_else() -> None:
    algorithm = two_stages(BITS, population=5, rng=np.random.default_rng(0), score=weighted)
    every = Genome.of(BITS).decode(range(size(BITS)))
    best = np.sort(weighted(every))
    first, second = told(algorithm, 2)
    np.testing.assert_array_equal(np.sort(weighted(first)), best[:5])
    np.testing.assert_array_equal(np.sort(weighted(second)), best[5:10])


def test_rows_of_equal_score_are_left_to_chance() -> None:
    asked = [two_stages(BITS, population=20, rng=np.random.default_rng(seed), score=zeros).ask() for seed in range(20)]
    assert abs(np.concatenate(asked).mean() - 0.5) < 0.05


def test_two_stages_of_a_space_too_large_to_score_take_the_best_of_a_pool() -> None:
    algorithm = two_stages(MANY, population=5, rng=np.random.default_rng(0), score=lambda X: -X.sum(1) * 1.0)
    # the best of 2,048 sums of 40 coins lie two and a half deviations above 20
    assert (algorithm.ask().sum(1) >= 28).all()


def test_two_stages_score_only_what_keeps_the_limits() -> None:
    known = Known((None,), lambda X: np.maximum(X.sum(1) - 4.0, 0))
    X = two_stages(BITS, population=30, rng=np.random.default_rng(0), score=weighted, known=known).ask()
    assert (X.sum(1) <= 4).all()
    # the four heaviest bits
    assert X[0].tolist() == [0] * 6 + [1] * 4


def test_infeasible_rows_are_not_learned_from() -> None:
    algorithm = ActiveRanking(BITS, population=30, rng=np.random.default_rng(0), ranker="ridge")
    X = algorithm.ask()
    failed = X[:, 9] == 1
    algorithm.tell(X, np.where(failed, np.nan, weighted(X))[:, None], np.where(failed, np.inf, 0.0))
    assert (weighted(algorithm.ask()[:15]) < np.median(weighted(X[~failed]))).all()


def test_a_ranker_that_can_be_pretrained_begins_with_what_is_known_of_every_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, FloatArray] = {}
    pretrained: list[IntArray] = []

    class Listening:
        def pretrain(self, X: IntArray, labels: Mapping[str, FloatArray]) -> Self:
            pretrained.append(X)
            seen.update(labels)
            return self

        def fit(self, X: IntArray, values: FloatArray) -> Self:
            return self

        def predict(self, X: IntArray) -> tuple[FloatArray, FloatArray]:
            return weighted(X), zeros(X)

        def draw(self, X: IntArray, n: int, rng: np.random.Generator) -> FloatArray:
            return np.zeros((n, len(X)))

    def made(genes: Sequence[Gene], *, rng: np.random.Generator, covariates: Sequence[Costs] = ()) -> Listening:
        return Listening()

    monkeypatch.setattr(rankers, "load_plugin", lambda package, name: SimpleNamespace(ranker=made))
    macs = AdditiveCost(BITS, tuple((i,) for i in range(10)), tuple(np.array([0.0, w]) for w in WEIGHTS))
    known = Known((None, lambda X: X[:, 0] * 2.0), zeros, (macs,))
    algorithm = ActiveRanking(BITS, population=10, rng=np.random.default_rng(0), known=known)
    X = algorithm.ask()
    algorithm.tell(X, np.stack([weighted(X), X[:, 0] * 2.0], axis=1), zeros(X))
    algorithm.ask()
    # the most MACs stand in for the least error
    np.testing.assert_allclose(seen["capacity"], -macs(pretrained[0]))
    np.testing.assert_allclose(seen["cost 1"], pretrained[0][:, 0] * 2.0)


@pytest.mark.slow
def test_lambdarank_can_lead_a_search() -> None:
    algorithm = ActiveRanking(BITS, population=20, rng=np.random.default_rng(0), ranker="lambdarank")
    first, *_, last = told(algorithm, 5)
    assert weighted(last[:10]).mean() < weighted(first).mean() - 10


def test_it_asks_the_whole_of_a_gated_space() -> None:
    assert sum(len(X) for X in asks("active_ranking", GENES, population=100)) == size(GENES)


def test_a_share_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"exploit=1\.5 is no share"):
        ActiveRanking(BITS, population=4, rng=np.random.default_rng(0), exploit=1.5)
