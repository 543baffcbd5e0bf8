from __future__ import annotations

from pathlib import Path

from hwnas.devices import Device, Fingerprint, probe_host
from hwnas.devices.host import fingerprint_of, instruction_set, read_fingerprint, soc_name

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 167
model name\t: Intel(R) Xeon(R) Processor
stepping\t: 8
cpu MHz\t\t: 2000.000
flags\t\t: fpu sse4_2 avx2 fma aes
processor\t: 1
cpu MHz\t\t: 1000.000
"""
ARM = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd08
CPU revision\t: 3

Hardware\t: BCM2835
"""
DEVICE = Device("host", '{"kind": "llvm"}')


def _root(folder: Path, **files: str) -> Path:
    paths = {
        "cpuinfo": "proc/cpuinfo",
        "model": "proc/device-tree/model",
        "governor": "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
        "clock": "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
        "load": "proc/loadavg",
    }
    for name, text in files.items():
        path = folder / paths[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_x86_has_a_model_name_and_its_numbers() -> None:
    assert soc_name(X86) == "Intel(R) Xeon(R) Processor (family 6, model 167, stepping 8)"


def test_a_board_is_named_by_its_device_tree() -> None:
    name = soc_name(ARM, board="Raspberry Pi 4 Model B Rev 1.4")
    assert name == "Raspberry Pi 4 Model B Rev 1.4 BCM2835 (implementer 0x41, part 0xd08, revision 3)"


def test_extensions_are_those_that_a_compiler_minds() -> None:
    assert instruction_set(X86) == ("avx2", "fma", "sse4_2")
    assert instruction_set(ARM) == ("asimd", "asimddp")


def test_what_the_system_does_not_say_is_unknown(tmp_path: Path) -> None:
    found = read_fingerprint(DEVICE, compiler="c 1", root=tmp_path)
    assert (found.soc, found.governor, found.clock_mhz, found.load_1m, found.isa) == (
        "unknown",
        "unknown",
        None,
        None,
        (),
    )


def test_a_board_says_its_governor_clock_and_load(tmp_path: Path) -> None:
    root = _root(
        tmp_path, cpuinfo=ARM, model="A Board\0", governor="ondemand\n", clock="1500000\n", load="0.42 0.1 0 1/2 3\n"
    )
    found = read_fingerprint(DEVICE, compiler="c 1", root=root)
    assert found.soc.startswith("A Board BCM2835")
    assert (found.governor, found.clock_mhz, found.load_1m) == ("ondemand", 1500.0, 0.42)


def test_the_clock_of_x86_is_in_cpuinfo(tmp_path: Path) -> None:
    assert read_fingerprint(DEVICE, compiler="c 1", root=_root(tmp_path, cpuinfo=X86)).clock_mhz == 2000.0


def test_another_chip_or_compiler_is_another_identity(tmp_path: Path) -> None:
    x86 = read_fingerprint(DEVICE, compiler="c 1", root=_root(tmp_path / "a", cpuinfo=X86))
    arm = read_fingerprint(DEVICE, compiler="c 1", root=_root(tmp_path / "b", cpuinfo=ARM))
    newer = read_fingerprint(DEVICE, compiler="c 2", root=tmp_path / "a")
    assert len({x86.identity, arm.identity, newer.identity}) == 3


def test_load_and_priority_are_state_not_identity(tmp_path: Path) -> None:
    root = _root(tmp_path, cpuinfo=X86, load="0.1 0 0 1/2 3")
    quiet = read_fingerprint(DEVICE, compiler="c 1", root=root)
    _root(tmp_path, load="9.0 0 0 1/2 3")
    busy = read_fingerprint(DEVICE, compiler="c 1", niceness=-10, pinned_to=(1,), root=root)
    assert quiet.load_1m != busy.load_1m
    assert quiet.identity == busy.identity


def test_a_fingerprint_of_before_priorities_were_kept_can_be_read(tmp_path: Path) -> None:
    written = read_fingerprint(DEVICE, compiler="c 1", root=tmp_path).to_json()
    del written["niceness"], written["pinned_to"]
    assert Fingerprint.from_json(written).pinned_to == ()


def test_the_host_is_a_device_for_the_local_runner() -> None:
    host = probe_host()
    assert (host.name, host.runner, host.threads) == ("host", "local", 1)
    assert '"llvm"' in host.target


def test_a_board_that_says_nothing_is_unknown_and_has_an_identity_still() -> None:
    fingerprint = fingerprint_of({}, DEVICE, compiler="c 1", board="10.0.0.2:9090")
    assert (fingerprint.soc, fingerprint.os, fingerprint.runtime) == ("unknown", "unknown", "tvm unknown")
    assert fingerprint.identity == fingerprint_of({}, DEVICE, compiler="c 1", board="10.0.0.3:9090").identity


def test_an_emulator_does_not_pass_for_the_chip_it_runs_on() -> None:
    fingerprint = fingerprint_of({"cpuinfo": X86, "machine": "aarch64"}, DEVICE, compiler="c 1")
    assert (fingerprint.soc, fingerprint.isa, fingerprint.clock_mhz) == ("emulated aarch64", (), None)


def test_an_accelerator_is_named_before_the_chip_that_feeds_it() -> None:
    fingerprint = fingerprint_of({"cpuinfo": ARM, "accelerator": "Mali-G610"}, DEVICE, compiler="c 1")
    assert fingerprint.soc.startswith("Mali-G610 (BCM2835")
