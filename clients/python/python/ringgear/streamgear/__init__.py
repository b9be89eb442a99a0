"""vidgear's StreamGear, on Ringgear: a script changes one import line.

    from ringgear.streamgear import StreamGear

    streamer = StreamGear(output="live.m3u8", format="hls", **{"-livestream": True, "-input_framerate": 30})
    while (frame := camera.read()[1]) is not None:
        streamer.stream(frame)
    streamer.close()

It starts a private daemon (the program `ringgear`: $RINGGEAR_BINARY, or in $PATH), which ends with the script, however that ends. The page
docs/from-streamgear.md has every parameter, and what it becomes.
"""

from ._errors import EncodingFailed, TranscodingFailed
from ._gear import StreamGear

__all__ = ["EncodingFailed", "StreamGear", "TranscodingFailed"]
