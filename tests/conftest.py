"""One thread a process: on two shared cores two OpenMP threads wait for each other more than they compute."""

import torch

torch.set_num_threads(1)
