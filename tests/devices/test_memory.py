"""Peak memory of compiled networks whose plan is known by hand, in float32."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from torch import Tensor, nn

from hwnas.devices.compile import Artefact, CompileJob, Compiler
from hwnas.devices.compile.cache import read_manifest
from hwnas.devices.compile.lowering import import_torch, lower
from hwnas.devices.compile.memory import activation_bytes
from hwnas.devices.compile.target import host_target

AREA = 16 * 16 * 4  # bytes of one channel


def chain(*channels: int) -> nn.Module:
    return nn.Sequential(*(nn.Conv2d(a, b, 1) for a, b in pairwise(channels)))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        kept = self.first(x)
        out: Tensor = self.third(self.second(kept)) + kept
        return out


def peak(model: nn.Module, channels: int, *, batch: int = 1) -> int:
    target = host_target()
    module = import_torch(model, ((batch, channels, 16, 16),))
    return activation_bytes(lower(module, target, schedule="none").module, target)


def test_one_layer_has_its_input_and_its_output_alone() -> None:
    assert peak(chain(4, 8), 4) == (4 + 8) * AREA


def test_a_chain_of_two_holds_one_activation_between() -> None:
    assert peak(chain(4, 32, 8), 4) == (4 + 32 + 8) * AREA


def test_a_longer_chain_takes_turns_in_two_places() -> None:
    # five activations of 16 between: the third overwrites the first
    assert peak(chain(4, *[16] * 5, 8), 4) == (4 + 2 * 16 + 8) * AREA


def test_the_batch_multiplies_it() -> None:
    assert peak(chain(4, 32, 8), 4, batch=3) == 3 * (4 + 32 + 8) * AREA


def test_a_residual_is_kept_until_it_is_added() -> None:
    plain = nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1) for _ in range(4)))
    assert peak(Residual(), 16) >= peak(plain, 16)


@pytest.mark.parametrize("schedule", ["cpu", "none"])
def test_a_compiled_library_carries_its_peak(schedule: str, tmp_path: Path) -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1))

    job = CompileJob(network, ((1, 16, 16, 16),), "chain")
    with Compiler(host_target(), cache=tmp_path, workers=1, schedule=schedule) as compiler:  # type: ignore[arg-type]
        ((_, result),) = compiler.compile([job])
    assert isinstance(result, Artefact), result
    assert read_manifest(result.path).peak_bytes == (16 + 2 * 16 + 16) * AREA


def test_a_library_from_before_peaks_were_kept_has_none(tmp_path: Path) -> None:
    from hwnas.devices.compile.cache import Manifest, seal

    path = tmp_path / "x.so"
    path.write_bytes(b"code")
    seal(path, Manifest("0" * 32, ((1, 2),)))
    assert read_manifest(path) == Manifest("0" * 32, ((1, 2),), None)
