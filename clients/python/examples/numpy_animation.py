"""A plasma, drawn by numpy straight into shared memory: numpy_animation.py STREAM [WxH]"""

import sys
import time

import numpy as np
import ringgear


def main() -> None:
    stream = sys.argv[1]
    width, height = map(int, (sys.argv[2] if len(sys.argv) > 2 else "1280x720").split("x"))
    x = np.linspace(0, 6, width, dtype=np.float32)
    y = np.linspace(0, 4, height, dtype=np.float32)[:, np.newaxis]
    # One turn of 256 colours, as BGR.
    turn = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    palette = np.stack([np.sin(turn + shift) * 127 + 128 for shift in (0, 2, 4)], axis=1).astype(np.uint8)
    with ringgear.Producer(stream, width, height) as producer:
        pause = float(1 / producer.framerate)
        due = time.monotonic()
        while True:
            now = time.monotonic()
            waves = np.sin(x + now) + np.sin(y * 1.5 - now / 2) + np.sin(x / 2 + y + now / 3)
            with producer.slot(captured=time.monotonic_ns()) as frame:
                np.take(palette, ((waves + 3) * 42).astype(np.uint8), axis=0, out=frame)
            due = max(due + pause, now)
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except ringgear.RinggearError as error:
        sys.exit(f"numpy_animation: {error}")
