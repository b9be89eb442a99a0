"""A Raspberry Pi's camera: picamera2_camera.py STREAM [WxH]. Needs picamera2 (Debian's python3-picamera2).

The camera's own YUV goes through as it is: nothing is converted on the way to the encoder.
"""

import sys

import ringgear
from picamera2 import MappedArray, Picamera2


def main() -> None:
    stream = sys.argv[1]
    width, height = map(int, (sys.argv[2] if len(sys.argv) > 2 else "1280x720").split("x"))
    camera = Picamera2()
    camera.configure(camera.create_video_configuration({"size": (width, height), "format": "YUV420"}))
    # The ISP may pad rows. The chroma planes' rows are half as long, so two of them share a padded row, and are sorted out below.
    stride = camera.stream_configuration("main")["stride"]
    camera.start()
    with ringgear.Producer(stream, width, height, format="yuv420p") as producer:
        try:
            while True:
                request = camera.capture_request()
                try:
                    # The sensor's clock is CLOCK_BOOTTIME: the same as ours on a machine that does not sleep.
                    captured = request.get_metadata()["SensorTimestamp"]
                    with MappedArray(request, "main", reshape=False) as mapped:
                        picture = mapped.array.reshape(height * 3 // 2, stride)
                        if stride == width:
                            producer.write(picture, captured=captured)
                        else:
                            with producer.slot(captured=captured) as frame:
                                frame[:height] = picture[:height, :width]
                                chroma = picture[height:].reshape(height, stride // 2)[:, : width // 2]
                                frame[height:].reshape(height, width // 2)[:] = chroma
                finally:
                    request.release()
        finally:
            camera.stop()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except ringgear.RinggearError as error:
        sys.exit(f"picamera2_camera: {error}")
