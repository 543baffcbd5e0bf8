"""One training loop: it learns, it resumes bit for bit, and it says what is wrong with a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.devices.plugins import load_plugin, plugin_names
from hwnas.engine import architecture as arch
from hwnas.engine.evaluation.inherited import state_digest
from hwnas.engine.training import checkpoint as checkpoints
from hwnas.engine.training import criteria, samplers
from hwnas.engine.training.checkpoint import CheckpointError
from hwnas.engine.training.criteria.in_place_distillation import InPlaceDistillation
from hwnas.engine.training.trainer import TrainingConfig, learning_rate, shifted
from tests.engine.processes import killed
from tests.engine.training_runs import SPACE, trainer

TRAIN = """
import sys
from pathlib import Path
from tests.engine.training_runs import trainer
job = trainer(Path(sys.argv[1]))
job.on_epoch = lambda record: print("epoch", record.epoch, flush=True)
job.run()
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An uninterrupted training: its folder and the digest of its weights."""
    folder = tmp_path_factory.mktemp("whole")
    job = trainer(folder)
    job.run()
    return folder, state_digest(job.supernet)


def test_training_teaches_the_largest_network(tmp_path: Path) -> None:
    history = trainer(tmp_path, epochs=25, evaluate_every=25).run()
    assert history[-1].accuracy_largest is not None
    assert history[-1].accuracy_largest > 0.3  # ten classes: 0.1 is chance
    assert [record.epoch for record in history] == list(range(1, 26))


def test_a_killed_training_ends_in_the_weights_of_an_unbroken_one(whole: tuple[Path, str], tmp_path: Path) -> None:
    killed(TRAIN, tmp_path, at="epoch 2")
    job = trainer(tmp_path)
    history = job.run()
    assert [record.epoch for record in history] == [1, 2, 3, 4]
    assert state_digest(job.supernet) == whole[1]


def test_a_finished_training_is_not_trained_again(whole: tuple[Path, str]) -> None:
    epochs: list[int] = []
    job = trainer(whole[0])
    job.on_epoch = lambda record: epochs.append(record.epoch)
    job.run()
    assert epochs == []
    assert state_digest(job.supernet) == whole[1]


def test_one_checkpoint_is_kept(whole: tuple[Path, str]) -> None:
    assert sorted(path.name for path in whole[0].iterdir()) == ["checkpoint.json", "epoch-0004.safetensors"]


def test_other_settings_do_not_continue_a_checkpoint(whole: tuple[Path, str]) -> None:
    with pytest.raises(CheckpointError, match="a checkpoint of other settings"):
        trainer(whole[0], learning_rate=0.01).run()


def test_a_corrupt_checkpoint_is_named(whole: tuple[Path, str], tmp_path: Path) -> None:
    for path in whole[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = tmp_path / "epoch-0004.safetensors"
    damaged = bytearray(tensors.read_bytes())
    damaged[-5] ^= 1
    tensors.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"epoch-0004.safetensors: corrupt.*train again"):
        trainer(tmp_path).run()


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"epoch": 3})])
def test_half_an_index_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "checkpoint.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"checkpoint.json: not a whole checkpoint"):
        checkpoints.load(tmp_path)


def test_a_loss_that_explodes_is_an_error(tmp_path: Path) -> None:
    job = trainer(tmp_path)
    nn.init.constant_(job.supernet.classify.bias, float("nan"))
    with pytest.raises(FloatingPointError, match=r"learning_rate=0.1: lower it"):
        job.run()


# ---- contracts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", plugin_names(samplers))
def test_a_sampler_draws_the_same_at_the_same_step(name: str) -> None:
    first, second = (load_plugin(samplers, name).build(SPACE.genes, seed=3) for _ in range(2))
    first.paths(0)  # what was drawn before does not matter
    assert first.paths(7) == second.paths(7)
    assert first.paths(7) != first.paths(8)


@pytest.mark.parametrize("name", plugin_names(samplers))
def test_a_sampler_draws_architectures_of_the_space(name: str) -> None:
    mask = [[gene.name != "s1.width" or i == 0 for i in range(len(gene.options))] for gene in SPACE.genes]
    genes = arch.restrict(SPACE.genes, mask)
    sampler = load_plugin(samplers, name).build(genes, seed=0)
    width = [gene.name for gene in genes].index("s1.width")
    for step in range(20):
        for path in sampler.paths(step):
            assert arch.check(genes, path.architecture)[width] == 0


def test_the_sandwich_begins_with_the_largest() -> None:
    paths = load_plugin(samplers, "sandwich").build(SPACE.genes, seed=0).paths(0)
    assert [path.role for path in paths] == ["largest", "smallest", "random", "random"]
    assert paths[0].architecture == arch.extreme(SPACE.genes, largest=True)
    assert paths[1].architecture == arch.extreme(SPACE.genes, largest=False)


@pytest.mark.parametrize("name", plugin_names(criteria))
def test_a_criterion_gives_a_gradient_to_the_student_alone(name: str) -> None:
    logits = torch.randn(5, 3, requires_grad=True)
    teacher = torch.randn(5, 3, requires_grad=True)
    criterion = load_plugin(criteria, name).build(label_smoothing=0.1)
    for role in ("largest", "smallest", "random"):
        loss = criterion(logits, torch.tensor([0, 1, 2, 0, 1]), role=role, teacher=teacher.detach())
        loss.backward()
        assert loss.dim() == 0
        assert logits.grad is not None
        assert teacher.grad is None


def test_distillation_is_least_where_the_student_agrees() -> None:
    teacher = torch.tensor([[2.0, 0.0, -1.0]])
    criterion = InPlaceDistillation(label_smoothing=0.0)
    labels = torch.tensor([2])

    def loss(logits: list[float]) -> float:
        return float(criterion(torch.tensor([logits]), labels, role="random", teacher=teacher))

    assert loss([2.0, 0.0, -1.0]) < min(loss([3.0, 0.0, -1.0]), loss([0.0, 0.0, 5.0]))


def test_the_rate_rises_then_falls_to_zero() -> None:
    config = TrainingConfig(epochs=10, warmup_epochs=2, learning_rate=0.4)
    rates = [learning_rate(config, epoch) for epoch in np.linspace(0, 10, 101)]
    assert max(rates) == pytest.approx(0.4)
    assert int(np.argmax(rates)) == 20
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)


def test_a_shift_of_nothing_changes_nothing() -> None:
    images = torch.randn(3, 1, 5, 5)
    assert torch.equal(shifted(images, np.full((3, 2), 2), 2), images)
    moved = shifted(images, np.array([[3, 2]] * 3), 2)
    assert torch.equal(moved[:, :, :-1], images[:, :, 1:])
