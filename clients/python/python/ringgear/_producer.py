"""The producer: numpy arrays in, frames in shared memory out."""

from __future__ import annotations

import logging
import operator
import os
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _native
from ._errors import FrameError

if TYPE_CHECKING:
    import numpy.typing as npt

    Pixels = npt.NDArray[np.unsignedinteger[Any]]

_log = logging.getLogger("ringgear")

_DEFAULT_SOCKET = "/run/ringgear/control.sock"

#: Numbers a pixel of the formats that have one plane.
_CHANNELS = {"bgr24": 3, "rgb24": 3, "bgra": 4, "rgba": 4, "gray": 1, "gray16le": 1, "ya8": 2, "yuyv422": 2, "uyvy422": 2}
#: Numbers a pixel, times two, of those whose planes lie one above the other.
_PLANES = {
    **dict.fromkeys(("yuv420p", "nv12", "p010le", "yuv420p10le"), 3),
    **dict.fromkeys(("yuv422p", "yuv422p10le"), 4),
    **dict.fromkeys(("yuv444p", "yuv444p10le"), 6),
}
#: Formats whose numbers have 16 bits in memory.
_DEEP = ("gray16le", "p010le", "yuv420p10le", "yuv422p10le", "yuv444p10le")


def _shape(format: str, width: int, height: int) -> tuple[int, ...]:
    """The shape of a frame's array."""
    if format in _CHANNELS:
        channels = _CHANNELS[format]
        if format in ("yuyv422", "uyvy422"):
            width += width % 2
        return (height, width) if channels == 1 else (height, width, channels)
    if _PLANES[format] == 6:
        return (3, height, width)
    if width % 2 == 0 and (height % 2 == 0 or _PLANES[format] == 4):
        return (height * _PLANES[format] // 2, width)
    # Half of an odd side is rounded up, and the planes have no common width.
    rows = height if _PLANES[format] == 4 else (height + 1) // 2
    return (height * width + (width + 1) // 2 * 2 * rows,)


class Closed(NamedTuple):
    """What became of the last session's frames, as the daemon counts them."""

    used: int
    """Shown by a tick."""
    superseded: int
    """Passed over for a newer one."""
    late: int
    """Came when the session had ended."""


class Producer:
    """Feeds one stream with frames.

    ``width`` and ``height`` are in pixels. ``format`` is how pixels are stored, by FFmpeg's name, and
    with it the shape of a frame's array, of dtype uint8, or uint16 where `dtype` says so:

    ====================================  =====================
    ``bgr24`` (OpenCV's), ``rgb24``       (height, width, 3)
    ``bgra``, ``rgba``; alpha ignored     (height, width, 4)
    ``gray``; uint16: ``gray16le``        (height, width)
    ``ya8``; alpha ignored                (height, width, 2)
    ``yuyv422``, ``uyvy422``              (height, width, 2)
    ``yuv420p``, ``nv12``                 (height * 3/2, width): the planes one above the other
    ``yuv422p``                           (height * 2, width): likewise
    ``yuv444p``                           (3, height, width)
    uint16: ``yuv420p10le``, ``p010le``   as ``yuv420p`` and ``nv12``
    uint16: ``yuv422p10le``,              as ``yuv422p`` and
    ``yuv444p10le``                       ``yuv444p``
    ====================================  =====================

    Ten bits are the lower ones of sixteen, in ``p010le`` the upper ones. The ``le`` may be left out. Sides may be odd; half of one is
    rounded up: an odd row of ``yuyv422`` and ``uyvy422`` has one pixel more, and the planar formats with shared colours
    take the array as one long row.

    ``socket`` is the daemon's control socket; without it $RINGGEAR_SOCKET, or /run/ringgear/control.sock.
    ``slots`` is how many frames the ring holds, 3 to 32; without it the daemon chooses. ``take_over`` ends the
    session of another producer that holds the stream. ``client`` names this program in the daemon's log.

    Opening waits for the daemon's answer and raises if there is no daemon, or if it refuses. After that
    nothing waits, but ``write`` of a recorded stream whose encoder is busy, and ``close`` until that is whole. While the
    daemon is away frames are dropped and counted, and the link comes back by itself.

    A producer may be used from several threads. After ``fork`` only one of the processes may use it.
    """

    def __init__(
        self,
        stream: str,
        width: int,
        height: int,
        format: str = "bgr24",
        *,
        socket: str | bytes | os.PathLike[str] | None = None,
        slots: int | None = None,
        take_over: bool = False,
        client: str | None = None,
    ) -> None:
        path = socket if socket is not None else os.environ.get("RINGGEAR_SOCKET", _DEFAULT_SOCKET)
        width, height = _whole("width", width), _whole("height", height)
        for name, side in (("width", width), ("height", height)):
            if not 2 <= side <= 16384:
                raise FrameError(f"a {name} of {side} is out of range: 2 to 16384 pixels")
        if slots is not None:
            slots = _whole("slots", slots)
            if not 3 <= slots <= 32:
                raise FrameError(f"{slots} slots are out of range: 3 to 32; without it the daemon chooses")
        self._stream, self._format, self._width, self._height = stream, format, width, height
        self._link = _native.Link(
            os.fsdecode(path),
            stream,
            format,
            width,
            height,
            slots,
            take_over,
            client if client is not None else "ringgear-python",
        )
        self._last = self._state()
        if format + "le" in _DEEP:
            self._format = format = format + "le"
        self._shape = _shape(format, width, height)
        self._dtype = np.dtype("<u2" if format in _DEEP else np.uint8)

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self._stream

    @property
    def format(self) -> str:
        """The pixel format's name."""
        return self._format

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a frame's array."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The kind of a frame's numbers: uint8 or uint16."""
        return self._dtype

    @property
    def framerate(self) -> Fraction:
        """The stream's framerate. Frames may come at any other; each tick takes the newest."""
        return Fraction(*self._state().framerate)

    @property
    def slots(self) -> int:
        """How many frames the ring holds."""
        return self._state().slots

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
    def frames(self) -> int:
        """How many frames were begun so far, over all sessions; also the next frame's number."""
        return self._state().next_frame

    @property
    def committed(self) -> int:
        """How many frames were handed to the daemon."""
        return self._state().committed

    @property
    def dropped(self) -> int:
        """How many frames were dropped because the daemon was away."""
        return self._state().dropped

    @property
    def superseded(self) -> int:
        """How many committed frames gave way to newer ones because the ring was full: the daemon is too slow for them."""
        return self._state().superseded

    def write(self, frame: npt.ArrayLike, captured: int | None = None) -> bool:
        """Copies a frame into the ring; other threads run meanwhile.

        ``frame`` is an array of `shape` with any strides, or what numpy makes one of without converting numbers: a Pillow
        image, a memoryview; bytes too, if they are as many as a frame has. ``captured`` is when it was captured, by
        `time.monotonic_ns`; without it, now.

        Returns False if it was dropped because the daemon is away. Raises `FrameError` for an array that
        does not fit, and what opening raises, or `SessionEnded`, when the link can't come back.
        """
        pixels, captured = self._fitting(frame), _moment(captured)
        slot = self._begin()
        if slot is None:
            return False
        try:
            np.copyto(self._view(slot), pixels)
            return self._link.commit(slot, captured)
        except BaseException:
            self._link.discard(slot)
            raise

    def slot(self, captured: int | None = None) -> Slot:
        """A place in shared memory to draw the next frame into, without any copy::

            with producer.slot() as frame:
                frame[:] = 0
                cv2.circle(frame, (640, 360), 100, (0, 255, 0), -1)

        ``frame`` is a numpy array of `shape`, and holds some older frame at first. At the block's end it is
        committed; an exception gives it up. From then on the array is read-only, for the daemon may be reading it, and later frames
        appear in it: copy what you want to keep, and keep no views of it. While the daemon is away the array is ordinary memory, and the frame dropped.
        """
        return Slot(self, captured)

    def check(self) -> bool:
        """Notices a session lost and a session found, as each frame does: for producers whose frames are rare. Returns `connected`."""
        try:
            self._link.check()
        finally:
            self._tell()
        return self.connected

    def close(self) -> Closed | None:
        """Ends the session: the daemon shows the last frame and says what became of all. None if it is away, or the producer closed before."""
        self._last = self._state()
        counts = self._link.close()
        self._tell()
        return Closed(*counts) if counts is not None else None

    def __enter__(self) -> Producer:
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
            _log.warning("closing the session of stream %r failed", self._stream, exc_info=True)

    def __repr__(self) -> str:
        return f"<ringgear.Producer {self._stream!r} {self._width}x{self._height} {self._format}>"

    def _state(self) -> _native.State:
        state = self._link.state()
        return state if state is not None else self._last

    def _begin(self) -> _native.Slot | None:
        try:
            return self._link.begin()
        finally:
            self._tell()

    def _tell(self) -> None:
        for back, words in self._link.events():
            _log.log(logging.INFO if back else logging.WARNING, "stream %r: %s", self._stream, words)

    def _view(self, slot: _native.Slot) -> Pixels:
        return np.asarray(slot).view(self._dtype).reshape(self._shape)

    def _fitting(self, frame: npt.ArrayLike) -> Pixels:
        """The frame as an array of the right shape, never converted or copied."""
        if frame is None:
            raise FrameError("None is no picture: the camera gave no frame; check what its read() returned")
        if isinstance(frame, (bytes, bytearray)):
            if len(frame) % self._dtype.itemsize:
                raise FrameError(f"a frame of {len(frame)} bytes: {self._format} has two for each number; give whole frames")
            frame = np.frombuffer(frame, self._dtype)
        pixels = np.asarray(frame)
        if pixels.dtype != self._dtype:
            raise FrameError(f"a frame of dtype {pixels.dtype}, not {self._dtype}: {self._mend_dtype(pixels.dtype)}")
        if pixels.shape == self._shape:
            return pixels
        if pixels.ndim == 1 and pixels.size == int(np.prod(self._shape)) and pixels.flags.c_contiguous:
            return pixels.reshape(self._shape)
        if self._format in ("gray", "gray16le") and pixels.shape == (*self._shape, 1):
            return pixels[:, :, 0]
        raise FrameError(f"a frame of shape {pixels.shape}, not {self._shape}: {self._mend_shape(pixels.shape)}")

    def _mend_dtype(self, dtype: np.dtype[Any]) -> str:
        if self._dtype.itemsize == 2:
            if dtype == np.uint8:
                return "open the producer with a format of 8 bits, or use array.astype(numpy.uint16) and shift it to the format's depth"
            return f"scale it to what {self._format} holds and use array.astype(numpy.uint16)"
        return _mend_dtype(dtype)

    def _mend_shape(self, shape: tuple[int, ...]) -> str:
        wanted = self._shape
        if len(shape) == 3 and len(wanted) == 3 and shape[:2] == wanted[:2]:
            known = {2: "yuyv422", 3: "bgr24 or rgb24", 4: "bgra or rgba"}
            if shape[2] in known:
                return f"open the producer with format {known[shape[2]]}, or convert the frame to {self._format}"
        if len(shape) >= 2 and shape[:2] == (self._width, self._height) and len(shape) == len(wanted):
            return "an array's height comes first, so transpose it"
        if shape[:2] == (self._height, self._width) and len(shape) == 2:
            gray = "gray16le" if self._dtype.itemsize == 2 else "gray"
            return f"it has no colours: open the producer with format {gray}"
        return f"{self._format} at {self._width}x{self._height} needs the latter; resize or convert the frame, or open the producer for its size"


def _whole(name: str, value: Any) -> int:
    """The value as an int, which it has to be: OpenCV, for one, tells sizes as floats."""
    try:
        return operator.index(value)
    except TypeError:
        raise FrameError(f"{name}={value!r} is no whole number: give an int, or use int() if it is one in another type") from None


def _moment(captured: Any) -> int | None:
    """A capture time that the ring's word can hold."""
    if captured is None:
        return None
    try:
        moment = operator.index(captured)
    except TypeError:
        moment = -1
    if not 0 <= moment < 1 << 64:
        raise FrameError(f"captured={captured!r} is no count of nanoseconds: use time.monotonic_ns(), or leave it out for now")
    return moment


def _mend_dtype(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "f":
        return "scale it to 0 to 255 and use array.astype(numpy.uint8)"
    if dtype.kind == "b":
        return "use array.astype(numpy.uint8) * 255"
    if dtype == np.uint16:
        return "open the producer with a format of 16 bits, or use (array >> 8).astype(numpy.uint8), or the shift that its bit depth asks for"
    return "use array.astype(numpy.uint8)"


class Slot:
    """What `Producer.slot` returns: a context manager around one frame."""

    def __init__(self, producer: Producer, captured: int | None) -> None:
        self._producer = producer
        self._slot: _native.Slot | None = None
        self._frame: Pixels | None = None
        self._entered = False
        self._given_up = False
        self._captured = _moment(captured)
        #: Whether the frame was committed: True or False once the block is left.
        self.committed: bool | None = None

    @property
    def captured(self) -> int | None:
        """When the frame was captured, by `time.monotonic_ns`; None for the block's end."""
        return self._captured

    @captured.setter
    def captured(self, captured: int | None) -> None:
        self._captured = _moment(captured)

    @property
    def number(self) -> int | None:
        """The frame's number, inside of the block; None while the daemon is away."""
        return self._slot.number if self._slot is not None else None

    def discard(self) -> None:
        """Gives the frame up: the block's end commits nothing."""
        self._given_up = True

    def __enter__(self) -> Pixels:
        if self._entered:
            raise RuntimeError("a slot holds one frame: call producer.slot() for each")
        self._entered = True
        self._slot = self._producer._begin()
        if self._slot is None:
            self._frame = np.zeros(self._producer.shape, self._producer.dtype)
        else:
            self._frame = self._producer._view(self._slot)
        return self._frame

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.committed = False
        if self._frame is not None:
            # Who kept the array would write into a frame that the daemon reads, or into a later one.
            self._frame.flags.writeable = False
            self._frame = None
        if self._slot is None:
            return
        if kind is not None or self._given_up:
            self._producer._link.discard(self._slot)
            return
        try:
            self.committed = self._producer._link.commit(self._slot, self._captured)
        except BaseException:
            self._producer._link.discard(self._slot)
            raise
