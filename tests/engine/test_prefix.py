"""Networks that begin alike are computed once and come out as if each had been alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hwnas.engine import architecture as arch
from hwnas.engine.architecture import Architecture, Gene, Slot
from hwnas.engine.evaluation.batchnorm import recalibrate
from hwnas.engine.evaluation.prefix import Images, Memory, Parts, SharedPrefixes
from hwnas.engine.spaces.mobilenet_v3 import MobileNetV3Space
from hwnas.latency.block import Block, block_factory
from tests.engine.spaces import mobilenet

SPACE = mobilenet()
MIB = 2**20


def _supernet(space: MobileNetV3Space = SPACE) -> nn.Module:
    """Weights and statistics of every kind, as after a training."""
    torch.manual_seed(0)
    supernet = space.supernet().eval()
    for module in supernet.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return supernet


SUPERNET = _supernet()
TOGETHER = SharedPrefixes(SPACE, SUPERNET)


def _images(n: int, *, seed: int, batch: int = 8) -> Images:
    def of(shape: tuple[int, ...]) -> Sequence[Tensor]:
        return torch.randn((n, *shape), generator=torch.Generator().manual_seed(seed)).split(batch)

    return of


VALIDATION, CALIBRATION = _images(20, seed=1), _images(24, seed=2)


def _alone(architecture: Architecture) -> Tensor:
    shape = SPACE.input_shape(architecture)
    network = recalibrate(SUPERNET.subnet(architecture), CALIBRATION(shape))
    with torch.no_grad():
        return torch.cat([network(batch) for batch in VALIDATION(shape)])


def _rows(n: int, seed: int) -> list[Architecture]:
    return [arch.to_architecture(row) for row in arch.sample(SPACE.genes, n, np.random.default_rng(seed))]


def _macs(rows: Sequence[Architecture], memory: Memory | None = None, calibration: Images | None = CALIBRATION) -> int:
    with Convolutions() as counter:
        for _ in TOGETHER.outputs(rows, VALIDATION, memory=memory or Memory(), calibration=calibration):
            pass
    return counter.macs


class Convolutions(TorchDispatchMode):
    """Counts the MACs of the convolutions that run."""

    macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.convolution.default, torch.ops.aten.conv2d.default):  # conv2d in inference mode
            self.macs += output.numel() * args[1][0].numel()
        return output


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12), st.sampled_from([0.0, 0.02, 0.1, 64.0]), st.booleans())
def test_every_network_answers_as_if_it_were_alone(seed: int, n: int, budget_mib: float, lasting: bool) -> None:
    rows = _rows(n, seed)
    memory = Memory(budget_mib, lasting)
    found = dict(TOGETHER.outputs(rows, VALIDATION, memory=memory, calibration=CALIBRATION))
    assert found.keys() == set(rows)
    for row, logits in found.items():
        expected = _alone(row)
        assert torch.allclose(logits, expected, atol=1e-4 * float(expected.abs().max()))
        assert (logits.argmax(1) == expected.argmax(1)).all()


def test_what_two_networks_begin_with_is_computed_once() -> None:
    smallest = list(arch.extreme(SPACE.genes, largest=False))
    names = [gene.name for gene in SPACE.genes]
    other = list(smallest)
    other[names.index("s2.b1.expansion")] = 1
    both = _macs([tuple(smallest), tuple(other)])
    one, two = _macs([tuple(smallest)]), _macs([tuple(other)])
    stem_and_first_block = nn.Sequential(*list(SUPERNET.subnet(tuple(smallest)))[:2])
    with Convolutions() as counter, torch.no_grad():
        stem_and_first_block(torch.zeros(20 + 24, *SPACE.input_shape(tuple(smallest))))
    assert both == one + two - counter.macs


def test_networks_of_other_resolutions_share_nothing() -> None:
    small, large = [list(arch.extreme(SPACE.genes, largest=False)) for _ in range(2)]
    large[0] = 1
    both = _macs([tuple(small), tuple(large)])
    assert both == _macs([tuple(small)]) + _macs([tuple(large)])


def test_the_tree_of_prefixes_is_computed_once_whatever_the_order() -> None:
    rows = _rows(30, 3)
    expected: dict[tuple[object, ...], int] = {}
    for row in rows:
        prefix: tuple[object, ...] = ()
        for part, block in zip(SUPERNET.subnet(row), arch.blocks(SPACE, row), strict=True):
            prefix = (*prefix, block)
            with Convolutions() as counter, torch.no_grad():
                part(torch.zeros(block.inputs[0]))
            expected[prefix] = counter.macs
    for order in (rows, rows[::-1], sorted(rows)):
        assert _macs(order) == (20 + 24) * sum(expected.values())


def test_a_smaller_budget_keeps_less_and_computes_more() -> None:
    rows = _rows(20, 4)
    macs = [_macs(rows, Memory(budget)) for budget in (0.0, 0.1, 0.3, 64.0)]
    assert macs == sorted(macs, reverse=True)
    assert macs[0] == sum(_macs([row]) for row in rows)
    assert macs[0] > macs[1] > macs[-1]


@pytest.mark.parametrize("lasting", [False, True])
def test_no_more_is_kept_than_the_budget(lasting: bool) -> None:
    memory, alive = Memory(0.3, lasting), []
    for _ in TOGETHER.outputs(_rows(40, 5), VALIDATION, memory=memory, calibration=CALIBRATION):
        alive.append(memory.mib)
        assert memory.mib == pytest.approx(sum(kept.outputs.mib for kept in memory._kept.values()))
    assert 0.1 < max(alive) <= 0.3


def test_a_lasting_memory_serves_later_calls() -> None:
    rows = _rows(12, 8)
    memory, fresh = Memory(lasting=True), Memory()
    _macs(rows[:6], memory)
    _macs(rows[:6], fresh)
    assert _macs(rows[6:], memory) < _macs(rows[6:], fresh)
    found = dict(TOGETHER.outputs(rows, VALIDATION, memory=memory, calibration=CALIBRATION))
    for row, logits in found.items():
        assert torch.allclose(logits, _alone(row), atol=1e-4 * float(logits.abs().max()))


def test_what_a_lasting_memory_keeps_for_later_takes_nothing_from_the_call_at_work() -> None:
    rows = _rows(20, 9)
    for budget in (0.05, 0.1, 0.2, 0.4):
        assert _macs(rows, Memory(budget, lasting=True)) <= _macs(rows, Memory(budget))


def test_networks_come_out_one_by_one() -> None:
    walk = TOGETHER.outputs(_rows(5, 6), VALIDATION, memory=Memory(), calibration=CALIBRATION)
    row, logits = next(walk)
    assert torch.allclose(logits, _alone(row), atol=1e-3)


def test_held_networks_go_on_with_their_statistics() -> None:
    rows = _rows(8, 7)
    held: dict[Architecture, Parts] = {}
    first = dict(TOGETHER.outputs(rows, VALIDATION, memory=Memory(), calibration=CALIBRATION, held=held))
    again = dict(TOGETHER.outputs(rows, VALIDATION, memory=Memory(), held=held))
    assert all(torch.equal(first[row], again[row]) for row in rows)
    assert _macs(rows, calibration=None) < _macs(rows)


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="budget_mib is -1"):
        Memory(-1)


def test_single_parts_are_those_of_the_subnet() -> None:
    for row in _rows(5, 10):
        placed = arch.placed_blocks(SPACE, row)
        for (slot, block), part in zip(placed, SUPERNET.subnet(row), strict=True):
            alone = SUPERNET.part(slot, block)
            assert str(alone) == str(part)
            assert all(torch.equal(x, part.state_dict()[name]) for name, x in alone.state_dict().items())


def test_a_supernet_without_single_parts_shares_as_much() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.supernet = SUPERNET

        def subnet(self, architecture: Architecture) -> nn.Module:
            network: nn.Module = self.supernet.subnet(architecture)
            return network

    rows = _rows(8, 11)
    with Convolutions() as counter:
        found = dict(SharedPrefixes(SPACE, Whole()).outputs(rows, VALIDATION, memory=Memory(), calibration=CALIBRATION))
    assert counter.macs == _macs(rows)
    expected = dict(TOGETHER.outputs(rows, VALIDATION, memory=Memory(), calibration=CALIBRATION))
    assert all(torch.equal(found[row], expected[row]) for row in rows)


# ---- supernets of other kinds ---------------------------------------------------------------------------------------


@block_factory("test_prefix.layer")
def layer(*, width: int) -> nn.Module:
    return nn.Linear(width, width)


@dataclass(frozen=True)
class Layers:
    """Two slots of equal blocks, each with a gene that changes the weights of its block and nothing else."""

    genes: tuple[Gene, ...] = (Gene("sign", (-1, 1)), Gene("second", (0, 1)))

    @property
    def slots(self) -> tuple[Slot, ...]:
        block = Block.of("test_prefix.layer", (1, 4), width=4)
        return Slot("a", ("sign",), lambda _: block), Slot("b", ("second",), lambda _: block)

    def input_shape(self, architecture: Architecture) -> tuple[int, ...]:
        return (4,)

    def supernet(self) -> nn.Module:
        return Signed(self)

    def restrict(self, mask: Sequence[Sequence[bool]]) -> Layers:
        return replace(self, genes=arch.restrict(self.genes, mask))


class Signed(nn.Module):
    def __init__(self, space: Layers, *, whole: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.space, self.whole = space, whole

    def subnet(self, architecture: Architecture) -> nn.Module:
        a, b = nn.Linear(4, 4), nn.Linear(4, 4)
        a.load_state_dict({name: x * self.space.genes[0].options[architecture[0]] for name, x in _state(self.first)})
        b.load_state_dict({name: x * (1 + architecture[1]) for name, x in _state(self.second)})
        return nn.Sequential(nn.Sequential(a, b)) if self.whole else nn.Sequential(a, b)


def _state(module: nn.Module) -> list[tuple[str, Tensor]]:
    return list(module.state_dict().items())


@pytest.mark.parametrize("whole", [False, True])
def test_equal_blocks_with_other_weights_are_not_shared(whole: bool) -> None:
    space = Layers()
    supernet = Signed(space, whole=whole)
    rows = [(0, 0), (0, 1), (1, 0), (1, 1)]
    found = dict(SharedPrefixes(space, supernet).outputs(rows, _images(6, seed=3), memory=Memory(lasting=True)))
    for row in rows:
        with torch.no_grad():
            expected = torch.cat([supernet.subnet(row)(batch) for batch in _images(6, seed=3)((4,))])
        assert torch.allclose(found[row], expected, atol=1e-6)
