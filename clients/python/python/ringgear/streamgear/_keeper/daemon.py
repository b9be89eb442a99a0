"""The daemon as the keeper has it: started, watched, asked how it is, and stopped."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Sequence

_PR_SET_PDEATHSIG = 1
#: The daemon's last words that are kept.
_WORDS = 40
_LONGEST_LINE = 4096
#: How long the daemon may take to answer; it does so at once unless the machine is very busy.
_PATIENCE = 10.0


class Daemon:
    """A running `ringgear serve`, which ends with the keeper however that ends."""

    def __init__(self, command: Sequence[str], control: str, *, shown: bool) -> None:
        self._control = control
        self._shown = shown
        self._words: collections.deque[str] = collections.deque(maxlen=_WORDS)
        libc = ctypes.CDLL(None)

        def bound() -> None:
            # The keeper starts no other thread before, so nothing holds a lock here.
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=bound
        )
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def is_running(self) -> bool:
        return self._process.poll() is None

    def words(self) -> str:
        """Its last words: those that say what went wrong, else the last few."""
        self._reader.join(1.0)
        words = list(self._words)
        bad = [line for line in words if "ERROR" in line or "WARN" in line or " INFO " not in line]
        return "\n".join((bad or words)[-10:])

    def stop(self) -> None:
        """Asks it to stop in good order."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def end(self) -> None:
        """Sees to it that it does not run any more."""
        if self.is_running():
            self.stop()
            if self.wait(_PATIENCE) is None:
                self.kill()
                self._process.wait()

    def wait(self, seconds: float) -> int | None:
        """Its exit status, or None if it still runs after so long."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def status(self) -> dict[str, Any] | None:
        """What it says of its one stream; None if it does not answer."""
        found = streams(self._control)
        return found[0] if found else None

    def _listen(self) -> None:
        stderr = self._process.stderr
        if stderr is None:
            return
        with stderr:
            while line := stderr.readline(_LONGEST_LINE):
                text = line.decode("utf-8", "replace").rstrip()
                self._words.append(text)
                if self._shown:
                    # The script may have closed its end.
                    with contextlib.suppress(OSError, ValueError):
                        print(text, file=sys.stderr, flush=True)


def streams(control: str) -> list[dict[str, Any]] | None:
    """What the daemon at this control socket says of its streams; None if it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(control)
            connection.sendall(b'{"type":"status"}\n')
            line = _line(connection, time.monotonic() + _PATIENCE)
        found = json.loads(line)["status"]["streams"]
        return [stream for stream in found if isinstance(stream, dict)]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _line(connection: socket.socket, deadline: float) -> bytes:
    answer = bytearray()
    while not answer.endswith(b"\n") and len(answer) < 1 << 22:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        piece = connection.recv(1 << 16)
        if not piece:
            break
        answer += piece
    return bytes(answer)


def gone(parent: int) -> bool:
    """Whether the process that started this one has ended."""
    return os.getppid() != parent
