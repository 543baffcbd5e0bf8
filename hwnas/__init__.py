"""Hardware-aware neural architecture search: the import name, and nothing else."""

__version__ = "0.1.0"
