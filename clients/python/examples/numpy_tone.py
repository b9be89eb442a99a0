"""A tone that wanders from ear to ear, as sound beside any pictures: no microphone needed.

    numpy_tone.py [STREAM] [SECONDS]

The stream's config has source = "producer" in [streams.STREAM.audio].
"""

import sys
import time

import numpy as np

import ringgear

RATE = 48000
BLOCK = RATE // 100


def main() -> None:
    stream = sys.argv[1] if len(sys.argv) > 1 else "door"
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else float("inf")
    with ringgear.AudioProducer(stream, rate=RATE, channels=2, format="f32le") as producer:
        begun = time.monotonic()
        while producer.samples < seconds * RATE:
            at = (producer.samples + np.arange(BLOCK)) / RATE
            tone = 0.3 * np.sin(2 * np.pi * 440 * at)
            ear = 0.5 + 0.5 * np.sin(2 * np.pi * 0.25 * at)
            producer.write(np.stack((tone * (1 - ear), tone * ear), axis=1).astype(np.float32))
            # At the pace at which it is heard; counted from the start, so that no error adds up.
            time.sleep(max(0.0, begun + producer.samples / RATE - time.monotonic()))


if __name__ == "__main__":
    main()
