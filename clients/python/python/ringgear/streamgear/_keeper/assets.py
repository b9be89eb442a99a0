"""The folders that hold what was published, each beside its manifest: made, told apart from everything else, and removed.

Each has a marker, which says which manifest it belongs to and is locked while a keeper uses it. Nothing is removed but names that
Ringgear gives, in folders that have a marker.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from typing import IO, Iterator, NamedTuple

_MARKER = ".ringgear-streamgear.json"
_MAX_MARKER = 1 << 16
#: The daemon's names in a stream's folder.
_OURS = re.compile(
    r"state\.json|state\.copy\.json|index\.m3u8|media\.m3u8|manifest\.mpd|\.ringgear\.tmp|init-[0-9A-Za-z]+\.mp4|\d+(\.\d+)?\.m4s|" + re.escape(_MARKER)
)
#: The folder has the stream's, that has those of recordings, and those of renditions.
_DEPTH = 4
#: Names that no stream may have.
_RESERVED = ("api", "assets", "metrics", "time", "healthz", "readyz")


class Folder(NamedTuple):
    """A folder with a marker."""

    path: str
    #: The manifest's file name, beside the folder.
    manifest: str
    format: str
    #: Further playlists beside the folder.
    playlists: tuple[str, ...]


def make(output: str, format: str) -> Folder:
    """Makes a folder beside the manifest `output`, named like it and by the time."""
    place, manifest = os.path.split(output)
    base = f"{stream_name(output)}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in range(1, 1000):
        path = os.path.join(place, base if number == 1 else f"{base}-{number}")
        try:
            os.mkdir(path)
        except FileExistsError:
            continue
        folder = Folder(path, manifest, format, ())
        mark(folder)
        return folder
    raise FileExistsError(f"{base} and a thousand names like it are taken in {place}: remove what is old there")


def stream_name(output: str) -> str:
    """A stream's name, by that of its manifest."""
    stem = os.path.splitext(os.path.basename(output))[0].lower()
    name = re.sub(r"[^a-z0-9_-]+", "-", stem).strip("-")[:40] or "stream"
    return f"{name}-stream" if name in _RESERVED else name


def mark(folder: Folder) -> None:
    """Writes the folder's marker, in place, as it may be locked."""
    content = {"manifest": folder.manifest, "format": folder.format, "playlists": list(folder.playlists)}
    fd = os.open(os.path.join(folder.path, _MARKER), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    with os.fdopen(fd, "w") as marker:
        marker.write(json.dumps(content) + "\n")
        marker.truncate()


def lock(folder: str) -> IO[str] | None:
    """Takes the folder for as long as what is returned is open; None if another keeper has it."""
    marker = os.fdopen(os.open(os.path.join(folder, _MARKER), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        marker.close()
        return None
    return marker


def found(place: str, format: str, manifest: str | None = None) -> Iterator[Folder]:
    """The folders in `place` that were made for this format, and for this manifest if one is given."""
    with contextlib.suppress(OSError):
        for entry in sorted(os.listdir(place)):
            folder = _read(os.path.join(place, entry))
            if folder is not None and folder.format == format and manifest in (None, folder.manifest):
                yield folder


def remove(folder: Folder, *, with_manifest: bool) -> bool:
    """Removes what was written there, and the manifest beside it if that names the folder. False if a keeper uses it."""
    try:
        held = lock(folder.path)
    except OSError:
        return False
    if held is None:
        return False
    with held:
        place = os.path.dirname(folder.path)
        for name in (folder.manifest, *folder.playlists) if with_manifest else folder.playlists:
            _remove_if_names(os.path.join(place, name), os.path.basename(folder.path))
        _remove_ours(folder.path, _DEPTH)
    return True


def _read(path: str) -> Folder | None:
    try:
        fd = os.open(os.path.join(path, _MARKER), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd) as marker:
            content = json.loads(marker.read(_MAX_MARKER))
        texts = [content["manifest"], *content["playlists"]]
        # What is beside the folder, and nowhere else.
        if any(not isinstance(text, str) or os.path.basename(text) != text or text in ("", ".", "..") for text in texts):
            return None
        return Folder(path, content["manifest"], content["format"], tuple(content["playlists"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove_if_names(manifest: str, folder: str) -> None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if os.path.islink(manifest):
            return
        with open(manifest, encoding="utf-8") as text:
            names_it = f"{folder}/" in text.read(1 << 24)
        if names_it:
            os.unlink(manifest)


def _remove_ours(path: str, depth: int) -> None:
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(path)):
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    if depth > 1:
                        _remove_ours(entry.path, depth - 1)
                elif entry.is_file(follow_symlinks=False) and _OURS.fullmatch(entry.name):
                    os.unlink(entry.path)
        # One that holds something else stays.
        os.rmdir(path)
