"""A progress bar for cells that take seconds to hours."""

import shutil
import time
from types import TracebackType
from typing import TextIO

from experiments.harness.contract import Row

BAR = 20
SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Shows count, bar, time spent, time to go and the cell being measured.

    On a terminal one line is redrawn; elsewhere a line is printed at most every five
    seconds, so that a log stays readable. The time to go is the mean of the cells
    measured so far times the cells left; cells of earlier runs count as done but not
    as time.
    """

    def __init__(self, name: str, total: int, ready: int, stream: TextIO) -> None:
        self._name, self._total, self._ready = name, total, ready
        self._stream = stream
        self._terminal = stream.isatty()
        self._measured = 0
        self._start = time.perf_counter()
        self._last_line = -SECONDS_BETWEEN_LINES

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._terminal:
            print(file=self._stream)
        spent = clock(time.perf_counter() - self._start)
        left = self._total - self._ready - self._measured
        rest = f", {left} left" if left else ""
        print(
            f"{self._name}: {self._measured} cells measured in {spent}{rest}",
            file=self._stream,
            flush=True,
        )

    def begin(self, cell: Row) -> None:
        """Shows the cell about to be measured."""
        elapsed = time.perf_counter() - self._start
        text = f"{self._line(elapsed)}  {' '.join(f'{k}={v}' for k, v in cell.items())}"
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{text[:width]}\x1b[K", end="", file=self._stream, flush=True)
        elif elapsed - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = elapsed
            print(text, file=self._stream, flush=True)

    def finish(self) -> None:
        """Counts the cell shown last as measured."""
        self._measured += 1

    def _line(self, elapsed: float) -> str:
        done = self._ready + self._measured
        left = self._total - done
        bar = "#" * (BAR * done // self._total)
        togo = "?"
        if self._measured:
            togo = clock(elapsed / self._measured * left)
        return (
            f"{self._name} {done}/{self._total} [{bar:-<{BAR}}] {left} left, "
            f"{clock(elapsed)} spent, {togo} to go"
        )


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
