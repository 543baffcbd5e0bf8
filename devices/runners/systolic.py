"""A weight-stationary systolic array with a vector unit, as far as a simulator knows it.

The device's address is a preset's name or the JSON text of a `Systolic`; its artefacts are lists of layers (runtime
"layers"). Layers run one after another, each from DRAM to DRAM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.devices.costs import MULTIPLYING, Layer
from hwnas.devices.device import Device
from hwnas.devices.runners._modelled import Cost, ModelledRunner, modelled_fingerprint, read_spec, rides_along
from hwnas.devices.runners._zigzag import Array, simulate, simulator
from hwnas.devices.runtimes.layers import version

FORMULA = "systolic 1"  # of what the simulator does not do: change it with every change that moves an answer


@dataclass(frozen=True, slots=True)
class Systolic:
    """An array of multipliers, its memories, its clock and its energies, those in pJ."""

    name: str
    rows: int
    columns: int
    clock_mhz: float
    bits: int  # of a weight or an activation: networks are taken as quantised to it
    accumulator_bits: int
    accumulator_kib: int
    sram_kib: int
    dram_bits_per_cycle: int
    vector_lanes: int  # numbers that the vector unit takes a cycle
    mac_pj: float
    accumulator_bit_pj: float
    sram_bit_pj: float
    dram_bit_pj: float

    def __post_init__(self) -> None:
        sizes = (self.rows, self.columns, self.bits, self.accumulator_bits, self.accumulator_kib, self.sram_kib)
        if min(*sizes, self.clock_mhz, self.dram_bits_per_cycle - 7, self.vector_lanes) <= 0:
            raise ValueError("sizes, clock and lanes are above 0, and dram_bits_per_cycle is 8 or more")

    @property
    def array(self) -> Array:
        """What the simulator is told."""
        return Array(
            self.rows,
            self.columns,
            self.bits,
            self.accumulator_bits,
            self.accumulator_kib,
            self.sram_kib,
            self.dram_bits_per_cycle,
            self.mac_pj,
            self.accumulator_bit_pj,
            self.sram_bit_pj,
            self.dram_bit_pj,
        )

    def cost(self, layers: Sequence[Layer], folder: Path) -> Cost:
        """Latency and energy of one run; the simulator's answers are kept in `folder`. Raises RunFailure."""
        return sum((self.layer_cost(layers, index, folder) for index in range(len(layers))), Cost(0.0, 0.0))

    def layer_cost(self, layers: Sequence[Layer], index: int, folder: Path) -> Cost:
        """Of one layer: what multiplies runs on the array, anything else on the vector unit."""
        layer = layers[index]
        if layer.kind in MULTIPLYING:
            cycles, energy_pj = simulate(self.array, layer, folder)
            # the simulator drops the last access to a memory where it is narrower than the port
            return self._cost(cycles, max(energy_pj, self._least_pj(layer)))
        numbers = max(layer.input_elements, layer.output_elements)
        cycles = numbers / self.vector_lanes
        if rides_along(layers, index):
            return self._cost(cycles, numbers * self.mac_pj)
        return self._cost(max(cycles, self._traffic_bits(layer) / self.dram_bits_per_cycle), self._least_pj(layer))

    def _traffic_bits(self, layer: Layer) -> int:
        return (layer.input_elements + layer.weight_elements + layer.output_elements) * self.bits

    def _least_pj(self, layer: Layer) -> float:
        """Its arithmetic, and every number once between DRAM and SRAM and once between SRAM and the units."""
        work = layer.macs or max(layer.input_elements, layer.output_elements)
        return work * self.mac_pj + self._traffic_bits(layer) * (self.dram_bit_pj + 2 * self.sram_bit_pj)

    def _cost(self, cycles: float, energy_pj: float) -> Cost:
        return Cost(cycles / self.clock_mhz / 1000, energy_pj * 1e-9)


# Energies at 45 nm and 0.9 V: Horowitz, "Computing's energy problem", ISSCC 2014, figure 1.1.9. 64 bits take 10 pJ from
# 8 KiB, 20 pJ from 32 KiB and 100 pJ from 1 MiB of SRAM, and 1.3 nJ at least from DRAM; an 8-bit product with a 32-bit
# sum takes 0.3 pJ, a product in half precision with a sum in single 2 pJ. Registers between the multipliers are free.
_SMALL, _MIDDLE, _LARGE, _DRAM = 10 / 64, 20 / 64, 100 / 64, 1300 / 64

PRESETS = {
    preset.name: preset
    for preset in (
        # Gemmini's default (Genc et al., "Gemmini", DAC 2021): 16 x 16 in int8 at 1 GHz, 256 KiB of scratchpad, 64 KiB
        # of accumulators, a memory bus of 128 bits a cycle
        Systolic("16x16", 16, 16, 1000.0, 8, 32, 64, 256, 128, 16, 0.3, _SMALL, _MIDDLE, _DRAM),
        # one of the four matrix units of a TPU v3 (Jouppi et al., Communications of the ACM 63(7), 2020): 128 x 128 in
        # bfloat16 at 940 MHz with a quarter of 900 GB/s, rounded to 2048 bits a cycle; 8 MiB of memory are assumed, the
        # half of a core's, and 512 KiB of accumulators
        Systolic("128x128", 128, 128, 940.0, 16, 32, 512, 8192, 2048, 128, 2.0, _SMALL, _LARGE, _DRAM),
        # TPU v1 (Jouppi et al., ISCA 2017): 256 x 256 in int8 at 700 MHz, 24 MiB of memory, 4 MiB of accumulators,
        # 34 GB/s of DDR3, 388 bits a cycle
        Systolic("256x256", 256, 256, 700.0, 8, 32, 4096, 24576, 388, 256, 0.3, _SMALL, _LARGE, _DRAM),
    )
}


def open_device(device: Device, *, compiler: str) -> ModelledRunner:
    """The array at the device's address. Raises DeviceError where there is none or the simulator is not installed."""
    spec = read_spec(device, Systolic, PRESETS)
    fingerprint = modelled_fingerprint(
        device,
        soc=f"systolic {spec.name}, weight-stationary",
        runtime=f"{simulator()}, {FORMULA}, {version()}",
        spec=spec,
        compiler=compiler,
    )
    return ModelledRunner(fingerprint, spec.cost)
