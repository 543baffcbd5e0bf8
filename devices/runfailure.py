"""An artefact that did not run: a result, where an error would stop something."""

from __future__ import annotations


class RunFailure(RuntimeError):  # noqa: N818  # a result, named as one
    """An artefact that did not run on the device: a result that is kept, not a reason to stop."""


class KernelHung(RunFailure):
    """An artefact that did not end within its time: a result too, and the device has been freed of it."""
