"""One layer on a weight-stationary systolic array, by the simulator ZigZag.

Mei et al., "ZigZag", IEEE Transactions on Computers 70(8), 2021. Rows of the array hold input channels (with the
kernel's window where it fits), columns output channels. Weight registers are doubled, so that the next weights arrive
while the array works; partial sums stay in accumulators below each column.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version
from pathlib import Path
from typing import Any

from hwnas.devices.costs import Layer
from hwnas.devices.device import DeviceError
from hwnas.devices.runfailure import RunFailure

# Loop prime factors that the search permutes: with 5 a layer takes 0.5 to 1 s; 6 takes five times as long and finds a
# mapping of the same latency for most layers (docs/accelerators.md)
_LOOP_FACTORS = 5

_FORMAT = "1"  # of what is asked of the simulator: change it with every change that moves an answer


@dataclass(frozen=True, slots=True)
class Array:
    """A systolic array and its memories. Energies are in pJ."""

    rows: int
    columns: int
    bits: int  # of a weight or an activation
    accumulator_bits: int
    accumulator_kib: int
    sram_kib: int
    dram_bits_per_cycle: int
    mac_pj: float
    accumulator_bit_pj: float
    sram_bit_pj: float
    dram_bit_pj: float


def simulator() -> str:
    """Name and version of the simulator. Raises DeviceError where it is not installed."""
    try:
        found = f"zigzag-dse {_version('zigzag-dse')}.{_FORMAT}"
        _version("six")  # the simulator needs it and its package does not ask for it
    except PackageNotFoundError as missing:
        raise DeviceError(
            f"the simulator of systolic arrays is not installed (no {missing.name}): pip install 'hwnas[accelerator]'"
        ) from None
    return found


def simulate(array: Array, layer: Layer, folder: Path) -> tuple[float, float]:
    """Cycles and pJ of a multiplying layer, from DRAM to DRAM; answers are kept in `folder`. Raises RunFailure."""
    work, mapping = workload(array, layer)
    question = json.dumps([simulator(), _hardware(array), work, mapping], sort_keys=True)
    return _remembered(question, array, folder)


@cache
def _remembered(question: str, array: Array, folder: Path) -> tuple[float, float]:
    path = folder / f"zigzag-{hashlib.sha256(question.encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        answer = json.loads(path.read_text())
        if answer["question"] == question:
            return float(answer["cycles"]), float(answer["energy_pj"])
    _, _, work, mapping = json.loads(question)
    cycles, energy_pj = _ask(array, work, mapping)
    with suppress(OSError):  # a folder that cannot be written costs time, not the answer
        _write(path, {"question": question, "cycles": cycles, "energy_pj": energy_pj})
    return cycles, energy_pj


def workload(array: Array, layer: Layer) -> tuple[dict[str, Any], dict[str, Any]]:
    """The layer as ZigZag's loops, and which of them the rows and columns unroll.

    One- and two-dimensional convolutions keep their windows; anything else is a product of matrices, `groups` times.
    """
    precision = {"W": array.bits, "I": array.bits, "O": array.accumulator_bits, "O_final": array.bits}
    common = {"id": 0, "name": "layer", "operand_precision": precision, "operand_source": {"W": 0, "I": 0}}
    if layer.kind in ("conv", "depthwise") and len(layer.kernel) <= 2:
        loops, relations = _windows(layer)
        window = [(name, loops[name]) for name in ("FX", "FY")]
        fields: dict[str, Any] = {
            "operator_type": "Conv",
            "equation": "O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]",
            **relations,
        }
    else:
        loops, window = _product(layer), []
        fields = {"operator_type": "Gemm", "equation": "O[g][b][k]+=W[g][k][c]*I[g][b][c]"}
    work = {**common, **fields, "loop_dims": list(loops), "loop_sizes": list(loops.values())}
    return work, _mapping(array, loops, window)


def _windows(layer: Layer) -> tuple[dict[str, int], dict[str, Any]]:
    two = len(layer.kernel) == 2
    batch, out_channels, *out = layer.output
    _, in_channels, *size = layer.inputs[0]

    def pair(values: tuple[int, ...] | list[int], other: int) -> tuple[int, int]:
        return (int(values[-1]), int(values[0]) if two else other)  # x, y

    (ox, oy), (ix, iy), (fx, fy) = pair(out, 1), pair(size, 1), pair(layer.kernel, 1)
    (sx, sy), (dx, dy), (px, py) = pair(layer.stride, 1), pair(layer.dilation, 1), pair(layer.padding, 0)
    loops = {
        "B": batch,
        "K": out_channels // layer.groups,
        "G": layer.groups,
        "OX": ox,
        "OY": oy,
        "C": in_channels // layer.groups,
        "FX": fx,
        "FY": fy,
    }
    relations = {
        "dimension_relations": [f"ix={sx}*ox+{dx}*fx", f"iy={sy}*oy+{dy}*fy"],
        "pr_loop_dims": ["IX", "IY"],
        "pr_loop_sizes": [ix, iy],
        "padding": [[px, px], [py, py]],
    }
    return loops, relations


def _product(layer: Layer) -> dict[str, int]:
    """Sizes of `groups` products, (B, C) by (C, K)."""
    if layer.kind == "transposed":  # every input meets the kernel, then results that overlap are added
        groups, reduced, wide = layer.groups, layer.inputs[0][1] // layer.groups, layer.weights[0][1]
        for n in layer.kernel:
            wide *= n
    elif layer.kernel:
        groups, wide = layer.groups, layer.output[1] // layer.groups
        reduced = layer.macs // layer.output_elements
    else:
        reduced, wide = layer.macs // layer.output_elements, layer.output[-1]
        groups = layer.output[0] if layer.kind == "matmul" and len(layer.output) == 3 else 1
    rows = layer.macs // (groups * reduced * wide)
    return {"G": groups, "B": rows, "K": wide, "C": reduced}


def _mapping(array: Array, loops: Mapping[str, int], window: list[tuple[str, int]]) -> dict[str, Any]:
    rows, room = [], array.rows
    for name, size in window:
        if size <= room:
            rows.append((name, size))
            room //= size
    rows.append(("C", min(loops["C"], room)))
    columns = [("K", min(loops["K"], array.columns))]
    spatial = {"D1": _unrolled(columns), "D2": _unrolled(rows)}
    return {"spatial_mapping": spatial, "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"}}


def _unrolled(loops: list[tuple[str, int]]) -> list[str]:
    return [f"{name}, {size}" for name, size in loops if size > 1] or [f"{loops[-1][0]}, 1"]


def _hardware(array: Array) -> dict[str, Any]:
    """The array in ZigZag's words; a memory's cost is that of an access as wide as its port."""
    bits, wide = array.bits, array.accumulator_bits
    column_bits = max(1, array.accumulator_kib * 8192 // (array.columns * wide)) * wide
    read = array.rows * bits + array.columns * (bits + wide)
    write = array.columns * (bits + wide) + array.rows * bits

    def memory(size: int, operands: str, ports: list[dict[str, Any]], served: list[str], pj: float) -> dict[str, Any]:
        cost = {"r_cost": pj, "w_cost": pj, "area": 0, "latency": 1}
        return {"size": size, **cost, "operands": operands.split(), "ports": ports, "served_dimensions": served}

    def port(name: str, kind: str, width: int, allocation: str, *, least: int = 0) -> dict[str, Any]:
        bandwidth = {"bandwidth_min": least or width, "bandwidth_max": width}
        return {"name": name, "type": kind, **bandwidth, "allocation": allocation.split("; ")}

    weights = [port("r_port_1", "read", bits, "I2, tl"), port("w_port_1", "write", bits, "I2, fh")]
    sums = [
        port("r_port_1", "read", wide, "O, tl"),
        port("r_port_2", "read", wide, "O, th"),
        port("w_port_1", "write", wide, "O, fh"),
        port("w_port_2", "write", wide, "O, fl"),
    ]
    sram = [
        port("r_port_1", "read", read, "I1, tl; I2, tl; O, tl; O, th", least=8),
        port("w_port_1", "write", write, "I1, fh; I2, fh; O, fh; O, fl", least=8),
    ]
    way = "I1, fh; I1, tl; I2, fh; I2, tl; O, fh; O, tl; O, fl; O, th"
    dram = [port("rw_port_1", "read_write", array.dram_bits_per_cycle, way, least=8)]
    everywhere = ["D1", "D2"]
    return {
        "name": "systolic",
        "memories": {
            "weight_register": memory(2 * bits, "I2", weights, [], 0.0),
            "accumulators": memory(column_bits, "O", sums, ["D2"], array.accumulator_bit_pj * wide),
            "sram": memory(array.sram_kib * 8192, "I1 I2 O", sram, everywhere, array.sram_bit_pj * read),
            "dram": memory(1 << 43, "I1 I2 O", dram, everywhere, array.dram_bit_pj * array.dram_bits_per_cycle),
        },
        "operational_array": {
            "unit_energy": array.mac_pj,
            "unit_area": 0,
            "dimensions": everywhere,
            "sizes": [array.columns, array.rows],
            "systolic_dimensions": everywhere,
        },
    }


@cache
def _accelerator(array: Array) -> Any:  # the simulator's own type
    from zigzag.parser.accelerator_factory import AcceleratorFactory
    from zigzag.parser.accelerator_validator import AcceleratorValidator

    validator = AcceleratorValidator(_hardware(array))
    if not validator.validate():
        raise DeviceError(f"the simulator refuses this array: {validator.validator.errors}")
    return AcceleratorFactory(validator.normalized_data).create()


def _ask(array: Array, work: dict[str, Any], mapping: dict[str, Any]) -> tuple[float, float]:
    """Cycles and pJ of the fastest mapping found; nothing is drawn at random."""
    from zigzag.mapping.temporal_mapping import TemporalMappingType
    from zigzag.parser.mapping_validator import MappingValidator
    from zigzag.parser.workload_factory import WorkloadFactory
    from zigzag.parser.workload_validator import WorkloadValidator
    from zigzag.stages.evaluation.cost_model_evaluation import CostModelStage
    from zigzag.stages.main import MainStage
    from zigzag.stages.mapping.spatial_mapping_generation import SpatialMappingGeneratorStage
    from zigzag.stages.mapping.temporal_mapping_generator_stage import TemporalMappingGeneratorStage
    from zigzag.stages.results.reduce_stages import MinimalLatencyStage
    from zigzag.stages.workload_iterator import WorkloadStage

    steps: list[Any] = [WorkloadStage, MinimalLatencyStage, SpatialMappingGeneratorStage, MinimalLatencyStage]
    steps += [TemporalMappingGeneratorStage, CostModelStage]
    accelerator = _accelerator(array)
    try:
        named = [{**mapping, "name": name} for name in ("default", work["operator_type"])]
        works, mappings = WorkloadValidator([work]), MappingValidator(named)
        if not (works.validate() and mappings.validate()):
            raise ValueError(f"{works.validator.errors or mappings.validator.errors}")
        stage = MainStage(
            steps,
            accelerator=accelerator,
            workload=WorkloadFactory(works.normalized_data, mappings.normalized_data).create(),
            loma_lpf_limit=_LOOP_FACTORS,
            loma_show_progress_bar=False,
            nb_mappings_generated=1,
            enable_mix_spatial_mapping_generation=False,
            access_same_data_considered_as_no_access=True,
            temporal_mapping_type=TemporalMappingType.UNEVEN,
        )
        ((found, _),) = stage.run()  # type: ignore[no-untyped-call]  # the simulator's own
    except Exception as error:  # a mapping that does not fit is refused in many ways
        sizes = dict(zip(work["loop_dims"], work["loop_sizes"], strict=True))
        raise RunFailure(f"the simulator has no mapping for {sizes}: {type(error).__name__}: {error}") from None
    return float(found.latency_total2), float(found.energy_total)


def _write(path: Path, answer: dict[str, Any]) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".zigzag-", delete=False) as draft:
        json.dump(answer, draft)
    os.replace(draft.name, path)
