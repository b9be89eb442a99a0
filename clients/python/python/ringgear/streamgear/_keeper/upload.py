"""An output that is a URL: what the daemon publishes goes there by HTTP PUT, media before the playlists that name them, and what has left
the folder by DELETE."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import time
from typing import Iterator
from urllib.parse import quote, unquote, urlsplit

#: A server that takes nothing for so long is given up.
_GIVEN_UP = 30.0
_PATIENCE = 10.0
#: The root has the folder, that has the stream's, then a recording's and a rendition's.
_DEPTH = 5
_MEDIA = re.compile(r"init-[0-9A-Za-z]+\.mp4|\d+\.m4s")
_TYPES = {".mp4": "video/mp4", ".m4s": "video/iso.segment", ".m3u8": "application/vnd.apple.mpegurl", ".mpd": "application/dash+xml"}


class Rejected(OSError):
    """The server does not take a file."""


class Upload:
    """Brings a folder to a URL, look by look."""

    def __init__(self, root: str, url: str) -> None:
        self._root = root
        parts = urlsplit(url)
        if parts.hostname is None:
            raise ValueError(f"{url!r} names no host")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=_PATIENCE)
        self._base = parts.path.rpartition("/")[0] + "/"
        self._query = f"?{parts.query}" if parts.query else ""
        self._headers = {}
        if parts.username is not None:
            word = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(word.encode()).decode()
        self._there: dict[str, tuple[int, int, int]] = {}
        self._failing: float | None = None

    def pass_over(self) -> None:
        """Brings over what has changed. Raises OSError once the server has taken nothing for a while."""
        try:
            self._bring()
            self._failing = None
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            now = time.monotonic()
            self._failing = self._failing if self._failing is not None else now
            if now - self._failing > _GIVEN_UP:
                raise Rejected(f"nothing has been taken for {_GIVEN_UP:g} s: {error}") from error

    def finish(self) -> str | None:
        """The last pass, tried until the server has all or is given up: why it is, or None."""
        while True:
            try:
                self.pass_over()
            except OSError as error:
                return str(error)
            if self._failing is None:
                self._connection.close()
                return None
            time.sleep(0.5)

    def remove(self) -> None:
        """Takes everything away again."""
        # The server may have closed it while the daemon stopped.
        self._connection.close()
        with contextlib.suppress(OSError, http.client.HTTPException):
            for name in list(self._there):
                self._send("DELETE", name)

    def _bring(self) -> None:
        found = dict(self._files(self._root, "", _DEPTH))
        for name in sorted(found, key=_rank):
            if self._there.get(name) != found[name]:
                self._put(name)
                self._there[name] = found[name]
        for name in [name for name in self._there if name not in found]:
            self._send("DELETE", name)
            del self._there[name]

    def _files(self, place: str, prefix: str, depth: int) -> Iterator[tuple[str, tuple[int, int, int]]]:
        """Each file that viewers need, and what tells its version."""
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(place):
                if entry.is_dir(follow_symlinks=False):
                    if depth > 1:
                        yield from self._files(entry.path, f"{prefix}{entry.name}/", depth - 1)
                elif _MEDIA.fullmatch(entry.name) or _is_playlist(entry.name, prefix):
                    with contextlib.suppress(FileNotFoundError):
                        now = entry.stat(follow_symlinks=False)
                        yield prefix + entry.name, (now.st_ino, now.st_mtime_ns, now.st_size)

    def _put(self, name: str) -> None:
        try:
            with open(os.path.join(self._root, name), "rb") as file:
                content = file.read()
        except FileNotFoundError:
            # It has left the window meanwhile.
            return
        status = self._send("PUT", name, content)
        if not 200 <= status < 300:
            raise Rejected(f"the server answers PUT of {name} with status {status}")

    def _send(self, method: str, name: str, content: bytes | None = None) -> int:
        headers = dict(self._headers)
        if content is not None:
            headers["Content-Type"] = _TYPES.get(os.path.splitext(name)[1], "application/octet-stream")
        self._connection.request(method, self._base + quote(name) + self._query, content, headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status


def _is_playlist(name: str, prefix: str) -> bool:
    """A rendition's playlist, or a manifest; not the daemon's own manifest, whose copy is what counts."""
    wanted = name.endswith((".m3u8", ".mpd")) and not name.startswith(".")
    return wanted and not (prefix and name in ("index.m3u8", "manifest.mpd"))


def _rank(name: str) -> tuple[int, str]:
    """Media first, then the playlists of renditions, then the manifest, which names them."""
    media = _MEDIA.fullmatch(os.path.basename(name)) is not None
    return (0 if media else 1 if "/" in name else 2, name)
