"""Objectives by name: what they hold, and what is said of names that mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm
from torch import nn

from hwnas.devices.costs import macs, params, weight_bytes
from hwnas.engine import architecture as arch
from hwnas.engine.additive import AdditiveCost
from hwnas.engine.architecture import FloatArray, IntArray
from hwnas.engine.evaluation.complexity import block_activation_mib, block_macs
from hwnas.engine.objective import Quantity
from hwnas.engine.objectives import Estimate, Predicted, estimate
from hwnas.latency import Block
from tests.engine.spaces import mobilenet

SPACE = mobilenet()
X = arch.sample(SPACE.genes, 12, np.random.default_rng(0))


class Sources(SimpleNamespace):
    """A device that takes a millisecond a thousand MACs, 2 % off, with a tail of a tenth."""

    space = SPACE
    validation = 100

    def errors(self, X: IntArray) -> FloatArray:
        return np.full(len(X), 0.1)

    def sums(self, cost: Callable[[Block], float]) -> AdditiveCost:
        return AdditiveCost.of(SPACE, cost)

    def latency(self, device: str, percentile: int | None) -> Predicted:
        assert device == "pi"
        factor = 1.0 if percentile is None else 1.1
        per_mac = AdditiveCost.of(SPACE, lambda block: block_macs(block) / 1000)
        return Predicted(per_mac, lambda s: factor * s, lambda s, _: 0.02 * factor * s, degrees=inf)

    def energy(self, device: str) -> Predicted:
        raise LookupError(f"no energy on {device}")


def built(text: str) -> Estimate:
    return estimate(Sources(), Quantity.parse(text))


def networks() -> list[nn.Module]:
    supernet = SPACE.supernet().eval()
    return [supernet.subnet(arch.to_architecture(row)) for row in X]


def test_macs_params_and_weights_are_those_of_the_whole_network() -> None:
    shapes = [(1, *SPACE.input_shape(arch.to_architecture(row))) for row in X]
    whole = networks()
    found = {name: built(name).objective.costs(X) for name in ("macs", "params", "weight_mib")}
    assert found["macs"].tolist() == [macs(network, shape) for network, shape in zip(whole, shapes, strict=True)]
    assert found["params"].tolist() == [params(network) for network in whole]
    assert found["weight_mib"] * 2**20 == pytest.approx([weight_bytes(network) for network in whole])


def test_peak_memory_is_the_weights_and_the_widest_block() -> None:
    peak, weights = built("peak_memory_mib").objective.costs(X), built("weight_mib").objective.costs(X)
    widest = [max(map(block_activation_mib, arch.blocks(SPACE, arch.to_architecture(row)))) for row in X]
    assert peak - weights == pytest.approx(widest)


def test_a_block_holds_its_input_and_its_output_at_least() -> None:
    for block in arch.every_block(SPACE)[:20]:
        (shape,) = block.inputs
        assert block_activation_mib(block) * 2**20 >= 4 * np.prod(shape)


def test_accuracy_is_minimised_inside_and_has_its_binomial_error() -> None:
    accuracy = built("accuracy").objective
    assert accuracy.shown(accuracy.costs(X)) == pytest.approx(0.9)
    assert accuracy.deviations is not None
    assert accuracy.deviations(X) == pytest.approx(np.sqrt(0.1 * 0.9 / 100), rel=0.1)


def test_a_share_of_all_or_nothing_has_an_error_too() -> None:
    from hwnas.engine.objectives.accuracy import share_error

    assert (share_error(np.array([0.0, 1.0]), 50) > 0.01).all()


def test_a_tail_is_longer_than_a_typical_run() -> None:
    typical, tail = (built(text).objective.costs(X) for text in ("latency_ms@pi", "latency_ms@pi:p99"))
    assert tail == pytest.approx(1.1 * typical)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_the_bound_lies_the_normal_quantile_above_a_well_known_prediction(confidence: float) -> None:
    latency = built("latency_ms@pi")
    expected = (1 + 0.02 * norm.ppf(confidence)) * latency.objective.costs(X)
    assert latency.bound(confidence)(X) == pytest.approx(expected)


def test_few_networks_widen_the_bound() -> None:
    known = built("latency_ms@pi")
    assert known.predicted is not None
    vague = Predicted(known.predicted.additive, known.predicted.mean, known.predicted.std, degrees=4)
    of_few = Estimate.of_prediction(Quantity("latency_ms", "pi"), "ms", vague)
    assert (of_few.bound(0.95)(X) > known.bound(0.95)(X)).all()


def test_no_bound_lies_below_the_least() -> None:
    every = arch.sample(SPACE.genes, 2000, np.random.default_rng(1))
    for text in ("latency_ms@pi:p90", "macs", "peak_memory_mib"):
        found = built(text)
        least = found.least(0.95)
        assert least is not None
        assert found.bound(0.95)(every).min() >= least[1] - 1e-9
    cheapest, value = built("latency_ms@pi").least(0.95) or ((), 0.0)
    assert built("latency_ms@pi").bound(0.95)(np.array([cheapest]))[0] == pytest.approx(value)


def test_a_network_that_cannot_run_costs_infinitely_much() -> None:
    failing = AdditiveCost.of(SPACE, lambda block: np.inf)
    exact = Predicted(failing, lambda s: s, lambda s, _: 0.0 * s)
    found = Estimate.of_prediction(Quantity("latency_ms", "pi"), "ms", exact)
    assert found.bound(0.95)(X).tolist() == [inf] * len(X)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("speed", "no objective is called 'speed': choose from accuracy, energy_mj, latency_ms, macs"),
        ("macs@pi", "the same on every device"),
        ("energy_mj@pi:p90", "no percentiles: leave ':p90' out"),
    ],
)
def test_a_name_that_means_nothing_is_told_what_it_could_be(text: str, complaint: str) -> None:
    with pytest.raises(LookupError, match=complaint):
        built(text)


@pytest.mark.parametrize("text", ["", "latency ms", "latency_ms@", "latency_ms:p42", "latency_ms:max", "a@b@c"])
def test_text_that_names_no_quantity_shows_the_form_of_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"METRIC@DEVICE:p99"):
        Quantity.parse(text)


@pytest.mark.parametrize("text", ["accuracy", "latency_ms@model-systolic-16x16", "latency_ms@pi.2:p99", "macs"])
def test_a_quantity_is_written_as_it_is_read(text: str) -> None:
    assert str(Quantity.parse(text)) == text


def test_the_mean_and_the_median_are_the_typical_run() -> None:
    assert Quantity.parse("latency_ms@pi:mean") == Quantity.parse("latency_ms@pi:p50") == Quantity("latency_ms", "pi")


def test_a_quantity_without_a_device_is_that_of_the_device_asked_for() -> None:
    assert Quantity("latency_ms").on("pi") == Quantity("latency_ms", "pi")
    assert Quantity("latency_ms", "host").on("pi") == Quantity("latency_ms", "host")
