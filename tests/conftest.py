"""What holds for every test.

One thread a process: on two shared cores two OpenMP threads wait for each other more than they compute.
"""

import torch
from hypothesis import settings

from tests.boards.arm64 import arm64_board
from tests.postgresql import location, postgresql, postgresql_server

torch.set_num_threads(1)

# how long an example takes is the machine's business
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

__all__ = ["arm64_board", "location", "postgresql", "postgresql_server"]  # fixtures of every test
