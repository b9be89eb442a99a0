"""What a stream keeps in memory, with its window full."""

from __future__ import annotations

import time

import rig

from .bench import Bench, Section

SIZE = (1920, 1080)
MIB = 1 << 20


def config(count: int) -> str:
    each = 'framerate = 30\nsegment = "1s"\nwindow = "6s"\n'
    rendition = 'name = "r"\nsize = "1920x1080"\npreset = "ultrafast"\nbitrate = "4M"\n'
    return "".join(f"[streams.s{index}]\n{each}[[streams.s{index}.renditions]]\n{rendition}" for index in range(count))


def run(bench: Bench) -> Section:
    section = Section(
        "Memory of a stream",
        "1080p at 30 frames a second with libx264 `ultrafast` and `zerolatency`, a window of 6 s at 4 Mbit/s, full: the daemon's RssAnon and its memory for pictures and for media, which is memfds' and so not in that, beyond what it has when its stream waits for a producer. The producer's ring is not in it.",
        ["format", "MiB", "window and retained segments, MiB", "the rest in pictures", "rest, MiB"],
    )
    for format in ("bgr24",) if bench.quick else ("bgr24", "nv12"):
        frames = bench.frames(format, SIZE, 15)
        with bench.daemon(config(1)) as daemon:
            idle = rig.memory(daemon.pid)["RssAnon"]
            daemon.feed(bench.feeder, frames, 30, ["s0"], still=True)
            daemon.wait_live(1)
            time.sleep(8 if bench.quick else 20)
            busy = rig.memory(daemon.pid)["RssAnon"] + rig.pictures_memory(daemon.pid) + rig.media_memory(daemon.pid) - idle
            window = int(daemon.status("s0")["window"]["bytes"])
        rest = busy - window
        pictures = rest / (SIZE[0] * SIZE[1] * 3 // 2)
        section.row(format, f"{busy / MIB:.1f}", f"{window / MIB:.1f}", f"{pictures:.1f}", f"{rest / MIB:.1f}")
        section.goal(f"{format}: the window's bytes and at most 12 pictures", f"the window's bytes and {pictures:.1f} pictures", pictures <= 12)
    return section
