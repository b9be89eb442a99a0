"""The manifest where the script wants it: the daemon's own, with the folder's name before each address."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Callable
from urllib.parse import quote


def hls(text: str, prefix: str) -> str:
    """A playlist whose addresses all begin with `prefix`."""
    return _each_address(text, lambda address: prefix + address)


def variants(text: str, name_of: Callable[[str], str]) -> tuple[str, dict[str, str]]:
    """A multivariant playlist whose media playlists have other names; and these by the old ones."""
    names: dict[str, str] = {}

    def renamed(address: str) -> str:
        return names.setdefault(address, name_of(address))

    return _each_address(text, renamed), names


def dash(text: str, prefix: str, manifest: str) -> str:
    """An MPD called `manifest` whose media all begin with `prefix`. A BaseURL would do so too, but some players then look for the clock there."""
    text = re.sub(r'(\s(?:media|initialization)=")', lambda found: found[1] + prefix, text)
    # Players learn the time from the server's answer for the MPD itself.
    clock = re.compile(r'(<UTCTiming schemeIdUri="urn:mpeg:dash:utc:http-head:2014" value=")[^"]*"')
    return clock.sub(lambda found: f'{found[1]}{quote(manifest)}"', text)


class Watched:
    """A file that is replaced whole whenever it changes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    def changed(self) -> str | None:
        """Its text if it is another than the last time."""
        try:
            with open(self._path, encoding="utf-8") as file:
                now = os.fstat(file.fileno())
                key = (now.st_ino, now.st_mtime_ns, now.st_size)
                if key == self._seen:
                    return None
                text = file.read()
        except FileNotFoundError:
            return None
        self._seen = key
        return text


def replace(path: str, text: str) -> None:
    """Puts `text` at `path`, whole or not at all."""
    place, name = os.path.split(path)
    temporary = os.path.join(place, f".{name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _each_address(text: str, changed: Callable[[str], str]) -> str:
    lines = []
    for line in text.split("\n"):
        if line.startswith("#"):
            line = re.sub(r'(\bURI=")([^"]*)"', lambda found: f'{found[1]}{changed(found[2])}"', line)
        elif line.strip():
            line = changed(line)
        lines.append(line)
    return "\n".join(lines)
