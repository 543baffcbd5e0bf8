"""Cells of NAS-Bench-201 (Dong and Yang, ICLR 2020): one small graph, repeated, with an operation on every edge."""

from hwnas.engine.spaces.cell.space import CellSpace, Config, build
from hwnas.engine.spaces.cell.supernet import CellSupernet, DropBlockIdentity, MixedOperation

__all__ = ["CellSpace", "CellSupernet", "Config", "DropBlockIdentity", "MixedOperation", "build"]
