"""A farm that loses a board and meets a kernel that does not end: does the table come out whole, and is time wasted?

    python benchmarks/farm.py

A tracker and two boards on loopback, 200 blocks of a MobileNetV3 and one whose kernel takes minutes. The blocks are
large, so that a call takes about as long as a usual one takes on an edge board. In the middle one board is killed with
SIGKILL. Exits with 1 where a block is lost or doubled, or where the surviving board had a batch in hand for less than
85 % of the build. The boards share this machine's cores with the compiling processes: what is shown is that nothing is
lost and that a board does not wait, the latencies are of no use.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from itertools import product
from pathlib import Path

from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # before a distribution that brings a folder "tests"
sys.path.insert(0, str(Path(__file__).parent))

from record import record

from hwnas.devices import Protocol
from hwnas.devices.compile import Compiler, host_target
from hwnas.devices.runners import open_runner
from hwnas.engine.spaces.mobilenet_v3 import blocks as _registered  # noqa: F401
from hwnas.latency import Block, Committed, LatencyTable, block_factory, build
from hwnas.latency.builder import Event
from tests.devices.boards import board, tracked, tracker

BLOCKS = 200
BUSY = 0.85
# long enough for a 99th percentile; not pinned, or both boards would share one core
PROTOCOL = Protocol(rounds=40, repeats=5, burn_in=1, pinned=False, niceness=0, timeout_s=20.0)


@block_factory("benchmark.endless")
def endless(*, channels: int) -> nn.Module:
    """A depthwise convolution of 255 x 255: 136 thousand million multiply-adds on 512 x 512."""
    return nn.Conv2d(channels, channels, 255, padding=127, groups=channels, bias=False)


def main() -> int:
    asked = [*_blocks()[:BLOCKS], Block.of("benchmark.endless", (1, 8, 512, 512), channels=8)]
    with tempfile.TemporaryDirectory() as folder, tracker() as lender, board(lender) as first, board(lender) as second:
        time.sleep(3)
        device = tracked(lender, target=host_target())
        killed: list[float] = []
        began = time.perf_counter()

        def show(event: Event) -> None:
            if isinstance(event, Committed):
                print(f"{event.done}/{event.total}, {event.per_minute:.0f} a minute", file=sys.stderr)
                if event.done >= BLOCKS / 2 and not killed:
                    first.kill()
                    killed.append(time.perf_counter() - began)

        with Compiler(device.target, cache=Path(folder) / "cache") as compiler:
            runners = [open_runner(device, compiler=compiler.versions()) for _ in range(2)]
            fingerprint = runners[0].fingerprint()
            table = LatencyTable.open_for(Path(folder) / "t.sqlite", device, fingerprint=fingerprint, protocol=PROTOCOL)
            began = time.perf_counter()
            report = build(table, asked, compiler=compiler, runner=runners, protocol=PROTOCOL, on_event=show)
        rows = Counter(row.block for row in table.block_rows())
        busy = report.busy_s[second.place] / report.seconds
        outcome = {
            "blocks": len(asked),
            "rows": rows.total(),
            "doubled": sum(n > 1 for n in rows.values()),
            "missing": len(table.missing(asked)),
            "failed": len(table.failures()),
            "killed_at_s": round(killed[0], 1),
            "wall_s": round(report.seconds, 1),
            "survivor_busy": round(busy, 3),
            "killed_busy_s": round(report.busy_s.get(first.place, 0.0), 1),
        }
        table_failures = {str(block): reason for block, reason in table.failures().items()}
        notes = {
            "failures": table_failures,
            "boards left out": list(report.gone),
            "visit speeds": [visit.speed for visit in table.visits()],
            "protocol": PROTOCOL.to_json(),
        }
        table.close()
    record("farm", [outcome], title="200 blocks on two boards, one killed, one kernel that does not end", notes=notes)
    whole = outcome["missing"] == outcome["doubled"] == 0 and outcome["rows"] == len(asked)
    hung = list(table_failures) == [str(asked[-1])]
    return 0 if whole and hung and busy >= BUSY else 1


def _blocks() -> list[Block]:
    settings = product((80, 72, 64), (32, 40, 48, 56, 64), (3, 4, 5, 6), (3, 5), (False, True))
    return [
        Block.of(
            "mobilenet_v3.mbconv",
            (1, channels, size, size),
            in_channels=channels,
            out_channels=channels,
            kernel=kernel,
            stride=1,
            hidden=channels * expansion,
            se=se,
            activation="hswish",
        )
        for size, channels, expansion, kernel, se in settings
    ]


if __name__ == "__main__":
    sys.exit(main())
