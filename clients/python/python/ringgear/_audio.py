"""The producer of sound: PCM in, beside whoever feeds the stream's pictures."""

from __future__ import annotations

import logging
import os
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _native
from ._errors import FrameError
from ._producer import _DEFAULT_SOCKET, Closed, _moment, _whole

if TYPE_CHECKING:
    import numpy.typing as npt

_log = logging.getLogger("ringgear")

_DTYPES = {"s16le": "<i2", "f32le": "<f4"}


class AudioProducer:
    """Feeds one stream with sound. The stream's config has ``source = "producer"`` in ``[streams.NAME.audio]``.

    ``rate`` is in samples a second, 8000 to 192000, ``channels`` are 1 to 8, and ``format`` is ``"s16le"``
    (numpy's int16) or ``"f32le"`` (float32, full scale from -1 to 1). A *sample* is one moment, of all channels.

    ``socket``, ``take_over`` and ``client`` are as in `Producer`; ``slots`` is how many blocks the ring holds, 3 to 32.

    Opening waits for the daemon's answer and raises if there is no daemon, or if it refuses. After that
    nothing waits, but ``write`` of a recorded stream that is busy. While the daemon is away sound is dropped and
    counted, and the link comes back by itself.

    A producer may be used from several threads. After ``fork`` only one of the processes may use it.
    """

    def __init__(
        self,
        stream: str,
        rate: int = 48000,
        channels: int = 2,
        format: str = "s16le",
        *,
        socket: str | bytes | os.PathLike[str] | None = None,
        slots: int | None = None,
        take_over: bool = False,
        client: str | None = None,
    ) -> None:
        path = socket if socket is not None else os.environ.get("RINGGEAR_SOCKET", _DEFAULT_SOCKET)
        rate, channels = _whole("rate", rate), _whole("channels", channels)
        if not 8000 <= rate <= 192000:
            raise FrameError(f"a rate of {rate} samples a second is out of range: 8000 to 192000")
        if not 1 <= channels <= 8:
            raise FrameError(f"{channels} channels are out of range: 1 to 8")
        if slots is not None:
            slots = _whole("slots", slots)
            if not 3 <= slots <= 32:
                raise FrameError(f"{slots} slots are out of range: 3 to 32; without it the daemon chooses")
        self._link = _native.AudioLink(
            os.fsdecode(path),
            stream,
            format,
            rate,
            channels,
            slots,
            take_over,
            client if client is not None else "ringgear-python",
        )
        self._last = self._state()
        self._format = format if format.endswith("le") else format + "le"
        self._stream, self._rate, self._channels = stream, rate, channels
        self._dtype = np.dtype(_DTYPES[self._format])

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self._stream

    @property
    def format(self) -> str:
        """The sound format's name."""
        return self._format

    @property
    def dtype(self) -> np.dtype[Any]:
        """The kind of numbers: int16 or float32."""
        return self._dtype

    @property
    def rate(self) -> int:
        """Samples a second."""
        return self._rate

    @property
    def channels(self) -> int:
        """How many channels a sample has."""
        return self._channels

    @property
    def sessions(self) -> int:
        """How many sessions were opened so far: more than one says that the producer has come back."""
        return self._state().sessions

    @property
    def connected(self) -> bool:
        """Whether there is a session, as far as the last call noticed."""
        state = self._link.state()
        return state is not None and state.connected

    @property
    def samples(self) -> int:
        """How many samples were written so far, dropped ones included."""
        return self._state().samples

    @property
    def dropped(self) -> int:
        """How many of them were dropped because the daemon was away."""
        return self._state().dropped

    @property
    def committed(self) -> int:
        """How many blocks were handed to the daemon."""
        return self._state().committed

    @property
    def superseded(self) -> int:
        """How many of them gave way to newer ones because the ring was full: sound comes faster than it is heard."""
        return self._state().superseded

    def write(self, samples: npt.ArrayLike, captured: int | None = None) -> bool:
        """Copies samples into the ring, as many as there are; ten milliseconds at a time are a good measure.

        ``samples`` is an array of `dtype` and of shape (samples, `channels`), or (samples * channels,) with the channels in turn;
        or bytes. ``captured`` is when the first of them was heard, by `time.monotonic_ns`; without it, they have just come.

        Write sound as it is recorded, or at that pace: what comes faster than it is heard is lost. Returns False if it was dropped
        because the daemon is away. Raises `FrameError` for samples that do not fit, and what opening raises, or
        `SessionEnded`, when the link can't come back.
        """
        data, captured = self._fitting(samples), _moment(captured)
        try:
            return self._link.write(data, captured)
        finally:
            self._tell()

    def check(self) -> bool:
        """Notices a session lost and a session found, as each write does. Returns `connected`."""
        try:
            self._link.check()
        finally:
            self._tell()
        return self.connected

    def close(self) -> Closed | None:
        """Ends the session: what was written is still heard. The counts are of blocks; None if the daemon is away, or the producer closed before."""
        self._last = self._state()
        counts = self._link.close()
        self._tell()
        return Closed(*counts) if counts is not None else None

    def __enter__(self) -> AudioProducer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception:
            # The block's own exception says more than that the goodbye failed.
            if kind is None:
                raise
            _log.warning("closing the session of sound of stream %r failed", self._stream, exc_info=True)

    def __repr__(self) -> str:
        return f"<ringgear.AudioProducer {self._stream!r} {self._format} {self._rate} Hz, channels: {self._channels}>"

    def _state(self) -> _native.AudioState:
        state = self._link.state()
        return state if state is not None else self._last

    def _tell(self) -> None:
        for back, words in self._link.events():
            _log.log(logging.INFO if back else logging.WARNING, "sound of stream %r: %s", self._stream, words)

    def _fitting(self, samples: npt.ArrayLike) -> bytes:
        """The samples as bytes; numbers are never converted."""
        if isinstance(samples, (bytes, bytearray, memoryview)):
            return bytes(samples)
        array = np.asarray(samples)
        if array.dtype != self._dtype:
            raise FrameError(f"samples of dtype {array.dtype}, not {self._dtype}: {self._mend_dtype(array.dtype)}")
        flat = array.ndim == 1 and array.size % self._channels == 0
        if not flat and not (array.ndim == 2 and array.shape[1] == self._channels):
            mend = "transpose them: samples come first, channels second" if array.shape[:1] == (self._channels,) else "give whole samples"
            raise FrameError(f"samples of shape {array.shape}, not (samples, {self._channels}): {mend}")
        return array.tobytes()

    def _mend_dtype(self, dtype: np.dtype[Any]) -> str:
        if self._dtype.kind == "f":
            if dtype.kind == "f":
                return "use array.astype(numpy.float32)"
            return 'open the producer with format "s16le" for integers, or scale them to -1 to 1 and use array.astype(numpy.float32)'
        if dtype.kind == "f":
            return 'open the producer with format "f32le" for floats, or use (array * 32767).astype(numpy.int16)'
        return "scale them to 16 bits and use array.astype(numpy.int16)"
