"""A private daemon, by way of its keeper: started for one script, and gone with it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from typing import IO, Callable, NamedTuple
from urllib.parse import unquote, urlsplit

from . import _keeper
from ._errors import EncodingFailed
from ._keeper import assets
from ._keeper.daemon import streams
from ._wishes import log

#: How long the keeper may take until it says how the start went; it gives the daemon a minute.
_START = 90.0
#: A socket's address has no room for more.
_LONGEST_SOCKET = 100


class Task(NamedTuple):
    """What a private daemon is for."""

    #: The manifest: an absolute path, or a URL.
    output: str
    format: str
    base_url: str
    remove_at_exit: bool
    force: bool
    #: Whether it has a source of its own, and is done at its end.
    source: bool
    #: Which words of an error are followed by another try, so that nothing of this one stays.
    tried_again: tuple[str, ...]
    #: Whether its log is shown.
    shown: bool


class Home(NamedTuple):
    """The private folder of a daemon, and where it publishes."""

    place: str
    control: str
    #: The manifest here, and where it is to go from here.
    output: str
    url: str | None
    assets: assets.Folder
    stream: str

    @classmethod
    def make(cls, task: Task) -> Home:
        """Makes both."""
        root = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        if len(os.path.join(root, "ringgear-12345678", "control.sock")) > _LONGEST_SOCKET or not os.access(root, os.W_OK):
            root = "/tmp"
        output, url = task.output, None
        if "://" in output:
            # What goes to a server is kept here as well: a recording may be larger than what fits in memory.
            output, url = os.path.join(tempfile.mkdtemp(prefix="ringgear-out-"), manifest_of(output)), output
        folder = assets.make(output, task.format)
        place = tempfile.mkdtemp(prefix="ringgear-", dir=root)
        return cls(place, os.path.join(place, "control.sock"), output, url, folder, assets.stream_name(output))

    @property
    def places(self) -> list[str]:
        """What goes when the daemon is gone."""
        return [self.place] if self.url is None else [self.place, os.path.dirname(self.output)]

    def discard(self) -> None:
        """Removes both; for a daemon that never came."""
        assets.remove(self.assets, with_manifest=False)
        for place in self.places:
            shutil.rmtree(place, ignore_errors=True)


def manifest_of(url: str) -> str:
    """The manifest's file name in a URL."""
    return unquote(urlsplit(url).path).rpartition("/")[2]


def binary() -> str | None:
    """The `ringgear` program: $RINGGEAR_BINARY, or the one in $PATH."""
    named = os.environ.get("RINGGEAR_BINARY")
    if named:
        return os.path.abspath(named) if os.access(named, os.X_OK) and os.path.isfile(named) else None
    return shutil.which("ringgear")


class PrivateDaemon:
    """Starts one, and waits until its doors are open; raises `EncodingFailed` with its words when it does not start."""

    def __init__(self, program: str, config: str, home: Home, task: Task) -> None:
        self.force = task.force
        file, job = os.path.join(home.place, "ringgear.toml"), os.path.join(home.place, "job.json")
        with open(file, "w", encoding="utf-8") as toml:
            toml.write(config)
        wanted = {
            "parent": os.getpid(),
            "command": [program, "serve", "--config", file],
            "control": home.control,
            "places": home.places,
            "folder": home.assets.path,
            "stream": home.stream,
            **task._asdict(),
            "output": home.output,
            "url": home.url,
        }
        with open(job, "w", encoding="utf-8") as out:
            json.dump(wanted, out)
        # A session of its own: Ctrl-C in a terminal is the script's to handle.
        self._keeper = subprocess.Popen(
            _keeper.command(job), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, cwd="/"
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(self._keeper.stdout, self._lines), daemon=True).start()
        first = self._line(_START)
        if first != "up":
            wrong = self._wrong(first) or f"its keeper said {first!r} and no more"
            self._keeper.kill()
            self._keeper.wait()
            raise EncodingFailed(wrong)

    def fault(self, seconds: float) -> str | None:
        """What went wrong, if anything does within so many seconds."""
        return self._wrong(self._line(seconds))

    def follow(self, progress: Callable[[int], None]) -> str | None:
        """Waits until all of a source is published, and tells of each step how many frames are: what went wrong, or None."""
        while (line := self._line(None)) is not None:
            word, _, rest = line.partition(" ")
            if word == "done":
                return None
            if word == "frames":
                progress(int(rest))
            elif word == "failed":
                return self._wrong(line)
        return "the daemon's keeper is gone, and nobody knows why"

    def stop(self) -> str | None:
        """Ends the stream and the daemon, and waits for that: what went wrong, or None."""
        if self._keeper.stdin is not None:
            # It may have ended by itself.
            with contextlib.suppress(OSError), self._keeper.stdin as pipe:
                pipe.write(b"stop\n")
        wrong = None
        # Until the end of its words, which is the end of the keeper.
        while (line := self._line(None)) is not None:
            wrong = self._wrong(line) or wrong
        status = self._keeper.wait()
        if status != 0 and wrong is None:
            wrong = f"the daemon's keeper ended with status {status}"
        return wrong

    def _line(self, seconds: float | None) -> str | None:
        """The keeper's next line but its notes; None at its end, or after so many seconds."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            return None
        if line is None:
            # Whoever asks again learns it, too.
            self._lines.put(None)
        return line

    @staticmethod
    def _wrong(line: str | None) -> str | None:
        if line is None or not line.startswith("failed "):
            return None
        return str(json.loads(line[len("failed ") :]))


def _listen(out: IO[bytes], lines: queue.SimpleQueue[str | None]) -> None:
    """Passes on the keeper's lines, and None at their end. Its notes are logged as they come: the script may be waiting for the encoder."""
    heard = b""
    try:
        # Past its buffer, whose lock a fork of the script would never get.
        while piece := os.read(out.fileno(), 1 << 16):
            *whole, heard = (heard + piece).split(b"\n")
            for line in whole:
                text = line.decode("utf-8", "replace")
                if text.startswith("note "):
                    log.warning("%s", json.loads(text[len("note ") :]))
                else:
                    lines.put(text)
    finally:
        lines.put(None)
        out.close()


def is_live(control: str | None, stream: str) -> bool:
    """Whether a running daemon's stream follows the clock; a recording holds its producer back by itself."""
    path = control or os.environ.get("RINGGEAR_SOCKET") or "/run/ringgear/control.sock"
    return all(found.get("mode", "live") == "live" for found in streams(path) or () if found.get("name") == stream)
