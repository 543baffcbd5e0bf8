"""One training loop: it learns, it resumes bit for bit, and it says what is wrong with a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.engine import architecture as arch
from hwnas.engine import proxies
from hwnas.engine.evaluation.inherited import state_digest
from hwnas.engine.tasks import digits
from hwnas.engine.training import checkpoint as checkpoints
from hwnas.engine.training.checkpoint import CheckpointError, EpochRecord
from hwnas.engine.training.config import TrainingConfig
from hwnas.engine.training.standalone import Alone, accuracy_alone
from hwnas.engine.training.trainer import Trainer, learning_rate, shifted
from tests.engine.processes import killed
from tests.engine.test_spaces import made
from tests.engine.training_runs import dataset, trainer

TRAIN = """
import sys
from pathlib import Path
from tests.engine.test_spaces import made
from tests.engine.training_runs import dataset, trainer
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


STATEFUL = {
    "sampler": {"name": "gradual", "chains": 2},
    "criterion": ["cross_entropy", {"name": "feature_distillation", "teacher": "anchor", "projector": "linear",
                                    "taps": ["stages.0.0.project_norm"], "weight": 0.5, "ramp": 0.5}],
}  # fmt: skip


def test_what_a_sampler_and_a_criterion_remember_is_resumed(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", **STATEFUL)
    whole.run()
    first = trainer(tmp_path / "parts", **STATEFUL)

    def stop(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    first.on_epoch = stop
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = trainer(tmp_path / "parts", **STATEFUL)
    second.run()
    assert state_digest(second.supernet) == state_digest(whole.supernet)
    ends = [checkpoints.load(tmp_path / name) for name in ("whole", "parts")]
    assert ends[0] is not None
    assert ends[1] is not None
    assert ends[0].remembered == ends[1].remembered
    assert ends[0].remembered["criterion"] != {}
    assert all(torch.equal(ends[1].criterion[name], tensor) for name, tensor in ends[0].criterion.items())
    assert not torch.equal(*[torch.eye(16), next(iter(ends[0].criterion.values()))])  # the projection has learnt


def test_a_proxy_orders_the_pairs_of_a_training(tmp_path: Path) -> None:
    pairs = {"name": "sandwich", "pairs": 2, "prior": "zen"}
    job = trainer(tmp_path, sampler=pairs, criterion=["in_place_distillation", "pairwise_rank"])
    few = job.data.train
    score = proxies.make("zen", job.space, few.images[:16], few.labels[:16])
    rows = np.array([path.architecture for path in job.sampler().paths(0) if path.role == "pair"])
    costs = score(rows)
    assert (costs[::2] >= costs[1::2]).all()
    assert len(set(costs)) > 2
    assert len(job.run()) == 4
    with pytest.raises(LookupError, match=r"zen2.*naswot"):
        trainer(tmp_path, sampler={**pairs, "prior": "zen2"}).run()


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


# ---- what trains ----------------------------------------------------------------------------------------------------


def moved(job: Trainer) -> set[str]:
    """Names of the parameters that a training changes."""
    before = {name: parameter.detach().clone() for name, parameter in job.supernet.named_parameters()}
    job.run()
    return {name for name, parameter in job.supernet.named_parameters() if not torch.equal(before[name], parameter)}


def test_batch_norm_alone_may_train(tmp_path: Path) -> None:
    names = moved(trainer(tmp_path, made("chain"), epochs=1, largest_epochs=0, limit=150, trainable="batch_norm"))
    assert names
    assert all(".norm." in name for name in names)


def test_a_block_with_a_rate_of_nothing_stays_as_it_is(tmp_path: Path) -> None:
    names = moved(trainer(tmp_path, made("chain"), epochs=1, largest_epochs=0, limit=150, rates={"stem": 0.0}))
    assert not any(name.startswith("stem") for name in names)
    assert any(name.startswith("layers") for name in names)


def test_a_rate_for_a_block_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        trainer(tmp_path, made("chain"), epochs=1, limit=150, rates={"nowhere": 0.5}).run()


def test_progressive_blocks_leave_the_blocks_before_alone(tmp_path: Path) -> None:
    job = trainer(
        tmp_path,
        made("chain"),
        largest_epochs=0,
        limit=150,
        epochs=2,
        sampler={"name": "progressive_blocks", "blocks": ["s1", "s2"], "steps": job_steps(150), "freeze": True},
    )
    weights = {}

    def keep(record: EpochRecord) -> None:
        weights[record.epoch] = {name: p.detach().clone() for name, p in job.supernet.named_parameters()}

    job.on_epoch = keep
    job.run()
    moved_later = {name for name, tensor in weights[2].items() if not torch.equal(tensor, weights[1][name])}
    assert not any(name.startswith("layers.s1") for name in moved_later)
    assert any(name.startswith("layers.s2") for name in moved_later)


def job_steps(limit: int) -> int:
    """Steps an epoch of a training on so many images."""
    return len(dataset(limit).train) // 32


def test_a_block_that_cannot_be_frozen_is_named(tmp_path: Path) -> None:
    sampler = {"name": "progressive_blocks", "steps": 1, "freeze": True}
    with pytest.raises(ValueError, match="the sampler freezes 's1', and no module is called so"):
        trainer(tmp_path, made("mobilenet_v3"), epochs=1, largest_epochs=0, limit=150, sampler=sampler).run()


def test_a_network_trained_alone_learns_and_is_the_same_again() -> None:
    space, data = made("chain"), dataset(300)
    config = TrainingConfig(epochs=15, batch=32, shift=0)
    row = arch.extreme(space.genes, largest=True)
    first, again = (accuracy_alone(space, row, data, config, seed=0) for _ in range(2))
    assert first == again > 0.4  # ten classes: 0.1 is chance
    with pytest.raises(ValueError, match="trained alone is"):
        Alone(space, row).activate(arch.extreme(space.genes, largest=False))


def test_noise_makes_digits_harder_and_is_the_same_each_time() -> None:
    clean, noisy, again = (digits.load(digits.Config(noise=noise)).images for noise in (0.0, 0.25, 0.25))
    assert np.array_equal(noisy, again)
    assert 0.05 < float(np.abs(noisy - clean).mean()) < 0.25
    assert noisy.min() >= 0
    assert noisy.max() <= 1
