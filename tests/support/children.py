"""Child processes with a time limit: a hang fails the test, and none outlives it."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

# Machines may stop processes for minutes.
LIMIT = 1200.0
# XLA ends a process whose devices wait for each other for 40 seconds.
PATIENCE = "--xla_cpu_collective_call_terminate_timeout_seconds=1200"


EIGHT_DEVICES = "--xla_force_host_platform_device_count=8"


def environment(flags: str) -> dict[str, str]:
    """Variables of a child process that imports this repository, on CPUs."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flags} {PATIENCE}"
    own = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return {**os.environ, **own, "PYTHONPATH": str(ROOT)}


def results_on_eight_devices(program: str, *arguments: str) -> Any:
    """The JSON that a Python program prints, run with eight simulated devices."""
    done = subprocess.run(
        [sys.executable, program, *arguments],
        env=environment(EIGHT_DEVICES),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@dataclasses.dataclass(frozen=True)
class Child:
    """A running program, and the file that gets all it prints."""

    process: subprocess.Popen[bytes]
    log: Path
    end: float

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def wait_for(self, start: str) -> None:
        """Until a line begins like this."""
        while not any(line.startswith(start) for line in self.lines()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < self.end, self.log.read_text()
            time.sleep(0.01)

    def finish(self) -> list[str]:
        """The printed lines, once the process has ended without error."""
        code = self.process.wait(timeout=self.end - time.monotonic())
        assert code == 0, self.log.read_text()
        return self.lines()

    def kill(self) -> None:
        """By SIGKILL: it can neither finish a file nor say goodbye."""
        assert self.process.poll() is None, self.log.read_text()
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL


@contextlib.contextmanager
def child(arguments: list[str], log: Path, flags: str = "") -> Iterator[Child]:
    """Python with these arguments, in the log's folder, with these flags for XLA."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(flags),
            cwd=log.parent,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Child(process, log, time.monotonic() + LIMIT)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
