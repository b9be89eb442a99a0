"""What the constructor is given, checked in vidgear's order and with its types of errors."""

from __future__ import annotations

import difflib
import os
import time
from typing import Any, Sequence

from . import _ffmpeg, _plan
from ._daemon import binary, manifest_of
from ._keeper import assets
from ._wishes import log

_EXTENSION = {"dash": "mpd", "hls": "m3u8"}


def programs(custom: str, *, private: bool) -> tuple[str, str]:
    """FFmpeg's and Ringgear's programs."""
    ffmpeg = _ffmpeg.find(custom)
    if ffmpeg is None and private:
        where = f"at {custom!r}" if custom else "in $PATH"
        raise RuntimeError(f"no FFmpeg that runs was found {where}: install ffmpeg, or name its program or folder as custom_ffmpeg")
    program = binary()
    if program is None and private:
        named = os.environ.get("RINGGEAR_BINARY")
        where = f"$RINGGEAR_BINARY is {named!r}, which is no program" if named else "there is no `ringgear` in $PATH"
        raise RuntimeError(f"Ringgear's daemon was not found, as {where}: install it, or set RINGGEAR_BINARY to its path")
    return ffmpeg or "ffmpeg", program or "ringgear"


def checked_format(format: Any) -> str:
    if not format or not isinstance(format, str):
        raise ValueError(f"format={format!r} is none: give 'dash' or 'hls'")
    wanted = format.strip().lower()
    if wanted in _EXTENSION:
        return wanted
    near = difflib.get_close_matches(wanted, _EXTENSION)
    raise ValueError(f"format={format!r} is unknown: " + (f"did you mean {near[0]!r}?" if near else "give 'dash' or 'hls'"))


def checked_output(output: Any, format: str, ffmpeg: str, *, clear: bool) -> str:
    """The manifest's absolute path, or its URL. With `clear`, what this class wrote there before is removed."""
    if not output:
        raise ValueError("output is empty: give the manifest's file, like 'live.mpd' or 'live.m3u8', or a folder for it")
    text, extension = str(os.fspath(output)), _EXTENSION[format]
    path = os.path.abspath(text)
    place = path if os.path.isdir(path) else os.path.dirname(path)
    if not os.path.isdir(place) or not os.access(place, os.W_OK | os.X_OK):
        if text.partition("://")[0] in ("http", "https"):
            if not manifest_of(text).endswith(extension):
                raise AssertionError(f"output={text!r} has the wrong extension: format={format!r} wants .{extension}")
            return text
        if _ffmpeg.knows_url(ffmpeg, text):
            raise ValueError(f"output={text!r} can't be written: give a path, or a URL of http or https that takes PUT")
        raise ValueError(f"output={text!r} can't be written: {place} is no folder that this user may write to")
    if os.path.isdir(path):
        path, manifest = os.path.join(path, f"{format}-{time.strftime('%Y%m%d-%H%M%S')}.{extension}"), None
    else:
        manifest = os.path.basename(path)
    if not path.endswith(extension):
        raise AssertionError(f"output={text!r} has the wrong extension: format={format!r} wants .{extension}")
    if clear:
        for old in list(assets.found(place, format, manifest)):
            if not assets.remove(old, with_manifest=True):
                log.warning("%s is not cleared: another StreamGear writes there", old.path)
    return path


def audio(ffmpeg: str, given: Any) -> _plan.Audio | None:
    """The external audio, if FFmpeg finds audio in it."""
    audio: _plan.Audio | None = None
    if isinstance(given, str) and given:
        if os.path.isfile(given):
            audio = _plan.Audio(os.path.abspath(given), ())
        elif _ffmpeg.knows_url(ffmpeg, given):
            audio = _plan.Audio(given, ())
    elif isinstance(given, list) and "-i" in given[:-1]:
        words = [str(word) for word in given]
        at = words.index("-i")
        arguments, input = tuple(words[:at]), words[at + 1]
        audio = _plan.Audio(_absolute(ffmpeg, arguments, input), arguments)
        if words[at + 2 :]:
            log.warning("-audio's words after its -i are left out: %s", " ".join(words[at + 2 :]))
    if not given:
        return None
    if audio is None or audio.source is None or not _ffmpeg.has_audio(ffmpeg, audio.input_args, audio.source):
        log.warning("-audio %r is left out, as there is no audio in it: give a file, a URL, or a list like ['-f', 'alsa', '-i', 'hw:1']", given)
        return None
    return audio


def _absolute(ffmpeg: str, arguments: Sequence[str], input: str) -> str:
    """What stands after -i, for a daemon that works elsewhere: a file's path from the root on, unless it is a device that is called like a file."""
    path = os.path.abspath(input.removeprefix("file:"))
    return path if os.path.isfile(path) and _ffmpeg.has_audio(ffmpeg, arguments, path) else input


def source(ffmpeg: str, given: Any) -> tuple[str | None, _ffmpeg.Video | None]:
    """`-video_source` and what is in it."""
    if not given:
        return None, None
    source = None
    if isinstance(given, str) and len(given) > 1:
        if os.path.isfile(given):
            source = os.path.abspath(given)
        elif _ffmpeg.knows_url(ffmpeg, given):
            source = given
    if source is None:
        log.warning("-video_source %r is left out: it is neither a file nor a URL that FFmpeg knows", given)
        return None, None
    video = _ffmpeg.video(ffmpeg, source)
    if video is None:
        raise AssertionError(f"-video_source {given!r} has no video that FFmpeg can read: give another file or URL")
    return source, video
