"""The front as a table for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from hwnas.engine.front import Front, FrontPoint
from hwnas.engine.report.words import large, milliseconds, percent, prediction_error, short, ties


def front_table(front: Front) -> Table:
    """A row a point, fastest first; figures that are predicted and not measured are marked with ~."""
    verified = any(point.verified for point in front.points)
    measured = "modelled and not measured" if front.modelled else "measured"
    title = f"Front, {measured}" if verified else "Front, predicted and not measured (~)"
    table = Table(title=title, title_justify="left", caption_justify="left", header_style="bold")
    for name in ("#", "latency ms", "predicted ms", "accuracy", "MACs"):
        table.add_column(name, justify="right", no_wrap=True)
    weighed = [name for name in front.objectives if any(name in point.figures for point in front.points)]
    for name in weighed:
        table.add_column(Text(name), justify="right", no_wrap=True)
    table.add_column("architecture")  # gives way where the terminal is narrow
    if not front.points:
        table.caption = "no points"
        return table
    bend = front.knee()
    for number, point in enumerate(front.points, 1):
        figures = [Text(f"{point.figures[name]:.4g}" if name in point.figures else "") for name in weighed]
        *cells, architecture = _cells(number, point)
        table.add_row(*cells, *figures, architecture, style="bold" if point is bend else "")
    table.caption = f"bold: the knee; accuracy on the {'test' if verified else 'validation'} split"
    if front.tied:
        table.caption += f"; {ties(front)}"
    return table


def _cells(number: int, point: FrontPoint) -> list[Text]:
    """Text, not markup: a name with brackets stays a name."""
    latency = milliseconds(point.known_latency_ms)
    cells = [
        str(number),
        latency if point.verified else f"~{latency}",
        f"{milliseconds(point.latency_predicted_ms)} {prediction_error(point)}",
        percent(point.known_accuracy),
        large(point.macs),
        short(point.genes),
    ]
    return [Text(cell) for cell in cells]
