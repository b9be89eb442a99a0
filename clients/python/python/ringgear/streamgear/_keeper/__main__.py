"""The keeper's life. Its job is a JSON file; it says `up`, then lines like `note ...`, or one line `failed ...`, on standard output, and takes
`stop` on standard input."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import sys
import time
from typing import IO, Any

from . import assets, mirror
from .daemon import Daemon, gone
from .notes import Notes
from .upload import Upload

#: How often the manifest, the script and the daemon are looked at, and how often the daemon is asked.
_LOOK = 0.1
_ASK = 0.5
#: How long the daemon may take until its doors are open.
_START = 60.0
#: A stop by force waits so long.
_FORCED = 5.0


class Keeper:
    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.parent: int = job["parent"]
        self.output: str = job["output"]
        self.folder = assets.Folder(job["folder"], os.path.basename(self.output), job["format"], ())
        self.held: IO[str] | None = assets.lock(self.folder.path)
        self.copies = Copies(self.folder, job["stream"], self.output, job["base_url"])
        self.upload = Upload(os.path.dirname(self.output), job["url"]) if job["url"] else None
        self.daemon = Daemon(job["command"], job["control"], shown=job["shown"])
        self.asked = 0.0
        self.replaced = False
        self.done = False
        self.notes = Notes()
        self.told_to_stop = False

    def told(self, *_: object) -> None:
        self.told_to_stop = True

    def run(self) -> str | None:
        """Keeps the daemon until it is to stop; what went wrong, or None."""
        wrong = self.wait_up()
        if wrong is None:
            tell("up")
            wrong = self.watch()
            if wrong is None and not self.job["force"]:
                # A short script may end before it is asked for the first time.
                self.note(self.daemon.status())
        given_up = wrong is not None and any(words in wrong for words in self.job["tried_again"])
        late = self.stop(force=self.job["force"] or wrong is not None, given_up=given_up)
        return wrong or late

    def wait_up(self) -> str | None:
        deadline = time.monotonic() + _START
        while self.daemon.status() is None:
            if not self.daemon.is_running():
                return self.refusal()
            if gone(self.parent):
                return "the script is gone"
            if time.monotonic() > deadline:
                return f"the daemon did not answer within {_START:g} s:\n{self.daemon.words()}"
            time.sleep(0.02)
        return None

    def refusal(self) -> str:
        """Why the daemon did not start. Of an error in its config, which nobody has seen, the place says nothing."""
        words = self.daemon.words()
        plain = re.sub(rf"(?m)^{re.escape(self.job['command'][-1])}:\d+:\d+: ", "", words)
        return f"the daemon refuses this: {plain}" if plain != words else f"the daemon did not start:\n{words}"

    def watch(self) -> str | None:
        while True:
            ready, _, _ = select.select([sys.stdin], [], [], _LOOK)
            if ready or self.told_to_stop or gone(self.parent):
                # Whatever it says: it writes one word, or closes the pipe.
                return None
            wrong = self.look()
            if wrong is not None:
                return wrong

    def look(self) -> str | None:
        """One round: the manifest is brought up to date, and the daemon is well."""
        if not self.daemon.is_running():
            return f"the daemon ended by itself:\n{self.daemon.words()}"
        try:
            self.mirror()
            if self.upload is not None:
                self.upload.pass_over()
        except OSError as error:
            return f"{self.job['url'] or self.output} can't be written: {error}"
        if time.monotonic() - self.asked < _ASK:
            return None
        self.asked = time.monotonic()
        status = self.daemon.status()
        if status is None:
            return None
        if status.get("state") == "failed":
            words = status.get("encoder", {}).get("last_error", [])
            return "\n".join([f"the encoder does not run: {status.get('detail', 'it fails again and again')}", *words])
        if self.job["source"] and not self.done:
            source = status.get("source") or {}
            if source.get("state") == "waiting" or source.get("error"):
                # The daemon would open it again, or has given it up with what there was; who transcodes a file wants to know.
                return "\n".join([source.get("error") or "the source gives no pictures", *source.get("last_error", [])])
            tell(f"frames {status['ticks']['fresh']}")
            self.done = status.get("recording") is None and bool(status.get("recordings"))
            if self.done:
                tell("done")
        self.note(status)
        return None

    def note(self, status: dict[str, Any] | None) -> None:
        """Tells the script what is not well, though the stream goes on."""
        for words in self.notes.new(status or {}):
            tell("note " + json.dumps(words))

    def mirror(self) -> None:
        if self.copies.update() and not self.replaced:
            # The manifest now names this folder, so nobody finds what the one before named.
            self.replaced = True
            place = os.path.dirname(self.output)
            for old in list(assets.found(place, self.folder.format, self.folder.manifest)):
                if old.path != self.folder.path:
                    assets.remove(old, with_manifest=False)

    def stop(self, *, force: bool, given_up: bool) -> str | None:
        """Lets the daemon end the stream, and shows its last manifest, or removes all of one that is given up; what goes wrong with that."""
        self.daemon.stop()
        deadline = time.monotonic() + _FORCED
        while self.daemon.wait(_LOOK) is None:
            if force and time.monotonic() > deadline:
                self.daemon.kill()
            with contextlib.suppress(OSError):
                self.mirror()
        wrong = None
        try:
            self.mirror()
        except OSError as error:
            wrong = f"{self.output} can't be written: {error}"
        if self.upload is not None and not given_up:
            wrong = self.upload.finish() or wrong
        if self.copies.manifest is None:
            wrong = wrong or f"nothing was published:\n{self.daemon.words()}"
        if self.held is not None:
            self.held.close()
        if given_up or self.job["remove_at_exit"] or self.copies.manifest is None:
            assets.remove(self.folder._replace(playlists=self.copies.playlists()), with_manifest=True)
            if self.upload is not None:
                self.upload.remove()
        return wrong


class Copies:
    """The manifest beside the folder, and with a base URL the media playlists too."""

    def __init__(self, folder: assets.Folder, stream: str, output: str, base_url: str) -> None:
        self.folder, self.output, self.base_url = folder, output, base_url
        self.place, self.name = os.path.dirname(output), f"{os.path.basename(folder.path)}/{stream}"
        self.root = os.path.join(folder.path, stream)
        self.inside: str | None = None
        self.manifest: mirror.Watched | None = None
        self.media: dict[str, mirror.Watched] = {}
        self.names: dict[str, str] = {}

    def playlists(self) -> tuple[str, ...]:
        return tuple(self.names.values())

    def update(self) -> bool:
        """Brings them up to date. Whether there is a manifest."""
        if self.manifest is None:
            self.inside = self._find()
            if self.inside is None:
                return False
            self.manifest = mirror.Watched(os.path.join(self.root, self.inside, self._own()))
        prefix = f"{self.name}/{self.inside}/" if self.inside else f"{self.name}/"
        text = self.manifest.changed()
        shown = self._shown(text, prefix) if text is not None else None
        for address, watched in self.media.items():
            media = watched.changed()
            if media is not None:
                before = self.base_url + prefix + (f"{os.path.dirname(address)}/" if "/" in address else "")
                mirror.replace(os.path.join(self.place, self.names[address]), mirror.hls(media, before))
        if shown is not None:
            # Last, as it names the others.
            mirror.replace(self.output, shown)
        return True

    def _own(self) -> str:
        return "manifest.mpd" if self.folder.format == "dash" else "index.m3u8"

    def _find(self) -> str | None:
        """Where the daemon has its manifest: in the folder, or in that of the newest recording."""
        with contextlib.suppress(FileNotFoundError):
            places = ["", *sorted(os.listdir(self.root), reverse=True)]
            return next((name for name in places if os.path.exists(os.path.join(self.root, name, self._own()))), None)
        return None

    def _shown(self, text: str, prefix: str) -> str:
        if self.folder.format == "dash":
            return mirror.dash(text, prefix, os.path.basename(self.output))
        if not self.base_url:
            return mirror.hls(text, prefix)
        # Each segment's address begins with the base URL, so the media playlists that name them stand beside the manifest.
        text, self.names = mirror.variants(text, lambda address: f"{self.name.replace('/', '-')}-{os.path.dirname(address).replace('/', '-')}.m3u8")
        for address in self.names:
            path = os.path.join(self.root, self.inside or "", address)
            self.media.setdefault(address, mirror.Watched(path))
        assets.mark(self.folder._replace(playlists=self.playlists()))
        return text


def tell(words: str) -> None:
    # The script may be gone.
    with contextlib.suppress(OSError, ValueError):
        print(words, flush=True)


def main() -> int:
    # Ctrl-C in a terminal is the script's; a hang-up too. A word of the system's is not.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    wrong: str | None = None
    keeper: Keeper | None = None
    try:
        keeper = Keeper(job)
        signal.signal(signal.SIGTERM, keeper.told)
        wrong = keeper.run()
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    finally:
        if keeper is not None:
            keeper.daemon.end()
        for place in job["places"]:
            shutil.rmtree(place, ignore_errors=True)
    if wrong is None:
        return 0
    tell("failed " + json.dumps(wrong))
    return 1


sys.exit(main())
