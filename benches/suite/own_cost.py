"""What the daemon itself takes of the processors for one stream, by the frames' format, beside the time that copying the same bytes takes."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from functools import partial

import rig

from .bench import Bench, Section

SIZE = (1920, 1080)
RATE = 30
# The encoder's own work does not count here, so it is small: but it reads every picture whole.
STREAM = f"""
[streams.door]
framerate = {RATE}
segment = "1s"
window = "6s"
[[streams.door.renditions]]
name = "small"
size = "320x180"
preset = "ultrafast"
bitrate = "300k"
"""
GOALS_MS = {"bgr24": 2.0, "nv12": 1.0, "yuv420p": 1.0}


@dataclass
class Cost:
    # Seconds of the processor a frame: the daemon's, and those of a copy of the frame.
    daemon: float
    copy: float


def copy_seconds(count: int) -> float:
    """The processor's time for copying so many bytes by memcpy, between buffers too large for any cache."""
    size, turns = 1 << 26, 8
    source, target = memoryview(bytearray(size)), memoryview(bytearray(size))
    target[:] = source
    begin = time.thread_time()
    for _ in range(turns):
        target[:] = source
    return (time.thread_time() - begin) / (turns * size) * count


def cost(bench: Bench, frames: rig.Frames) -> Cost:
    with bench.daemon(STREAM) as daemon:
        daemon.feed(bench.feeder, frames, RATE, ["door"])
        daemon.wait_live(1)
        ticks, used = daemon.status("door")["ticks"]["total"], rig.cpu_seconds(daemon.pid)
        time.sleep(2 if bench.quick else 8)
        used = rig.cpu_seconds(daemon.pid) - used
        ticks = daemon.status("door")["ticks"]["total"] - ticks
        daemon.check()
    return Cost(used / ticks, copy_seconds(frames.frame_bytes))


def run(bench: Bench) -> Section:
    section = Section(
        "The daemon's own cost",
        "One live 1080p stream at 30 frames a second: what the daemon's process takes of the processors for a frame, all that it does included, and FFmpeg's not. "
        "*memcpy* is what copying the frame takes in the same round, which is the least that taking it out of the ring can cost.",
        ["format", "MB a frame", "daemon, ms a frame", "memcpy, ms", "daemon / memcpy"],
    )
    made = {format: bench.frames(format, SIZE, 15) for format in GOALS_MS}
    found = rig.in_turn(bench.rounds, {format: partial(cost, bench, frames) for format, frames in made.items()}, bench.tell)
    for format, costs in found.items():
        median = 1e3 * statistics.median(each.daemon for each in costs)
        copying = 1e3 * statistics.median(each.copy for each in costs)
        ratio = rig.Ratio.of([each.daemon for each in costs], [each.copy for each in costs])
        section.row(format, f"{made[format].frame_bytes / 1e6:.1f}", median, copying, ratio)
        section.goal(f"{format}: at most {GOALS_MS[format]:.0f} ms a frame", f"{median:.2f} ms", median <= GOALS_MS[format])
    return section
