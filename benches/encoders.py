#!/usr/bin/env python3
"""How long a picture stays in FFmpeg: through the daemon, and in a bare FFmpeg that is called as the daemon calls it and in other ways, with
other threads, filters and lookahead. All of a case are fed equal pictures at an equal pace, in turn, round after round.

    python3 benches/encoders.py [--seconds 3] [--rounds 2] [--only WORD]

A bare FFmpeg is given the command line of the daemon's own, as /proc has it, over pipes as large. Its delay is counted from before a picture's
first byte is written until the last byte of that picture's last rendition is read; the daemon's is that of its status.
"""

import argparse
import contextlib
import fcntl
import json
import os
import re
import resource
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from latency import ROOT, Daemon, Feeder, quantile

PIPE_BYTES = 1 << 20
# The first pictures have the encoder's start in them.
STARTING = 8


def pictures(size, count=30):
    """Moving shapes with some noise, in I420."""
    width, height = size
    source = f"testsrc2=size={width}x{height}:rate=30,noise=alls=6:allf=t,format=yuv420p"
    line = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-frames:v", str(count), "-f", "rawvideo", "pipe:1"]
    data = subprocess.run(line, check=True, capture_output=True).stdout
    each = width * height * 3 // 2
    return [data[at : at + each] for at in range(0, len(data), each)]


def feed(pipe, made, rate, seconds):
    """Writes a picture each tick, and says when it began with each."""
    begin = time.monotonic() + 0.05
    began = []
    for number in range(int(seconds * rate)):
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        began.append(time.monotonic())
        rest = memoryview(made[number % len(made)])
        while rest:
            rest = rest[os.write(pipe, rest) :]
    return began


class Reader(threading.Thread):
    """Keeps what comes out of a pipe in a file, and when how much of it had come."""

    def __init__(self, pipe, path):
        super().__init__()
        self.pipe, self.path, self.come = pipe, path, []

    def run(self):
        total = 0
        with open(self.path, "wb") as file:
            while data := os.read(self.pipe, PIPE_BYTES):
                total += len(data)
                self.come.append((total, time.monotonic()))
                file.write(data)

    def arrivals(self):
        """When each packet was there as a whole, in the order of the pictures."""
        entries = ["-show_entries", "packet=pts,pos,size", "-of", "json"]
        told = subprocess.run(["ffprobe", "-v", "error", *entries, self.path], check=True, capture_output=True).stdout
        come = iter(self.come)
        total, at = next(come)
        found = []
        for packet in json.loads(told)["packets"]:
            end = int(packet["pos"]) + int(packet["size"])
            while total < end:
                total, at = next(come)
            found.append((int(packet["pts"]), at))
        return [at for _, at in sorted(found)]


def bare(line, made, rate, seconds):
    """The delays of pictures in an FFmpeg that is called by `line`, in milliseconds."""
    numbers = sorted({int(number) for number in re.findall(r"(?<= )pipe:([1-9]\d*)", " ".join(line))})
    outputs = [os.pipe() for _ in numbers]
    # Above every number that the command line names, so that none is overwritten before it is moved.
    high = [fcntl.fcntl(write, fcntl.F_DUPFD, 200) for _, write in outputs]

    def prepare():
        # As the daemon starts its own.
        os.nice(5)
        for number, write in zip(numbers, high):
            os.dup2(write, number)

    with tempfile.TemporaryDirectory() as folder:
        readers = [Reader(read, Path(folder) / f"{index}.nut") for index, (read, _) in enumerate(outputs)]
        # All others close by themselves when FFmpeg is executed.
        process = subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=prepare, close_fds=False, bufsize=0)
        for (_, write), copy in zip(outputs, high):
            os.close(write)
            os.close(copy)
        for reader in readers:
            reader.start()
        with contextlib.suppress(OSError):
            fcntl.fcntl(process.stdin.fileno(), 1031, PIPE_BYTES)  # F_SETPIPE_SZ
        try:
            began = feed(process.stdin.fileno(), made, rate, seconds)
        except BrokenPipeError:
            began = []
        process.stdin.close()
        said = process.stderr.read().decode()
        for reader in readers:
            reader.join()
            os.close(reader.pipe)
        if process.wait() != 0 or not began:
            raise RuntimeError(said.strip().splitlines()[0] if said.strip() else f"status {process.returncode}")
        there = [max(times) for times in zip(*(reader.arrivals() for reader in readers))]
    return [1e3 * (at - start) for start, at in zip(began, there)][STARTING:]


def cpu_seconds():
    """What all children that have ended took of the processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def through_the_daemon(ringgear, case, rate, made, seconds):
    """The same through the daemon: its FFmpeg's command line, and the mean, the median and the 95th percentile of its delays."""
    daemon = Daemon(ringgear, 1, "400ms", rendition=case.rendition, rate=rate, size=case.size)
    try:
        feeder = Feeder(daemon.push(case.size, "yuv420p"), made, rate)
        feeder.start()
        daemon.wait_playable()
        time.sleep(seconds)
        feeder.over = True
        status = daemon.status("s0")
        command = Path(f"/proc/{status['encoder']['pid']}/cmdline").read_text().split("\0")[:-1]
        delay = status["latency"]["encoder_delay"]
    finally:
        daemon.stop()
    mean = delay["sum_seconds"] / max(1, delay["count"])
    return command, [1e3 * value for value in (mean, delay["p50_seconds"], delay["p95_seconds"])]


# How a command line is changed.


def option(*words):
    """Gives each output's encoder further options."""

    def change(line):
        changed = []
        for word in line:
            changed.append(word)
            if len(changed) > 1 and changed[-2] == "-c:v":
                changed += words
        return changed

    return change


def ahead(*words):
    """Puts options before the filter graph."""
    return lambda line: line[: line.index("-filter_complex")] + list(words) + line[line.index("-filter_complex") :]


def replace(old, new):
    """Replaces words, and what is inside of them."""

    def change(line):
        changed = "\0".join(line).replace(old.replace(" ", "\0"), new.replace(" ", "\0"))
        if changed == "\0".join(line):
            raise RuntimeError(f"{old} is not in {' '.join(line)}")
        return changed.split("\0")

    return change


@dataclass
class Case:
    name: str
    size: tuple
    rendition: object
    # Other ways to call it, by their names.
    ways: dict = field(default_factory=dict)


THREADS = {f"-threads {count}": option("-threads", str(count)) for count in (1, 2, 4)}
PACES = {f"-fps_mode {mode}": replace("-fps_mode passthrough", f"-fps_mode {mode}") for mode in ("cfr", "vfr")}
LADDER = [
    ("1280x720", 'preset = "ultrafast"\nbitrate = "2M"'),
    ("854x480", 'preset = "ultrafast"\nbitrate = "1M"'),
    ("640x360", 'preset = "ultrafast"\nbitrate = "600k"'),
]
CASES = [
    Case("libx264 ultrafast", (1280, 720), 'codec = "libx264"\npreset = "ultrafast"\nbitrate = "2M"', THREADS),
    Case(
        "libx264 ultrafast, three renditions",
        (1280, 720),
        LADDER,
        THREADS
        | {
            "-filter_complex_threads 1": ahead("-filter_complex_threads", "1"),
            "-filter_complex_threads 4": ahead("-filter_complex_threads", "4"),
            "scaled by flags=bilinear": replace("flags=bicubic", "flags=bilinear"),
            "scaled by flags=neighbor": replace("flags=bicubic", "flags=neighbor"),
        },
    ),
    Case(
        "libx264 veryfast",
        (1280, 720),
        'codec = "libx264"\npreset = "veryfast"\nbitrate = "2M"',
        THREADS
        | PACES
        | {
            "threads by pictures: sliced-threads=0": option("-x264-params", "sliced-threads=0"),
            "lookahead: rc-lookahead=10": option("-x264-params", "rc-lookahead=10"),
            "no -tune zerolatency": replace("-tune zerolatency ", ""),
        },
    ),
    Case(
        "libx265 ultrafast",
        (640, 360),
        'codec = "libx265"\npreset = "ultrafast"\nbitrate = "600k"',
        {
            "no threads: pools=none": replace("log-level=", "pools=none:log-level="),
            "threads by pictures: frame-threads=2": replace("log-level=", "frame-threads=2:log-level="),
            "lookahead: rc-lookahead=10": replace("log-level=", "rc-lookahead=10:log-level="),
            "no -tune zerolatency": replace("-tune zerolatency ", ""),
        },
    ),
    Case(
        "libvpx-vp9, cpu-used 8",
        (640, 360),
        'codec = "libvpx-vp9"\nbitrate = "600k"',
        THREADS | {"-row-mt 0": replace("-row-mt 1", "-row-mt 0"), "lookahead: -lag-in-frames 10": replace("-lag-in-frames 0", "-lag-in-frames 10")},
    ),
    Case(
        "libaom-av1, cpu-used 8",
        (640, 360),
        'codec = "libaom-av1"\nbitrate = "600k"',
        THREADS | {"-row-mt 0": replace("-row-mt 1", "-row-mt 0"), "lookahead: -lag-in-frames 10": replace("-lag-in-frames 0", "-lag-in-frames 10")},
    ),
    Case(
        "libsvtav1, preset 12",
        (640, 360),
        'codec = "libsvtav1"\npreset = "12"\nbitrate = "600k"',
        {
            "no threads: lp=1": replace("enable-force-key-frames=1", "enable-force-key-frames=1:lp=1"),
            "hierarchical-levels=3": replace("hierarchical-levels=2", "hierarchical-levels=3"),
            "lookahead=16": replace("lookahead=0", "lookahead=16"),
        },
    ),
]


def row(cells, samples, pictures_fed, rate):
    """A row of the table from the delays of all rounds, and what they took of the processors if that is known."""
    delays, used = samples
    spent = f"{1e3 * used / pictures_fed:.1f}" if used else ""
    figures = [statistics.mean(delays)] + [quantile(delays, share) for share in (0.5, 0.95)]
    print("| " + " | ".join([*cells, *(f"{figure:.1f}" for figure in figures), f"{figures[1] * rate / 1e3:.1f}", spent]) + " |", flush=True)


def measure(ringgear, case, rate, seconds, rounds, ways):
    """Prints a row for the daemon, one for a bare FFmpeg, and one for each other way to call it: in turn, round after round."""
    made = pictures(case.size)
    told, found, refused = [], {}, {}
    for _ in range(rounds):
        command, figures = through_the_daemon(ringgear, case, rate, made, seconds)
        told.append(figures)
        for name, change in {"bare FFmpeg": lambda line: line, **ways}.items():
            if name in refused:
                continue
            before = cpu_seconds()
            try:
                delays = bare(change(command), made, rate, seconds)
            except RuntimeError as error:
                refused[name] = str(error)
                continue
            # ffprobe's share is a few milliseconds a round.
            all_delays, used = found.get(name, ([], 0.0))
            found[name] = (all_delays + delays, used + cpu_seconds() - before)
    cells = [case.name, str(rate)]
    median = [statistics.median(column) for column in zip(*told)]
    print("| " + " | ".join([*cells, "**the daemon**", *(f"{figure:.1f}" for figure in median), f"{median[1] * rate / 1e3:.1f}", ""]) + " |", flush=True)
    for name, samples in found.items():
        row([*cells, name], samples, rounds * int(seconds * rate), rate)
    for name, why in refused.items():
        print("| " + " | ".join([*cells, name, f"refused: {why}", "", "", "", ""]) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ringgear", default=str(ROOT / "target" / "release" / "ringgear"))
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="", help="the encoders with this word in their names")
    asked = parser.parse_args()
    print("\n## Picture in to sample out, in milliseconds\n")
    print("*In frames* is the median in frames of that rate. *Processor* is what one picture takes of all processors together.\n")
    print("| encoder | frames a second | called by | mean | p50 | p95 | in frames | processor |")
    print("|---|---|---|---|---|---|---|---|")
    for case in CASES:
        if asked.only not in case.name:
            continue
        for rate in (30, 15, 5):
            # At a slower rate it is to be seen whether anything waits for the next picture: other ways tell that at one rate.
            ways = case.ways if rate == 30 else {}
            seconds = max(asked.seconds, 3 * STARTING / rate)
            measure(asked.ringgear, case, rate, seconds, asked.rounds, ways)
    print(f"\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
