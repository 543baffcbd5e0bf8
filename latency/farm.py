"""Boards that measure while this machine compiles: who is free takes what is ready, and gives it back in trouble."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from hwnas.devices import DeviceError, RunFailure, Runner
from hwnas.devices.compile import Artefact, CompileFailure
from hwnas.devices.drift import FEWEST
from hwnas.latency.visits import Visited, Visitor
from hwnas.latency.work import Made, Work, untried

# A batch that was under way when its board died twice holds a suspect: from then on each of it goes alone.
_ALONE_AFTER = 2
# What a board died of so often when it was alone there has failed.
_GIVEN_UP_AFTER = 4
# So often a lost board is asked whether it is back, after 1, 2, 4, ... seconds.
_PATIENCE = 6


@dataclass
class Farm:
    """A build over several boards. Everything that threads share is under `_changed`."""

    visitor: Visitor
    runners: Sequence[Runner]
    chunk: int
    on_compiled: Callable[[Made], None]
    on_visited: Callable[[Visited], None]
    clock: Callable[[], float]
    deadline: float | None = None
    busy_s: dict[str, float] = field(default_factory=dict)  # by board, or by the runner's number where it has no name
    gone: list[DeviceError] = field(default_factory=list)  # why each board that does not come back is gone
    _ready: deque[Made] = field(default_factory=deque)
    _lost: Counter[str] = field(default_factory=Counter)  # key of a work -> boards that died with it
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _under_way: int = 0
    _to_come: bool = True  # more will be compiled
    _begun: bool = False  # the table has a first visit, which later ones refer to
    _stopped: bool = False
    _error: BaseException | None = None

    def run(self, works: Sequence[Work], compiled: Iterator[tuple[int, Artefact | CompileFailure]]) -> None:
        """Take what `compiled` gives for `works` to the boards.

        Raises DeviceError where the last board is gone, BuildError where nothing works; what was committed stays.
        """
        self._begun = bool(self.visitor.table.first_visit_rows())
        threads = [
            threading.Thread(target=self._serve_and_leave, args=(index, runner), daemon=True)
            for index, runner in enumerate(self.runners)
        ]
        for thread in threads:
            thread.start()
        try:
            for index, result in compiled:
                made = Made(works[index], result)
                self.on_compiled(made)
                with self._changed:
                    self._ready.append(made)
                    self._changed.notify_all()
                    if self._stopped or not any(thread.is_alive() for thread in threads):
                        break
            with self._changed:
                self._to_come = False
                self._changed.notify_all()
            # a board that is still being waited for is not waited for once all is done
            while any(thread.is_alive() for thread in threads) and not self._finished():
                with self._changed:
                    self._changed.wait(0.2)
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            for thread, runner in zip(threads, self.runners, strict=True):
                thread.join(1)
                if thread.is_alive() and hasattr(runner, "interrupt"):
                    runner.interrupt()
                thread.join(5)
        self._raise()

    def run_here(self, works: Sequence[Work], compiled: Iterable[tuple[int, Artefact | CompileFailure]]) -> None:
        """As `run`, with everything compiled first and one device served by the calling thread.

        The process that times on this machine dies with the thread that started it.
        """
        for index, result in compiled:
            made = Made(works[index], result)
            self.on_compiled(made)
            self._ready.append(made)
        self._to_come = False
        self._serve(0, self.runners[0])
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
        if len(self.gone) == len(self.runners):
            raise self.gone[-1]

    def _serve(self, index: int, runner: Runner) -> None:
        while batch := self._take():
            began = self.clock()
            arrived = False
            try:
                batch = self._still_wanted(batch)
                state = self.visitor.arrive(runner)
                arrived = True
                visited = self.visitor.visit(runner, batch, state) if batch else None
            except DeviceError as error:
                self._give_back(batch, error, blame=arrived)
                # it must answer before another batch is blamed for its death
                if not self._comes_back(runner, error):
                    break
                continue
            except BaseException as error:  # one thread's end is everybody's: the build tells what it was
                with self._changed:
                    self._error, self._stopped = error, True
                    self._changed.notify_all()
                break
            with self._changed:
                board = state.board or str(index)
                self.busy_s[board] = self.busy_s.get(board, 0.0) + self.clock() - began
                self._under_way -= 1
                self._begun = True
                self._changed.notify_all()
                if visited is not None:
                    self.on_visited(visited)

    def _comes_back(self, runner: Runner, error: DeviceError) -> bool:
        """Whether the board answers again; asks after 1, 2, 4, ... seconds."""
        for attempt in range(_PATIENCE):
            if self._wait(2.0**attempt):
                return False
            try:
                self.visitor.arrive(runner)
                return True
            except DeviceError as still:
                error = still
        with self._changed:
            self.gone.append(error)
        return False

    def _serve_and_leave(self, index: int, runner: Runner) -> None:
        self._serve(index, runner)
        with suppress(DeviceError):
            runner.close()

    def _take(self) -> list[Made]:
        """The next batch; waits while there may be one, and gives nothing when there will not."""
        with self._changed:
            while not self._over():
                # later visits refer to the first: nobody else begins before it is done
                if self._enough() and (self._begun or not self._under_way):
                    self._under_way += 1
                    return self._batch()
                self._changed.wait(1.0)
            return []

    def _enough(self) -> bool:
        """A handful at least: anchors are timed with every batch, and a round's drift is read from many artefacts."""
        return len(self._ready) >= (min(FEWEST, self.chunk) if self._to_come else 1)

    def _over(self) -> bool:
        """Whether no more batches are given out."""
        if self._stopped or (self.deadline is not None and self.clock() >= self.deadline):
            return True
        return not (self._ready or self._to_come or self._under_way)

    def _finished(self) -> bool:
        return self._over() and not self._under_way

    def _batch(self) -> list[Made]:
        share = self._share()
        batch = [self._ready.popleft()]
        while self._ready and len(batch) < share and not self._suspect(batch[0]) and not self._suspect(self._ready[0]):
            batch.append(self._ready.popleft())
        return batch

    def _share(self) -> int:
        """Towards the end every board gets its part of what is left."""
        if self._to_come:
            return self.chunk
        return min(self.chunk, -(-len(self._ready) // (len(self.runners) - len(self.gone))))

    def _suspect(self, made: Made) -> bool:
        return self._lost[made.work.key] >= _ALONE_AFTER

    def _still_wanted(self, batch: Sequence[Made]) -> list[Made]:
        """Without what another builder of the same table has done meanwhile."""
        wanted = {work.key for work in untried(self.visitor.table, [made.work for made in batch])}
        return [made for made in batch if made.work.key in wanted]

    def _give_back(self, batch: Sequence[Made], error: DeviceError, *, blame: bool) -> None:
        with self._changed:
            self._under_way -= 1
            for made in reversed(batch):
                suspect = isinstance(made.result, Artefact) and made.result.path.name in error.suspects
                # what did not answer before the board was lost goes alone at once
                self._lost[made.work.key] += _ALONE_AFTER if suspect else blame
                if len(batch) == 1 and self._lost[made.work.key] >= _GIVEN_UP_AFTER:
                    how = "it did not answer in time, and then" if suspect else "with it alone"
                    lost = RunFailure(f"boards were lost again and again, {how}: {error}")
                    self._ready.append(Made(made.work, lost))
                else:
                    self._ready.appendleft(made)
            self._changed.notify_all()

    def _wait(self, seconds: float) -> bool:
        """Whether the build stopped meanwhile."""
        with self._changed:
            return self._changed.wait_for(lambda: self._stopped, timeout=seconds)
