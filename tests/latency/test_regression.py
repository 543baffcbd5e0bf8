from __future__ import annotations

import numpy as np
import pytest

from hwnas.latency.predictors import FloatArray
from hwnas.latency.predictors._regression import Regression, View

LINE = (View((1.0,)), View((0.0, 0.3, 3.0), scaled=False))


def _networks(rng: np.random.Generator, n: int, *, noise: float) -> tuple[list[FloatArray], FloatArray]:
    """Twelve places of four options, whose times their MACs do not tell; MACs, indicators and ms."""
    chosen = rng.integers(0, 4, (n, 12))
    parts = np.hstack([(chosen == option) for option in range(4)]).astype(float)
    macs = (chosen + 1.0) @ np.linspace(1, 3, 12)
    truth = 5 + 0.2 * macs + 3 * (chosen[:, :6] == 2).sum(1)
    return [macs[:, None], parts], truth * np.exp(noise * rng.normal(size=n))


def _error(model: Regression, inputs: list[FloatArray], latency_ms: FloatArray) -> float:
    return float(np.mean(np.abs(model.predict(inputs)[0] / latency_ms - 1)))


def test_what_parts_explain_is_found_beside_the_costs() -> None:
    rng = np.random.default_rng(0)
    inputs, latency_ms = _networks(rng, 60, noise=0.01)
    unseen, truth = _networks(rng, 400, noise=0)
    costs_alone = Regression((View((1.0,)),)).fit(inputs[:1], latency_ms)
    assert _error(Regression(LINE).fit(inputs, latency_ms), unseen, truth) < 0.02
    assert _error(costs_alone, unseen[:1], truth) > 0.08


def test_few_measurements_fall_back_on_the_costs() -> None:
    rng = np.random.default_rng(1)
    macs, parts = rng.uniform(1, 10, (200, 1)), rng.integers(0, 2, (200, 40)).astype(float)
    latency_ms = 2 + macs[:, 0]
    model = Regression(LINE).fit([macs[:8], parts[:8]], latency_ms[:8])
    assert _error(model, [macs, parts], latency_ms) < 0.03


@pytest.mark.parametrize("log", [False, True])
def test_the_deviation_covers_what_it_says(log: bool) -> None:
    inside = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        inputs, latency_ms = _networks(rng, 130, noise=0.05)
        model = Regression(LINE, log=log).fit([rows[:30] for rows in inputs], latency_ms[:30])
        mean, std = model.predict([rows[30:] for rows in inputs])
        inside += list(np.abs(mean - latency_ms[30:]) <= 1.645 * std)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("log", [False, True])
def test_left_out_errors_are_those_of_a_slow_refit(log: bool) -> None:
    inputs, latency_ms = _networks(np.random.default_rng(3), 12, noise=0.1)
    fixed = (View((1.0,), scaled=False), View((0.3,), scaled=False))
    model = Regression(fixed, log=log).fit(inputs, latency_ms)
    errors, _ = model.left_out()
    slow = []
    for i in range(12):
        kept = np.arange(12) != i
        refit = Regression(fixed, log=log).fit([rows[kept] for rows in inputs], latency_ms[kept])
        mean, _ = refit.predict([rows[[i]] for rows in inputs])
        slow.append(np.log(mean[0] / latency_ms[i]) if log else mean[0] / latency_ms[i] - 1)
    # noise is chosen anew without the row, so equal they are not
    assert np.corrcoef(errors, slow)[0, 1] > 0.9
    assert np.mean(np.abs(errors)) == pytest.approx(np.mean(np.abs(slow)), rel=0.3)


def test_a_latency_is_never_predicted_at_or_below_zero() -> None:
    macs = np.array([[10.0], [20.0], [30.0], [40.0]])
    model = Regression((View((1.0,)),)).fit([macs], np.array([1.0, 2.0, 3.0, 4.0]))
    assert np.all(model.predict([np.array([[-1000.0], [0.0]])])[0] > 0)


@pytest.mark.parametrize("latency_ms", [[1.0], [1.0, 0.0], [1.0, -2.0]])
def test_latencies_of_nothing_are_refused(latency_ms: list[float]) -> None:
    with pytest.raises(ValueError, match="all above 0"):
        Regression((View((1.0,)),)).fit([np.ones((len(latency_ms), 1))], np.array(latency_ms))
