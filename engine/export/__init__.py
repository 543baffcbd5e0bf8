"""A folder per front point that can be deployed: weights, program, ONNX, TVM library, figures, checksums."""

from hwnas.engine.export.folder import ExportedFile, ExportError, verify_export
from hwnas.engine.export.point import ExportRecord, Origin, export_point, folder_name

__all__ = [
    "ExportError",
    "ExportRecord",
    "ExportedFile",
    "Origin",
    "export_point",
    "folder_name",
    "verify_export",
]
