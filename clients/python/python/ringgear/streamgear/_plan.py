"""What a script wants, as a config of the daemon. Pure, but for what it logs."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from typing import Iterator, NamedTuple

from ._wishes import Secondary, Wishes, log

#: What vidgear lists of a live stream: how many segments of how many seconds.
_LISTED_HLS = (6, 4.0)
_LISTED_DASH = (5, 20.0)
#: A live segment when nobody says how long: a viewer is about three of them behind.
_LIVE_SEGMENT = 2.0
#: What a recording's segments last when nobody says.
_HLS_SEGMENT = 2.0
_DASH_SEGMENT = 5.0
#: Seconds that a segment and a window may last.
_SEGMENT_RANGE = (0.5, 20.0)
#: Live segments are counted from 1970, and FFmpeg reads an MPD's numbers with 31 bits: shorter ones would be too many.
_LEAST_LIVE_DASH = 1.0
_WINDOW_RANGE = (3.0, 3600.0)
#: Segments that the playlists list at least.
_LEAST_LISTED = 6
#: The encoders that know a constant quality, with vidgear's; None for the encoder's own default.
_QUALITY = {"libx264": "20", "libx265": "20", "libvpx-vp9": "20", "libaom-av1": None, "libsvtav1": None}
#: The encoders whose speed has another name.
_WITHOUT_PRESETS = ("libvpx-vp9", "libaom-av1")
#: What the daemon says to write where a source's pictures, and its audio, can't be copied.
_COPY, _AAC = 'codec = "copy"', 'codec = "aac"'
#: A free port of this machine alone.
_ANY_PORT = "127.0.0.1:0"
#: Bits per second of a rendition.
_BITRATE_RANGE = (16_000, 1_000_000_000)
#: What stands in where a graphics card's encoder does not work, by the codec in its name.
_STAND_INS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "av1": "libaom-av1"}
#: The encoders that can be told where they are.
_WITH_DEVICES = ("_vaapi", "_qsv")
#: Bits per second of audio, and how many of them there can be.
_AUDIO_RANGE = (16_000, 512_000)
_AUDIO = 128_000
_MOST_AUDIO = 4


class Place(NamedTuple):
    """Where a private daemon lives, and what it is called."""

    socket: str
    publish_dir: str
    stream: str
    ffmpeg: str
    #: Where viewers find its origin; None for nobody's concern.
    listen: str | None


class Audio(NamedTuple):
    """Where audio comes from: a file, a URL or a device; without any, from where the pictures do."""

    source: str | None = None
    input_args: tuple[str, ...] = ()


class Picture(NamedTuple):
    """The pictures that come in."""

    width: int
    height: int
    framerate: Fraction


def mode(wishes: Wishes) -> str:
    """The stream's mode: a live stream that lists everything is a recording that grows."""
    if wishes.live and wishes.listed != 0:
        return "live"
    return "vod" if wishes.vod else "event"


def hints(wishes: Wishes) -> tuple[str, ...]:
    """What the daemon's words have in them when a source is not copied as `wishes` have it: there is something to try next exactly then."""
    return (*([_COPY] if wishes.codec == "copy" else []), *([_AAC] if wishes.audio_codec == "copy" else []))


def eased(wishes: Wishes, words: str, *, has_length: bool) -> Wishes | None:
    """What to try next with a source that is not copied as `wishes` have it, which the daemon's ``words`` tell; None if they tell of something
    else. ``has_length``: the script says how long segments are."""
    if wishes.audio_codec == "copy" and _AAC in words:
        log.error("-acodec copy becomes aac: %s", words)
        return wishes._replace(audio_codec=None)
    if wishes.codec != "copy" or _COPY not in words:
        return None
    needed = re.search(r'set segment = "(\d+)ms"', words)
    before = wishes.segment or 0.0
    # Further on there may be keyframes that are further apart still: at least twice as long each time is not often.
    segment = min(max(int(needed[1]) / 1000, 2 * before), _SEGMENT_RANGE[1]) if needed else before
    if segment > before and not has_length:
        log.warning("segments last up to %g s: %s", segment, words)
        return wishes._replace(segment=segment)
    log.error("-vcodec copy becomes libx264: %s", words)
    return wishes._replace(codec=None, segment=wishes.segment if has_length else None)


def config(wishes: Wishes, picture: Picture, place: Place, audio: Audio | None = None, source: str | None = None) -> str:
    """The daemon's config, as TOML. With ``source`` the pictures come from there."""
    lines = [
        "[daemon]",
        f"socket = {_quoted(place.socket)}",
        "[http]",
        f"listen = {_quoted(place.listen or _ANY_PORT)}",
        # Who names an address wants the stream seen there.
        *(["allow_anyone = true"] if place.listen is not None else []),
        "[publish]",
        f"dir = {_quoted(place.publish_dir)}",
        'keep_free = "0"',
        "[ffmpeg]",
        f"path = {_quoted(place.ffmpeg)}",
        # One script's frames, of any size that the protocol knows.
        "[limits]",
        "frame_pixels = 268435456",
        'memory_per_session = "1GiB"',
        'memory_per_user = "4GiB"',
        'memory = "4GiB"',
        f"[streams.{place.stream}]",
    ]
    # Its own viewers have the choice; beside the manifest nobody looks for the other one.
    formats = '["hls", "dash"]' if place.listen is not None else '["hls"]' if wishes.hls else '["dash"]'
    lines.append(f"formats = {formats}")
    lines += _stream(wishes, picture, source)
    copied = _copies(wishes, source)
    if audio is not None and audio.source is not None and copied:
        log.error("-audio is left out: with -vcodec copy there is only the source's own; any encoder in -vcodec brings it back")
    elif audio is not None:
        lines += _audio(wishes, audio, place.stream, copied)
    for rendition in _renditions(wishes, picture, source):
        lines += [f"[[streams.{place.stream}.renditions]]", *rendition]
    return "\n".join(lines) + "\n"


def _stream(wishes: Wishes, picture: Picture, source: str | None) -> Iterator[str]:
    segment = _segment(wishes, picture.framerate)
    kind = mode(wishes)
    copied = _copies(wishes, source)
    if not copied:
        yield f'framerate = "{picture.framerate.numerator}/{picture.framerate.denominator}"'
    yield f'mode = "{kind}"'
    yield f'segment = "{round(segment * 1e6)}us"'
    if kind == "live":
        yield f'window = "{round(_window(wishes, segment) * 1e6)}us"'
        if not copied:
            # A script that has no frame yet shows the one before for as long as it takes, as it always did.
            yield 'stale_after = "1h"'
            # Its frames come at the stream's pace, but not evenly: none is passed over for a newer one.
            yield "slack = 4"
        yield 'at_exit = "end"'
    if source is not None:
        yield f"source = {_quoted(source)}"


def _segment(wishes: Wishes, framerate: Fraction) -> float:
    """A segment's length in seconds. Keyframes stand at its edges, so `-gop` decides it where nothing else does."""
    gop = wishes.gop / float(framerate) if wishes.gop is not None else None
    wanted = wishes.segment if wishes.segment is not None else gop
    if wanted is None:
        wanted = _LIVE_SEGMENT if wishes.live else _HLS_SEGMENT if wishes.hls else _DASH_SEGMENT
    low, high = _SEGMENT_RANGE
    if not wishes.hls and mode(wishes) == "live":
        low = _LEAST_LIVE_DASH
    length = min(max(wanted, low, 1 / float(framerate)), high)
    if abs(length - wanted) > 1e-6:
        log.warning("segments last %g s, not %g: they can have %g to %g s", length, wanted, low, high)
    if wishes.segment is not None and gop is not None and abs(gop - length) > 1 / float(framerate):
        log.warning("-gop %d is left out: a keyframe stands where each segment begins, every %g s", wishes.gop, length)
    return length


def _window(wishes: Wishes, segment: float) -> float:
    """How many seconds the playlists list: as many as vidgear would."""
    count, length = _LISTED_HLS if wishes.hls else _LISTED_DASH
    seconds = (wishes.listed or count) * (wishes.segment if wishes.segment is not None else length)
    low, high = _WINDOW_RANGE
    window = min(max(seconds, _LEAST_LISTED * segment, low), high)
    if wishes.listed and abs(window - seconds) > 1e-6:
        log.warning("the playlists list %g s, not %g: they hold at least %d segments, and at most %g s", window, seconds, _LEAST_LISTED, high)
    return window


def _copies(wishes: Wishes, source: str | None) -> bool:
    """Whether the source is published as it is."""
    return wishes.codec == "copy" and source is not None and not wishes.streams


def _renditions(wishes: Wishes, picture: Picture, source: str | None) -> Iterator[list[str]]:
    codec = wishes.codec or "libx264"
    if codec == "copy":
        if _copies(wishes, source):
            yield ['name = "stream0"', 'codec = "copy"']
            return
        reason = "each of -streams is encoded" if source is not None else "frames have to be encoded"
        log.error("-vcodec copy becomes libx264: %s", reason)
        codec = "libx264"
    if codec in _WITHOUT_PRESETS and wishes.preset is not None:
        log.warning("-preset %s is left out: %s has none; -cpu-used says how fast it is, up to 8", wishes.preset, codec)
        wishes = wishes._replace(preset=None)
    if codec not in _QUALITY and wishes.crf is not None:
        log.warning("-crf %s is left out: %s is given a bitrate, by -b:v or -bpp", wishes.crf, codec)
    if wishes.device is not None and not codec.endswith(_WITH_DEVICES):
        log.warning("-vaapi_device %s is left out: it is for encoders like h264_vaapi, and not for %s", wishes.device, codec)
        wishes = wishes._replace(device=None)
    yield [*_head(wishes, 0, codec), *_primary(wishes, picture, codec)]
    for index, stream in enumerate(wishes.streams, 1):
        yield [*_head(wishes, index, codec), *_secondary(wishes, picture, stream)]


def _head(wishes: Wishes, index: int, codec: str) -> Iterator[str]:
    """What all renditions have."""
    yield f'name = "stream{index}"'
    yield f"codec = {_quoted(codec)}"
    family, _, kind = codec.partition("_")
    if kind and family in _STAND_INS:
        yield f'fallback = "{_STAND_INS[family]}"'
    if wishes.preset is not None:
        yield f"preset = {_quoted(wishes.preset)}"
    if wishes.filter is not None:
        yield f"filter = {_quoted(wishes.filter)}"
    if wishes.device is not None:
        yield f"device = {_quoted(wishes.device)}"
    options = {**wishes.options, **wishes.options_of.get(index, {})}
    if options:
        yield f"options = {{ {', '.join(f'{_quoted(name)} = {_quoted(value)}' for name, value in options.items())} }}"
    if wishes.output_args:
        yield f"output_args = [{', '.join(map(_quoted, wishes.output_args))}]"


def _primary(wishes: Wishes, picture: Picture, codec: str) -> Iterator[str]:
    size = wishes.size or (picture.width, picture.height)
    if wishes.size is not None:
        yield f'size = "{size[0]}x{size[1]}"'
    yield from _framerate("-r", wishes.output_framerate, picture)
    by_pixels = _bitrate(wishes.bpp, *size, picture.framerate)
    if codec not in _QUALITY:
        yield f"bitrate = {_clamped(wishes.bitrate or by_pixels)}"
    elif wishes.crf is not None:
        yield f"crf = {_crf(wishes.crf)}"
    elif wishes.bitrate is not None or wishes.bpp_given:
        yield f"bitrate = {_clamped(wishes.bitrate or by_pixels)}"
    elif _QUALITY[codec] is not None:
        yield f"crf = {_QUALITY[codec]}"


def _secondary(wishes: Wishes, picture: Picture, stream: Secondary) -> Iterator[str]:
    width, height = stream.width, stream.height
    if abs(width * picture.height - height * picture.width) > picture.height * 2:
        log.warning("the stream of %dx%d has another shape than the source's %dx%d: it is shown whole, with black beside it", width, height, picture.width, picture.height)
    yield f'size = "{width}x{height}"'
    if stream.framerate is None:
        yield from _framerate("-r", wishes.output_framerate, picture)
    else:
        yield from _framerate("-framerate", stream.framerate, picture, counts=stream.bitrate is None)
    if stream.bitrate is not None:
        yield f"bitrate = {_clamped(stream.bitrate)}"
    else:
        yield f"bitrate = {_clamped(_bitrate(wishes.bpp, width, height, stream.framerate or picture.framerate))}"


def _framerate(key: str, wanted: Fraction | None, picture: Picture, *, counts: bool = False) -> Iterator[str]:
    """A rendition's own framerate: the source's by a whole number. Another one is left out, or ``counts`` for the bitrate alone, as in vidgear."""
    if wanted is None or wanted == picture.framerate or counts and wanted > picture.framerate:
        return
    divisor = picture.framerate / wanted
    if divisor.denominator == 1:
        yield f'framerate = "{wanted.numerator}/{wanted.denominator}"'
    else:
        log.warning(
            "%s %g %s: a rendition can have %g frames per second, or a half, a third... of them",
            key,
            float(wanted),
            "counts for the bitrate alone" if counts else "is left out",
            float(picture.framerate),
        )


def _audio(wishes: Wishes, audio: Audio, stream: str, copied: bool) -> Iterator[str]:
    yield f"[streams.{stream}.audio]"
    if audio.source is not None:
        yield f"source = {_quoted(audio.source)}"
        if audio.input_args:
            yield f"input_args = [{', '.join(map(_quoted, audio.input_args))}]"
        # A file that is shorter than the video is followed by silence.
        yield "loop = false"
    codec = wishes.audio_codec or "aac"
    if codec == "copy" and copied:
        yield f"[[streams.{stream}.audio.renditions]]"
        yield 'name = "audio0"'
        yield 'codec = "copy"'
        return
    if codec not in ("aac", "libopus"):
        log.warning("-acodec %s becomes aac: audio is encoded as aac or libopus", codec)
        codec = "aac"
    for index, bitrate in enumerate(_audio_bitrates(wishes)):
        yield f"[[streams.{stream}.audio.renditions]]"
        yield f'name = "audio{index}"'
        yield f'codec = "{codec}"'
        yield f"bitrate = {bitrate}"


def _audio_bitrates(wishes: Wishes) -> list[int]:
    """The different bitrates of the audio."""
    low, high = _AUDIO_RANGE
    bitrates: list[int] = []
    for wanted in (wishes.audio_bitrate or _AUDIO, *(stream.audio_bitrate for stream in wishes.streams)):
        if wanted is None:
            continue
        bitrate = min(max(wanted, low), high)
        if bitrate != wanted:
            log.warning("an audio bitrate of %d becomes %d: %d to %d bits per second are possible", wanted, bitrate, low, high)
        if bitrate not in bitrates:
            bitrates.append(bitrate)
    for bitrate in bitrates[_MOST_AUDIO:]:
        log.warning("an audio bitrate of %d is left out: there are %d different ones at most", bitrate, _MOST_AUDIO)
    return bitrates[:_MOST_AUDIO]


def _bitrate(bpp: float, width: int, height: int, framerate: Fraction) -> int:
    """Bits per second: vidgear's rule, in whole kilobits."""
    return round(width * height * bpp * float(framerate) / 1000) * 1000


def _clamped(bits: int) -> int:
    low, high = _BITRATE_RANGE
    return min(max(bits, low), high)


def _crf(text: str) -> int:
    try:
        quality = round(float(text))
    except ValueError:
        raise ValueError(f"-crf {text!r} is no number: give the quality, like 20; lower is better") from None
    if str(quality) != text.strip() and float(text) != quality:
        log.warning("-crf %s becomes %d: the quality is a whole number", text, quality)
    return quality


def _quoted(text: str) -> str:
    """A TOML string."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!r} is no UTF-8: rename it") from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
