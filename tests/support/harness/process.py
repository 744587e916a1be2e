"""A child process whose output is read line by line."""

import contextlib
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
DEADLINE = 60.0


class Process:
    """A child with its output in a queue; it never outlives the test."""

    def __init__(self, name: str, command: Sequence[str], *, cwd: Path | None = None) -> None:
        self.name = name
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._queue.put(line.rstrip())
        self._queue.put(None)

    def wait_line(self, text: str, *, deadline: float = DEADLINE) -> str:
        """Return the next line that contains `text`."""
        while True:
            try:
                line = self._queue.get(timeout=deadline)
            except queue.Empty:
                raise AssertionError(f"{self.name}: no line with {text!r}\n{self.tail()}") from None
            if line is None:
                raise AssertionError(f"{self.name} ended before a line with {text!r}\n{self.tail()}")
            self.lines.append(line)
            if text in line:
                return line

    def write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def tail(self) -> str:
        """Return what it said last, for a failing test's message."""
        while True:
            try:
                line = self._queue.get_nowait()
            except queue.Empty:
                break
            if line is not None:
                self.lines.append(line)
        return "\n".join(self.lines[-40:])

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Cut its power: SIGKILL."""
        self._process.kill()
        self._end()

    def hang_up(self) -> None:
        """Ask it to read its files again: SIGHUP."""
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Ask it to end, and see that it does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._end()

    def wait(self, deadline: float = DEADLINE) -> int:
        """Return its exit code when it has ended by itself."""
        code = self._process.wait(deadline)
        self._end()
        return code

    def _end(self) -> None:
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
