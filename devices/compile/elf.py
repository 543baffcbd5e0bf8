"""What machine a compiled library is for, read from its first bytes, so that no board is sent another's code."""

from __future__ import annotations

from pathlib import Path

# e_machine of the ELF header: https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html and its registry
_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 164: "hexagon", 183: "aarch64", 243: "riscv"}

# what `uname -m`, LLVM triples and Android call the same machines
_ALIASES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "i486": "i386", "i586": "i386", "i686": "i386"}


def elf_machine(path: Path) -> str:
    """The machine of an ELF file: x86_64, aarch64, arm, riscv, or "ELF machine N". Raises ValueError for another file.

    32 and 64 bits of one family are not told apart where ELF gives them one number (riscv).
    """
    with path.open("rb") as file:
        header = file.read(20)
    if len(header) < 20 or header[:4] != b"\x7fELF" or header[5] not in (1, 2):
        raise ValueError(f"{path} is no ELF file: it begins with {header[:4]!r}")
    number = int.from_bytes(header[18:20], "little" if header[5] == 1 else "big")
    return _MACHINES.get(number, f"ELF machine {number}")


def machine_family(name: str) -> str:
    """What `elf_machine` calls a machine that `uname -m` or the first word of an LLVM triple calls `name`."""
    name = name.lower()
    if name in _ALIASES or name in _MACHINES.values():
        return _ALIASES.get(name, name)
    return next((family for family in ("aarch64", "arm", "thumb", "riscv") if name.startswith(family)), name)
