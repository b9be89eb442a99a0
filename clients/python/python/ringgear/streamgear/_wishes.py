"""`stream_params` as scripts give them, read into what is wanted. What can't apply is told once, and never a reason to fail.

Nothing here looks at files or programs.
"""

from __future__ import annotations

import logging
import numbers
import re
from fractions import Fraction
from typing import Any, Callable, Iterator, Mapping, NamedTuple

from ._reasons import FLAGS, INAPPLICABLE, OF_TIME, OWNED, OWNED_WITHIN, SATISFIED

log = logging.getLogger("ringgear.streamgear")

#: Frames per second that a stream can have.
_FRAMERATE_RANGE = (Fraction(1), Fraction(240))
#: Bits per pixel without `-bpp`.
_BPP = 0.1
#: FFmpeg's names of codecs, and those of encoders that make what no browser plays, by the encoder that stands in.
_ENCODERS = {
    "h264": "libx264",
    "avc": "libx264",
    "libx264rgb": "libx264",
    "hevc": "libx265",
    "h265": "libx265",
    "vp9": "libvpx-vp9",
    "av1": "libaom-av1",
}
_VCODEC = ("-vcodec", "-c:v", "-codec:v", "-c:v:0", "-codec:v:0")
_ACODEC = ("-acodec", "-c:a", "-codec:a", "-c:a:0", "-codec:a:0")
_VIDEO_BITRATE = ("-b:v", "-b", "-vb")
_AUDIO_BITRATE = ("-b:a", "-ab")


class Secondary(NamedTuple):
    """One of `-streams`."""

    width: int
    height: int
    #: Bits per second; None if only a framerate is given.
    bitrate: int | None
    framerate: Fraction | None
    #: Bits per second of its audio, if it says so.
    audio_bitrate: int | None


class Wishes(NamedTuple):
    """What a script wants."""

    live: bool
    hls: bool
    #: Whether HLS lists all of a recording only when that is whole.
    vod: bool
    #: A segment's length in seconds; None for one that fits.
    segment: float | None
    #: What playlists list of a live stream, in segments; 0 for everything.
    listed: int | None
    #: Frames between keyframes.
    gop: int | None
    bpp: float
    #: Whether `bpp` is a wish, and not only the default.
    bpp_given: bool
    #: The encoder; None for libx264.
    codec: str | None
    crf: str | None
    preset: str | None
    #: Bits per second of the primary stream.
    bitrate: int | None
    size: tuple[int, int] | None
    #: Frames per second of all renditions.
    output_framerate: Fraction | None
    filter: str | None
    #: The device of a hardware encoder.
    device: str | None
    options: Mapping[str, str]
    #: Options of one rendition, by its place.
    options_of: Mapping[int, Mapping[str, str]]
    output_args: tuple[str, ...]
    streams: tuple[Secondary, ...]
    audio_codec: str | None
    audio_bitrate: int | None
    base_url: str
    remove_at_exit: bool


class Params:
    """`stream_params`, from which each key is taken once."""

    def __init__(self, given: Mapping[Any, Any]) -> None:
        self._left = {str(key).strip(): value.strip() if isinstance(value, str) else value for key, value in given.items()}

    def take(self, *keys: str) -> Any:
        """The value of the first of these keys that is there; all of them are taken."""
        values = [self._left.pop(key) for key in keys if key in self._left]
        return values[0] if values else None

    def flag(self, key: str) -> bool:
        """A key that is True or False; anything else is told and counts as False."""
        value = self.take(key)
        if value is not None and not isinstance(value, bool):
            log.warning("%s is %r and counts as False: give True or False", key, value)
        return value is True

    def number(self, key: str, least: float, mend: str) -> float | None:
        """A number of at least ``least``; anything else is told and counts as missing."""
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value):
            value = float(value)
        if not _is_number(value) or not least <= value < float("inf"):
            log.warning("%s is %r and is left out: %s", key, value, mend)
            return None
        return float(value)

    def take_where(self, wanted: Callable[[str], bool]) -> dict[str, Any]:
        """All keys that are `wanted`, with their values."""
        return {key: self._left.pop(key) for key in list(self._left) if wanted(key)}


def read(params: Params, *, live: bool, hls: bool) -> Wishes:
    """What `params` ask for. All keys are taken."""
    segment, listed, vod, base_url, remove = _lengths(params, live=live, hls=hls)
    gop = params.number("-gop", 1, "give the frames between two keyframes")
    bpp = params.number("-bpp", 0.001, "give bits per pixel, like 0.1")
    streams = _streams(params.take("-streams"))
    # vidgear sets these three itself and drops them, as the primary stream has its source's size.
    for key in ("-s:v:0", "-b:v:0", "-b:a:0"):
        params.take(key)
    codec = _codec(params.take(*_VCODEC))
    crf, preset = _text(params, "-crf", "-crf:v", "-crf:v:0"), _text(params, "-preset", "-preset:v", "-preset:v:0")
    bitrate = _bits(params, "-b:v", params.take(*_VIDEO_BITRATE))
    size = _size("-s", params.take("-s", "-s:v", "-video_size"))
    rate = params.take("-r", "-r:v", "-framerate")
    filters = _filter(params.take("-vf", "-filter:v"))
    device = _text(params, "-vaapi_device")
    audio_codec = _text(params, *_ACODEC)
    audio_bitrate = _bits(params, "-b:a", params.take(*_AUDIO_BITRATE))
    output_args, options = _clones(params)
    more_options, options_of = _options(params)
    options.update(more_options)
    return Wishes(
        live=live,
        hls=hls,
        vod=vod,
        segment=segment,
        listed=listed,
        gop=int(gop) if gop is not None else None,
        bpp=bpp if bpp is not None else _BPP,
        bpp_given=bpp is not None,
        codec=codec,
        crf=crf,
        preset=preset,
        bitrate=bitrate,
        size=size,
        output_framerate=framerate_of(rate, "-r") if rate is not None else None,
        filter=filters,
        device=device,
        options=options,
        options_of=options_of,
        output_args=output_args,
        streams=streams,
        audio_codec=audio_codec,
        audio_bitrate=audio_bitrate,
        base_url=base_url,
        remove_at_exit=remove,
    )


def framerate_of(value: Any, key: str) -> Fraction | None:
    """A framerate as a fraction that a stream can have, or None if `value` is none: OpenCV's 29.97002997 is 30000/1001."""
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?|\d+/0*[1-9]\d*", value):
        value = Fraction(value)
    if not _is_number(value) or not 0 < value < float("inf"):
        log.warning("%s is %r and is left out: give frames per second, like 25 or 29.97", key, value)
        return None
    # Those of numpy are no float.
    rate = _exact(Fraction(value if isinstance(value, (int, Fraction)) else float(value)))
    low, high = _FRAMERATE_RANGE
    if low <= rate <= high:
        return rate
    near = low if rate < low else high
    log.warning("%s %s becomes %s: a stream has %s to %s frames per second", key, value, near, low, high)
    return near


def _exact(rate: Fraction) -> Fraction:
    """The framerate that is meant by one that was rounded."""
    whole, broken = Fraction(round(rate)), Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    if whole and abs(whole - rate) < Fraction(1, 1000):
        return whole
    # FFmpeg prints two digits: 23.98.
    if broken and abs(broken - rate) < Fraction(1, 200):
        return broken
    return rate.limit_denominator(1000)


def _lengths(params: Params, *, live: bool, hls: bool) -> tuple[float | None, int | None, bool, str, bool]:
    """How long segments are, how many are listed, and what becomes of the files."""
    length, count = ("-hls_time", "-hls_list_size") if hls else ("-seg_duration", "-window_size")
    segment = params.number(length, 0.001, "give seconds, from 0.5 to 20")
    listed = params.number(count, 0, "give how many segments are listed, or 0 for all") if live else None
    first = params.number("-hls_init_time", 0, "give seconds") if hls and live else None
    for key in () if live else (count, "-hls_init_time"):
        if params.take(key) is not None:
            log.warning("%s is left out: a recording lists all of its segments, which are equally long; -livestream lists the newest", key)
    if first and segment is None:
        segment = first
    elif first and first != segment:
        log.warning("-hls_init_time %g is left out: all segments last -hls_time, %g s", first, segment)
    # Playlists of a recording that grows say so; HLS's word for one that is whole is the other.
    kind = params.take("-hls_playlist_type") if hls else None
    if kind not in (None, "event", "vod"):
        log.warning("-hls_playlist_type %r is left out: give 'event' or 'vod'", kind)
    base_url = params.take("-hls_base_url") if hls else None
    if base_url is not None and not isinstance(base_url, str):
        log.warning("-hls_base_url %r is left out: give a URL in quotes", base_url)
        base_url = None
    remove = params.take("-remove_at_exit")
    if remove not in (None, 0, 1, "0", "1"):
        log.warning("-remove_at_exit %r is left out: give 0 or 1", remove)
    return segment, int(listed) if listed is not None else None, kind == "vod", base_url or "", remove in (1, "1")


def _streams(given: Any) -> tuple[Secondary, ...]:
    if not given:
        return ()
    if not isinstance(given, list) or not all(isinstance(stream, dict) for stream in given):
        log.warning("-streams %r is left out: give a list of dictionaries, each with a -resolution", given)
        return ()
    streams = (_stream(stream) for stream in given)
    return tuple(stream for stream in streams if stream is not None)


def _stream(given: Mapping[Any, Any]) -> Secondary | None:
    params = Params(given)
    size = _size("-resolution", params.take("-resolution"))
    if size is None:
        log.error("the stream %r is left out: it has no -resolution like '1280x720'", given)
        return None
    bitrate = _bits(params, "-video_bitrate", params.take("-video_bitrate"))
    rate = params.take("-framerate")
    framerate = framerate_of(rate, "-framerate") if rate is not None else None
    if bitrate is None and framerate is None:
        log.error("the stream %r is left out: it has neither a -video_bitrate like '2000k' nor a -framerate", given)
        return None
    audio = _bits(params, "-audio_bitrate", params.take("-audio_bitrate"))
    for key in params.take_where(lambda key: True):
        log.warning("%s of the stream %r is left out: a stream has -resolution, -video_bitrate, -framerate and -audio_bitrate", key, given)
    return Secondary(*size, bitrate, framerate, audio)


def _codec(given: Any) -> str | None:
    if given is None:
        return None
    codec = str(given)
    stand_in = _ENCODERS.get(codec, codec)
    if codec == "libx264rgb":
        log.warning("-vcodec libx264rgb becomes libx264: browsers play no RGB")
    return stand_in


def _size(key: str, given: Any) -> tuple[int, int] | None:
    if given is None:
        return None
    found = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", given) if isinstance(given, str) else None
    if found is None:
        log.warning("%s %r is left out: give WIDTHxHEIGHT, like '1280x720'", key, given)
        return None
    width, height = int(found[1]), int(found[2])
    if width < 2 or height < 2:
        log.warning("%s %r is left out: the least size is 2x2", key, given)
        return None
    if width % 2 or height % 2:
        log.warning("%s %s becomes %dx%d: encoded sides are even", key, given, width - width % 2, height - height % 2)
    return width - width % 2, height - height % 2


def _filter(given: Any) -> str | None:
    """Filters that do more than what each encoder needs anyway."""
    if given is None:
        return None
    if re.search(r"[\[\];]", str(given)):
        log.warning("-vf %r is left out: a rendition has one chain of filters, without labels", given)
        return None
    own = []
    for part in filter(None, (part.strip() for part in str(given).split(","))):
        if re.fullmatch(r"(\w+_(vaapi|qsv|cuda|npp|vulkan|opencl)|hwdownload)(=.*)?", part):
            log.warning("%s in -vf is left out: pictures reach a graphics card only for its encoder; -s and -streams say how large they are", part)
        elif re.split("[=@]", part)[0].strip() in OF_TIME:
            log.warning("%s in -vf is left out: each picture has its place in time; -r makes a rendition of fewer pictures", part)
        elif not re.fullmatch(r"format=(pix_fmts=)?(yuv420p|nv12)|hwupload\w*(=.*)?|null", part):
            own.append(part)
    return ",".join(own) or None


def _clones(params: Params) -> tuple[tuple[str, ...], dict[str, str]]:
    """`-clones` and `-core...`: words for FFmpeg's command line, without those that say what Ringgear decides; and those that go to the encoder."""
    words: list[str] = []
    options: dict[str, str] = {}
    for key, value in params.take_where(lambda key: key == "-clones" or key.startswith("-core")).items():
        if not isinstance(value, list):
            log.warning("%s %r is left out: give a list of words", key, value)
            continue
        left_out: dict[str, str] = {}
        for option, text in _pairs([str(word) for word in value]):
            name, _ = _named(option)
            reason = _reason(option, name) or (_NO_OPTION if text is None else _fault(name, text))
            if reason is not None:
                left_out[option] = reason
            elif (kept := _without_owned(option, name, text or "")) is None:
                continue
            elif name in ("x265-params", "svtav1-params", "aom-params"):
                # Ringgear has parameters of its own in these.
                options[name] = kept
            else:
                words += [option, kept]
        for option, reason in left_out.items():
            log.warning("%s in %s is left out: %s", option, key, reason)
    return tuple(words), options


def _pairs(words: list[str]) -> Iterator[tuple[str, str | None]]:
    """Options and their values; None where there is no value, or no option."""
    left = iter(words)
    for word in left:
        valued = word.startswith("-") and _named(word)[0] not in FLAGS
        yield word, next(left, None) if valued else None


_NO_OPTION = "options are FFmpeg's, with a leading - and a value in text or numbers"


def _fault(name: str, value: str) -> str | None:
    """What is wrong with an option that could go to the encoder."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_:.-]*", name):
        return _NO_OPTION
    if not 0 < len(value.encode(errors="replace")) <= 1024 or not value.isprintable():
        return "a value has 1 to 1024 bytes of plain text"
    return None


def _without_owned(key: str, name: str, value: str) -> str | None:
    """An encoder's own list of parameters without those that Ringgear sets; None if nothing is left."""
    owned = OWNED_WITHIN.get(name.split(":")[0])
    if owned is None:
        return value
    kept: list[str] = []
    gone: list[str] = []
    for pair in value.split(":"):
        parameter = pair.split("=")[0].strip().replace("_", "-").lower()
        (gone if re.sub("^no-", "", parameter) in owned else kept).append(pair)
    if gone:
        log.warning("%s in %s is left out: Ringgear sets it, as live video and equal segments need it", ":".join(gone), key)
    return ":".join(kept) or None


def _options(params: Params) -> tuple[dict[str, str], dict[int, dict[str, str]]]:
    """What is left: options of the encoder, but for those that say what Ringgear decides."""
    options: dict[str, str] = {}
    options_of: dict[int, dict[str, str]] = {}
    for key, value in params.take_where(lambda key: True).items():
        name, place = _named(key)
        if name in SATISFIED and str(value) in SATISFIED[name]:
            continue
        reason = _reason(key, name)
        if reason is None and (not key.startswith("-") or value is None or isinstance(value, (list, dict))):
            reason = _NO_OPTION
        if reason is None:
            reason = _fault(name, str(value))
        if reason is not None:
            log.warning("%s %r is left out: %s", key, value, reason)
            continue
        kept = _without_owned(key, name, str(value))
        if kept is None:
            continue
        of = options if place is None else options_of.setdefault(place, {})
        of[name] = kept
    return options, options_of


def _named(key: str) -> tuple[str, int | None]:
    """An option's name without the specifier of a video stream, and that stream's place."""
    found = re.fullmatch(r"-(.+?):v(?::(\d{1,3}))?", key)
    if found:
        return found[1], int(found[2]) if found[2] else None
    return key.lstrip("-"), None


def _reason(key: str, name: str) -> str | None:
    if re.fullmatch(r"-.+:a(:\d+)?", key):
        return "of the audio, -acodec and the bitrate can be chosen"
    plain = name.split(":")[0]
    for table in (OWNED, INAPPLICABLE):
        for names, reason in table:
            if plain in names:
                return reason
    if name.startswith("hls_"):
        return "Ringgear writes the playlists, and has nothing like it"
    return None


def _text(params: Params, *keys: str) -> str | None:
    value = params.take(*keys)
    return None if value is None or value == "" else str(value)


_UNITS: Mapping[str, int] = {"": 1, "k": 1000, "K": 1000, "m": 1_000_000, "M": 1_000_000}


def _bits(params: Params, key: str, given: Any) -> int | None:
    """Bits per second."""
    if given is None or given == "":
        return None
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([kKmM]?)", str(given))
    bits = int(Fraction(found[1]) * _UNITS[found[2]]) if found else 0
    if bits <= 0:
        log.warning("%s %r is left out: give bits per second, like '2000k' or '4M'", key, given)
        return None
    return bits


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and value == value
