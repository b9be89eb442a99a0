"""A real daemon for each test that asks for one. RINGGEAR_BIN names its binary; by default it's the debug build."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BINARY = pathlib.Path(os.environ.get("RINGGEAR_BIN", ROOT / "target" / "debug" / "ringgear"))

CONFIG = """
[daemon]
socket = "{place}/control.sock"
tick_log = "{place}/ticks"
[http]
listen = "127.0.0.1:{port}"
[publish]
dir = "{place}/live"
[streams.cam]
framerate = 25
segment = "1s"
part = "200ms"
[[streams.cam.renditions]]
name = "small"
size = "320x180"
preset = "ultrafast"
"""

# A stream of which every frame is kept: a full ring makes its producer wait.
FILM = """
[streams.film]
framerate = 25
segment = "1s"
mode = "event"
[[streams.film.renditions]]
name = "small"
size = "320x180"
preset = "ultrafast"
"""


def wait_until(what, condition, within=20.0):
    """The condition's first true value; fails when it takes longer."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    pytest.fail(f"after {within} s still not: {what}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Daemon:
    def __init__(self, place, more=""):
        self.place = place
        (place / "ticks").mkdir()
        self.port = free_port()
        self.config = place / "ringgear.toml"
        self.config.write_text(CONFIG.format(place=place, port=self.port) + more)
        self.socket = str(place / "control.sock")
        self.process = None
        self.start()

    def start(self):
        with open(self.place / "log", "a") as log:
            self.process = subprocess.Popen(
                [BINARY, "serve", "--config", self.config], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        wait_until("the daemon answers", self.healthy)

    def healthy(self):
        assert self.process.poll() is None, self.log()
        try:
            return self.get("/healthz") is not None
        except OSError:
            return False

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return answer.read()

    def ticks(self, name="cam"):
        """The tick log so far, a dict a line; its last line may be half written and is left out."""
        path = self.place / "ticks" / f"{name}.csv"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        if not lines:
            return []
        names = lines[0].split(",")
        return [dict(zip(names, line.split(","))) for line in lines[1:]]

    def sound(self):
        """The session of sound as the daemon tells of it, or None."""
        streams = json.loads(self.get("/api/v1/streams"))["streams"]
        return streams[0]["audio"].get("session")

    def frames_shown(self):
        return [int(tick["frame"]) for tick in self.ticks() if tick["kind"] == "fresh"]

    def log(self):
        return (self.place / "log").read_text()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


def run_daemon(place, more=""):
    if not BINARY.exists():
        pytest.fail(f"{BINARY} is missing: run `cargo build`, or set RINGGEAR_BIN")
    running = Daemon(place, more)
    yield running
    running.stop()
    print(running.log())


@pytest.fixture
def daemon(tmp_path):
    yield from run_daemon(tmp_path)


@pytest.fixture
def sounding(tmp_path):
    """A daemon whose stream takes its sound from a producer."""
    yield from run_daemon(tmp_path, '[streams.cam.audio]\nsource = "producer"\n')


@pytest.fixture
def filming(tmp_path):
    """A daemon that records a stream, too."""
    yield from run_daemon(tmp_path, FILM)
