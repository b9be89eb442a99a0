#!/usr/bin/env python3
"""The same script, with vidgear's StreamGear and with Ringgear's: 600 frames of 1080p BGR24 as fast as they are taken, same x264 settings,
as DASH and as HLS, in turn, five times. Prints frames per second, the files' sizes, and the ratios; exits with 1 when the goal is missed.

    python3 benches/streamgear.py --ringgear target/release/ringgear [--frames 600] [--rounds 5] [--preset ultrafast] [--goal 2.5]

vidgear is installed from PyPI into target/bench/vidgear, the package of this repository into target/bench/package. The clock runs from
before the object is made until `close` has returned; the processor's seconds are those of the script and of all that it started. What each has published is decoded, and has to have every frame.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "bench"
SIZE = (1920, 1080)

SCRIPT = """
import resource, sys, time
import numpy as np
{import_line}

def busy():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)

format, frames, width, height, preset = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
random = np.random.default_rng(1)
ramp = np.add.outer(np.arange(height), np.arange(width)) // 16 % 192
detail = random.integers(0, 32, (height // 4, width // 4), np.uint8).repeat(4, 0).repeat(4, 1)
scene = np.repeat((detail + ramp)[:, :, None], 3, 2).astype(np.uint8)
# The camera pans over a still scene, with a sensor's noise, and a square moves through it.
pictures = []
for number in range(30):
    picture = np.roll(scene, (number, 2 * number), (0, 1)) + random.integers(0, 4, scene.shape, np.uint8)
    picture[100 : 300, 20 * number : 20 * number + 200] = (40, 90, 200)
    pictures.append(picture)
output = "out.mpd" if format == "dash" else "out.m3u8"
begin, used = time.perf_counter(), busy()
streamer = StreamGear(output=output, format=format, **{{"-input_framerate": 30.0, "-preset": preset, "-gop": 60, "-bf": 0}})
for number in range(frames):
    streamer.stream(pictures[number % 30])
streamer.close()
print(time.perf_counter() - begin, busy() - used)
"""

VIDGEAR = ["vidgear==0.3.6", "opencv-python-headless", "numpy", "cython", "requests", "colorlog", "tqdm"]
SUBJECTS = {
    "vidgear": "from vidgear.gears import StreamGear",
    "ringgear": "from ringgear.streamgear import StreamGear",
}


def environment(name, packages, fresh=False):
    """A Python with these packages in a folder of its own; None if they can't be had."""
    home = BENCH / name
    python = home / "bin" / "python"
    if fresh or not (home / "ready").exists():
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", home], check=True)
        if subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]).returncode:
            return None
        (home / "ready").touch()
    return python


def run(python, name, format, arguments):
    """Frames per second, the processor's seconds, and the bytes published."""
    with tempfile.TemporaryDirectory(prefix="ringgear-bench-") as folder:
        words = [format, arguments.frames, *SIZE, arguments.preset]
        script = SCRIPT.format(import_line=SUBJECTS[name])
        line = [python, "-W", "ignore", "-c", script, *map(str, words)]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr}")
        manifest = Path(folder) / ("out.mpd" if format == "dash" else "out.m3u8")
        count = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0"]
        published = subprocess.run([*count, manifest], capture_output=True, text=True, check=True).stdout.split()
        if not published or int(published[0].strip(",")) != arguments.frames:
            sys.exit(f"{name} published {published} of {arguments.frames} frames as {format}")
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.*") if file.is_file())
        took, busy = map(float, done.stdout.split()[-2:])
        return arguments.frames / took, busy, size


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ringgear", required=True, type=Path, help="the release build")
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--preset", default="ultrafast")
    parser.add_argument("--goal", type=float, default=2.5, help="times vidgear's frames per second")
    parser.add_argument("--keep", action="store_true", help="run the package as it was installed the last time")
    arguments = parser.parse_args()
    os.environ["RINGGEAR_BINARY"] = str(arguments.ringgear.resolve())
    pythons = {"vidgear": environment("vidgear", VIDGEAR), "ringgear": environment("package", [str(ROOT / "clients" / "python")], fresh=not arguments.keep)}
    if pythons["ringgear"] is None:
        sys.exit("the package can't be installed")
    if pythons["vidgear"] is None:
        print("NOT MEASURED: vidgear can't be installed from PyPI, so Ringgear runs alone", flush=True)
    subjects = [name for name in SUBJECTS if pythons[name]]
    print(f"{arguments.frames} frames of {SIZE[0]}x{SIZE[1]} BGR24, libx264 {arguments.preset} at crf 20, flat out\n")
    print("| format | round | " + " | ".join(f"{name}, fps | CPU s | MB" for name in subjects) + " | ratio |")
    print("|---|---|" + "---|---|---|" * len(subjects) + "---|", flush=True)
    missed = False
    for format in ("dash", "hls"):
        ratios, rates = [], {name: [] for name in subjects}
        for number in range(arguments.rounds):
            results = {name: run(pythons[name], name, format, arguments) for name in subjects}
            for name, (rate, _, _) in results.items():
                rates[name].append(rate)
            cells = " | ".join(f"{rate:.1f} | {busy:.1f} | {size / 1e6:.1f}" for rate, busy, size in results.values())
            ratio = results["ringgear"][0] / results["vidgear"][0] if "vidgear" in results else float("nan")
            ratios.append(ratio)
            print(f"| {format} | {number + 1} | {cells} | {ratio:.2f} |", flush=True)
        medians = " | ".join(f"{statistics.median(rates[name]):.1f} | |" for name in subjects)
        ratio = statistics.median(ratios)
        print(f"| {format} | median | {medians} | {ratio:.2f} |", flush=True)
        missed |= "vidgear" in subjects and ratio < arguments.goal
    if missed:
        print(f"\nThe goal of {arguments.goal} times vidgear's frames per second was missed.")
    return 1 if missed or "vidgear" not in subjects else 0


sys.exit(main())
