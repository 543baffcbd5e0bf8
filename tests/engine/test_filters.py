"""Filters say what trains: groups hold each tensor once, and what is frozen does not move."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hwnas.engine.spaces.cell import Config, build
from hwnas.engine.training.filters import TrainableFilter, batch_norm_only, frozen, groups, rated


def network(*, affine: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return build(
        Config(resolution=4, channels=4, stages=2, cells=1, affine=affine), in_channels=1, classes=3
    ).supernet()


def names(found: list[dict[str, object]]) -> set[str]:
    return {name for group in found for name in group["names"]}  # type: ignore[attr-defined]


def moved(supernet: nn.Module, found: list[dict[str, object]]) -> set[str]:
    """Names of the parameters that ten steps of momentum and decay changed."""
    before = {name: parameter.detach().clone() for name, parameter in supernet.named_parameters()}
    optimizer = torch.optim.SGD(found, lr=0.1, momentum=0.9)  # type: ignore[arg-type]
    supernet.activate((3,) * 6)  # type: ignore[operator]
    for _ in range(10):
        optimizer.zero_grad()
        supernet(torch.randn(4, 1, 4, 4)).square().sum().backward()
        optimizer.step()
    return {name for name, parameter in supernet.named_parameters() if not torch.equal(parameter, before[name])}


def test_without_filters_everything_trains() -> None:
    supernet = network()
    assert names(groups(supernet)) == {name for name, _ in supernet.named_parameters()}


def test_batch_norm_alone_moves_and_frozen_kernels_do_not_though_they_would_decay() -> None:
    supernet = network()
    found = groups(supernet, batch_norm_only(), weight_decay=0.1)
    norms = {
        f"{name}.{kind}"
        for name, module in supernet.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for kind in ("weight", "bias")
    }
    assert names(found) == norms
    changed = moved(supernet, found)
    assert changed <= norms
    assert "stem.norm.weight" in changed


def test_the_classifier_trains_beside_batch_norm_where_it_is_asked_for() -> None:
    supernet = network()
    more = names(groups(supernet, batch_norm_only(train_classifier=True))) - names(groups(supernet, batch_norm_only()))
    assert more == {"head.classify.weight", "head.classify.bias"}


def test_batch_norm_without_scale_and_shift_leaves_nothing_to_train() -> None:
    with pytest.raises(ValueError, match=r"nothing is left to train.*affine"):
        groups(network(affine=False), batch_norm_only())


def test_a_frozen_block_is_whole_words_of_the_name() -> None:
    supernet = nn.ModuleDict({"s1": nn.Linear(2, 2), "s10": nn.Linear(2, 2)})
    assert names(groups(supernet, frozen("s1"))) == {"s10.weight", "s10.bias"}


def test_a_name_that_is_no_block_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no parameter belongs to block 'tail'.*stem"):
        groups(network(), frozen("tail"))


def test_groups_have_their_own_rates_and_decay_matrices_alone() -> None:
    supernet = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    found = groups(supernet, [rated("1", 0.1)], weight_decay=0.5)
    assert {(name, g["rate"], g["weight_decay"]) for g in found for name in g["names"]} == {
        ("0.weight", 1.0, 0.5),
        ("0.bias", 1.0, 0.0),
        ("1.weight", 0.1, 0.5),
        ("1.bias", 0.1, 0.0),
    }


def test_the_first_filter_that_matches_decides() -> None:
    supernet = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    found = groups(supernet, [rated("1", 2.0), TrainableFilter("all", lambda *_: True)])
    assert names(found) == {"1.weight", "1.bias"}


def test_a_tied_tensor_is_in_one_group_at_the_slowest_of_its_rates() -> None:
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    supernet = nn.ModuleDict({"embed": first, "classify": second, "body": nn.Linear(2, 2, bias=False)})
    found = groups(supernet, [rated("classify", 0.5)])
    assert [(g["names"], g["rate"]) for g in found] == [(["embed.weight"], 0.5), (["body.weight"], 1.0)]
    assert names(groups(supernet, frozen("classify"))) == {"body.weight"}


def test_what_was_frozen_takes_a_gradient_again() -> None:
    supernet = network()
    groups(supernet, batch_norm_only())
    groups(supernet)
    assert all(parameter.requires_grad for parameter in supernet.parameters())


def test_a_negative_rate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rate of -1"):
        rated("stem", -1)
