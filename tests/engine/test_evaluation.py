"""Accuracy from inherited weights: recalibrated, journalled, never computed twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.engine import architecture as arch
from hwnas.engine.evaluation.batchnorm import recalibrate
from hwnas.engine.evaluation.inherited import InheritedAccuracy, accuracy, state_digest
from hwnas.engine.journal import Journal, JournalError
from tests.engine.training_runs import SPACE, dataset


def _evaluator(path: Path, calls: list[arch.Architecture] | None = None) -> InheritedAccuracy:
    torch.manual_seed(1)
    note = None if calls is None else lambda architecture, _: calls.append(architecture)
    journal = Journal(f"sqlite:///{path / 'journal.sqlite'}")
    return InheritedAccuracy(SPACE, SPACE.supernet().eval(), dataset(), journal, calibration=64, on_evaluation=note)


@torch.no_grad()
def test_recalibrated_statistics_are_those_of_the_data() -> None:
    norm = nn.BatchNorm2d(2)
    images = torch.randn(64, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 5
    recalibrate(norm, images.split(16))
    assert torch.allclose(norm.running_mean, images.mean((0, 2, 3)), atol=1e-4)
    expected = torch.stack([part.var((0, 2, 3)) for part in images.split(16)]).mean(0)
    assert torch.allclose(norm.running_var, expected, rtol=1e-4)


@torch.no_grad()
def test_the_order_of_the_batches_does_not_matter() -> None:
    batches = list(torch.randn(40, 2, 4, 4).split(10))
    first, second = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    recalibrate(first, batches)
    recalibrate(second, batches[::-1])
    assert torch.allclose(first.running_mean, second.running_mean, atol=1e-6)


def test_a_network_without_batchnorm_is_left_alone() -> None:
    network = nn.Linear(2, 2).train()
    before = state_digest(network)
    assert not recalibrate(network, [torch.zeros(1, 2)]).training
    assert state_digest(network) == before


def test_the_recalibrated_supernet_equals_the_recalibrated_subnet(tmp_path: Path) -> None:
    evaluator = _evaluator(tmp_path)
    images = evaluator.data.validation.images[:8]
    for row in arch.sample(SPACE.genes, 5, np.random.default_rng(0)):
        architecture = arch.to_architecture(row)
        with torch.no_grad():
            expected = evaluator.reference(architecture)(images)
            found = evaluator.subnet(architecture)(images)
        assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


def test_accuracy_is_the_share_of_right_answers() -> None:
    split = dataset().validation

    class Oracle(nn.Module):
        start = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            labels = split.labels[self.start : self.start + len(images)]
            self.start += len(images)
            return nn.functional.one_hot((labels + (torch.arange(len(labels)) % 4 == 0)) % 10, 10).float()

    expected = 1 - np.ceil(len(split) / 4) / len(split)
    assert accuracy(Oracle(), split, resolution=8, batch=len(split)) == pytest.approx(expected)


def test_nothing_is_computed_twice(tmp_path: Path) -> None:
    calls: list[arch.Architecture] = []
    X = arch.sample(SPACE.genes, 6, np.random.default_rng(0))
    first = _evaluator(tmp_path, calls).errors(np.concatenate([X, X]))
    distinct = len({arch.to_architecture(row) for row in X})
    assert len(calls) == distinct
    assert (_evaluator(tmp_path, calls).errors(X) == first[:6]).all()
    assert len(calls) == distinct


def test_rows_asked_together_have_the_accuracies_they_have_alone(tmp_path: Path) -> None:
    evaluator = _evaluator(tmp_path)
    X = np.unique(arch.sample(SPACE.genes, 16, np.random.default_rng(2)), axis=0)
    alone = [evaluator.accuracy(arch.to_architecture(row), evaluator.data.validation) for row in X]
    found = [evaluator.errors(X[:8]), evaluator.errors(X[8:])]  # the second half finds what the first has left
    assert (np.concatenate(found) == 1 - np.array(alone)).all()


def test_what_was_evaluated_before_an_interruption_is_kept(tmp_path: Path) -> None:
    done: list[arch.Architecture] = []

    def interrupt(architecture: arch.Architecture, _: float) -> None:
        done.append(architecture)
        if len(done) == 3:
            raise KeyboardInterrupt

    X = np.unique(arch.sample(SPACE.genes, 8, np.random.default_rng(0)), axis=0)
    with pytest.raises(KeyboardInterrupt):
        replace(_evaluator(tmp_path), on_evaluation=interrupt).errors(X)
    calls: list[arch.Architecture] = []
    again = _evaluator(tmp_path, calls)
    assert len(again.journal.read(again.context, "accuracy", done)) == 3
    again.errors(X)
    assert len(calls) == len(X) - 3


def test_what_was_kept_of_other_weights_is_not_used(tmp_path: Path) -> None:
    evaluator = _evaluator(tmp_path)
    X = arch.sample(SPACE.genes, 4, np.random.default_rng(0))
    evaluator.errors(X)
    with torch.no_grad():
        evaluator.supernet.stem.conv.weight.neg_()
    row = arch.to_architecture(X[0])
    expected = evaluator.accuracy(row, evaluator.data.validation)
    assert evaluator.errors(X)[0] == 1 - expected


def test_another_supernet_is_another_context(tmp_path: Path) -> None:
    evaluator = _evaluator(tmp_path)
    before = evaluator.context
    nn.init.ones_(evaluator.supernet.classify.bias)
    assert evaluator.context != before


# ---- journal --------------------------------------------------------------------------------------------------------


def test_a_journal_answers_what_was_written(tmp_path: Path) -> None:
    journal = Journal(f"sqlite:///{tmp_path / 'j.sqlite'}")
    journal.write("a", "accuracy", (0, 1), 0.5)
    journal.write("b", "accuracy", (0, 1), 0.25)
    assert journal.read("a", "accuracy", [(0, 1), (1, 1)]) == {(0, 1): 0.5}
    assert journal.count() == 2


def test_a_value_written_twice_stays_as_it_was(tmp_path: Path) -> None:
    journal = Journal(f"sqlite:///{tmp_path / 'j.sqlite'}")
    journal.write("a", "accuracy", (0, 1), 0.5)
    journal.write("a", "accuracy", (0, 1), 0.75)
    assert journal.read("a", "accuracy", [(0, 1)]) == {(0, 1): 0.5}
    assert journal.count() == 1


def test_many_architectures_are_read_at_once(tmp_path: Path) -> None:
    journal = Journal(f"sqlite:///{tmp_path / 'j.sqlite'}")
    asked = [(i // 100, i % 100) for i in range(1200)]
    journal.write("a", "accuracy", asked[-1], 1.0)
    assert journal.read("a", "accuracy", asked) == {asked[-1]: 1.0}


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    path.write_text("not a database, but long enough to be read as one " * 40)
    with pytest.raises(JournalError, match=r"j.sqlite: .*move the file away"):
        Journal(f"sqlite:///{path}")
