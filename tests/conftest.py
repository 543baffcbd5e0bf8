"""One thread a process: on two shared cores two OpenMP threads wait for each other more than they compute."""

import torch

from tests.postgresql import location, postgresql, postgresql_server

torch.set_num_threads(1)

__all__ = ["location", "postgresql", "postgresql_server"]  # fixtures of every test
