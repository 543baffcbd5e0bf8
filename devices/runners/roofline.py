"""A roofline: each layer takes as long as its arithmetic or its memory traffic, whichever is longer.

Williams, Waterman and Patterson, "Roofline", Communications of the ACM 52(4), 2009. The device's address is a preset's
name or the JSON text of a `Roofline`; its artefacts are lists of layers (runtime "layers").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwnas.devices.costs import Layer
from hwnas.devices.device import Device
from hwnas.devices.runners._modelled import Cost, ModelledRunner, modelled_fingerprint, read_spec, rides_along
from hwnas.devices.runtimes.layers import version

# change it with every change of what the formula answers: tables of different formulas are of different devices
FORMULA = "roofline 1"


@dataclass(frozen=True, slots=True)
class Roofline:
    """Peaks of a device, from its data sheet, and what a step of work costs in energy."""

    name: str
    gmacs_per_s: float  # multiply-accumulates at peak, in thousand millions a second
    gbytes_per_s: float  # to memory
    bits: int  # of a weight or an activation: networks are taken as quantised to it
    overhead_us: float  # to start a layer
    mac_pj: float
    byte_pj: float  # between chip and memory

    def __post_init__(self) -> None:
        if min(self.gmacs_per_s, self.gbytes_per_s, self.bits) <= 0:
            raise ValueError("gmacs_per_s, gbytes_per_s and bits are above 0")

    def cost(self, layers: Sequence[Layer]) -> Cost:
        """Latency and energy of one run, layer after layer, each from memory to memory."""
        return sum((self.layer_cost(layers, index) for index in range(len(layers))), Cost(0.0, 0.0))

    def layer_cost(self, layers: Sequence[Layer], index: int) -> Cost:
        """Of one layer. What rides along on the layer before it costs its arithmetic alone.

        An operator without multiply-accumulates counts as one for each number that it reads or writes, the larger.
        """
        layer = layers[index]
        work = layer.macs or max(layer.input_elements, layer.output_elements)
        arithmetic_ms = work / self.gmacs_per_s / 1e6
        if rides_along(layers, index):
            return Cost(arithmetic_ms, work * self.mac_pj * 1e-9)
        traffic = (layer.input_elements + layer.weight_elements + layer.output_elements) * self.bits / 8  # bytes
        memory_ms = traffic / self.gbytes_per_s / 1e6
        energy_mj = (work * self.mac_pj + traffic * self.byte_pj) * 1e-9
        return Cost(max(arithmetic_ms, memory_ms) + self.overhead_us / 1000, energy_mj)


# Energies at 45 nm and 0.9 V: Horowitz, "Computing's energy problem", ISSCC 2014, figure 1.1.9. An 8-bit product takes
# 0.2 pJ and a 32-bit sum 0.1 pJ, a product in half precision 1.1 pJ and a sum in single 0.9 pJ; DRAM takes 1.3 nJ for
# 64 bits at least, 162.5 pJ a byte. A chip of today takes less of each: compare networks with them, not devices.
_INT8_PJ, _FP16_PJ, _DRAM_BYTE_PJ = 0.3, 2.0, 162.5

PRESETS = {
    preset.name: preset
    for preset in (
        # Arm Ethos-U55 of 256 MACs a cycle at 500 MHz (product brief: 512 GOP/s at 1 GHz); memory and overhead assumed:
        # a 32-bit bus at the same clock, 2500 cycles
        Roofline("edge-npu", 128.0, 2.0, 8, 5.0, _INT8_PJ, _DRAM_BYTE_PJ),
        # NVIDIA Jetson Orin Nano 8 GB (data sheet: 40 TOP/s sparse in int8, so 20 dense, and 68 GB/s); the overhead is
        # assumed, that of a kernel's start
        Roofline("jetson-orin-nano-int8", 10000.0, 68.0, 8, 5.0, _INT8_PJ, _DRAM_BYTE_PJ),
        # NVIDIA A100 40 GB (data sheet: 312 TFLOP/s dense in half precision, 1555 GB/s); the overhead likewise
        Roofline("a100-fp16", 156000.0, 1555.0, 16, 5.0, _FP16_PJ, _DRAM_BYTE_PJ),
    )
}


def open_device(device: Device, *, compiler: str) -> ModelledRunner:
    """The roofline at the device's address. Raises DeviceError where there is none."""
    spec = read_spec(device, Roofline, PRESETS)
    fingerprint = modelled_fingerprint(
        device, soc=f"roofline {spec.name}", runtime=f"{FORMULA}, {version()}", spec=spec, compiler=compiler
    )
    return ModelledRunner(fingerprint, lambda layers, _: spec.cost(layers))
