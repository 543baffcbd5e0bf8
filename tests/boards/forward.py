"""Runs on a board that has TVM's runtime alone: each NAME.so of a folder on the inputs of NAME.npz, into NAME.npy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tvm
from tvm.runtime.vm import VirtualMachine


def main(folder: Path) -> None:
    for library in sorted(folder.glob("*.so")):
        inputs = np.load(library.with_suffix(".npz"))
        machine = VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
        machine.set_input("main", *[tvm.runtime.tensor(inputs[name]) for name in inputs.files])
        machine.invoke_stateful("main")
        np.save(library.with_suffix(".npy"), machine.get_outputs("main")[0].numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
