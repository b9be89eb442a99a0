"""The examples as they are, against a real daemon. picamera2's needs its hardware, so it is only compiled."""

import io
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, wait_until
from PIL import Image

EXAMPLES = ROOT / "clients" / "python" / "examples"


@pytest.fixture
def example(daemon, tmp_path):
    """Starts an example; it is interrupted in the end, and has to end well."""
    started = []

    def start(name, *arguments):
        with open(tmp_path / "example.log", "w") as log:
            process = subprocess.Popen(
                [sys.executable, EXAMPLES / name, *map(str, arguments)],
                env={**os.environ, "RINGGEAR_SOCKET": daemon.socket},
                stdout=log,
                stderr=log,
                # A shell that started the tests in the background has it ignored, and so would the example.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            assert process.wait(15) == 0, (tmp_path / "example.log").read_text()
        finally:
            process.kill()


def test_the_numpy_animation_streams(daemon, example):
    example("numpy_animation.py", "cam", "320x180")
    wait_until("30 frames are shown", lambda: len(daemon.frames_shown()) >= 30)


def test_the_pillow_slideshow_streams(daemon, example, tmp_path):
    slides = tmp_path / "slides"
    slides.mkdir()
    for number, colour in enumerate(("navy", "maroon")):
        Image.new("RGB", (64, 64), colour).save(slides / f"{number}.png")
    example("pillow_slideshow.py", "cam", slides)
    wait_until("10 frames are shown", lambda: len(daemon.frames_shown()) >= 10)


def run(daemon, name, *arguments):
    """Runs an example until it ends by itself, and returns what its last session came to, as the daemon's log has it."""
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    subprocess.run(command, env={**os.environ, "RINGGEAR_SOCKET": daemon.socket}, check=True, timeout=60)
    closed = re.findall(r"closed .*used=(\d+) superseded=(\d+) late=(\d+)", daemon.log())
    assert len(closed) == 1, daemon.log()
    return tuple(map(int, closed[0]))


def test_the_numpy_tone_is_taken(sounding):
    used, superseded, late = run(sounding, "numpy_tone.py", "cam", "0.5")
    # Every block is accounted for; a machine that stands still for longer than the ring is long costs some.
    assert used + superseded + late == 50 and used > 0


def test_opencv_streams_a_file(filming, tmp_path):
    pytest.importorskip("cv2")
    movie = tmp_path / "movie.mp4"
    command = f"ffmpeg -v error -f lavfi -i testsrc=size=320x180:rate=25:duration=2 -pix_fmt yuv420p {movie}"
    subprocess.run(command.split(), check=True)
    assert run(filming, "opencv_camera.py", "film", movie) == (50, 0, 0)
    (playlist,) = (filming.place / "live" / "film").glob("*/small/media.m3u8")
    text = wait_until("the film is published", lambda: (t := playlist.read_text()).endswith("#EXT-X-ENDLIST\n") and t)
    assert sum(map(float, re.findall(r"#EXTINF:([\d.]+)", text))) == pytest.approx(50 / 25)


def test_every_example_compiles():
    for file in EXAMPLES.glob("*.py"):
        compile(file.read_text(), str(file), "exec")


def read_bars(luma, width, height):
    """The reader that docs/test-pattern.md has."""
    page = (ROOT / "docs" / "test-pattern.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    names = {}
    exec(code, names)
    return names["read_bars"](luma, width, height)


def newest_bars(daemon):
    """What the bars say in the newest picture that the daemon has taken."""
    try:
        jpeg = daemon.get("/cam/snapshot.jpg")
    except OSError:
        return None
    picture = Image.open(io.BytesIO(jpeg)).convert("L")
    return read_bars(picture.tobytes(), *picture.size)


def test_pure_python_streams_whole_frames_without_the_package(daemon, tmp_path):
    command = [sys.executable, "-I", EXAMPLES / "pure_python_producer.py", "cam", "--socket", daemon.socket, "--frames", "100"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    seen = {}

    def several_numbers():
        bars = newest_bars(daemon)
        if bars:
            seen[bars[0]] = bars[1]
        return len(seen) >= 3 or process.poll() is not None

    try:
        wait_until("bars are read", several_numbers)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0 and len(seen) >= 3
    numbers = sorted(seen)
    assert [seen[n] for n in numbers] == sorted(seen.values()), "capture times rise with the numbers"
    account = json.loads(output)
    last = account["last_session"]
    assert account["frames"] == 100
    assert last["used"] + last["superseded"] == 100 - account["dropped"] and last["used"] >= 50
    wait_until("all that is used is logged", lambda: len(daemon.frames_shown()) == last["used"])
    assert daemon.frames_shown() == sorted(daemon.frames_shown())


def test_pure_python_finds_a_killed_daemon_again_and_counts_on(daemon, tmp_path):
    command = [sys.executable, "-I", EXAMPLES / "pure_python_producer.py", "cam", "--socket", daemon.socket]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        wait_until("frames are shown", lambda: len(daemon.frames_shown()) >= 5)
        last = daemon.frames_shown()[-1]
        daemon.kill()
        log = daemon.place / "ticks" / "cam.csv"
        log.unlink()
        daemon.start()
        wait_until("frames are shown again", lambda: len(daemon.frames_shown()) >= 5)
        assert daemon.frames_shown()[0] > last
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=15)
        assert process.returncode == 0
    finally:
        process.kill()


def test_pure_python_drops_its_newest_frame_in_a_full_ring(daemon, monkeypatch):
    """A stopped daemon takes nothing: the ring fills up, and what is in it stays."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import pure_python_producer

    session = pure_python_producer.Session(daemon.socket, "cam", 320, 180)
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        frame = bytes(320 * 180 * 3)
        written = [session.write(frame, number, 0) for number in range(session.slots + 3)]
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert written.count(True) in (session.slots, session.slots + 1) and not any(written[-2:])
    assert session.close()["late"] == 0
