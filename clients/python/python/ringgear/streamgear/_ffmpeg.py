"""What has to be asked of FFmpeg before a daemon is started: is it there, which URLs does it know, what is in a file."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from typing import NamedTuple, Sequence

#: FFmpeg answers at once, unless the network or a device keeps it waiting.
_PATIENCE = 30.0


class Video(NamedTuple):
    """The video of a file or URL, as it is shown: a phone's film may be turned."""

    width: int
    height: int
    #: Frames per second, as FFmpeg prints it.
    framerate: str
    #: Seconds; None for what has no end.
    duration: float | None
    has_audio: bool


def find(custom: str) -> str | None:
    """The FFmpeg program: ``custom`` if it is one or a folder that has one, without it the one in $PATH; None if there is none that runs."""
    if not custom:
        path = shutil.which("ffmpeg")
    elif os.path.isfile(custom):
        path = os.path.abspath(custom)
    else:
        path = os.path.join(os.path.abspath(custom), "ffmpeg")
    if path is None or not os.path.isfile(path):
        return None
    return path if _runs(path, os.stat(path).st_mtime_ns) else None


@functools.lru_cache(maxsize=8)
def _runs(path: str, changed: int) -> bool:
    """Whether the program at `path`, as it was `changed` last, is an FFmpeg that runs."""
    try:
        answer = subprocess.run([path, "-version"], capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and b"version" in answer.stdout


def knows_url(ffmpeg: str, url: str) -> bool:
    """Whether FFmpeg has the protocol of ``url``."""
    scheme, colon, _ = url.partition("://")
    if not colon or not scheme:
        return False
    if scheme in ("rtsp", "rtsps"):
        return True
    known = _printed(ffmpeg, ["-protocols"], error=False)
    return scheme in known.split()


def has_audio(ffmpeg: str, input_args: Sequence[str], source: str) -> bool:
    """Whether FFmpeg finds audio in it."""
    return re.search(r"Stream #.*: Audio: ", _printed(ffmpeg, [*input_args, "-i", source])) is not None


def video(ffmpeg: str, source: str) -> Video | None:
    """The video of ``source``, or None if FFmpeg finds none with a size and a framerate."""
    printed = _printed(ffmpeg, ["-i", source])
    lines = printed.splitlines()
    for at, line in enumerate(lines):
        if not re.search(r"Stream #.*: Video: ", line):
            continue
        size = re.search(r"[ ,]([1-9]\d*)x([1-9]\d*)[ ,\[]", line)
        rate = re.search(r"([\d.]+k?) fps", line) or re.search(r"([\d.]+k?) tbr", line)
        if size and rate and "attached pic" not in line:
            lasts = re.search(r"Duration: (\d+):(\d+):([\d.]+)", printed)
            duration = int(lasts[1]) * 3600 + int(lasts[2]) * 60 + float(lasts[3]) if lasts else None
            framerate = rate[1] if not rate[1].endswith("k") else str(float(rate[1][:-1]) * 1000)
            width, height = int(size[1]), int(size[2])
            if _is_turned(lines[at + 1 :]):
                width, height = height, width
            return Video(width, height, framerate, duration, re.search(r"Stream #.*: Audio: ", printed) is not None)
    return None


def _is_turned(below: Sequence[str]) -> bool:
    """Whether FFmpeg turns the pictures of a stream by a quarter or three, ``below`` being what it prints after the stream's own line."""
    for line in below:
        turned = re.search(r"displaymatrix: rotation of (-?[\d.]+) degrees", line)
        if turned:
            return round(float(turned[1]) / 90) % 2 == 1
        if "Stream #" in line:
            break
    return False


def _printed(ffmpeg: str, arguments: Sequence[str], *, error: bool = True) -> str:
    """What FFmpeg prints, whatever it thinks of having no output."""
    command = [ffmpeg, "-hide_banner", "-nostdin", *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (answer.stderr if error else answer.stdout).decode("utf-8", "replace")
