"""One thread a process: on two shared cores two OpenMP threads wait for each other more than they compute."""

import torch

from tests.boards.arm64 import arm64_board
from tests.postgresql import location, postgresql, postgresql_server

torch.set_num_threads(1)

__all__ = ["arm64_board", "location", "postgresql", "postgresql_server"]  # fixtures of every test
