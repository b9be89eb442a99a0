"""How soon a daemon listens, how soon a viewer has a part of a stream, and how soon a clip begins."""

from __future__ import annotations

import http.client
import statistics
import time
from functools import partial

import rig

from .bench import Bench, Section

STREAM = """
[streams.door]
framerate = 30
[[streams.door.renditions]]
name = "r"
size = "1280x720"
preset = "veryfast"
bitrate = "2M"
"""


def clip(daemon: rig.Daemon) -> float:
    """Seconds until the first bytes of a clip of what is published."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20)
    try:
        began = time.monotonic()
        connection.request("GET", "/door/clip.mp4?last=4s")
        answer = connection.getresponse()
        answer.read(1)
        took = time.monotonic() - began
        if answer.status != 200:
            raise rig.Failed(f"a clip was answered by {answer.status}")
        return took
    finally:
        connection.close()


def start(bench: Bench, frames: rig.Frames) -> tuple[float, float, float]:
    """Seconds until it listens, from the first frame until its first part can be fetched, and until a clip begins."""
    with bench.daemon(STREAM) as daemon:
        producer = daemon.feed(bench.feeder, frames, 30, ["door"])
        assert producer.stdout is not None
        committed = float(producer.stdout.readline())

        def has_part() -> bool:
            status, playlist = daemon.get("/door/r/media.m3u8")
            return status == 200 and b"EXT-X-PART:" in playlist

        rig.wait_for("a first part", 30, has_part, 0.002)
        first_part = time.time() - committed
        daemon.wait_live(1)
        time.sleep(4)
        return daemon.listening_after, first_part, clip(daemon)


def run(bench: Bench) -> Section:
    section = Section(
        "Start",
        "From the program's start until its HTTP port takes connections; and, in a daemon that was started anew, from the first frame's commit until a playlist lists its first part: the encoder is tried and started in that time, and a part lasts 333 ms. *Clip* is from the request of the last 4 s as MP4 to its first bytes.",
        ["what", "median", "least", "most"],
    )
    frames = bench.frames("bgr24", (1280, 720), 30)
    found = rig.in_turn(2 if bench.quick else 5, {"": partial(start, bench, frames)}, lambda _: None)[""]
    for index, (what, wanted) in enumerate((("listening", 0.05), ("first part", 1.0), ("clip", 0.1))):
        each = [took[index] for took in found]
        median = statistics.median(each)
        section.row(what, *(f"{1e3 * value:.0f} ms" for value in (median, min(each), max(each))))
        section.goal(f"{what} within {1e3 * wanted:.0f} ms", f"{1e3 * median:.0f} ms", median <= wanted)
    return section
