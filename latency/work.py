"""What a build has to do: blocks and whole networks to compile and time, each of which becomes a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from hwnas.devices import Measurement, RunFailure
from hwnas.devices.compile import Artefact, CompileFailure, CompileJob
from hwnas.latency.block import Block
from hwnas.latency.rows import BlockRow, Evidence, NetworkRole, NetworkRow, network_key
from hwnas.latency.table import LatencyTable

Row = BlockRow | NetworkRow


@dataclass(frozen=True, slots=True)
class Network:
    """A whole network to measure end to end: how to build it (picklable), its inputs, and the blocks it is made of."""

    label: str
    make: Callable[[], nn.Module]
    inputs: tuple[tuple[int, ...], ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """Something to compile and time, and the row that it becomes."""

    key: str
    label: str
    job: CompileJob
    row: Callable[[Evidence], Row]

    @classmethod
    def of_block(cls, block: Block) -> Work:
        """A block. Raises LookupError where its factory is not installed."""
        job = CompileJob(block.recipe(), block.inputs, str(block))
        return cls(block.key, str(block), job, lambda evidence: BlockRow(block, evidence))

    @classmethod
    def of_network(cls, network: Network, role: NetworkRole) -> Work:
        """A whole network."""
        job = CompileJob(network.make, network.inputs, network.label)
        label, blocks = network.label, network.blocks
        return cls(network_key(blocks), label, job, lambda evidence: NetworkRow(label, role, blocks, evidence))


@dataclass(frozen=True, slots=True)
class Made:
    """Work that has been compiled, or has failed before it came to a device that could tell more."""

    work: Work
    result: Artefact | CompileFailure | RunFailure

    def row(self, timed: Measurement | RunFailure | None) -> Row:
        """The row that it becomes with what the device answered, None where it never came to that."""
        if isinstance(self.result, CompileFailure):
            return self.work.row(Evidence(f"did not compile: {self.result}"))
        if isinstance(self.result, RunFailure):
            return self.work.row(Evidence(f"did not run: {self.result}"))
        result = f"did not run: {timed}" if isinstance(timed, RunFailure) else timed
        if result is None:
            raise ValueError(f"the runner left out {self.result.path.name}: every artefact gets runs or a RunFailure")
        compile_cpu_s = None if self.result.cached else self.result.cpu_seconds
        return self.work.row(Evidence(result, self.result.key, compile_cpu_s))


def all_work(
    table: LatencyTable, blocks: Iterable[Block], fit: Iterable[Network], check: Iterable[Network]
) -> list[Work]:
    """Everything asked for, each once, networks first: they tell how wrong the sum of blocks is, and serve as anchors.

    Raises LookupError for a block whose factory is not installed and ValueError for a network in both roles.
    """
    roles: dict[str, NetworkRole] = {row.key: row.role for row in table.networks()}
    networks: dict[str, Work] = {}
    for role, asked in (("fit", fit), ("check", check)):
        for network in asked:
            key = network_key(network.blocks)
            if roles.setdefault(key, role) != role:  # type: ignore[arg-type]  # mypy widens the literals of the loop
                raise ValueError(
                    f"{network.label} is a {roles[key]!r} network and cannot be {role!r} too: choose other networks, "
                    "what fitted a correction cannot check it"
                )
            networks[key] = Work.of_network(network, roles[key])
    return [*networks.values(), *(Work.of_block(block) for block in dict.fromkeys(blocks))]


def untried(table: LatencyTable, works: Iterable[Work]) -> list[Work]:
    """The works that the table has no row of."""
    present = table.keys()
    return [work for work in works if work.key not in present]


def in_order(blocks: Iterable[Block], weights: Mapping[Block, float]) -> list[Block]:
    """The heaviest first; blocks of equal weight stay in their order."""
    return sorted(dict.fromkeys(blocks), key=lambda block: -weights.get(block, 0.0))
