"""The package against a real daemon."""

import functools
import io
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import wait_until
from PIL import Image

import ringgear

W, H = 320, 180


def producer(daemon, format="bgr24", **options):
    return ringgear.Producer("cam", W, H, format, socket=daemon.socket, **options)


def black(feeder):
    return np.zeros(feeder.shape, feeder.dtype)


def feed_until(feeder, condition, frame=None):
    """Writes frame after frame until the condition holds."""
    frame = black(feeder) if frame is None else frame

    def step():
        feeder.write(frame)
        return condition()

    return wait_until("what frames were written for", step)


def snapshot(daemon):
    """The newest picture as RGB, or None before there is one."""
    try:
        jpeg = daemon.get("/cam/snapshot.jpg")
    except OSError:
        return None
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)


def quarters(format):
    """A frame with red, green, blue and white quarters."""
    rgb = np.zeros((H, W, 3), np.uint8)
    rgb[: H // 2, : W // 2] = (255, 0, 0)
    rgb[: H // 2, W // 2 :] = (0, 255, 0)
    rgb[H // 2 :, : W // 2] = (0, 0, 255)
    rgb[H // 2 :, W // 2 :] = (255, 255, 255)
    if format == "rgb24":
        return rgb
    if format == "bgr24":
        return rgb[:, :, ::-1]
    alpha = np.full((H, W, 1), 7, np.uint8)
    if format == "rgba":
        return np.concatenate((rgb, alpha), axis=2)
    if format == "bgra":
        return np.concatenate((rgb[:, :, ::-1], alpha), axis=2)
    r, g, b = (rgb[:, :, c].astype(float) / 255 for c in range(3))
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
    if format == "gray":
        return np.round(luma * 255).astype(np.uint8)
    if format == "gray16le":
        return np.round(luma * 65535).astype(np.uint16)
    if format == "ya8":
        return np.stack((np.round(luma * 255).astype(np.uint8), alpha[:, :, 0]), axis=2)
    if format.endswith("10") or format.endswith("10le"):
        shallow = "nv12" if format == "p010" else format.removesuffix("le").removesuffix("10")
        return quarters(shallow).astype(np.uint16) << (8 if format == "p010" else 2)
    y = np.round(16 + 219 * luma).astype(np.uint8)
    u = np.round(128 + 224 * (b - luma) / 1.8556).astype(np.uint8)
    v = np.round(128 + 224 * (r - luma) / 1.5748).astype(np.uint8)
    if format == "yuv420p":
        return np.concatenate((y, u[::2, ::2].reshape(-1, W), v[::2, ::2].reshape(-1, W)))
    if format == "yuv422p":
        return np.concatenate((y, u[:, ::2].reshape(-1, W), v[:, ::2].reshape(-1, W)))
    if format == "yuv444p":
        return np.stack((y, u, v))
    if format == "nv12":
        return np.concatenate((y, np.stack((u, v), axis=2)[::2, ::2].reshape(-1, W)))
    chroma = np.stack((u, v), axis=2)[:, ::2].reshape(H, W)
    return np.stack((y, chroma) if format == "yuyv422" else (chroma, y), axis=2)


def shows_quarters(picture, gray=False):
    if picture is None:
        return False
    h, w = picture.shape[:2]
    spots = [picture[y * h // 4, x * w // 4] for y in (1, 3) for x in (1, 3)]
    wanted = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    if gray:
        wanted = [(54,) * 3, (182,) * 3, (18,) * 3, (255,) * 3]
    return all(np.abs(spot - want).max() < 40 for spot, want in zip(spots, wanted))


@pytest.mark.row("stream")
@pytest.mark.parametrize("format", "bgr24 rgb24 bgra rgba gray yuv420p nv12 yuyv422 uyvy422".split())
def test_every_format_is_shown_in_its_true_colours(daemon, format):
    with producer(daemon, format) as feeder:
        frame = quarters(format)
        assert (frame.shape, frame.dtype) == (feeder.shape, feeder.dtype)
        feed_until(feeder, lambda: shows_quarters(snapshot(daemon), format == "gray"), frame)


def test_deep_and_unshared_formats_are_shown_in_their_true_colours_too(daemon):
    # One after another in one stream: each takes the picture of the one before away first.
    for format in "ya8 gray16le yuv422p yuv444p yuv420p10le yuv422p10le yuv444p10 p010".split():
        with producer(daemon, format) as feeder:
            frame, gray = quarters(format), format in ("ya8", "gray16le")
            assert (frame.shape, frame.dtype) == (feeder.shape, feeder.dtype), format
            feed_until(feeder, lambda: (seen := snapshot(daemon)) is not None and not shows_quarters(seen, gray))
            feed_until(feeder, lambda: shows_quarters(snapshot(daemon), gray), frame)


@pytest.mark.row("odd sizes")
def test_frames_of_odd_sizes_are_taken_whole(daemon):
    for format in "nv12 bgr24 ya8 gray16le uyvy422 yuv422p yuv444p10le yuv420p10".split():
        with ringgear.Producer("cam", W + 1, H + 1, format, socket=daemon.socket) as feeder:
            frame = np.full(feeder.shape, 128, feeder.dtype)
            assert feeder.write(frame) and feeder.write(frame.tobytes()), format
            with feeder.slot() as slot:
                assert (slot.shape, slot.nbytes) == (frame.shape, frame.nbytes)
                slot[:] = frame
            assert feeder.committed == 3
    assert "padded" in daemon.log()


@pytest.mark.row("wish: timestamps")
def test_frames_and_their_capture_times_arrive_and_are_accounted_for(daemon):
    with producer(daemon, client="test/1") as feeder:
        assert (feeder.framerate, feeder.connected, feeder.sessions) == (25, True, 1)
        captured = []
        for number in range(5):
            captured.append(time.monotonic_ns() - 1000)
            assert feeder.write(black(feeder), captured=captured[-1])
            wait_until("the frame is shown", lambda: number in daemon.frames_shown())
        assert feeder.close() == ringgear.Closed(used=5, superseded=0, late=0)
        assert (feeder.frames, feeder.committed, feeder.dropped) == (5, 5, 0)
        assert not feeder.connected
        assert feeder.close() is None
    logged = {int(t["frame"]): int(t["captured_ns"]) for t in daemon.ticks() if t["kind"] == "fresh"}
    assert logged == dict(enumerate(captured))
    assert "test/1" in daemon.log()
    with pytest.raises(ringgear.ProducerClosed):
        feeder.write(black(feeder))


def strided():
    frame = np.random.default_rng(1).integers(0, 256, (H, W, 3), np.uint8)
    wide = np.zeros((H + 4, W + 10, 3), np.uint8)
    wide[2 : 2 + H, 5 : 5 + W] = frame
    readonly = frame.copy()
    readonly.flags.writeable = False
    yield "C-contiguous", frame, frame
    yield "view of a larger picture", wide[2 : 2 + H, 5 : 5 + W], frame
    yield "flipped", frame[::-1, ::-1], frame[::-1, ::-1]
    yield "channels swapped", frame[:, :, ::-1], frame[:, :, ::-1]
    yield "Fortran order", np.asfortranarray(frame), frame
    yield "read-only", readonly, frame
    yield "bytes", frame.tobytes(), frame
    yield "memoryview", memoryview(frame), frame
    yield "Pillow image", Image.fromarray(frame), frame


def test_any_strides_are_copied_pixel_by_pixel(daemon):
    with producer(daemon, slots=3) as feeder:
        for name, given, expected in strided():
            feeder.write(given)
            wait_until("the daemon reads no slot", functools.partial(one_of_all_slots_shows, feeder, expected, name))


def one_of_all_slots_shows(feeder, expected, name):
    """False while the daemon reads one of the three: then they can't all be had."""
    try:
        # The daemon never writes pixels: each slot shows what was last written into it.
        with feeder.slot() as one, feeder.slot() as two, feeder.slot() as three:
            assert any(np.array_equal(view, expected) for view in (one, two, three)), name
    except ringgear.NoSlot:
        return False
    return True


def test_a_slot_is_shared_memory_itself_and_is_committed_at_the_blocks_end(daemon):
    with producer(daemon) as feeder:
        slot = feeder.slot()
        with slot as frame:
            assert frame.shape == feeder.shape and frame.flags.c_contiguous and frame.flags.writeable
            assert not frame.flags.owndata and slot.number == 0
            frame[:] = quarters("bgr24")
            slot.captured = 42
        assert slot.committed
        wait_until("the frame is shown", lambda: daemon.frames_shown() == [0])
        wait_until("its picture is the one", lambda: shows_quarters(snapshot(daemon)))
        with pytest.raises(RuntimeError, match="each"):
            slot.__enter__()


def test_a_frame_given_up_is_never_shown(daemon):
    with producer(daemon, slots=3) as feeder:
        for _ in range(5):
            slot = feeder.slot()
            with slot:
                slot.discard()
            assert slot.committed is False
            with pytest.raises(ZeroDivisionError), feeder.slot():
                _ = 1 / 0
        assert feeder.committed == 0
        feeder.write(black(feeder))
        assert feeder.close().used == 1
    wait_until("only the last frame is shown", lambda: daemon.frames_shown() == [10])


@pytest.mark.parametrize("captured", [15061.7, -1, 1 << 64, "now"])
def test_a_bad_capture_time_is_refused_with_the_mend_and_takes_no_slot(daemon, captured):
    with producer(daemon, slots=3) as feeder:
        for _ in range(4):
            with pytest.raises(ringgear.FrameError, match=r"monotonic_ns\(\)"):
                feeder.write(black(feeder), captured=captured)
            with pytest.raises(ringgear.FrameError, match=r"monotonic_ns\(\)"):
                feeder.slot(captured=captured)
            slot = feeder.slot()
            with pytest.raises(ringgear.FrameError, match=r"monotonic_ns\(\)"), slot:
                slot.captured = captured
            assert slot.committed is False
        assert feeder.committed == 0
        assert feeder.write(black(feeder), captured=np.uint64(time.monotonic_ns()))


def test_slots_that_are_forgotten_are_found_again(daemon):
    with producer(daemon, slots=3) as feeder:
        for _ in range(7):
            feeder.slot().__enter__()
        assert feeder.write(black(feeder))


def test_a_frame_that_was_kept_can_not_be_written_into_after_its_block(daemon):
    with producer(daemon) as feeder:
        with feeder.slot() as kept:
            kept[:] = 5
        for change in (lambda: kept.fill(0), lambda: kept.__setitem__(0, 1)):
            with pytest.raises(ValueError, match="read-only"):
                change()
        with pytest.raises(ZeroDivisionError), feeder.slot() as given_up:
            _ = 1 / 0
        assert not given_up.flags.writeable
        daemon.kill()
        wait_until("the loss is noticed", lambda: not feeder.check())
        with feeder.slot() as scratch:
            scratch[:] = 5
        assert not scratch.flags.writeable


def test_a_socket_may_be_named_by_bytes_too(daemon):
    with ringgear.Producer("cam", W, H, socket=os.fsencode(daemon.socket)) as feeder:
        assert feeder.connected


def test_too_many_open_slots_are_an_error_that_passes(daemon):
    with producer(daemon, slots=3) as feeder:
        with feeder.slot(), feeder.slot(), feeder.slot(), pytest.raises(ringgear.NoSlot, match="slots"):
            feeder.slot().__enter__()
        assert feeder.write(black(feeder))


def test_other_threads_run_while_a_frame_is_copied(daemon):
    """With a switch interval that never comes, a thread runs only when another one gives the GIL away."""
    running, turns = True, 0

    def spin():
        nonlocal turns
        while running:
            turns += 1
            time.sleep(0)

    thread = threading.Thread(target=spin)
    before = sys.getswitchinterval()
    with ringgear.Producer("cam", 4096, 2160, socket=daemon.socket, slots=3) as feeder:
        frame = np.ones(feeder.shape, np.uint8)
        thread.start()
        try:
            sys.setswitchinterval(1000)

            def gave_way():
                start = turns
                feeder.write(frame)
                return turns > start

            wait_until("the other thread had a turn during a write", gave_way)
        finally:
            sys.setswitchinterval(before)
            running = False
            thread.join()


def test_threads_may_share_a_producer(daemon):
    with producer(daemon, slots=8) as feeder:
        frame = black(feeder)
        threads = [threading.Thread(target=lambda: [feeder.write(frame) for _ in range(200)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(feeder.close()) == 800 == feeder.committed


def test_a_killed_daemon_is_found_again_and_old_views_stay_valid(daemon, caplog):
    with producer(daemon) as feeder:
        feed_until(feeder, daemon.frames_shown)
        slot = feeder.slot()
        with slot as held:
            daemon.kill()
            wait_until("the loss is noticed", lambda: not feeder.check())
            held[:] = 1  # the session is gone; its memory is not
        assert slot.committed is False
        with feeder.slot() as scratch:
            scratch[:] = 2
        assert not feeder.write(black(feeder))
        assert feeder.dropped == 3, "the held frame, the scratch one, the written one"
        daemon.start()
        wait_until("the link is back", feeder.check)
        back_at = feeder.frames
        feed_until(feeder, lambda: max(daemon.frames_shown(), default=0) >= back_at)
        assert feeder.sessions == 2
        assert (held == 1).all()
    assert "until the daemon is back" in caplog.text


def test_each_refusal_is_an_exception_of_its_own_that_says_what_to_do(daemon, tmp_path):
    with pytest.raises(ringgear.DaemonUnavailable, match="ringgear serve") as error:
        ringgear.Producer("cam", W, H, socket=tmp_path / "nothing.sock")
    assert isinstance(error.value, ConnectionError)
    with pytest.raises(ringgear.UnknownStream, match="gate"):
        ringgear.Producer("gate", W, H, socket=daemon.socket)
    for width, height, format in [(1, 180, "gray"), (320, 20000, "gray"), (-5, 5, "gray")]:
        with pytest.raises(ringgear.FrameError):
            ringgear.Producer("cam", width, height, format, socket=daemon.socket)
    with pytest.raises(ringgear.FrameError, match="bgr24, rgb24"):
        producer(daemon, "mauve")
    with pytest.raises(ValueError, match="3 to 32"):
        producer(daemon, slots=99)
    # What cv2's camera.get() tells.
    for width, height, slots in [(320.0, H, None), (W, 180.0, None), (W, H, 4.0), ("320", H, None)]:
        with pytest.raises(ringgear.FrameError, match=r"int\(\)"):
            ringgear.Producer("cam", width, height, slots=slots, socket=daemon.socket)
    with producer(daemon) as first:
        with pytest.raises(ringgear.StreamBusy, match="take_over=True") as busy:
            producer(daemon)
        assert busy.value.holder_pid > 0
        with producer(daemon, take_over=True) as second:
            with pytest.raises(ringgear.TakenOver, match="taken the stream over"):
                wait_until("the takeover is noticed", lambda: not first.check())
            assert second.write(black(second))


@pytest.mark.parametrize(
    "frame, mend",
    [
        (np.zeros((H, W, 3), np.float32), r"astype\(numpy.uint8\)"),
        (np.zeros((H, W, 3), np.uint16), ">> 8"),
        (np.zeros((H, W, 4), np.uint8), "bgra"),
        (np.zeros((H, W), np.uint8), "gray"),
        (np.zeros((W, H, 3), np.uint8), "transpose"),
        (np.zeros((H // 2, W // 2, 3), np.uint8), "resize"),
        (b"123", "resize"),
        ("text", "uint8"),
        (None, "no picture"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_array_that_does_not_fit_is_refused_with_the_mend_and_takes_no_slot(daemon, frame, mend):
    with producer(daemon) as feeder:
        with pytest.raises(ringgear.FrameError, match=mend):
            feeder.write(frame)
        assert feeder.frames == 0


def test_a_process_that_dies_without_a_word_frees_its_stream(daemon):
    code = f"import os, ringgear; p = ringgear.Producer('cam', 320, 180, socket={daemon.socket!r}); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True)

    def opens():
        try:
            producer(daemon).close()
        except ringgear.StreamBusy:
            return False
        return True

    wait_until("the stream can be opened", opens)
