"""What every ranker keeps to. A plugin's own test inherits it:

class TestMine(RankerContract):
    @pytest.fixture
    def name(self) -> str:
        return "mine"
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from scipy.stats import kendalltau

from hwnas.engine import rankers
from hwnas.engine.architecture import FloatArray, Gene, IntArray, sample
from hwnas.engine.rankers import Ranker

DEEP = frozenset({1, 2})
GENES = (
    Gene("depth", (1, 2, 3)),
    *(Gene(f"width{i}", (8, 16, 24, 32), needs=("depth", DEEP) if i > 3 else None) for i in range(6)),
    Gene("operation", ("pool", "conv", "skip")),
    Gene("classes", (10,)),
)


def values_of(X: IntArray) -> FloatArray:
    """Something to learn: sums, a product of two genes, and an option that is neither first nor last, (n,)."""
    sums = X[:, 1:7] @ np.array([3.0, 1.0, 0.5, 2.0, 1.0, 0.1])
    return 0.1 + 0.01 * (20 - sums - X[:, 0] * X[:, 1] + 3.0 * (X[:, 7] == 1))


def rows(n: int, seed: int = 0) -> IntArray:
    return np.unique(sample(GENES, 3 * n, np.random.default_rng(seed)), axis=0)[
        np.random.default_rng(seed).permutation(n)
    ]


def fitted(name: str, n: int = 80) -> Ranker:
    X = rows(n)
    return rankers.make(name, GENES, rng=np.random.default_rng(1)).fit(X, values_of(X))


def fingerprint(name: str) -> str:
    """Hash of what is predicted and drawn with one seed."""
    ranker = fitted(name, 40)
    X = rows(30, 5)
    found = [*ranker.predict(X), ranker.draw(X, 3, np.random.default_rng(2))]
    return hashlib.sha256(b"".join(array.tobytes() for array in found)).hexdigest()


@cache
def fingerprints_elsewhere(names: tuple[str, ...]) -> dict[str, str]:
    """Fingerprints of these rankers, taken in one other process with other string hashes."""
    run = subprocess.run(
        [sys.executable, __file__, *names],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return dict(line.split() for line in run.stdout.splitlines())


class RankerContract:
    def test_it_orders_rows_that_it_has_not_seen(self, name: str) -> None:
        X = rows(200, 3)
        mean, _ = fitted(name).predict(X)
        assert kendalltau(mean, values_of(X)).statistic > 0.6

    def test_it_predicts_in_the_units_of_the_values(self, name: str) -> None:
        X = rows(200, 3)
        mean, _ = fitted(name).predict(X)
        assert np.abs(mean - values_of(X)).mean() < 0.5 * values_of(X).std()

    def test_most_values_lie_within_two_deviations(self, name: str) -> None:
        X = rows(200, 3)
        mean, std = fitted(name).predict(X)
        assert (np.abs(mean - values_of(X)) <= 2 * std + 0.005).mean() > 0.7

    def test_it_is_less_sure_of_rows_unlike_those_it_learned_from(self, name: str) -> None:
        X = rows(200, 3)
        near = X[X[:, 1] < 2]
        ranker = rankers.make(name, GENES, rng=np.random.default_rng(1)).fit(near[:50], values_of(near[:50]))
        assert ranker.predict(X[X[:, 1] == 3])[1].mean() > ranker.predict(near[:50])[1].mean()

    def test_draws_have_the_predicted_mean_and_deviation(self, name: str) -> None:
        ranker, X = fitted(name), rows(40, 3)
        mean, std = ranker.predict(X)
        draws = ranker.draw(X, 4000, np.random.default_rng(0))
        assert draws.shape == (4000, 40)
        # quartiles, since a warped normal's mean is not the warped mean
        np.testing.assert_allclose(np.median(draws, axis=0), mean, atol=0.15 * std.max())
        half = np.subtract(*np.quantile(draws, [0.8413, 0.1587], axis=0)) / 2
        np.testing.assert_allclose(half, std, rtol=0.15, atol=0.1 * std.max())

    def test_a_covariate_that_tells_the_values_is_used(self, name: str) -> None:
        X, unseen = rows(30), rows(200, 3)
        weights = np.random.default_rng(9).normal(size=X.shape[1])

        def cost(X: IntArray) -> FloatArray:
            return np.sin(X @ weights)

        told = rankers.make(name, GENES, rng=np.random.default_rng(1), covariates=(cost,)).fit(X, cost(X))
        alone = rankers.make(name, GENES, rng=np.random.default_rng(1)).fit(X, cost(X))
        with_it, without = (np.abs(ranker.predict(unseen)[0] - cost(unseen)).mean() for ranker in (told, alone))
        assert with_it < 0.9 * without

    def test_a_failed_network_does_not_bend_the_others(self, name: str) -> None:
        X, unseen = rows(81), rows(200, 3)
        values = values_of(X)
        values[-1] = 1e3
        mean, _ = rankers.make(name, GENES, rng=np.random.default_rng(1)).fit(X, values).predict(unseen)
        assert kendalltau(mean, values_of(unseen)).statistic > 0.4

    @pytest.mark.parametrize("n", [1, 2, 5])
    def test_a_few_rows_are_enough_to_predict(self, name: str, n: int) -> None:
        ranker = fitted(name, n)
        mean, std = ranker.predict(rows(20, 3))
        assert np.isfinite(mean).all()
        assert np.isfinite(std).all()
        assert np.isfinite(ranker.draw(rows(20, 3), 2, np.random.default_rng(0))).all()

    def test_values_that_are_all_equal_are_predicted(self, name: str) -> None:
        X = rows(30)
        mean, _ = rankers.make(name, GENES, rng=np.random.default_rng(1)).fit(X, np.full(30, 0.25)).predict(X)
        np.testing.assert_allclose(mean, 0.25, atol=1e-3)

    def test_no_rows_are_no_predictions(self, name: str) -> None:
        mean, std = fitted(name, 20).predict(rows(20)[:0])
        assert len(mean) == len(std) == 0

    def test_it_can_be_fitted_again_on_more(self, name: str) -> None:
        ranker, X = fitted(name, 20), rows(80)
        mean, _ = ranker.fit(X, values_of(X)).predict(rows(200, 3))
        assert kendalltau(mean, values_of(rows(200, 3))).statistic > 0.6

    def test_a_seed_gives_the_same_predictions_in_another_process(self, name: str) -> None:
        # auto fits all others twenty times over
        together = (name,) if name == "auto" else tuple(sorted({*rankers.names(), name} - {"auto"}))
        assert fingerprints_elsewhere(together)[name] == fingerprint(name)

    @pytest.mark.parametrize(
        ("values", "message"),
        [(np.zeros(3), "4 rows and values of shape"), (np.array([0, 1, np.nan, 2]), "value of row 2 is not finite")],
    )
    def test_values_that_do_not_fit_are_an_error(self, name: str, values: FloatArray, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            rankers.make(name, GENES, rng=np.random.default_rng(0)).fit(rows(4), values)

    def test_a_prediction_before_the_first_fit_is_an_error(self, name: str) -> None:
        with pytest.raises(RuntimeError, match="call fit first"):
            rankers.make(name, GENES, rng=np.random.default_rng(0)).predict(rows(4))


if __name__ == "__main__":
    for ranker in sys.argv[1:]:
        print(ranker, fingerprint(ranker))
