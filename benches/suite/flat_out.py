"""Frames as fast as they are taken: a recording of the daemon, FFmpeg alone from the same file, FFmpeg alone from pictures that are converted
already, and StreamGear."""

from __future__ import annotations

import shlex
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import rig

from .bench import Bench, Section

STREAM = """
[streams.take]
framerate = 30
mode = "vod"
segment = "2s"
formats = ["hls"]
[[streams.take.renditions]]
name = "source"
codec = "libx264"
preset = "ultrafast"
crf = 23
"""
VIDGEAR = ["vidgear==0.3.6", "opencv-python-headless", "numpy", "cython", "requests", "colorlog", "tqdm"]
STREAMGEAR = """
import resource, sys, time
import numpy as np
from vidgear.gears import StreamGear

path, width, height = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
frames = np.memmap(path, np.uint8, "r").reshape(-1, height, width, 3)
streamer = StreamGear(output="out.m3u8", format="hls", **{"-input_framerate": 30.0, "-preset": "ultrafast", "-crf": 23, "-gop": 60, "-bf": 0})
for frame in frames:
    streamer.stream(frame)
streamer.close()
"""
SIZES = {"720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
# Frames of each.
COUNTS = {"720p": 600, "1080p": 300, "4K": 100}


@dataclass
class Took:
    frames_per_second: float
    cpu_per_frame: float


def ffmpeg_line(frames: rig.Frames) -> list[str]:
    line = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", frames.format, "-s", frames.size_text, "-framerate", "30", "-i", str(frames.path)]
    line += ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "23", "-pix_fmt", "yuv420p", "-g", "60"]
    return [*line, "-f", "hls", "-hls_time", "2", "-hls_playlist_type", "vod", "-hls_segment_type", "fmp4", "out.m3u8"]


def alone(line: list[str], frames: rig.Frames, folder: Path) -> Took:
    """A program that makes a recording of all frames and ends."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        ran = rig.run(line, Path(work))
        check(Path(work) / "out.m3u8", frames)
    return Took(frames.count / ran.seconds, ran.cpu / frames.count)


def check(playlist: Path, frames: rig.Frames) -> None:
    """Whether every frame is in a recording."""
    count = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0"]
    published = rig.run([*count, playlist]).output.split()
    if not published or int(published[0].strip(",")) != frames.count:
        raise rig.Failed(f"{playlist} has {published} of {frames.count} frames")


def through(daemon: rig.Daemon, frames: rig.Frames) -> Took:
    """A recording by a running daemon: from the producer's start until it was told that all is published."""
    line: list[str | Path] = [daemon.ringgear, "--socket", daemon.socket, "push", "take", "--unpaced", "--size", frames.size_text]
    before = rig.tree_cpu_seconds(daemon.pid)
    ran = rig.run([*line, "--format", frames.format], stdin=frames.path)
    used = ran.cpu + rig.tree_cpu_seconds(daemon.pid) - before
    newest = daemon.status("take")["recordings"][0]
    check(daemon.folder / "live" / "take" / newest / "index.m3u8", frames)
    return Took(frames.count / ran.seconds, used / frames.count)


def run(bench: Bench) -> Section:
    section = Section(
        "Flat out",
        "Frames from a file in the page cache to a recording in fragmented MP4 with its playlist, libx264 `ultrafast` at crf 23. Frames per second, "
        "and what a frame takes of all processors, the producer's process included. *Ratio* is ours over the peer's, round by round: the median, the least and the most.",
        ["size", "subject", "frames/s", "CPU, ms a frame", "ours / theirs, frames/s"],
    )
    python = rig.environment(bench.peers / "vidgear", VIDGEAR)
    if python is None:
        bench.tell("vidgear can't be installed from PyPI: StreamGear is left out")
    for name, count in {"1080p": 120}.items() if bench.quick else COUNTS.items():
        size = SIZES[name]
        bgr24, i420 = (bench.frames(format, size, count) for format in ("bgr24", "yuv420p"))
        with bench.daemon(STREAM) as daemon:
            subjects: dict[str, Callable[[], Took]] = {
                "Ringgear, BGR24": partial(through, daemon, bgr24),
                "FFmpeg alone, BGR24": partial(alone, ffmpeg_line(bgr24), bgr24, bench.folder),
                "FFmpeg alone, I420": partial(alone, ffmpeg_line(i420), i420, bench.folder),
            }
            if python is not None:
                line = [str(python), "-W", "ignore", "-c", STREAMGEAR, str(bgr24.path), *map(str, size)]
                subjects["StreamGear 0.3.6, BGR24"] = partial(alone, line, bgr24, bench.folder)
            # The first recording tries the encoder and starts it for the first time.
            through(daemon, bgr24)
            found = rig.in_turn(bench.rounds, subjects, bench.tell)
        rates = {subject: [took.frames_per_second for took in each] for subject, each in found.items()}
        ours = rates["Ringgear, BGR24"]
        for subject, each in found.items():
            cpu = statistics.median(1e3 * took.cpu_per_frame for took in each)
            ratio = "" if rates[subject] is ours else rig.Ratio.of(ours, rates[subject])
            section.row(name, subject, f"{statistics.median(rates[subject]):.0f}", f"{cpu:.1f}", ratio)
        for subject, wanted in (("FFmpeg alone, BGR24", 1.2), ("FFmpeg alone, I420", 0.9)):
            ratio = rig.Ratio.of(ours, rates[subject])
            section.goal(f"{name}: at least {wanted} times {subject}", str(ratio), ratio.median >= wanted)
        if name == "1080p":
            section.commands["FFmpeg alone"] = shlex.join(ffmpeg_line(bgr24)).replace(str(bench.folder), "")
            section.commands["Ringgear"] = f"ringgear push take --unpaced --size {bgr24.size_text} --format bgr24 < frames"
        for frames in (bgr24, i420):
            frames.path.unlink()
    return section
