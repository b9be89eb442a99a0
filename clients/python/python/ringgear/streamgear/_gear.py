"""The class itself: what is wanted, when the daemon starts, and what becomes of each frame."""

from __future__ import annotations

import logging as _logging
import os
import threading
import time
import weakref
from fractions import Fraction
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from .. import Producer, RinggearError
from . import _checks, _plan, _wishes
from ._daemon import Home, PrivateDaemon, Task, is_live
from ._errors import EncodingFailed, TranscodingFailed
from ._progress import Progress
from ._wishes import Params, log

#: Without -input_framerate.
_FRAMERATE = Fraction(25)
#: The pixel format by the number of channels. Alpha is not encoded.
_FORMATS = {1: "gray", 2: "gray", 3: "bgr24", 4: "bgra"}
_RGB = {"bgr24": "rgb24", "bgra": "rgba"}
#: How long a stop by force waits for the stream's end; the keeper waits as long for the daemon's.
_FORCED = 5.0
#: How long is waited for the reason why the daemon is gone: the keeper says it when its own stop by force is over.
_REASON = _FORCED + 5.0


class _Kind(NamedTuple):
    """What all frames of a stream have in common."""

    width: int
    height: int
    channels: int


class StreamGear:
    """Publishes frames, or a whole file, as DASH or HLS.

    ``output`` is where the manifest goes: a file that ends in ``.mpd`` or ``.m3u8``, or a folder, where it is named by the time. The
    media stand in a folder beside it. ``format`` is ``dash`` or ``hls``. ``custom_ffmpeg`` is another FFmpeg than $PATH's, or its
    folder. With ``logging`` all that happens is logged, to the logger ``ringgear.streamgear``. ``stream_params`` are vidgear's;
    three more are Ringgear's own:

    - ``-ringgear_stream``, the name of a stream: its running daemon is fed, and nothing is written to ``output``
    - ``-ringgear_socket``, that daemon's control socket; without it $RINGGEAR_SOCKET, or the default
    - ``-ringgear_listen``, an address like ``127.0.0.1:8080``: there the private daemon serves a player, and both formats at low latency

    Raises RuntimeError if FFmpeg or Ringgear is missing, ValueError for a format or output that can't be, AssertionError for a
    manifest's wrong extension, and for a ``-video_source`` without video.
    """

    def __init__(
        self, output: str = "", format: str = "dash", custom_ffmpeg: str = "", logging: bool = False, **stream_params: Any
    ) -> None:
        self._logging = logging is True
        if self._logging:
            _show_log()
        params = Params(stream_params)
        self._joins = params.take("-ringgear_stream")
        self._socket = params.take("-ringgear_socket")
        self._listen = params.take("-ringgear_listen")
        self._ffmpeg, self._program = _checks.programs(str(custom_ffmpeg or ""), private=self._joins is None)
        self._format = _checks.checked_format(format)
        self._audio = _checks.audio(self._ffmpeg, params.take("-audio"))
        self._source, self._video = _checks.source(self._ffmpeg, params.take("-video_source"))
        framerate = params.take("-input_framerate")
        self._framerate = _wishes.framerate_of(framerate, "-input_framerate") if framerate else None
        clear = params.flag("-clear_prev_assets")
        live = params.flag("-livestream")
        if live and self._source is not None:
            log.error("-livestream is left out: it is for frames, and -video_source is transcoded as a whole")
            live = False
        self._force = params.flag("-enable_force_termination")
        self._output = _checks.checked_output(output, self._format, self._ffmpeg, clear=clear)
        self._wishes = _wishes.read(params, live=live, hls=self._format == "hls")
        if self._joins is not None:
            if self._source is not None:
                raise ValueError("-ringgear_stream and -video_source are both given: the source of a running daemon's stream stands in its config")
            log.warning("output=%r is not written, and stream_params that the config decides are left out: the running daemon publishes stream %r", output, self._joins)
        self._daemon: PrivateDaemon | None = None
        self._producer: Producer | None = None
        self._kind: _Kind | None = None
        self._rgb = self._rgb_told = False
        #: When the next frame of a live stream is due, by `time.monotonic`; None where nothing is paced.
        self._due: float | None = None
        self._closed = False
        #: Whether an error has said that frames can't be encoded.
        self._told = False
        self._end: weakref.finalize[..., StreamGear] | None = None

    def stream(self, frame: Any, rgb_mode: bool = False) -> None:
        """Publishes one frame; None is skipped.

        ``frame`` is an array of dtype uint8: (height, width), or with 1 to 4 channels: gray, gray with alpha, BGR, BGRA; with ``rgb_mode``
        RGB, RGBA. The first one decides on size and channels. A recording waits here for the encoder, and a live stream for the
        clock, if frames come faster than their framerate.

        Raises ValueError for a frame that does not fit, before anything of it is written, RuntimeError with a `-video_source`, or
        when closed, and `EncodingFailed` when frames can't be encoded any more.
        """
        if self._source is not None:
            raise RuntimeError("stream() takes no frames, as there is a -video_source: call transcode_source(), or leave -video_source out")
        if frame is None:
            return
        pixels = np.asarray(frame)
        kind = _kind(pixels)
        if self._closed:
            raise RuntimeError("this StreamGear is closed: make another one for more frames")
        if self._kind is None:
            self._open(kind, rgb_mode)
        self._check(kind, rgb_mode)
        self._pace()
        self._write(pixels[:, :, 0] if kind.channels in (1, 2) and pixels.ndim == 3 else pixels)

    def transcode_source(self) -> None:
        """Publishes all of `-video_source`, and comes back when that is done.

        Raises RuntimeError without a `-video_source`, and `TranscodingFailed` when it fails.
        """
        if self._source is None or self._video is None:
            raise RuntimeError("transcode_source() has nothing to do without a -video_source: give one, or call stream() with frames")
        if self._closed:
            raise RuntimeError("this StreamGear is closed: make another one for another run")
        framerate = _wishes.framerate_of(self._video.framerate, "the source's framerate") or _FRAMERATE
        frames = self._video.duration * float(framerate) if self._video.duration else None
        picture = _plan.Picture(self._video.width, self._video.height, framerate)
        if self._audio is None and self._video.has_audio:
            # The source's own.
            self._audio = _plan.Audio()
        wishes = self._wishes
        while (wrong := self._transcode(wishes, picture, Progress(self._source, frames))) is not None:
            eased = _plan.eased(wishes, wrong, has_length=self._wishes.segment is not None)
            if eased is None:
                raise TranscodingFailed(f"{self._source} could not be transcoded as a whole: {wrong}", self._program)
            wishes = eased
        log.info("%s is published as a whole", self._output)

    def close(self) -> None:
        """Ends the stream: every frame that was taken is published, and the manifest says that it is whole. Once is enough.

        Raises `EncodingFailed` if frames could not be encoded, and `stream` has not said so before.
        """
        self._closed = True
        end, producer, daemon = self._end, self._producer, self._daemon
        self._end = self._producer = self._daemon = None
        if end is None or end.detach() is None or producer is None:
            return
        wrong = _finish(producer, daemon)
        if wrong is not None and not self._told:
            raise EncodingFailed(f"not all frames are published: {wrong}")

    def terminate(self) -> None:
        """The same as `close`, by its old name."""
        self.close()

    def __enter__(self) -> StreamGear:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.close()
        except RinggearError:
            # The block's own exception says more.
            if kind is None:
                raise
            log.warning("closing %s failed", self._output, exc_info=True)

    def _open(self, kind: _Kind, rgb: bool) -> None:
        """Starts all for frames like the first."""
        if kind.channels not in _FORMATS:
            raise ValueError(f"a frame of {kind.channels} channels: 1 to 4 can be published, gray, gray with alpha, BGR and BGRA")
        format = _FORMATS[kind.channels]
        format = _RGB.get(format, format) if rgb else format
        if self._joins is None:
            picture = _plan.Picture(kind.width, kind.height, self._framerate or _FRAMERATE)
            self._daemon, home = self._start(self._wishes, picture)
            control, stream = home.control, home.stream
        else:
            control, stream = self._socket, str(self._joins)
        try:
            producer = Producer(stream, kind.width, kind.height, format, socket=control, client="ringgear-streamgear")
        except RinggearError:
            if self._daemon is not None:
                self._daemon.stop()
                self._daemon = None
            raise
        self._producer, self._kind, self._rgb = producer, kind, rgb
        self._end = weakref.finalize(self, _forgotten, os.getpid(), producer, self._daemon)
        live = _plan.mode(self._wishes) == "live" if self._joins is None else is_live(control, stream)
        self._due = 0.0 if live else None

    def _transcode(self, wishes: _wishes.Wishes, picture: _plan.Picture, bar: Progress) -> str | None:
        """Publishes the source by a private daemon: what went wrong, or None."""
        try:
            daemon, _ = self._start(wishes, picture)
            try:
                wrong = daemon.follow(bar.show)
            finally:
                late = daemon.stop()
            return wrong or late
        except EncodingFailed as error:
            return str(error)
        finally:
            bar.close()

    def _start(self, wishes: _wishes.Wishes, picture: _plan.Picture) -> tuple[PrivateDaemon, Home]:
        """Starts the private daemon."""
        task = Task(
            output=self._output,
            format=self._format,
            base_url=wishes.base_url,
            remove_at_exit=wishes.remove_at_exit,
            force=self._force,
            source=self._source is not None,
            tried_again=_plan.hints(wishes) if self._source is not None else (),
            shown=self._logging,
        )
        home = Home.make(task)
        try:
            place = _plan.Place(home.control, home.assets.path, home.stream, self._ffmpeg, str(self._listen) if self._listen else None)
            config = _plan.config(wishes, picture, place, self._audio, self._source)
            log.debug("the daemon's config:\n%s", config)
            return PrivateDaemon(self._program, config, home, task), home
        except BaseException:
            home.discard()
            raise

    def _check(self, kind: _Kind, rgb: bool) -> None:
        """Raises ValueError unless the frame is like the first."""
        first = self._kind
        if first is None or kind == first:
            if rgb != self._rgb and not self._rgb_told:
                log.warning("rgb_mode=%s is left out: the first frame said %s, and colours stay in that order", rgb, self._rgb)
                self._rgb_told = True
            return
        if kind[:2] != first[:2]:
            raise ValueError(f"a frame of {kind.width}x{kind.height} after one of {first.width}x{first.height}: all frames of a stream have the same size")
        raise ValueError(f"a frame of {kind.channels} channels after one of {first.channels}: all frames of a stream have as many")

    def _pace(self) -> None:
        """Keeps frames that come faster than the clock, as a file's do, from being passed over for newer ones."""
        if self._due is None or self._producer is None:
            return
        step = 1 / float(self._producer.framerate)
        now = time.monotonic()
        if self._due > now:
            time.sleep(self._due - now)
        # After a pause nothing is caught up, but for what a busy machine takes.
        self._due = max(self._due, now - step / 2 if self._due else now) + step

    def _write(self, pixels: Any) -> None:
        producer = self._producer
        if producer is None:
            raise RuntimeError("this StreamGear is closed: make another one for more frames")
        try:
            taken = producer.write(pixels)
        except ValueError:
            raise
        except RinggearError as error:
            raise self._failed(str(error)) from error
        if not taken and self._daemon is not None:
            raise self._failed("the daemon is gone, and nobody knows why")

    def _failed(self, otherwise: str) -> EncodingFailed:
        """The reason why frames can't be encoded any more, from who knows it."""
        self._told = True
        reason = self._daemon.fault(_REASON) if self._daemon is not None else None
        return EncodingFailed(reason or otherwise)


def _finish(producer: Producer, daemon: PrivateDaemon | None) -> str | None:
    """The end of a stream: what went wrong, or None."""
    wrong: list[str] = []

    def close() -> None:
        try:
            producer.close()
        except RinggearError as error:
            wrong.append(str(error))

    if daemon is None or not daemon.force:
        close()
    else:
        # A daemon that hangs answers when it is killed.
        closing = threading.Thread(target=close, daemon=True)
        closing.start()
        closing.join(_FORCED)
    late = daemon.stop() if daemon is not None else None
    # What the keeper knows is the cause.
    return late or next(iter(wrong), None)


def _forgotten(pid: int, producer: Producer, daemon: PrivateDaemon | None) -> None:
    """The same for a script that ends, or forgets its StreamGear, without closing it. A fork of it ends nothing."""
    if os.getpid() != pid:
        return
    wrong = _finish(producer, daemon)
    if wrong is not None:
        log.error("not all frames are published: %s", wrong)


def _show_log() -> None:
    log.setLevel(_logging.DEBUG)
    if not log.hasHandlers():
        handler = _logging.StreamHandler()
        handler.setFormatter(_logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
        log.addHandler(handler)


def _kind(pixels: Any) -> _Kind:
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise ValueError(f"an array of shape {pixels.shape} is no frame: give (height, width) or (height, width, channels)")
    if pixels.dtype != np.uint8:
        raise ValueError(f"a frame of dtype {pixels.dtype}: give uint8")
    return _Kind(pixels.shape[1], pixels.shape[0], pixels.shape[2] if pixels.ndim == 3 else 1)
