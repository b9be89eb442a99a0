"""One script with vidgear's StreamGear and with Ringgear's: frames as fast as they are taken, as DASH and as HLS."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import rig

from .bench import Bench, Section
from .flat_out import VIDGEAR

SIZE = (1920, 1080)
GOAL = 2.5
PICTURES = 30
# The camera pans over a still scene, with a sensor's noise, and a square moves through it.
SCENE = """
import sys
import numpy as np

path, pictures, width, height = sys.argv[1], *map(int, sys.argv[2:5])
random = np.random.default_rng(1)
ramp = np.add.outer(np.arange(height), np.arange(width)) // 16 % 192
detail = random.integers(0, 32, (height // 4, width // 4), np.uint8).repeat(4, 0).repeat(4, 1)
scene = np.repeat((detail + ramp)[:, :, None], 3, 2).astype(np.uint8)
with open(path, "wb") as file:
    for number in range(pictures):
        picture = np.roll(scene, (number, 2 * number), (0, 1)) + random.integers(0, 4, scene.shape, np.uint8)
        picture[100 : 300, 20 * number : 20 * number + 200] = (40, 90, 200)
        file.write(picture.tobytes())
"""
# The clock runs from before the object is made until `close` has returned.
SCRIPT = """
import resource, sys, time
import numpy as np
{import_line}

def busy():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)

path, format, frames, width, height = *sys.argv[1:3], *map(int, sys.argv[3:6])
pictures = np.fromfile(path, np.uint8).reshape(-1, height, width, 3)
output = "out.mpd" if format == "dash" else "out.m3u8"
begin, used = time.perf_counter(), busy()
streamer = StreamGear(output=output, format=format, **{{"-input_framerate": 30.0, "-preset": "ultrafast", "-gop": 60, "-bf": 0}})
for number in range(frames):
    streamer.stream(pictures[number % len(pictures)])
streamer.close()
print(time.perf_counter() - begin, busy() - used)
"""
ALONE = "the encoder alone"
SUBJECTS = {
    "Ringgear's class": "from ringgear.streamgear import StreamGear",
    "vidgear's 0.3.6": "from vidgear.gears import StreamGear",
}


@dataclass
class Took:
    frames_per_second: float
    cpu_per_frame: float
    megabytes: float


def package(bench: Bench) -> Path | None:
    """A Python with this repository's package, of the wheel that was made last."""
    wheels = sorted(bench.wheels.glob("ringgear-*.whl"), key=lambda wheel: wheel.stat().st_mtime)
    if not wheels:
        return None
    home = bench.peers / f"package-{sha256(wheels[-1].read_bytes()).hexdigest()[:12]}"
    for other in bench.peers.glob("package-*"):
        if other != home:
            shutil.rmtree(other)
    return rig.environment(home, [str(wheels[-1])])


def encoder_alone(bench: Bench, pictures: Path, frames: int) -> Took:
    """The same pictures, converted already, through the encoder into nothing: no class is faster that has FFmpeg encode them."""
    line: list[str | Path] = ["ffmpeg", "-v", "error", "-stream_loop", str(frames // PICTURES - 1), "-f", "rawvideo", "-pix_fmt", "yuv420p"]
    line += ["-s", "{}x{}".format(*SIZE), "-framerate", "30", "-i", pictures, "-c:v", "libx264", "-preset", "ultrafast", "-crf", "20", "-g", "60", "-bf", "0"]
    ran = rig.run([*line, "-f", "null", "-"], bench.folder)
    return Took(frames / ran.seconds, ran.cpu / frames, 0.0)


def take(bench: Bench, pictures: Path, python: Path, import_line: str, format: str, frames: int) -> Took:
    """One run of the script, whose every frame has to be in what it has published."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        line = [python, "-W", "ignore", "-c", SCRIPT.format(import_line=import_line), pictures, format, *map(str, (frames, *SIZE))]
        said = rig.run(line, Path(folder)).output
        manifest = Path(folder) / ("out.mpd" if format == "dash" else "out.m3u8")
        count = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0"]
        published = rig.run([*count, manifest]).output.split()
        if not published or int(published[0].strip(",")) != frames:
            raise rig.Failed(f"{manifest} has {published} of {frames} frames")
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.*") if file.is_file())
    took, busy = map(float, said.split()[-2:])
    return Took(frames / took, busy / frames, size / 1e6)


def run(bench: Bench) -> Section:
    frames = 90 if bench.quick else 600
    section = Section(
        "The class beside vidgear's",
        f"{frames} frames of 1080p BGR24 from one Python script, of which the import alone differs: libx264 `ultrafast` at the class's own crf 20, flat out, from before the object is made until `close` "
        "has returned. *CPU* is what a frame takes of all processors, in the script and all that it has started. The encoder alone is FFmpeg, reading the same pictures as I420 from the page cache, "
        "with the same settings, into nothing.",
        ["format", "class", "frames/s", "CPU, ms a frame", "MB published", "frames/s of vidgear's"],
    )
    os.environ["RINGGEAR_BINARY"] = str(bench.ringgear)
    pythons = {"Ringgear's class": package(bench), "vidgear's 0.3.6": rig.environment(bench.peers / "vidgear", VIDGEAR)}
    for name, python in pythons.items():
        if python is None:
            raise rig.Failed(f"{name} can't be installed: `make bench` makes the wheel, and PyPI has the other")
    made = bench.folder / "pictures.bgr24"
    rig.run([str(pythons["vidgear's 0.3.6"]), "-c", SCENE, made, *map(str, (PICTURES, *SIZE))])
    ready = made.with_suffix(".yuv420p")
    rig.run(["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", "{}x{}".format(*SIZE), "-i", made, "-pix_fmt", "yuv420p", "-f", "rawvideo", ready])
    for format in ("dash", "hls"):
        subjects: dict[str, Callable[[], Took]] = {
            name: partial(take, bench, made, python, SUBJECTS[name], format, frames) for name, python in pythons.items() if python is not None
        }
        subjects[ALONE] = partial(encoder_alone, bench, ready, frames)
        found = rig.in_turn(bench.rounds, subjects, bench.tell)
        rates = {name: [took.frames_per_second for took in each] for name, each in found.items()}
        theirs = rates["vidgear's 0.3.6"]
        for name, each in found.items():
            cpu, size = (statistics.median(values) for values in ((1e3 * took.cpu_per_frame for took in each), (took.megabytes for took in each)))
            ratio = "" if rates[name] is theirs else rig.Ratio.of(rates[name], theirs)
            section.row(format, name, f"{statistics.median(rates[name]):.0f}", f"{cpu:.1f}", f"{size:.1f}" if size else "", ratio)
        ratio = rig.Ratio.of(rates["Ringgear's class"], theirs)
        section.goal(f"{format}: at least {GOAL} times vidgear's frames per second", str(ratio), ratio.median >= GOAL)
    return section
