"""What StreamGear raises beside ValueError, RuntimeError and AssertionError."""

from __future__ import annotations

import subprocess

from .._errors import RinggearError


class EncodingFailed(RinggearError, ValueError):
    """Frames can't be encoded any more, or never could: the message has the daemon's or FFmpeg's own words."""


class TranscodingFailed(RinggearError, subprocess.CalledProcessError):
    """The source could not be transcoded as a whole."""

    def __init__(self, message: str, command: str) -> None:
        subprocess.CalledProcessError.__init__(self, 1, command, stderr=message)
        self._message = message

    def __str__(self) -> str:
        return self._message
