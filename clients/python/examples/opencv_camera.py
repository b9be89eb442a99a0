"""A webcam, a file, or an RTSP source by OpenCV: opencv_camera.py STREAM [SOURCE]

SOURCE is a camera's number (0), a path or a URL. Needs opencv-python.
"""

import sys
import time

import cv2
import ringgear


def main() -> None:
    stream = sys.argv[1]
    source = sys.argv[2] if len(sys.argv) > 2 else "0"
    camera = cv2.VideoCapture(int(source) if source.isdigit() else source)
    ok, frame = camera.read()
    if not ok:
        sys.exit(f"opencv_camera: {source} gives no frames: is it there, and not in use by another program?")
    # A camera sets the pace; a file is as fast as it is read, so it is held back to its own.
    is_file = camera.get(cv2.CAP_PROP_FRAME_COUNT) > 0
    pause = 1 / (camera.get(cv2.CAP_PROP_FPS) or 30) if is_file else 0.0
    height, width = frame.shape[:2]
    with ringgear.Producer(stream, width, height) as producer:
        due = time.monotonic()
        while ok:
            producer.write(frame)
            due = max(due + pause, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))
            ok, frame = camera.read()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except ringgear.RinggearError as error:
        sys.exit(f"opencv_camera: {error}")
