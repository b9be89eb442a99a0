"""What the benches share: a daemon in a folder of its own, what processes take of the processors, medians and ratios of rounds."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

T = TypeVar("T")


class Failed(Exception):
    """A bench can't go on: what happened, and what that process said."""


def wait_for(what: str, seconds: float, look: Callable[[], T | None], pause: float = 0.02) -> T:
    """What `look` finds, as soon as it finds anything."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(pause)
    raise Failed(f"not within {seconds:g} s: {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True
    except OSError:
        return False


class Daemon:
    """A running daemon. `streams` is the rest of its config; the control socket and the publish folder are in its own folder."""

    def __init__(self, ringgear: Path, streams: str, log_level: str = "warn") -> None:
        self.ringgear = ringgear
        self.folder = Path(tempfile.mkdtemp(prefix="ringgear-bench-"))
        self.socket = self.folder / "control.sock"
        self.port = free_port()
        self.producers: list[subprocess.Popen[str]] = []
        config = self.folder / "ringgear.toml"
        config.write_text(
            f'[http]\nlisten = "127.0.0.1:{self.port}"\n[daemon]\nsocket = "{self.socket}"\n[publish]\ndir = "{self.folder}/live"\n'
            # One user feeds all streams here.
            f"[limits]\nsessions_per_user = 1024\nsessions_per_second = 1000\nconnections = 2048\nconnections_per_user = 1024\n"
            f'connections_per_second = 1000\nmemory_per_user = "8GiB"\nmemory = "8GiB"\n{streams}'
        )
        self.log = self.folder / "log"
        environment = {**os.environ, "RUST_LOG": log_level}
        line = [str(self.ringgear), "serve", "--config", str(config)]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(line, stdout=log, stderr=log, env=environment, text=True)
        self.began = time.monotonic()
        try:
            wait_for("the daemon listens", 20, lambda: is_listening(self.port) or self.process.poll() is not None, 0.001)
            self.listening_after = time.monotonic() - self.began
            if self.process.poll() is not None:
                raise Failed("the daemon does not start")
        except Failed as error:
            self.stop()
            raise Failed(f"{error}: {self.said}") from None

    @property
    def pid(self) -> int:
        return self.process.pid

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def status(self, stream: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get(f"/api/v1/streams/{stream}")[1])
        return found

    def statuses(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.get("/api/v1/streams")[1])["streams"]
        return found

    def feed(self, feeder: Path, frames: Frames, rate: float, streams: Sequence[str], still: bool = False) -> subprocess.Popen[str]:
        """Feeds streams from a process of its own until the daemon is stopped."""
        line = [str(feeder), "--socket", str(self.socket), "--format", frames.format, "--size", frames.size_text]
        line += ["--rate", str(rate), "--frames", str(frames.path), *(["--still"] if still else []), *streams]
        with open(self.folder / "feeder.log", "a") as log:
            producer = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, text=True)
        self.producers.append(producer)
        return producer

    def wait_live(self, streams: int, seconds: float = 120) -> None:
        """Waits until so many streams have a whole segment in their window."""

        def all_live() -> bool:
            self.check()
            return sum(bool(status["window"]["segments"]) for status in self.statuses()) >= streams

        wait_for(f"{streams} streams are live", seconds, all_live, 0.2)

    def check(self) -> None:
        """Fails when the daemon or a producer has ended."""
        for process in [self.process, *self.producers]:
            if process.poll() is not None:
                raise Failed(f"{process.args!r} ended with {process.returncode}: {self.said}")

    @property
    def said(self) -> str:
        files = [self.log, self.folder / "feeder.log"]
        return "\n".join(file.read_text()[-2000:] for file in files if file.exists())

    def stop(self) -> None:
        for producer in self.producers:
            producer.kill()
            producer.wait()
            if producer.stdout:
                producer.stdout.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Frames:
    """Raw frames in a file, which are in the page cache once they are made."""

    path: Path
    format: str
    size: tuple[int, int]
    count: int

    @property
    def size_text(self) -> str:
        return f"{self.size[0]}x{self.size[1]}"

    @property
    def frame_bytes(self) -> int:
        return self.path.stat().st_size // self.count


# Moving shapes with a sensor's noise. All formats are made of the same pictures in BGR24, so that encoders have the same work with each: chroma
# that was never averaged would be more.
SCENE = "testsrc2=size={width}x{height}:rate=30,noise=alls=6:allf=t,format=bgr24"


def make_frames(folder: Path, format: str, size: tuple[int, int], count: int, scene: str = SCENE) -> Frames:
    """`count` frames of `scene`: the same in every format, and made once."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = size
    made = Frames(folder / f"{width}x{height}-{count}-{abs(hash_of(scene))}.{format}", format, size, count)
    if not made.path.exists():
        line = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", scene.format(width=width, height=height), "-frames:v", str(count)]
        line += ["-vf", "scale=out_color_matrix=bt709", "-pix_fmt", format, "-f", "rawvideo", "-y", f"{made.path}.part"]
        subprocess.run(line, check=True)
        Path(f"{made.path}.part").rename(made.path)
    with open(made.path, "rb") as file:
        while file.read(1 << 24):
            pass
    return made


def hash_of(text: str) -> int:
    """The same in every run, unlike Python's own."""
    return int.from_bytes(text.encode(), "big") % 999_983


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have taken of the processors until now, those that have ended included."""
    return time.clock_gettime((~pid << 3) | 2)


def children(pid: int) -> Iterator[int]:
    """All processes below this one."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(entry.name))
    left = list(parents.get(pid, []))
    while left:
        child = left.pop()
        left += parents.get(child, [])
        yield child


def tree_cpu_seconds(pid: int) -> float:
    """The same of a process and of all below it, those that were waited for included."""
    taken = cpu_seconds(pid) + reaped_cpu_seconds(pid)
    for child in children(pid):
        # One that ends meanwhile counts with those that its parent has waited for.
        with contextlib.suppress(OSError):
            taken += cpu_seconds(child) + reaped_cpu_seconds(child)
    return taken


def reaped_cpu_seconds(pid: int) -> float:
    """What its children took that have ended and were waited for, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / float(os.sysconf("SC_CLK_TCK"))


def memory(pid: int) -> dict[str, int]:
    """`RssAnon`, `Threads` and the like of a process; sizes in bytes."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found


def pictures_memory(pid: int) -> int:
    """Bytes of the daemon's memory for pictures that are handed to pipes: pages of a memfd, which `RssAnon` leaves out."""
    found, ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if "-" in name.split(" ")[0]:
            ours = "memfd:ringgear-pictures" in line
        elif ours and name == "Rss":
            found += int(value.split()[0]) * 1024
    return found


def media_memory(pid: int) -> int:
    """Bytes of the daemon's memory for media that is sent without a copy: a memfd, most of whose pages are in no `Rss`."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(descriptor).startswith("/memfd:ringgear-media"):
                return descriptor.stat().st_blocks * 512
        except FileNotFoundError:
            pass  # closed meanwhile
    return 0


@dataclass
class Ran:
    """A process that was run to its end."""

    seconds: float
    cpu: float
    output: str


def run(line: Sequence[str | Path], folder: Path | None = None, stdin: Path | None = None) -> Ran:
    """Runs a program to its end."""
    with open(stdin or os.devnull, "rb") as given, tempfile.TemporaryFile() as output:
        begin = time.monotonic()
        process = subprocess.Popen(line, cwd=folder, stdin=given, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        took = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read().decode(errors="replace")
    if process.returncode != 0:
        raise Failed(f"{' '.join(map(str, line))} ended with {process.returncode}: {said[-2000:]}")
    return Ran(took, used.ru_utime + used.ru_stime, said)


def in_turn(rounds: int, subjects: Mapping[str, Callable[[], T]], tell: Callable[[str], None]) -> dict[str, list[T]]:
    """Runs all subjects one after the other, round after round, so that whatever else the machine does is unfair to none."""
    found: dict[str, list[T]] = {name: [] for name in subjects}
    for number in range(rounds):
        for name, subject in subjects.items():
            tell(f"round {number + 1} of {rounds}: {name}")
            found[name].append(subject())
    return found


@dataclass
class Ratio:
    """How many times one is the other, round by round."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
        each = [our / their for our, their in zip(ours, theirs)]
        return cls(statistics.median(each), min(each), max(each))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


def quantile(buckets: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]], share: float) -> float:
    """Of a histogram of the daemon's status, what was counted since `before`: the bound of the bucket that a share of it is below."""
    counts: list[int] = [bucket["count"] - (old["count"] if before else 0) for bucket, old in zip(buckets, before or buckets)]
    if not counts or not counts[-1]:
        return float("nan")
    lower, below = 0.0, 0
    for bucket, count in zip(buckets, counts):
        bound: float | None = bucket["le_seconds"]
        if count >= share * counts[-1]:
            if bound is None:
                return lower
            inside = (share * counts[-1] - below) / max(1, count - below)
            return lower + inside * (float(bound) - lower)
        lower, below = (lower if bound is None else float(bound)), count
    return lower


def environment(home: Path, packages: Sequence[str]) -> Path | None:
    """A Python with these packages in a folder of its own; None if they can't be had."""
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        make = [sys.executable, "-m", "venv", str(home)]
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
        if any(subprocess.run(line, check=False).returncode for line in (make, install)):
            return None
        (home / "ready").touch()
    return python
