"""What can go wrong. Each message says what to do about it."""

from __future__ import annotations


class RinggearError(Exception):
    """Everything that this package raises about streams and frames."""


class DaemonUnavailable(RinggearError, ConnectionError):
    """No daemon answers. Only opening raises it: later the producer waits for the daemon to come back."""


class NotPermitted(RinggearError, PermissionError):
    """This user may not use the control socket, or may not feed the stream."""


class UnknownStream(RinggearError, LookupError):
    """The daemon's config has no stream of this name."""


class StreamBusy(RinggearError):
    """Another producer feeds the stream."""

    def __init__(self, message: str, holder_pid: int | None = None) -> None:
        super().__init__(message)
        #: The process that holds the stream, if the daemon says.
        self.holder_pid = holder_pid


class OutOfResources(RinggearError):
    """The daemon has no memory or descriptors left for another session."""


class SessionEnded(RinggearError):
    """The session is over and this producer does not come back by itself."""


class TakenOver(SessionEnded):
    """Another producer took the stream over."""


class ProducerClosed(RinggearError):
    """The producer was closed before."""


class NoSlot(RinggearError):
    """All slots are being filled: too many ``with producer.slot()`` blocks are open."""


class FrameError(RinggearError, ValueError):
    """A frame, samples, or the format that was asked for, do not fit."""


class ProtocolError(RinggearError):
    """Daemon and package don't understand each other: most likely their versions differ."""
