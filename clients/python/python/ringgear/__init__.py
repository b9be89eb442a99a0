"""Write camera frames into Ringgear, the live video daemon.

    import ringgear

    with ringgear.Producer("door", 1280, 720) as producer:
        while True:
            producer.write(camera.read())

Frames go through shared memory. The camera's loop never waits for the daemon, and finds it again
when it was restarted. `AudioProducer` feeds a stream's sound, likewise. What happens to the link is logged to the logger ``ringgear``.
"""

from ._audio import AudioProducer
from ._errors import (
    DaemonUnavailable,
    FrameError,
    NoSlot,
    NotPermitted,
    OutOfResources,
    ProducerClosed,
    ProtocolError,
    RinggearError,
    SessionEnded,
    StreamBusy,
    TakenOver,
    UnknownStream,
)
from ._producer import Closed, Producer, Slot

__all__ = [
    "AudioProducer",
    "Closed",
    "DaemonUnavailable",
    "FrameError",
    "NoSlot",
    "NotPermitted",
    "OutOfResources",
    "Producer",
    "ProducerClosed",
    "ProtocolError",
    "RinggearError",
    "SessionEnded",
    "Slot",
    "StreamBusy",
    "TakenOver",
    "UnknownStream",
]
