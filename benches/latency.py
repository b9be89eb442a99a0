#!/usr/bin/env python3
"""How long a frame takes from its commit until viewers can fetch it: Ringgear with 1, 4 and 16 streams, and in the same run
FFmpeg's dash muxer with chunks, its hls muxer, and StreamGear's live HLS, fed with equal frames at the same pace.

    python3 benches/latency.py [--seconds 30] [--only origin|peers]

Ringgear is measured by clients that block on the next part. When a part's first frame was captured stands in its `prft` box, by the
daemon's clock, whose distance to ours is asked for first. Peers are measured at their folder: a fragment counts once it is whole
in its file, a segment once the playlist lists it, which is the earliest that a server could send them. Exits with 1 when a goal is missed.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RATE = 25
SIZE = (320, 180)
FRAMES = 100
WARM_UP = 6.0
GOAL_MS = 20.0
NTP_EPOCH = 2_208_988_800


def quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def frames():
    """Moving gradients with some noise, as BGR24."""
    width, height = SIZE
    noise = os.urandom(1 << 16)
    made = []
    for number in range(FRAMES):
        rows = []
        for y in range(height):
            start = (y * 37 + number * 91) % (len(noise) - width * 3)
            ramp = bytes((x + y + number * 3) & 0xFF for x in range(width * 3))
            rows.append(bytes((a * 7 + b) // 8 for a, b in zip(ramp, noise[start : start + width * 3])))
        made.append(b"".join(rows))
    return made


class Feeder(threading.Thread):
    """Writes a frame each tick into a pipe, and notes when."""

    def __init__(self, pipe, pictures, rate=RATE):
        super().__init__(daemon=True)
        self.pipe, self.pictures, self.rate, self.committed, self.over = pipe, pictures, rate, [], False

    def run(self):
        begin = time.monotonic() + 0.05
        number = 0
        while not self.over:
            time.sleep(max(0.0, begin + number / self.rate - time.monotonic()))
            self.committed.append(time.time())
            try:
                self.pipe.write(self.pictures[number % len(self.pictures)])
                self.pipe.flush()
            except (BrokenPipeError, ValueError):
                return
            number += 1


class Daemon:
    """A daemon with streams of one rendition each."""

    def __init__(self, ringgear, streams, part, keys="", rendition='codec = "libx264"\npreset = "ultrafast"\nbitrate = "600k"', rate=RATE, size=SIZE):
        self.ringgear = ringgear
        self.folder = Path(tempfile.mkdtemp(prefix="ringgear-latency-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.names = [f"s{n}" for n in range(streams)]
        text = (
            f'[http]\nlisten = "127.0.0.1:{self.port}"\n[daemon]\nsocket = "{self.folder}/control.sock"\n'
            f'[publish]\ndir = "{self.folder}/live"\n'
        )
        renditions = rendition if isinstance(rendition, list) else [(f"{size[0]}x{size[1]}", rendition)]
        for name in self.names:
            text += f'[streams.{name}]\nframerate = {rate}\nsegment = "1s"\npart = "{part}"\n{keys}\n'
            for index, (rendition_size, options) in enumerate(renditions):
                text += f'[[streams.{name}.renditions]]\nname = "r{index}"\nsize = "{rendition_size}"\n{options}\n'
        config = self.folder / "ringgear.toml"
        config.write_text(text)
        self.log = open(self.folder / "log", "w")
        self.process = subprocess.Popen([ringgear, "serve", "--config", config], stderr=self.log, stdout=self.log)
        self.producers = []
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.05)
        sys.exit(f"ringgear does not listen: {(self.folder / 'log').read_text()}")

    def pattern(self, rate=RATE, size=SIZE):
        for name in self.names:
            line = [self.ringgear, "--socket", f"{self.folder}/control.sock", "pattern", name]
            line += ["--size", f"{size[0]}x{size[1]}", "--framerate", str(rate)]
            self.producers.append(subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL))

    def push(self, size=SIZE, pixels="bgr24"):
        """A pipe for frames, which are taken as they come."""
        line = [self.ringgear, "--socket", f"{self.folder}/control.sock", "push", self.names[0], "--unpaced"]
        line += ["--size", f"{size[0]}x{size[1]}", "--format", pixels]
        producer = subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
        self.producers.append(producer)
        return producer.stdin

    def get(self, path, connection=None):
        connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def status(self, name):
        return json.loads(self.get(f"/api/v1/streams/{name}")[1])

    def ahead(self):
        """The daemon's clock minus ours, in seconds, by the quickest of some answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        best = None
        for _ in range(20):
            before = time.time()
            text = self.get("/time", connection)[1].decode()
            after = time.time()
            told = datetime.fromisoformat(text.strip().replace("Z", "+00:00")).timestamp()
            if best is None or after - before < best[0]:
                best = (after - before, told - (before + after) / 2)
        return best[1]

    def wait_playable(self):
        for name in self.names:
            for _ in range(400):
                if self.get(f"/{name}/r0/media.m3u8")[0] == 200:
                    break
                time.sleep(0.05)
            else:
                sys.exit(f"{name} is not playable: {(self.folder / 'log').read_text()}")

    def stop(self):
        for producer in self.producers:
            producer.kill()
            producer.wait()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder)


class Viewer(threading.Thread):
    """Blocks on each part in turn and notes how old its first frame is when it has come."""

    def __init__(self, daemon, name, ahead, until):
        super().__init__(daemon=True)
        self.daemon_, self.name_, self.ahead, self.until, self.ages = daemon, name, ahead, until, []
        self.failed = None

    def run(self):
        try:
            self.follow()
        except (OSError, http.client.HTTPException, AttributeError, ValueError) as error:
            self.failed = error

    def follow(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon_.port, timeout=20)
        next_part = None
        while time.monotonic() < self.until:
            if next_part is None:
                text = self.daemon_.get(f"/{self.name_}/r0/media.m3u8", connection)[1].decode()
                next_part = re.search(r'PRELOAD-HINT:TYPE=PART,URI="(\d+)\.(\d+)\.m4s"', text).groups()
                target = float(re.search(r"PART-TARGET=([\d.]+)", text)[1])
                parts = round(1.0 / target)
            segment, part = map(int, next_part)
            status, body = self.daemon_.get(f"/{self.name_}/r0/{segment}.{part}.m4s", connection)
            come = time.time()
            if status != 200:
                next_part = None
                continue
            at = body.index(b"prft")
            ntp = int.from_bytes(body[at + 12 : at + 20], "big")
            captured = ntp / 2**32 - NTP_EPOCH - self.ahead
            self.ages.append(come - captured)
            next_part = (segment, part + 1) if part + 1 < parts else (segment + 1, 0)


def watch(daemon, seconds):
    """Ages of the parts of all streams, in milliseconds, and the encoders' median delay."""
    daemon.wait_playable()
    time.sleep(WARM_UP)
    ahead = daemon.ahead()
    until = time.monotonic() + seconds
    viewers = [Viewer(daemon, name, ahead, until) for name in daemon.names]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join()
        if viewer.failed:
            sys.exit(f"a viewer of {viewer.name_} fails: {viewer.failed!r}; {(daemon.folder / 'log').read_text()}")
    ages = [1e3 * age for viewer in viewers for age in viewer.ages]
    delays = [daemon.status(name)["latency"]["encoder_delay"] for name in daemon.names]
    delay = statistics.median(1e3 * delay["p50_seconds"] for delay in delays)
    return ages, delay


def origin(ringgear, seconds):
    print("\n## Commit to part, at a client that blocks on the part, in milliseconds\n")
    print("Parts of 200 ms, 25 frames a second, 320x180. *beyond* is what is left of a part's age without the encoder's median delay and the part's length;")
    print("*last frame* is the time from the commit of the part's last frame, without the encoder's median delay.\n")
    print("| streams | pace | parts | age p50 | age p99 | encoder p50 | beyond p50 | beyond p99 | last frame p50 | last frame p99 |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    missed = []
    for count, pace in [(1, "tick"), (4, "tick"), (16, "tick"), (1, "arrival"), (4, "arrival"), (16, "arrival")]:
        daemon = Daemon(ringgear, count, "200ms", f'pace = "{pace}"')
        try:
            daemon.pattern()
            ages, delay = watch(daemon, seconds)
        finally:
            daemon.stop()
        beyond = [age - delay - 200 for age in ages]
        last = [age - delay - 160 for age in ages]
        row = [f"{quantile(ages, 0.5):.1f}", f"{quantile(ages, 0.99):.1f}", f"{delay:.1f}"]
        row += [f"{quantile(values, share):.1f}" for values in (beyond, last) for share in (0.5, 0.99)]
        print(f"| {count} | {pace} | {len(ages)} | " + " | ".join(row) + " |", flush=True)
        wanted = int(seconds * 5 * count)
        if len(ages) < 0.9 * wanted:
            missed.append(f"{count} streams, pace {pace}: only {len(ages)} of {wanted} parts came")
        elif quantile(beyond, 0.99) > GOAL_MS:
            missed.append(f"{count} streams, pace {pace}: p99 beyond is {quantile(beyond, 0.99):.1f} ms, the goal is {GOAL_MS:.0f} ms")
    return missed


def whole_samples(path):
    """How many samples are in the whole fragments of a file that may still grow."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    at = samples = pending = 0
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size < 8 or at + size > len(data):
            break
        if kind == b"moof":
            run = data.index(b"trun", at)
            pending = int.from_bytes(data[run + 8 : run + 12], "big")
        elif kind == b"mdat":
            samples, pending = samples + pending, 0
        at += size
    return samples


class Dash:
    """Frames that can be fetched from FFmpeg's chunked segments."""

    def __init__(self, folder):
        self.folder, self.done, self.number = folder, 0, 1

    def frames(self):
        while True:
            name = f"chunk-stream0-{self.number:05}.m4s"
            here = whole_samples(self.folder / name)
            if here is None:
                here = whole_samples(self.folder / f"{name}.tmp") or 0
            if (self.folder / f"chunk-stream0-{self.number + 1:05}.m4s").exists() or (self.folder / f"chunk-stream0-{self.number + 1:05}.m4s.tmp").exists():
                self.done += whole_samples(self.folder / name) or here
                self.number += 1
                continue
            return self.done + here


class Hls:
    """Frames in the segments that a playlist has listed."""

    def __init__(self, playlist):
        self.playlist, self.listed = playlist, {}

    def frames(self):
        try:
            text = self.playlist.read_text()
        except FileNotFoundError:
            return 0
        first = re.search(r"MEDIA-SEQUENCE:(\d+)", text)
        for place, seconds in enumerate(re.findall(r"#EXTINF:([\d.]+)", text)):
            self.listed[int(first[1]) + place] = round(float(seconds) * RATE)
        return sum(self.listed.values())


def follow(folder, feeder, seconds):
    """Ages of the units that appear, in seconds: from the commit of the first frame of each, and of its last."""
    until = time.monotonic() + seconds
    seen, first_ages, last_ages = 0, [], []
    while time.monotonic() < until:
        now_there = folder.frames()
        now = time.time()
        if now_there > seen:
            if now_there <= len(feeder.committed):
                first_ages.append(1e3 * (now - feeder.committed[seen]))
                last_ages.append(1e3 * (now - feeder.committed[now_there - 1]))
            seen = now_there
        time.sleep(0.001)
    # The first units hold the start of everything.
    skip = min(len(first_ages) // 3, 2)
    return first_ages[skip:], last_ages[skip:]


@contextlib.contextmanager
def fed(line, folder, pictures, **options):
    """A peer in a session of its own, and its feeder; in the end nothing of that session is left."""
    peer = subprocess.Popen(line, stdin=subprocess.PIPE, cwd=folder, bufsize=0, start_new_session=True, **options)
    feeder = Feeder(peer.stdin, pictures)
    try:
        feeder.start()
        yield feeder
    finally:
        feeder.over = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(peer.pid, signal.SIGKILL)
        peer.wait()


def ffmpeg(arguments):
    line = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{SIZE[0]}x{SIZE[1]}", "-framerate", str(RATE), "-i", "pipe:0"]
    line += ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-b:v", "600k", "-pix_fmt", "yuv420p", "-sc_threshold", "0"]
    return line + arguments


STREAMGEAR = """
import sys, numpy as np
from vidgear.gears import StreamGear
width, height, rate = map(int, sys.argv[1:4])
gear = StreamGear(output="live.m3u8", format="hls", **{"-livestream": True, "-input_framerate": float(rate), "-preset": "ultrafast"})
while True:
    data = sys.stdin.buffer.read(width * height * 3)
    if len(data) < width * height * 3:
        break
    gear.stream(np.frombuffer(data, np.uint8).reshape(height, width, 3))
gear.close()
"""


def streamgear_python():
    """A Python with vidgear in a folder of its own; None if it can't be had."""
    home = ROOT / "target" / "bench" / "streamgear"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        packages = ["vidgear==0.3.3", "opencv-python-headless", "numpy", "cython", "requests", "colorlog", "tqdm"]
        if subprocess.run([python, "-m", "pip", "install", "-q", *packages]).returncode:
            return None
        (home / "ready").touch()
    return python


def peers(ringgear, seconds):
    print("\n## Beside others, for equal frames: age of a unit when it can first be fetched, in milliseconds\n")
    print("25 frames a second, 320x180, x264 ultrafast. A unit is what can be fetched at once: a part, a fragment, a segment.\n")
    print("| what | units | first frame p50 | first frame p99 | last frame p50 | last frame p99 |")
    print("|---|---|---|---|---|---|")

    def row(name, first_ages, last_ages):
        cells = [f"{quantile(ages, share):.0f}" for ages in (first_ages, last_ages) for share in (0.5, 0.99)]
        print(f"| {name} | {len(first_ages)} | " + " | ".join(cells) + " |", flush=True)

    pictures = frames()
    for pace in ("tick", "arrival"):
        daemon = Daemon(ringgear, 1, "200ms", f'pace = "{pace}"')
        try:
            feeder = Feeder(daemon.push(), pictures)
            feeder.start()
            ages, _ = watch(daemon, seconds)
            feeder.over = True
        finally:
            daemon.stop()
        row(f"Ringgear, parts of 200 ms, pace {pace}", ages, [age - 160 for age in ages])

    dash = ["-g", str(RATE), "-f", "dash", "-ldash", "1", "-streaming", "1", "-seg_duration", "1", "-frag_type", "duration", "-frag_duration", "0.2"]
    dash += ["-use_template", "1", "-use_timeline", "0", "-window_size", "60", "-utc_timing_url", "/time", "manifest.mpd"]
    hls = ["-g", str(2 * RATE), "-f", "hls", "-hls_time", "2", "-hls_list_size", "6", "-hls_flags", "delete_segments", "live.m3u8"]
    for name, arguments, reader in [
        ("FFmpeg dash, -ldash 1 -streaming 1, fragments of 200 ms", dash, lambda folder: Dash(folder)),
        ("FFmpeg hls, segments of 2 s", hls, lambda folder: Hls(folder / "live.m3u8")),
    ]:
        with tempfile.TemporaryDirectory() as folder, fed(ffmpeg(arguments), folder, pictures) as feeder:
            row(name, *follow(reader(Path(folder)), feeder, seconds + WARM_UP))
    python = streamgear_python()
    if python is None:
        print("| StreamGear, live HLS | NOT MEASURED: vidgear can't be installed | | | | |")
        return []
    # Its FFmpeg may still be ending while the folder is removed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        line = [python, "-c", STREAMGEAR, str(SIZE[0]), str(SIZE[1]), str(RATE)]
        with open(Path(folder) / "log", "w") as log:
            with fed(line, folder, pictures, stdout=log, stderr=log) as feeder:
                first_ages, last_ages = follow(Hls(Path(folder) / "live.m3u8"), feeder, seconds + WARM_UP + 10)
        if not first_ages:
            print((Path(folder) / "log").read_text(), file=sys.stderr)
        row("StreamGear 0.3.3, live HLS as it comes", first_ages, last_ages)
    return []


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ringgear", default=str(ROOT / "target" / "release" / "ringgear"))
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--only", choices=["origin", "peers"])
    asked = parser.parse_args()
    missed = []
    for part in (origin, peers):
        if asked.only in (None, part.__name__):
            missed += part(asked.ringgear, asked.seconds)
    for goal in missed:
        print(f"MISSED: {goal}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
