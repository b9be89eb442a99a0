"""What a live stream takes of the processors in all, beside the script that a skilled person would write: FFmpeg, reading the same frames from
a pipe, with the same renditions, into its own HLS muxer. The feeding process counts on neither side."""

from __future__ import annotations

import fcntl
import os
import shlex
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import rig

from .bench import Bench, Section

SIZE = (1920, 1080)
PIPE_BYTES = 1 << 20
F_SETPIPE_SZ = 1031
ONE = {"1920x1080": "4500k"}
THREE = {"1920x1080": "4500k", "1280x720": "2500k", "854x480": "1200k"}
GOALS = {1: 0.85, 3: 0.95}


@dataclass
class Work:
    """What both sides do."""

    renditions: dict[str, str]
    preset: str
    # Frames a second: as many as two processors can do, for who falls behind does something else than the other: the script encodes what its bitrate
    # allows at its framerate, the daemon spends the same bits on fewer pictures.
    rate: int


WORKS = [Work(ONE, "ultrafast", 30), Work(THREE, "ultrafast", 30), Work(ONE, "veryfast", 30), Work(THREE, "veryfast", 15)]


def stream(work: Work) -> str:
    text = f'[streams.door]\nframerate = {work.rate}\nsegment = "2s"\nwindow = "12s"\nformats = ["hls"]\n'
    for size, bitrate in work.renditions.items():
        text += f'[[streams.door.renditions]]\nname = "{size}"\nsize = "{size}"\nbitrate = "{bitrate}"\npreset = "{work.preset}"\n'
    return text


def script(work: Work) -> list[str]:
    line = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{SIZE[0]}x{SIZE[1]}", "-framerate", str(work.rate), "-i", "pipe:0"]
    sizes = list(work.renditions)
    graph = f"[0:v]split={len(sizes)}" + "".join(f"[s{index}]" for index in range(len(sizes)))
    for index, size in enumerate(sizes):
        graph += f";[s{index}]" + ("null" if index == 0 else f"scale={size.replace('x', ':')}") + f"[o{index}]"
    line += ["-filter_complex", graph]
    for index, bitrate in enumerate(work.renditions.values()):
        line += ["-map", f"[o{index}]", f"-b:v:{index}", bitrate, f"-maxrate:v:{index}", bitrate, f"-bufsize:v:{index}", bitrate]
    line += ["-c:v", "libx264", "-preset", work.preset, "-tune", "zerolatency", "-pix_fmt", "yuv420p", "-g", str(2 * work.rate), "-sc_threshold", "0"]
    line += ["-f", "hls", "-hls_time", "2", "-hls_list_size", "6", "-hls_flags", "delete_segments", "-hls_segment_type", "fmp4"]
    line += ["-master_pl_name", "index.m3u8", "-var_stream_map", " ".join(f"v:{index}" for index in range(len(sizes)))]
    return [*line, "v%v/media.m3u8"]


class Camera(threading.Thread):
    """Writes `rate` frames a second into a pipe that is as large as the daemon's own."""

    def __init__(self, pipe: int, frames: rig.Frames, rate: int) -> None:
        super().__init__(daemon=True)
        data = frames.path.read_bytes()
        self.pictures = [data[at : at + frames.frame_bytes] for at in range(0, len(data), frames.frame_bytes)]
        self.pipe, self.rate, self.written, self.over = pipe, rate, 0, False
        fcntl.fcntl(pipe, F_SETPIPE_SZ, PIPE_BYTES)

    def run(self) -> None:
        begin = time.monotonic()
        while not self.over:
            time.sleep(max(0.0, begin + self.written / self.rate - time.monotonic()))
            rest = memoryview(self.pictures[self.written % len(self.pictures)])
            try:
                while rest:
                    rest = rest[os.write(self.pipe, rest) :]
            except OSError:
                return
            self.written += 1


def by_script(bench: Bench, frames: rig.Frames, work: Work, seconds: float) -> float:
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        process = subprocess.Popen(script(work), cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin is not None and process.stderr is not None
        camera = Camera(process.stdin.fileno(), frames, work.rate)
        camera.start()
        try:
            rig.wait_for("FFmpeg writes a playlist", 60, lambda: list(Path(folder).glob("v0/*.m3u8")) or process.poll() is not None)
            written, used = camera.written, rig.cpu_seconds(process.pid)
            time.sleep(seconds)
            used = rig.cpu_seconds(process.pid) - used
            written = camera.written - written
        except OSError:
            raise rig.Failed(f"FFmpeg has ended: {process.stderr.read().decode()}") from None
        finally:
            camera.over = True
            camera.join()
            process.kill()
            process.communicate()
    return used / written


def pictures(daemon: rig.Daemon) -> int:
    """How many the encoder was given until now: one that can't keep up is given fewer than there are ticks."""
    status = daemon.status("door")
    return int(status["ticks"]["total"]) - int(status["encoder"]["skipped"])


def by_daemon(bench: Bench, frames: rig.Frames, work: Work, seconds: float) -> float:
    with bench.daemon(stream(work)) as daemon:
        daemon.feed(bench.feeder, frames, work.rate, ["door"])
        daemon.wait_live(1)
        given, used = pictures(daemon), rig.tree_cpu_seconds(daemon.pid)
        time.sleep(seconds)
        used = rig.tree_cpu_seconds(daemon.pid) - used
        given = pictures(daemon) - given
        daemon.check()
        if given < 0.9 * seconds * work.rate:
            bench.tell(f"the encoder was given {given} pictures of {seconds * work.rate:.0f}: this machine is too slow or too busy for all")
    return used / given


def run(bench: Bench) -> Section:
    section = Section(
        "A live stream in all",
        "1080p BGR24, libx264 with `zerolatency`, segments of 2 s: what a frame takes of all processors in the daemon and its FFmpeg, beside "
        "`ffmpeg` alone that reads the same frames from a pipe of 1 MiB and writes HLS by its own muxer. The process that feeds them counts on neither side. "
        "*fps* is what the camera gives: as many as two processors can do, so that neither side falls behind.",
        ["renditions", "preset", "fps", "Ringgear, ms a frame", "script, ms a frame", "ours / theirs"],
    )
    frames = bench.frames("bgr24", SIZE, 30)
    for work in WORKS[:2] if bench.quick else WORKS:
        given = (bench, frames, work, 3 if bench.quick else 8)
        found = rig.in_turn(bench.rounds, {"Ringgear": partial(by_daemon, *given), "script": partial(by_script, *given)}, bench.tell)
        ratio = rig.Ratio.of(found["Ringgear"], found["script"])
        count = len(work.renditions)
        section.row(count, work.preset, work.rate, *(f"{1e3 * statistics.median(each):.1f}" for each in found.values()), ratio)
        wanted = GOALS[count]
        section.goal(f"{count} rendition{'s' * (count > 1)}, {work.preset}: at most {wanted} of the script's", str(ratio), ratio.median <= wanted)
    section.commands["The script with three renditions"] = shlex.join(script(WORKS[1]))
    return section
