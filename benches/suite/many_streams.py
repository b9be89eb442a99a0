"""How many streams a daemon keeps in time, with an encoder that costs next to nothing: its own limit, and what one more stream costs."""

from __future__ import annotations

import time
from dataclasses import dataclass

import rig

from .bench import Bench, Section

SIZE = (1280, 720)
RATE = 15
COUNTS = [1, 16, 32, 64, 96]
QUICK_COUNTS = [16, 64]
MIB = 1 << 20


def streams(count: int) -> str:
    text = ""
    for index in range(count):
        text += f'[streams.s{index}]\nframerate = {RATE}\nsegment = "1s"\npart = "1s"\nwindow = "6s"\nslack = 1\n'
        # One pixel of four hundred is looked at: what is left of FFmpeg is reading the pictures.
        text += f'[[streams.s{index}.renditions]]\nname = "tiny"\nsize = "64x36"\npreset = "ultrafast"\nbitrate = "100k"\nfilter = "scale=64:36:flags=neighbor"\n'
    return text


@dataclass
class Load:
    cpu_per_tick: float
    system_cpu: float
    late_p50: float
    late_p99: float
    overdue: float
    missed: int
    threads: float
    memory: float
    window: float


def load(bench: Bench, frames: rig.Frames, count: int) -> Load:
    names = [f"s{index}" for index in range(count)]
    with bench.daemon(streams(count)) as daemon:
        idle = rig.memory(daemon.pid)
        daemon.feed(bench.feeder, frames, RATE, names, still=True)
        daemon.wait_live(count, 60)
        # Starting so many encoders has made a backlog, which is to be gone.
        time.sleep(2 if bench.quick else 6)
        before, used, all_used = daemon.statuses(), rig.cpu_seconds(daemon.pid), rig.tree_cpu_seconds(daemon.pid)
        began = time.monotonic()
        time.sleep(4 if bench.quick else 10)
        after, took = daemon.statuses(), time.monotonic() - began
        used, all_used = rig.cpu_seconds(daemon.pid) - used, rig.tree_cpu_seconds(daemon.pid) - all_used
        busy = rig.memory(daemon.pid)
        pictures = rig.pictures_memory(daemon.pid) + rig.media_memory(daemon.pid)
        daemon.check()
    ticks = sum(new["ticks"]["total"] - old["ticks"]["total"] for old, new in zip(before, after))

    def late(share: float) -> float:
        """Over all streams together."""

        def summed(statuses: list[dict[str, object]]) -> list[dict[str, object]]:
            each = [status["latency"]["tick_lateness"]["buckets"] for status in statuses]  # type: ignore[index]
            return [{"le_seconds": row[0]["le_seconds"], "count": sum(bucket["count"] for bucket in row)} for row in zip(*each)]

        return 1e3 * rig.quantile(summed(after), summed(before), share)

    def counted(name: str) -> int:
        return sum(int(new["ticks"][name]) - int(old["ticks"][name]) for old, new in zip(before, after))

    return Load(
        used / ticks,
        all_used / took,
        late(0.5),
        late(0.99),
        counted("overdue") / ticks,
        counted("missed"),
        (busy["Threads"] - idle["Threads"]) / count,
        (busy["RssAnon"] + pictures - idle["RssAnon"]) / count,
        sum(status["window"]["bytes"] for status in after) / count,
    )


def run(bench: Bench) -> Section:
    section = Section(
        "Many streams",
        f"720p I420 at {RATE} frames a second each, encoded at 64x36 by libx264 `ultrafast`, which costs next to nothing, so that the daemon's own limit is seen. One FFmpeg a stream reads all pictures whole, nicer than the daemon by 5 as always. "
        "*Processors* is how many of them the daemon and all its FFmpegs keep busy; *overdue* is the share of ticks that were fed after the next one's deadline. Memory is RssAnon and that of pictures and media; it and threads are the daemon's, without what it has when no stream runs.",
        ["streams", "daemon, ms a tick", "processors", "late p50, ms", "late p99, ms", "overdue", "missed", "threads a stream", "MiB a stream", "of which window"],
    )
    frames = bench.frames("yuv420p", SIZE, 16)
    picture = SIZE[0] * SIZE[1] * 3 // 2
    counts = QUICK_COUNTS if bench.quick else COUNTS
    found: dict[int, Load] = {}
    for count in counts:
        bench.tell(f"{count} streams")
        try:
            here = found[count] = load(bench, frames, count)
        except rig.Failed as error:
            bench.tell(str(error))
            section.row(count, "not live", *[""] * 8)
            break
        cells = [f"{1e3 * here.cpu_per_tick:.2f}", f"{here.system_cpu:.2f}", f"{here.late_p50:.2f}", f"{here.late_p99:.2f}", f"{100 * here.overdue:.2f} %", here.missed]
        section.row(count, *cells, f"{here.threads:.1f}", f"{here.memory / MIB:.1f}", f"{here.window / MIB:.1f}")
    in_time = [count for count, each in found.items() if each.overdue == 0 and each.missed == 0]
    section.goal("at least 64 streams without an overdue tick", f"{max(in_time, default=0)} of those tried", max(in_time, default=0) >= 64)
    if 16 in found:
        late = found[16].late_p99
        section.goal("16 streams: ticks at most 2 ms late, p99", f"{late:.2f} ms", late <= 2)
    first, last = found.get(16), found[max(found)] if found else None
    if first and last:
        factor = last.cpu_per_tick / first.cpu_per_tick
        section.goal("a tick costs with many streams what it costs with 16", f"{factor:.2f} times with {max(found)}", factor <= 1.15)
    if first:
        pictures = (first.memory - first.window) / picture
        section.goal("memory a stream: its window and at most 12 pictures", f"its window and {pictures:.1f} pictures", pictures <= 12)
    return section
