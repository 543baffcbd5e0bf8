from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr
from sklearn.metrics import ndcg_score

from hwnas.engine.architecture import FloatArray
from hwnas.engine.ranking import Relevance, figures_of, kendall, ndcg, precision, ranking_report, regret, spearman

SMALL = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=8)


def columns(pairs: list[tuple[int, int]]) -> tuple[FloatArray, FloatArray]:
    first, second = np.array(pairs, dtype=float).T
    return first, second


# ---- figures against others -----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(pairs=SMALL, seed=st.integers(0, 99))
def test_correlations_of_a_resample_are_those_of_its_rows(pairs: list[tuple[int, int]], seed: int) -> None:
    first, second = columns(pairs)
    n = len(first)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=4)
    for row, tau, rho in zip(counts, kendall(first, second, counts), spearman(first, second, counts), strict=True):
        picked = np.repeat(np.arange(n), row)
        if np.ptp(first[picked]) == 0 or np.ptp(second[picked]) == 0:
            assert tau == rho == 0
        else:
            assert tau == pytest.approx(kendalltau(first[picked], second[picked]).statistic)
            assert rho == pytest.approx(spearmanr(first[picked], second[picked]).statistic)


def test_pairs_compared_in_blocks_are_all_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 50))
    monkeypatch.setattr("hwnas.engine.ranking.PAIRS_AT_ONCE", 7 * 50)
    assert kendall(first, second, np.ones((1, 50), int))[0] == pytest.approx(kendalltau(first, second).statistic)


@settings(deadline=None, max_examples=100)
@given(pairs=SMALL, k=st.integers(1, 9))
def test_ndcg_is_scikit_learns_with_ties(pairs: list[tuple[int, int]], k: int) -> None:
    score, relevant = columns(pairs)
    expected = ndcg_score([relevant], [score], k=k) if relevant.any() else 0.0
    assert ndcg(score, relevant, k) == pytest.approx(expected)


@settings(deadline=None, max_examples=100)
@given(pairs=SMALL, k=st.integers(1, 9))
def test_regret_and_precision_are_their_means_over_every_order_of_equal_scores(
    pairs: list[tuple[int, int]], k: int
) -> None:
    score, gains = columns(pairs)
    k = min(k, len(score))
    last = np.sort(score)[::-1][k - 1]
    sure, border = np.flatnonzero(score > last), np.flatnonzero(score == last)
    tops = [[*sure, *some] for some in combinations(border, k - len(sure))]
    good = gains >= np.sort(gains)[::-1][k - 1]
    assert regret(score, gains, k) == pytest.approx(np.mean([gains.max() - gains[top].max() for top in tops]))
    assert precision(score, gains, k) == pytest.approx(np.mean([good[top].mean() for top in tops]))


def test_partial_tau_is_what_kendalls_formula_says() -> None:
    score, truth, macs = np.random.default_rng(0).normal(size=(3, 40)) + np.linspace(0, 2, 40)
    st_, sm, tm = (kendalltau(*pair).statistic for pair in ((score, truth), (score, macs), (truth, macs)))
    expected = (st_ - sm * tm) / np.sqrt((1 - sm**2) * (1 - tm**2))
    assert figures_of(score, truth, macs)["kendall_given_macs"][0] == pytest.approx(expected)


def test_a_score_that_is_the_macs_has_nothing_of_its_own() -> None:
    macs = np.arange(20.0)
    truth = macs + np.random.default_rng(0).normal(0, 5, 20)
    assert figures_of(macs, truth, macs)["kendall_given_macs"][0] == 0


def test_relevance_runs_from_the_lower_fifth_to_the_best() -> None:
    gains = np.arange(11.0)
    np.testing.assert_allclose(Relevance.of(gains)(np.array([-5.0, 2, 6, 10, 12])), [0, 0, 10, 20, 20])
    assert (Relevance.of(np.ones(4))(np.ones(4)) == 0).all()


# ---- report ---------------------------------------------------------------------------------------------------------


def noisy(seeds: int = 3, n: int = 60, noise: float = 0.5) -> tuple[FloatArray, FloatArray]:
    """Qualities (n,) and several noisy truths of them."""
    rng = np.random.default_rng(5)
    quality = rng.normal(size=n)
    return quality, quality + rng.normal(0, noise, (seeds, n))


def test_a_perfect_score_has_perfect_figures() -> None:
    _, truth = noisy(seeds=1)
    figures = ranking_report(truth[0], truth[0], bootstraps=50, rng=np.random.default_rng(0)).figures
    assert {name: figure.value for name, figure in figures.items()} == pytest.approx(
        {"kendall": 1, "spearman": 1, "ndcg_at_10": 1, "regret_at_10": 0, "top_tenth": 1}
    )


def test_a_random_score_has_the_figures_of_the_random_baseline() -> None:
    _, truth = noisy(seeds=1)
    score = np.random.default_rng(11).normal(size=60)
    report = ranking_report(score, truth, bootstraps=200, rng=np.random.default_rng(0))
    for name, figure in report.figures.items():
        random = report.baselines["random"][name]
        assert random.low <= figure.value <= random.high
    assert abs(report.baselines["random"]["kendall"].value) < 0.03
    assert report.ceiling is None


def test_errors_are_ranked_as_accuracies_are() -> None:
    quality, truth = noisy()
    gain = ranking_report(quality, truth, bootstraps=20, rng=np.random.default_rng(0))
    loss = ranking_report(-quality, -truth, bootstraps=20, higher_is_better=False, rng=np.random.default_rng(0))
    assert loss.figures == gain.figures
    assert loss.ceiling == gain.ceiling


def test_the_ceiling_is_one_seed_against_the_others() -> None:
    quality, truth = noisy(seeds=2)
    report = ranking_report(quality, truth, bootstraps=100, rng=np.random.default_rng(0))
    assert report.truths == 2
    assert report.ceiling is not None
    ceiling = report.ceiling["kendall"]
    assert ceiling.value == pytest.approx(kendalltau(truth[0], truth[1]).statistic)
    # what has no noise of its own orders the mean better than a noisy run another one
    assert report.figures["kendall"].value > ceiling.value


def test_an_interval_holds_the_correlation_of_the_population() -> None:
    """Of 100 samples of 40 about 95 intervals should; 85 leaves room for chance and for the small sample."""
    held = 0
    true_tau = 2 / np.pi * np.arcsin(0.6)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        a, b = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=40).T
        tau = kendall(a, b, rng.multinomial(40, np.full(40, 1 / 40), size=200))
        low, high = np.quantile(tau, [0.025, 0.975])
        held += bool(low <= true_tau <= high)
    assert held >= 85


def test_what_a_score_adds_to_macs_is_told_with_an_interval() -> None:
    quality, truth = noisy(noise=0.1)
    macs = quality + np.random.default_rng(0).normal(0, 3, 60)
    report = ranking_report(quality, truth, macs=macs, params=quality, bootstraps=200, rng=np.random.default_rng(0))
    assert report.ahead["macs"]["kendall"].excludes_zero
    assert report.ahead["params"]["kendall"].value == 0
    assert not report.ahead["params"]["kendall"].excludes_zero
    assert report.figures["kendall_given_macs"].value > 0.8
    gap = report.figures["kendall"].value - report.baselines["macs"]["kendall"].value
    assert report.ahead["macs"]["kendall"].value == pytest.approx(gap)


def test_a_seed_gives_the_same_report() -> None:
    quality, truth = noisy()
    one, two = (ranking_report(quality, truth, bootstraps=30, rng=np.random.default_rng(4)) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("score", "truth", "message"),
    [
        (np.zeros(4), np.zeros(5), r"score of shape \(4,\) for 5 architectures"),
        (np.array([0, np.nan, 1.0]), np.zeros(3), "score of architecture 1 is nan"),
        (np.zeros(3), np.array([0, np.inf, 1.0]), "give finite ones"),
        (np.zeros(2), np.zeros(2), "2 architectures have no order"),
    ],
)
def test_input_that_has_no_order_is_an_error(score: FloatArray, truth: FloatArray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ranking_report(score, truth, rng=np.random.default_rng(0))
