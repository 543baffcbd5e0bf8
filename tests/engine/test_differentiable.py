"""Gradient searches: draws follow their law, gradients are those of the formulas, and a search finds what is better."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hwnas.engine.architecture import Gene
from hwnas.engine.dataset import Split
from hwnas.engine.spaces.cell import CellSpace, CellSupernet, Config, build
from hwnas.engine.training.differentiable import DifferentiableConfig, DifferentiableSearch
from hwnas.engine.training.differentiable.relaxation import SubGraph, gumbel_top_k, union, whole_mixture
from hwnas.engine.training.differentiable.search import divergence
from tests.engine.toy_spaces import ToySpace

seeds = st.integers(0, 2**31 - 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cells(*, affine: bool = True, operations: tuple[str, ...] = ("none", "skip", "conv3x3")) -> CellSpace:
    config = Config(resolution=6, operations=operations, channels=4, stages=1, cells=1, affine=affine)  # type: ignore[arg-type]
    return build(config, in_channels=1, classes=2)


def edges_at(size: int = 64, seed: int = 0) -> Split:
    """Images whose class is where their bright column is: local, so that convolutions see it and skips do not."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, size)
    images = rng.normal(scale=0.3, size=(size, 1, 6, 6))
    images[:, 0, :, 1] += np.where(labels == 0, 1.0, -1.0)[:, None]
    images[:, 0, :, 2] -= np.where(labels == 0, 1.0, -1.0)[:, None]
    return Split(torch.from_numpy(images.astype(np.float32)), torch.from_numpy(labels))


def searched(space: CellSpace, **settings: object) -> DifferentiableSearch:
    config = DifferentiableConfig(**{"epochs": 2, "batch": 16, "policy_learning_rate": 0.05, **settings})  # type: ignore[arg-type]
    torch.manual_seed(0)
    return DifferentiableSearch(space, space.supernet(), edges_at(), config)


# ---- draws ----------------------------------------------------------------------------------------------------------


def test_ordered_pairs_follow_plackett_and_luce() -> None:
    logits = torch.tensor([1.0, 0.0, -0.5, 0.3, -2.0])
    edges = logits.repeat(20_000, 1)
    pair = gumbel_top_k(edges, torch.ones_like(edges, dtype=torch.bool), 2, temperature=1, generator=generator())
    found = np.zeros((5, 5))
    np.add.at(found, tuple(np.array([row[0] for row in drawn.executed]) for drawn in pair), 1 / 20_000)
    p = logits.softmax(0).double().numpy()
    expected = p[:, None] * p[None] / (1 - p[:, None])
    np.fill_diagonal(expected, 0)
    assert np.abs(found - expected).max() < 0.012  # four standard errors of a share of a quarter


@settings(max_examples=30, deadline=None)
@given(seed=seeds, k=st.integers(1, 4))
def test_sub_graphs_share_no_option_and_masked_ones_are_never_drawn(seed: int, k: int) -> None:
    allowed = torch.ones(3, 5, dtype=torch.bool)
    allowed[1, 2] = False
    drawn = gumbel_top_k(torch.zeros(3, 5), allowed, k, temperature=1, generator=generator(seed))
    for edge in range(3):
        options = [sub_graph.executed[edge][0] for sub_graph in drawn]
        assert len(set(options)) == k
        assert all(allowed[edge, option] for option in options)


def test_an_edge_of_fewer_options_begins_anew() -> None:
    allowed = torch.tensor([[True, True, True], [False, True, False]])
    drawn = gumbel_top_k(torch.zeros(2, 3), allowed, 4, temperature=1, generator=generator())
    assert {s.executed[0] for s in drawn[:3]} == {(0,), (1,), (2,)}
    assert [s.executed[1] for s in drawn] == [(1,)] * 4


def test_weights_are_one_hot_forward_and_the_remaining_softmax_backward() -> None:
    logits = torch.tensor([[0.5, -0.2, 0.1]], requires_grad=True)
    allowed = torch.ones(1, 3, dtype=torch.bool)
    _, second = gumbel_top_k(logits, allowed, 2, temperature=2.0, generator=generator(3))
    first_option = gumbel_top_k(logits, allowed, 1, temperature=2.0, generator=generator(3))[0].executed[0][0]
    (option,) = second.executed[0]
    assert second.weights[0].tolist() == pytest.approx(np.eye(3)[option].tolist())
    second.weights[0, option].backward()
    # by hand: softmax at temperature 2 of the logits plus the same noise, without the first option
    uniform = torch.rand((1, 3), generator=generator(3), dtype=torch.float64)
    scores = (logits.detach().log_softmax(1) - (-uniform.log()).log()) / 2.0
    scores[0, first_option] = -torch.inf
    soft = scores.softmax(1)[0]
    expected = [float(soft[option] * (float(j == option) - soft[j]) / 2.0) for j in range(3)]
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_union_weighs_what_was_drawn_and_nothing_else() -> None:
    logits, allowed = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True), torch.ones(1, 3, dtype=torch.bool)
    both = union([SubGraph(logits, ((0,),)), SubGraph(logits, ((2,),))], logits, allowed)
    assert both.executed == ((0, 2),)
    assert both.weights[0].tolist() == pytest.approx([1 / (1 + np.e**2), 0, np.e**2 / (1 + np.e**2)])
    assert not both.weights.requires_grad


# ---- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paths", [None, 1, 3])
def test_the_policys_gradient_is_the_one_of_all_losses_together(paths: int | None) -> None:
    job = searched(cells(), paths=paths)
    images, labels = job.images.images[:16], job.images.labels[:16]
    job.begin()
    job.policy_gradient(images, labels, progress=0.0)
    one_by_one = job.logits.grad
    assert one_by_one is not None
    # the same draw, one graph, one backward
    job.begin()
    network = job.supernet.train()
    drawn = job.sub_graphs(0.0)
    losses = [
        nn.functional.cross_entropy(network.mixture(images, s.weights, executed=s.executed), labels)  # type: ignore[operator]
        for s in drawn
    ]
    (together,) = torch.autograd.grad(torch.stack(losses).mean(), job.logits)
    assert torch.allclose(one_by_one, together, atol=1e-6)
    assert float(together.abs().sum()) > 0


def test_divergence_is_zero_where_both_agree_and_does_not_depend_on_classes_or_batch_size() -> None:
    teacher = torch.tensor([[2.0, 0.0, -1.0]])
    assert float(divergence(teacher, teacher, temperature=2)) == pytest.approx(0, abs=1e-6)
    student = torch.tensor([[0.0, 0.0, 0.0]])
    p, q = (teacher / 2).softmax(1), torch.full((1, 3), 1 / 3)
    by_hand = 4 * float((p * (p / q).log()).sum())
    assert float(divergence(student, teacher, temperature=2)) == pytest.approx(by_hand)
    many = divergence(student.repeat(7, 1), teacher.repeat(7, 1), temperature=2)
    assert float(many) == pytest.approx(by_hand)


class Alive:
    """Bytes of activations that autograd keeps, at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def pack(self, tensor: Tensor) -> _Held:
        held = _Held(tensor, self)
        self.now += held.nbytes
        self.most = max(self.most, self.now)
        return held


class _Held:
    def __init__(self, tensor: Tensor, count: Alive) -> None:
        # detached: an output that knew its graph would keep it alive for ever
        self.tensor, self.count = tensor.detach(), count
        self.nbytes = 0 if isinstance(tensor, nn.Parameter) else tensor.nbytes

    def __del__(self) -> None:
        self.count.now -= self.nbytes


def test_more_sub_graphs_keep_no_more_activations_alive() -> None:
    space = cells(operations=("conv1x1", "conv3x3"))  # they keep the same
    peaks = []
    for paths in (1, 2):
        job, alive = searched(space, paths=paths, epochs=1), Alive()
        with torch.autograd.graph.saved_tensors_hooks(alive.pack, lambda held: held.tensor):
            job.run()
        peaks.append(alive.most)
    mixture, alive = searched(space, epochs=1), Alive()
    with torch.autograd.graph.saved_tensors_hooks(alive.pack, lambda held: held.tensor):
        mixture.run()
    assert peaks[1] < 1.02 * peaks[0]  # the logits' own small graph
    assert alive.most > 1.5 * peaks[0]


# ---- searches -------------------------------------------------------------------------------------------------------

ARMS: dict[str, dict[str, object]] = {
    "darts": {},
    "gdas": {"paths": 1},
    "sub_graphs": {"paths": 2, "drop_block": 0.3, "distillation": 1.0, "distillation_start": 0.0},
    "random_features": {"trainable": "batch_norm"},
}


@pytest.mark.parametrize("arm", ARMS)
def test_a_search_repeats_itself_and_says_how_it_stands(arm: str) -> None:
    histories = [searched(cells(), **ARMS[arm]).run() for _ in range(2)]
    assert histories[0] == histories[1]
    assert [record.epoch for record in histories[0]] == [1, 2]
    assert histories[0][0].policy != histories[0][1].policy
    assert all(np.isfinite([record.weights_loss, record.policy_loss]).all() for record in histories[0])


def test_another_seed_draws_otherwise() -> None:
    first, second = (searched(cells(), paths=1, seed=seed).run()[-1].policy for seed in (0, 1))
    assert first != second


class Columns(nn.Module):
    """A mixture by hand: the first option passes one pixel on that says nothing, the second the one that says all."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Linear(1, 2)

    def mixture(self, images: Tensor, weights: Tensor, *, executed: object = None) -> Tensor:
        return self.classify((images[:, 0, 0, :2] * 3 * weights).sum(1, keepdim=True))

    def skips(self) -> tuple[()]:
        return ()


@pytest.mark.parametrize("paths", [None, 1, 2])
def test_a_search_prefers_the_option_that_sees_the_classes(paths: int | None) -> None:
    space = ToySpace((Gene("pixel", (0, 1)),), ())
    settings = DifferentiableConfig(paths=paths, epochs=40, batch=16, learning_rate=0.1, policy_learning_rate=0.1)
    torch.manual_seed(0)
    policy = DifferentiableSearch(space, Columns(), edges_at(), settings).run()[-1].policy
    assert policy.table[0, 1] > 0.7


@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_masked_options_stay_at_zero(seed: int) -> None:
    space = cells().restrict([[False, True, True]] * 6)
    policy = searched(space, epochs=1, paths=1, seed=seed % 1000).run()[-1].policy
    assert (policy.table[:, 0] == 0).all()


def test_random_features_stay_random() -> None:
    job = searched(cells(), trainable="batch_norm")
    before = {name: p.detach().clone() for name, p in job.supernet.named_parameters()}
    job.run()
    changed = {name for name, p in job.supernet.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all("norm" in name for name in changed)


def test_skips_are_plain_identities_after_a_search() -> None:
    job = searched(cells(), paths=2, drop_block=0.5)
    rates = []
    job.on_epoch = lambda record: rates.append({skip.rate for skip in job.supernet.skips()})  # type: ignore[operator]
    job.run()
    assert rates == [{0.5}, {0.25}]  # falling to nothing
    assert isinstance(job.supernet, CellSupernet)
    assert {(skip.rate, skip.generator) for skip in job.supernet.skips()} == {(0.0, None)}


def test_both_halves_of_the_images_are_apart_and_the_same_in_every_epoch() -> None:
    job = searched(cells())
    job.images = Split(torch.arange(64.0).reshape(64, 1, 1, 1), torch.zeros(64, dtype=torch.long))
    halves = []
    for epoch in (1, 2):
        batches = list(job.batches(epoch))
        halves.append([sorted(int(v) for pair in batches for v in pair[side][0].flatten()) for side in (0, 1)])
    assert halves[0] == halves[1]
    assert not set(halves[0][0]) & set(halves[0][1])
    assert len(halves[0][0]) == len(halves[0][1]) == 32


def test_a_loss_that_explodes_is_an_error() -> None:
    job = searched(cells())
    nn.init.constant_(job.supernet.head.classify.bias, float("nan"))  # type: ignore[union-attr, arg-type]
    with pytest.raises(FloatingPointError, match=r"lower learning_rate=0.025"):
        job.run()


def test_the_whole_mixture_is_the_softmax_of_what_is_allowed() -> None:
    allowed = torch.tensor([[True, False, True]])
    mixture = whole_mixture(torch.tensor([[0.0, 9.0, np.log(3)]]), allowed)
    assert mixture.weights[0].tolist() == pytest.approx([0.25, 0, 0.75])
    assert mixture.executed == ((0, 2),)
