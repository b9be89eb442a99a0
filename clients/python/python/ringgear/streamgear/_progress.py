"""How far a source has come, on a terminal's one line."""

from __future__ import annotations

import os
import sys
import time

from ._wishes import log


class Progress:
    """Shows it on standard error if that is a terminal; else each tenth is logged."""

    def __init__(self, source: str, frames: float | None) -> None:
        self._name = os.path.basename(source)
        self._frames = frames
        self._begin = time.monotonic()
        self._tenths = 0
        self._shown = False

    def show(self, done: int) -> None:
        """So many frames are published."""
        words = self.words(done, time.monotonic() - self._begin)
        tenths = int(10 * done / self._frames) if self._frames else 0
        if sys.stderr is not None and sys.stderr.isatty():
            self._shown = True
            print(f"\r{words}\x1b[K", end="", file=sys.stderr, flush=True)
        elif tenths > self._tenths:
            log.info("%s", words)
        self._tenths = tenths

    def words(self, done: int, seconds: float) -> str:
        """``foo.mp4: 43 %, 210 frames, 105 a second, 3 s left``."""
        rate = done / seconds if seconds > 0 else 0.0
        words = f"{done} frames, {rate:.0f} a second"
        if self._frames:
            share = min(100, int(100 * done / self._frames))
            words = f"{share} %, {words}"
            if rate > 0:
                words += f", {max(0.0, self._frames - done) / rate:.0f} s left"
        return f"{self._name}: {words}"

    def close(self) -> None:
        """Ends the line."""
        if self._shown:
            print(file=sys.stderr, flush=True)
