"""Progress for a person: on standard error, so that standard output holds the answer alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


@dataclass
class Bar:
    """One progress bar."""

    progress: Progress
    task: TaskID

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` are done."""
        self.progress.update(self.task, completed=done, total=total, note=note)


@dataclass
class Terminal:
    """Lines and bars; lines alone where nobody looks at a terminal."""

    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False, soft_wrap=True))

    def say(self, line: str, *, style: str = "") -> None:
        """One line."""
        self.console.print(line, style=style or None, markup=False)

    @contextmanager
    def bar(self, title: str, *, total: int) -> Iterator[Bar]:
        """A bar that stays when it is full."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            yield Bar(progress, progress.add_task(title, total=total, note=""))
