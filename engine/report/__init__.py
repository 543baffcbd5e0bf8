"""A search as one HTML file that needs nothing else, and its front as a table for the terminal."""

from hwnas.engine.report.data import Candidates, HypervolumeTrace, NetworkCheck, ReportData, TableSummary
from hwnas.engine.report.page import write_report
from hwnas.engine.report.terminal import front_table

__all__ = [
    "Candidates",
    "HypervolumeTrace",
    "NetworkCheck",
    "ReportData",
    "TableSummary",
    "front_table",
    "write_report",
]
