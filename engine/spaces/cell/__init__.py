"""Cells of NAS-Bench-201 (Dong and Yang, ICLR 2020): one small graph, repeated, with an operation on every edge."""

from hwnas.engine.spaces.cell.space import CellSpace, Config, build
from hwnas.engine.spaces.cell.supernet import CellSupernet, DropBlockIdentity, MixedOperation

ORDERED = False  # operations have the published indices, which do not go from small to large
EXAMPLE = Config(resolution=8, nodes=3, channels=4, stages=2, cells=1)

__all__ = ["EXAMPLE", "ORDERED", "CellSpace", "CellSupernet", "Config", "DropBlockIdentity", "MixedOperation", "build"]
