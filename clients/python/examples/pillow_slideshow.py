"""The pictures of a folder, five seconds each, with a clock: pillow_slideshow.py STREAM FOLDER"""

import itertools
import pathlib
import sys
import time

import ringgear
from PIL import Image, ImageDraw, ImageOps

SIZE = (1280, 720)
SHOWN = 5.0


def main() -> None:
    stream, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    if not files:
        sys.exit(f"pillow_slideshow: {folder} has no pictures")
    with ringgear.Producer(stream, *SIZE, format="rgb24") as producer:
        pause = float(1 / producer.framerate)
        for file in itertools.cycle(files):
            with Image.open(file) as opened:
                slide = ImageOps.pad(ImageOps.exif_transpose(opened).convert("RGB"), SIZE)
            until = time.monotonic() + SHOWN
            while time.monotonic() < until:
                frame = slide.copy()
                ImageDraw.Draw(frame).text((24, 24), time.strftime("%H:%M:%S"), fill="white", stroke_width=2, stroke_fill="black")
                producer.write(frame)
                time.sleep(pause)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except ringgear.RinggearError as error:
        sys.exit(f"pillow_slideshow: {error}")
