from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

from hwnas.engine import rankers
from hwnas.engine.architecture import FloatArray, Gene, IntArray, active, sample
from hwnas.engine.rankers._description import Description, Warp
from hwnas.engine.rankers._ensemble import Spread, bootstrap, spread_factor
from hwnas.engine.rankers._gaussian import Posterior
from hwnas.engine.rankers.auto import Auto, Standing, best, standings
from hwnas.engine.rankers.gaussian_process import _Columns, _surprise
from hwnas.engine.rankers.ridge import Ridge
from tests.engine.ranker_contract import GENES, RankerContract, rows, values_of
from tests.engine.toy_spaces import GATED, gene_sets


class TestEveryRanker(RankerContract):
    @pytest.fixture(params=[name for name in rankers.names() if name != "auto"])
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)


@pytest.mark.slow
class TestAuto(RankerContract):
    """Each fit cross-validates every other ranker."""

    @pytest.fixture
    def name(self) -> str:
        return "auto"


def test_the_rankers_are_the_files_of_the_folder() -> None:
    assert {"auto", "boosting", "gaussian_process", "mlp", "ridge"} <= set(rankers.names())


def test_an_unknown_ranker_names_the_known_ones() -> None:
    with pytest.raises(LookupError, match=r"'forest'.*auto, boosting, gaussian_process"):
        rankers.make("forest", GENES, rng=np.random.default_rng(0))


# ---- description ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(genes=gene_sets(), seed=st.integers(0, 99))
def test_indicators_have_one_column_an_option_and_one_for_off(genes: tuple[Gene, ...], seed: int) -> None:
    X = sample(genes, 7, np.random.default_rng(seed))
    on = active(genes, X)
    slow = []
    for row, row_on in zip(X, on, strict=True):
        columns: list[float] = []
        for gene, option, is_on in zip(genes, row, row_on, strict=True):
            columns += [float(is_on and option == i) for i in range(len(gene.options))]
            columns += [float(not is_on)] if gene.needs else []
        slow.append(columns)
    np.testing.assert_array_equal(Description.of(genes).indicators(X), slow)


def test_a_gene_that_is_off_lies_below_its_smallest_option() -> None:
    places = Description.of(GATED).places(np.array([[0, 0, 0, 0, 0], [2, 0, 0, 0, 0]]))
    assert (places[0, 2:] == 0).all()
    assert (places[1, 2:] > 0).all()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30))
def test_a_warp_is_undone_by_its_inverse(values: list[float]) -> None:
    told = np.array(values)
    warp = Warp.of(told)
    np.testing.assert_allclose(warp.inverse(warp(told)), told, atol=1e-6 * (1 + np.abs(told).max()))


def test_a_warp_keeps_the_order_and_the_better_half() -> None:
    values = np.concatenate([np.linspace(0.05, 0.1, 30), [0.3, 0.9, 1e6]])
    warped = Warp.of(values)(values)
    assert (np.diff(warped) > 0).all()
    steps = np.diff(warped[:16])
    np.testing.assert_allclose(steps, steps[0], rtol=1e-9)
    assert warped[-1] - warped[-2] < 200 * steps[0]


# ---- Gaussian processes ---------------------------------------------------------------------------------------------


def spheres(rows: FloatArray, others: FloatArray) -> FloatArray:
    return np.exp(-((rows[:, None] - others) ** 2).sum(-1))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999))
def test_a_posterior_is_the_normal_distribution_given_the_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    told, new, values = rng.normal(size=(6, 2)), rng.normal(size=(4, 2)), rng.normal(size=6)
    posterior = Posterior.of(spheres(told, told), 0.1, values)
    mean, std = posterior.moments(spheres(new, told), np.ones(4))
    inverse = np.linalg.inv(spheres(told, told) + 0.1 * np.eye(6))
    variance = (values @ inverse @ values + 1) / 7
    left = spheres(new, new) - spheres(new, told) @ inverse @ spheres(told, new) + 0.1 * np.eye(4)
    np.testing.assert_allclose(mean, spheres(new, told) @ inverse @ values, atol=1e-9)
    np.testing.assert_allclose(std, np.sqrt(variance * np.diag(left)), atol=1e-9)
    draws = posterior.draw(spheres(new, told), spheres(new, new), 20_000, rng)
    np.testing.assert_allclose(np.cov(draws.T), variance * left, atol=0.06 * variance)


def covariates(X: IntArray) -> FloatArray:
    return X.sum(1) * 1e6


def test_the_gradient_of_the_likelihood_is_that_of_finite_differences() -> None:
    X = rows(30)
    columns = _Columns.of(Description.of(GENES, (covariates,)), X)
    described, target = columns(X), Warp.of(values_of(X))(values_of(X))
    at = np.random.default_rng(0).normal(0, 0.5, columns.matrix.shape[1] + 2)
    at[-1] = np.log(1e-2)
    _, gradient = _surprise(at, described, target, columns)
    slow = approx_fprime(at, lambda h: _surprise(h, described, target, columns)[0], 1e-6)
    np.testing.assert_allclose(gradient, slow, atol=1e-3)


def test_a_gene_that_changes_nothing_loses_its_weight() -> None:
    X = rows(120)
    model = rankers.make("gaussian_process", GENES, rng=np.random.default_rng(0)).fit(X, X[:, 1] * 1.0 - X[:, 2])
    base = rows(60, 3)
    changed = base.copy()
    changed[:, 7] = (changed[:, 7] + 1) % 3
    moved = base.copy()
    moved[:, 1] = (moved[:, 1] + 1) % 4
    without, with_it = (np.abs(model.predict(other)[0] - model.predict(base)[0]).mean() for other in (changed, moved))
    assert without < 0.05 * with_it


def test_ridge_is_the_regression_on_options_and_pairs() -> None:
    """With the penalties that it chose, solved in the columns instead of the rows."""
    X, unseen = rows(40), rows(60, 3)
    ridge = Ridge(GENES, rng=np.random.default_rng(0)).fit(X, values_of(X))
    pairs, _ = ridge._weights

    def columns(X: IntArray) -> FloatArray:
        one_hot = Description.of(GENES).indicators(X)
        first, second = np.triu_indices(one_hot.shape[1], 1)
        together = one_hot[:, first] * one_hot[:, second]
        genes = len(GENES)
        return np.concatenate(
            [
                np.ones((len(X), 1)),
                one_hot / np.sqrt(genes),
                together * np.sqrt(pairs * 2 / (genes * (genes - 1))),
            ],
            axis=1,
        )

    A, target = columns(X), ridge._warp(values_of(X))
    assert ridge._posterior is not None
    coefficients = np.linalg.solve(A.T @ A + ridge._posterior.noise * np.eye(A.shape[1]), A.T @ target)
    np.testing.assert_allclose(
        ridge.predict(unseen)[0], ridge._warp.inverse(columns(unseen) @ coefficients), rtol=1e-4, atol=1e-6
    )


# ---- ensembles ------------------------------------------------------------------------------------------------------


def test_a_bootstrap_draws_as_many_rows_as_there_are() -> None:
    assert (bootstrap(50, 4, np.random.default_rng(0)).sum(1) == 50).all()


def test_a_spread_too_narrow_for_its_errors_is_widened() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=200)
    predicted = target + rng.normal(size=200) + 0.5 * rng.normal(size=(8, 200))
    # errors of deviation about 1.02, members' spread of 0.5
    assert spread_factor(predicted, target, bootstrap(200, 8, rng)) == pytest.approx(2.1, rel=0.15)


def test_draws_of_an_ensemble_share_what_its_members_share() -> None:
    predicted = np.random.default_rng(0).normal(size=(8, 1)) + np.zeros((8, 2))
    draws = Spread(predicted, 1.0).draw(100, np.random.default_rng(1))
    np.testing.assert_allclose(draws[:, 0], draws[:, 1])


# ---- choice ---------------------------------------------------------------------------------------------------------


def test_of_rankers_that_do_not_differ_the_first_is_taken() -> None:
    first, second = Standing("first", (0.5, 0.7, 0.6)), Standing("second", (0.7, 0.5, 0.63))
    assert best([first, second]) == "first"


def test_a_ranker_that_is_ahead_in_every_fold_is_taken() -> None:
    first, second = Standing("first", (0.5, 0.7, 0.6)), Standing("second", (0.6, 0.82, 0.69))
    assert best([first, second]) == "second"
    assert second.mean == pytest.approx(0.7033, abs=1e-4)
    assert second.error == pytest.approx(0.0639, abs=1e-4)


def test_standings_say_how_each_ranker_did_in_each_fold() -> None:
    X = rows(60)
    found = standings(("ridge", "gaussian_process"), GENES, X, values_of(X), rng=np.random.default_rng(0))
    assert [standing.name for standing in found] == ["ridge", "gaussian_process"]
    assert all(len(standing.kendall) == 5 and 0.3 < standing.mean <= 1 for standing in found)


def test_too_few_rows_for_the_folds_are_an_error() -> None:
    with pytest.raises(ValueError, match="9 rows are too few for 5 folds: give 10 or more"):
        standings(("ridge",), GENES, rows(9), values_of(rows(9)), rng=np.random.default_rng(0))


def test_the_choice_says_on_what_grounds_it_was_made() -> None:
    auto = Auto(GENES, rng=np.random.default_rng(0))
    auto.fit(rows(10), values_of(rows(10)))
    assert auto.standings == ()
    auto.fit(rows(60), values_of(rows(60)))
    assert auto.name == best(auto.standings)
