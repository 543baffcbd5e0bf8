from __future__ import annotations

import numpy as np
import pytest

from hwnas.latency.predictors import FloatArray
from hwnas.latency.predictors._shared import FEWEST, SharedResidual


def _references(seed: int = 0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Predictions for 500 networks on 5 references, what they took there, and without the references' own noise."""
    rng = np.random.default_rng(seed)
    predicted = np.exp(rng.normal(size=(500, 5)))
    # three references share a surprise, two have noise alone
    shared = np.outer(rng.normal(size=500), [0.05, 0.03, 0.1, 0.0, 0.0])
    return predicted, predicted * np.exp(shared + 0.05 * rng.normal(size=(500, 5))), predicted * np.exp(shared)


def _error(found: FloatArray, truth: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.log(found / truth) ** 2)))


def test_what_references_share_is_told_from_their_noise() -> None:
    predicted, measured, truth = _references()
    found = SharedResidual.of(predicted, measured)(predicted, measured)
    alike, alone = slice(0, 3), slice(3, 5)
    assert _error(found[:, alike], truth[:, alike]) < 0.7 * _error(predicted[:, alike], truth[:, alike])
    assert _error(found[:, alike], truth[:, alike]) < 0.8 * _error(measured[:, alike], truth[:, alike])
    assert _error(found[:, alone], truth[:, alone]) < 0.01


def test_networks_and_references_that_were_not_measured_stay_as_predicted() -> None:
    predicted, measured, _ = _references()
    measured[:50] = np.nan
    measured[FEWEST - 1 + 50 :, 4] = np.nan  # one network too few on the last
    model = SharedResidual.of(predicted, measured)
    found = model(predicted, measured)
    np.testing.assert_array_equal(found[:50], predicted[:50])
    np.testing.assert_array_equal(found[:, 4], predicted[:, 4])
    assert not np.allclose(found[50:, :3], predicted[50:, :3])


def test_a_network_measured_on_one_reference_alone_says_something_of_the_others() -> None:
    predicted, measured, _ = _references()
    model = SharedResidual.of(predicted, measured)
    once = np.full((1, 5), np.nan)
    once[0, 2] = 1.3 * predicted[0, 2]
    ratio = (model(predicted[:1], once) / predicted[:1])[0]
    assert ratio[2] > ratio[0] > 1.0


@pytest.mark.parametrize("references", [1, 2])
def test_measurements_that_are_as_predicted_change_nothing(references: int) -> None:
    predicted = _references()[0][:, :references]
    found = SharedResidual.of(predicted, 3 * predicted)(predicted, 3 * predicted)
    np.testing.assert_allclose(found, predicted)
