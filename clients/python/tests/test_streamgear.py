"""StreamGear against private daemons: vidgear's documented examples, with the import line changed and files in place of cameras, and what
it promises beside them. FFmpeg is the judge of what is published."""

import base64
import contextlib
import http.server
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import urllib.request
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import BINARY, free_port, wait_until

from ringgear.streamgear import EncodingFailed, StreamGear, _checks, _plan
from ringgear.streamgear._keeper import upload

W, H, FRAMES, RATE = 192, 108, 30, 25
SMALL = {"-preset": "ultrafast"}


@pytest.fixture(autouse=True)
def place(monkeypatch):
    """A folder to work in, by a name so short that a socket's fits below it, and the daemon to use."""
    monkeypatch.setenv("RINGGEAR_BINARY", str(BINARY))
    with tempfile.TemporaryDirectory(prefix="gear-", dir="/tmp") as folder:
        place = pathlib.Path(folder)
        (place / "run").mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(place / "run"))
        monkeypatch.chdir(place)
        yield place


def ffmpeg(*arguments):
    return subprocess.run(["ffmpeg", "-v", "error", "-nostdin", *map(str, arguments)], check=True, capture_output=True).stdout


@pytest.fixture(scope="session")
def movie(tmp_path_factory):
    """A file in place of a camera."""
    path = tmp_path_factory.mktemp("media") / "foo1.mp4"
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=size={W}x{H}:rate={RATE}", "-frames:v", FRAMES, "-pix_fmt", "yuv420p", path)
    return str(path)


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("media") / "foo1.aac"
    ffmpeg("-f", "lavfi", "-i", "sine=frequency=440:duration=3", path)
    return str(path)


@pytest.fixture(params=["dash", "hls"])
def format(request):
    return request.param


def out(format):
    return "dash_out.mpd" if format == "dash" else "hls_out.m3u8"


def tracks(manifest, kind="v"):
    """The codecs and sizes of the tracks of a kind that a player finds."""
    line = ["ffprobe", "-v", "error", "-select_streams", kind, "-show_entries", "stream=codec_name,width,height", "-of", "json", str(manifest)]
    streams = json.loads(subprocess.run(line, check=True, capture_output=True).stdout)["streams"]
    found = {(stream["codec_name"], stream.get("width"), stream.get("height")) for stream in streams}
    return sorted(found, key=str)


def levels(manifest):
    """The mean brightness of every picture that a player decodes."""
    raw = ffmpeg("-i", manifest, "-map", "0:v:0", "-vf", "scale=8:8", "-fps_mode", "passthrough", "-pix_fmt", "gray", "-f", "rawvideo", "-")
    return [float(picture.mean()) for picture in np.frombuffer(raw, np.uint8).reshape(-1, 64)]


def decoded(manifest):
    return len(levels(manifest))


def packets(video):
    """A hash of each of its packets."""
    line = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_data_hash", "md5", "-show_entries", "packet=data_hash", "-of", "csv=p=0", str(video)]
    return subprocess.run(line, check=True, capture_output=True).stdout.split()


def counted(manifest):
    """How many pictures each video track has."""
    line = ["ffprobe", "-v", "error", "-select_streams", "v", "-count_packets", "-show_entries", "stream=index,nb_read_packets", "-of", "json", str(manifest)]
    streams = json.loads(subprocess.run(line, check=True, capture_output=True).stdout)["streams"]
    return sorted({stream["index"]: int(stream["nb_read_packets"]) for stream in streams}.values())


def ended(manifest):
    text = pathlib.Path(manifest).read_text()
    if "<MPD" in text:
        return 'type="static"' in text
    media = [line for line in text.splitlines() if line and not line.startswith("#")]
    return all("#EXT-X-ENDLIST" in (pathlib.Path(manifest).parent / line).read_text() for line in media)


# Real-time frames: vidgear's documented examples.


@pytest.mark.row("example: bare minimum")
def test_bare_minimum(movie, format):
    stream = cv2.VideoCapture(movie)
    streamer = StreamGear(output=out(format), format=format)
    while True:
        grabbed, frame = stream.read()
        if not grabbed:
            break
        streamer.stream(frame)
    stream.release()
    streamer.close()
    assert tracks(out(format)) == [("h264", W, H)]
    assert decoded(out(format)) == FRAMES and ended(out(format))


@pytest.mark.row("example: controlled framerate", "-input_framerate")
def test_controlled_framerate(movie, format):
    stream = cv2.VideoCapture(movie)
    stream_params = {"-input_framerate": stream.get(cv2.CAP_PROP_FPS) * 1.2, **SMALL}
    streamer = StreamGear(output=out(format), format=format, **stream_params)
    read_all(stream, streamer)
    times = ffmpeg("-i", out(format), "-map", "0:v:0", "-f", "framecrc", "-").decode()
    assert times.count("\n0,") == FRAMES
    assert "30/1" in subprocess.run(["ffprobe", "-v", "error", "-show_entries", "stream=r_frame_rate", "-of", "csv=p=0", out(format)], capture_output=True, text=True).stdout


@pytest.mark.row("example: live from a webcam", "-livestream")
def test_live_streaming(movie, format):
    stream = cv2.VideoCapture(movie)
    stream_params = {"-input_framerate": stream.get(cv2.CAP_PROP_FPS), "-livestream": True, "-seg_duration" if format == "dash" else "-hls_time": 1, **SMALL}
    streamer = StreamGear(output=out(format), format=format, **stream_params)
    began, count = time.monotonic(), 0
    while True:
        grabbed, frame = stream.read()
        if not grabbed:
            break
        streamer.stream(frame)
        count += 1
        # It can be watched while it is fed.
        if count == FRAMES:
            took = time.monotonic() - began
            wait_until("there is a manifest", lambda: os.path.exists(out(format)))
            assert not ended(out(format))
    stream.release()
    streamer.close()
    assert took >= (FRAMES - 2) / RATE, "a file is played at its own speed"
    assert ended(out(format)) and tracks(out(format)) == [("h264", W, H)]
    # A machine that stands still for long makes the clock pass frames over.
    assert decoded(out(format)) >= FRAMES * 0.8


@pytest.mark.row("example: OpenCV frames in gray")
def test_opencv_frames_in_gray(movie, format):
    stream = cv2.VideoCapture(movie)
    streamer = StreamGear(output=out(format), format=format, **SMALL)
    while True:
        grabbed, frame = stream.read()
        if not grabbed:
            break
        gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        streamer.stream(gray)
    stream.release()
    streamer.close()
    assert decoded(out(format)) == FRAMES
    chroma = np.frombuffer(ffmpeg("-i", out(format), "-map", "0:v:0", "-frames:v", "3", "-vf", "format=yuv420p,extractplanes=u", "-pix_fmt", "gray", "-f", "rawvideo", "-"), np.uint8)
    assert abs(chroma.astype(int) - 128).max() <= 1, "gray has no colour"


@pytest.mark.row("example: three renditions", "-streams")
def test_three_renditions(movie, format):
    stream = cv2.VideoCapture(movie)
    stream_params = {
        "-streams": [
            {"-resolution": "160x90", "-framerate": 30.0},
            {"-resolution": "128x72", "-framerate": 60.0},
            {"-resolution": "64x36", "-video_bitrate": "50k"},
        ],
        **SMALL,
    }
    streamer = StreamGear(output=out(format), format=format, **stream_params)
    read_all(stream, streamer)
    assert tracks(out(format)) == sorted([("h264", W, H), ("h264", 160, 90), ("h264", 128, 72), ("h264", 64, 36)], key=str)
    assert counted(out(format)) == [FRAMES] * 4


def read_all(stream, streamer):
    """The loop of every example."""
    while True:
        grabbed, frame = stream.read()
        if not grabbed:
            break
        streamer.stream(frame)
    stream.release()
    streamer.close()


@pytest.mark.row("example: audio from a file", "-audio")
def test_audio_from_a_file(movie, sound, format):
    stream = cv2.VideoCapture(movie)
    stream_params = {
        "-streams": [
            {"-resolution": "160x90", "-video_bitrate": "100k"},
            {"-resolution": "128x72", "-framerate": 30.0},
            {"-resolution": "64x36", "-framerate": 60.0},
        ],
        "-input_framerate": stream.get(cv2.CAP_PROP_FPS),
        "-audio": sound,
        **SMALL,
    }
    read_all(stream, StreamGear(output=out(format), format=format, **stream_params))
    assert counted(out(format)) == [FRAMES] * 4 and [codec for codec, _, _ in tracks(out(format), "a")] == ["aac"]
    assert abs(heard(out(format)) - FRAMES / RATE) < 0.2


@pytest.mark.row("example: audio from a device", "-audio")
def test_audio_from_a_device(movie, place, format):
    """There is no sound card here: a tone of FFmpeg's own stands in, as ["-f", "alsa", "-i", "hw:1"] would."""
    stream = cv2.VideoCapture(movie)
    stream_params = {
        "-streams": [{"-resolution": "128x72", "-framerate": 30.0}],
        "-input_framerate": stream.get(cv2.CAP_PROP_FPS) / 2,
        "-livestream": True,
        "-seg_duration" if format == "dash" else "-hls_time": 1,
        "-audio": ["-f", "lavfi", "-i", "sine=frequency=440"],
        **SMALL,
    }
    read_until_heard(stream, StreamGear(output=out(format), format=format, **stream_params), place)
    assert [codec for codec, _, _ in tracks(out(format), "a")] == ["aac"] and heard(out(format)) > 0.1


def read_until_heard(stream, streamer, place):
    """The same loop, again and again until two segments have more in them than silence, for in the first one the tone may just begin: on a
    busy machine FFmpeg takes its time."""
    deadline = time.monotonic() + 30
    while sum(segment.stat().st_size > 3000 for segment in place.glob("*/*/audio0/*.m4s")) < 2:
        assert time.monotonic() < deadline, "nothing is heard"
        grabbed, frame = stream.read()
        if grabbed:
            streamer.stream(frame)
        else:
            stream.set(cv2.CAP_PROP_POS_FRAMES, 0)
    stream.release()
    streamer.close()


def heard(manifest):
    """How many seconds of a tone a player hears."""
    pcm = np.frombuffer(ffmpeg("-i", manifest, "-map", "0:a:0", "-ar", "8000", "-ac", "1", "-f", "f32le", "-"), np.float32)
    blocks = pcm[: len(pcm) // 80 * 80].reshape(-1, 80)
    return (np.abs(blocks).max(axis=1) > 0.01).sum() / 100


@pytest.mark.row("example: hardware encoder", "-vcodec and its settings")
def test_hardware_encoder(movie, format, caplog):
    """There is no graphics card here: the encoder that stands in, and that somebody is told."""
    stream = cv2.VideoCapture(movie)
    stream_params = {
        "-streams": [{"-resolution": "160x90", "-video_bitrate": "100k"}],
        "-vcodec": "h264_vaapi",
        "-vaapi_device": "/dev/dri/renderD128",
        "-vf": "format=nv12,hwupload",
    }
    read_all(stream, StreamGear(output=out(format), format=format, **stream_params))
    assert decoded(out(format)) == FRAMES and len(tracks(out(format))) == 2
    for name in ("stream0", "stream1"):
        assert caplog.text.count(f"{name} is encoded by libx264 instead: ") == 1


class PiGear:
    """Stands in for the Raspberry Pi's camera: frames with alpha, at their own pace."""

    framerate = 20

    def __init__(self):
        self._due = time.monotonic()
        self._left = 15

    def read(self):
        self._due += 1 / self.framerate
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._left -= 1
        return np.full((120, 160, 4), self._left * 10, np.uint8) if self._left >= 0 else None


@pytest.mark.row("example: Raspberry Pi camera")
def test_raspberry_pi_camera(format):
    stream = PiGear()
    stream_params = {"-input_framerate": stream.framerate, "-livestream": True, **SMALL}
    streamer = StreamGear(output=out(format), format=format, **stream_params)
    while True:
        frame = stream.read()
        if frame is None:
            break
        streamer.stream(frame)
    streamer.close()
    assert decoded(out(format)) >= 12 and ended(out(format))


# A whole file: vidgear's documented examples of its single-source mode.


@pytest.fixture(scope="session")
def film(movie, sound, tmp_path_factory):
    """A file with sound."""
    path = tmp_path_factory.mktemp("media") / "foo.mp4"
    ffmpeg("-i", movie, "-i", sound, "-c", "copy", "-shortest", path)
    return str(path)


def transcode(format, **stream_params):
    streamer = StreamGear(output=out(format), format=format, **stream_params)
    streamer.transcode_source()
    streamer.close()
    assert ended(out(format))


@pytest.mark.row("example: single source", "source: what is in it")
def test_single_source(film, format, caplog):
    transcode(format, **{"-video_source": film})
    assert decoded(out(format)) == FRAMES and tracks(out(format)) == [("h264", W, H)]
    assert [codec for codec, _, _ in tracks(out(format), "a")] == ["aac"] and heard(out(format)) > FRAMES / RATE - 0.2
    assert "audio" not in caplog.text


@pytest.mark.row("source: what is in it")
def test_a_film_that_is_turned_has_the_shape_that_it_is_shown_in(movie, format, caplog):
    ffmpeg("-i", movie, "-c", "copy", "-metadata:s:v", "rotate=90", "turned.mp4")
    small = (H // 3, W // 3)
    transcode(format, **{"-video_source": "turned.mp4", "-streams": [{"-resolution": f"{small[0]}x{small[1]}", "-video_bitrate": "100k"}], **SMALL})
    assert tracks(out(format)) == [("h264", H, W), ("h264", *small)]
    assert "another shape" not in caplog.text


@pytest.mark.row("example: single source with streams")
def test_single_source_with_streams(movie, format):
    stream_params = {
        "-video_source": movie,
        "-streams": [
            {"-resolution": "160x90", "-video_bitrate": "100k"},
            {"-resolution": "128x72", "-framerate": 60.0},
        ],
    }
    transcode(format, **stream_params)
    assert counted(out(format)) == [FRAMES] * 3


@pytest.mark.row("example: single source with audio")
def test_single_source_with_audio_of_another_file(movie, sound, format):
    stream_params = {
        "-video_source": movie,
        "-streams": [
            {"-resolution": "160x90", "-video_bitrate": "100k"},
            {"-resolution": "128x72", "-framerate": 60.0},
        ],
        "-audio": sound,
        "-acodec": "copy",
    }
    transcode(format, **stream_params)
    assert counted(out(format)) == [FRAMES] * 3
    assert [codec for codec, _, _ in tracks(out(format), "a")] == ["aac"] and heard(out(format)) > FRAMES / RATE - 0.2


@pytest.mark.row("-audio", "close, terminate, with")
def test_a_recording_has_the_audio_of_another_file_as_long_as_its_frames(movie, sound):
    with StreamGear(output="x.mpd", **{"-audio": sound, **SMALL}) as streamer:
        feed(streamer, 25)
    assert decoded("x.mpd") == 25 and 0.9 < heard("x.mpd") < 1.1
    transcode("dash", **{"-video_source": movie, "-audio": sound})
    assert decoded(out("dash")) == FRAMES and heard(out("dash")) > FRAMES / RATE - 0.2


@pytest.mark.row("example: single source with another encoder", "-vcodec and its settings")
def test_single_source_with_another_encoder(film, sound, format):
    stream_params = {
        "-video_source": film,
        "-vcodec": "libx265",
        "-x265-params": "lossless=1",
        "-crf": 25,
        "-bpp": "0.15",
        "-streams": [
            {"-resolution": "128x72", "-video_bitrate": "400k"},
            {"-resolution": "64x36", "-framerate": 60.0},
        ],
        "-audio": sound,
        "-acodec": "libfdk_aac",
        "-vbr": 4,
    }
    transcode(format, **stream_params)
    assert {codec for codec, _, _ in tracks(out(format))} == {"hevc"} and counted(out(format)) == [FRAMES] * 3
    assert [codec for codec, _, _ in tracks(out(format), "a")] == ["aac"] and heard(out(format)) > FRAMES / RATE - 0.2


@pytest.mark.row("source: -vcodec copy")
def test_a_source_that_is_copied_is_whole(film, caplog):
    transcode("hls", **{"-video_source": film, "-vcodec": "copy", "-acodec": "copy"})
    assert decoded("hls_out.m3u8") == FRAMES
    assert packets("hls_out.m3u8") == packets(film)
    assert [codec for codec, _, _ in tracks("hls_out.m3u8", "a")] == ["aac"] and heard("hls_out.m3u8") > FRAMES / RATE - 0.2
    assert "becomes" not in caplog.text and "left out" not in caplog.text


@pytest.fixture(scope="session")
def sparse(tmp_path_factory):
    """A file with a keyframe each 10 s, as x264 makes them if nobody says otherwise."""
    path = tmp_path_factory.mktemp("media") / "sparse.mp4"
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=size={W}x{H}:rate=5", "-t", "24", "-c:v", "libx264", "-g", "50", "-sc_threshold", "0", "-pix_fmt", "yuv420p", path)
    return str(path)


@pytest.mark.row("source: -vcodec copy")
def test_a_source_with_few_keyframes_is_copied_in_longer_segments(sparse, place, format, caplog):
    transcode(format, **{"-video_source": sparse, "-vcodec": "copy"})
    assert packets(out(format)) == packets(sparse)
    assert "segments last up to 10" in caplog.text and "becomes" not in caplog.text
    assert len([path for path in place.iterdir() if path.is_dir()]) == 2, "nothing is left of the first try"


def test_segments_have_the_length_that_is_named_though_the_source_has_to_be_encoded(sparse, caplog):
    transcode("hls", **{"-video_source": sparse, "-vcodec": "copy", "-hls_time": 4, **SMALL})
    assert decoded(out("hls")) == 120
    assert "-vcodec copy becomes libx264" in caplog.text and "segments last" not in caplog.text


@pytest.mark.row("source: -vcodec copy")
@pytest.mark.parametrize("name, codec", [("foo.avi", "mpeg4"), ("foo.webm", "libvpx")])
def test_a_source_that_cant_be_copied_is_encoded(movie, place, format, caplog, name, codec):
    ffmpeg("-i", movie, "-c:v", codec, name)
    transcode(format, **{"-video_source": name, "-vcodec": "copy", **SMALL})
    assert tracks(out(format)) == [("h264", W, H)] and decoded(out(format)) == FRAMES
    assert caplog.text.count("-vcodec copy becomes libx264") == 1


@pytest.mark.row("source: -vcodec copy")
def test_audio_that_cant_be_copied_is_encoded_and_its_pictures_are_copied(movie, sound, place, format, caplog):
    ffmpeg("-i", movie, "-i", sound, "-c:v", "copy", "-c:a", "pcm_s16le", "-shortest", "foo.mkv")
    transcode(format, **{"-video_source": "foo.mkv", "-vcodec": "copy", "-acodec": "copy"})
    assert packets(out(format)) == packets("foo.mkv")
    assert [codec for codec, _, _ in tracks(out(format), "a")] == ["aac"] and heard(out(format)) > FRAMES / RATE - 0.2
    assert "-acodec copy becomes aac" in caplog.text and "-vcodec" not in caplog.text


@pytest.mark.row("source: progress and failure")
def test_a_source_that_is_gone_raises_what_subprocess_would(film, place):
    (place / "gone.mp4").write_bytes(pathlib.Path(film).read_bytes())
    streamer = StreamGear(output="x.mpd", **{"-video_source": "gone.mp4"})
    (place / "gone.mp4").unlink()
    with pytest.raises(subprocess.CalledProcessError, match="gone.mp4"):
        streamer.transcode_source()
    streamer.close()
    wait_until("nobody is left", lambda: not daemons(place))


# What it promises beside the examples.


@pytest.mark.row("-audio")
def test_audio_as_a_list_may_be_a_file_by_its_relative_path(sound, place, caplog):
    (place / "tone.aac").write_bytes(pathlib.Path(sound).read_bytes())
    with StreamGear(output="x.mpd", **{"-audio": ["-f", "aac", "-i", "tone.aac"], **SMALL}) as streamer:
        feed(streamer, 25)
    assert decoded("x.mpd") == 25 and 0.9 < heard("x.mpd") < 1.1
    assert caplog.text == ""


def test_a_device_may_be_called_like_a_file(place):
    (place / "sine").write_text("no graph of filters")
    assert _checks.audio("ffmpeg", ["-f", "lavfi", "-i", "sine"]) == _plan.Audio("sine", ("-f", "lavfi"))


@pytest.mark.row("logging")
def test_a_script_is_told_of_a_fault_while_it_runs(movie, caplog):
    """The device is gone after a while."""
    streamer = StreamGear(output="x.m3u8", format="hls", **{"-livestream": True, "-audio": ["-f", "lavfi", "-i", "sine=duration=0.2"], **SMALL})

    def told():
        feed(streamer, 1)
        return "the audio source ended" in caplog.text

    wait_until("the script is told", told)
    streamer.close()


def feed(streamer, count, shape=(H, W, 3), step=8):
    """Frames of rising brightness."""
    for number in range(count):
        streamer.stream(np.full(shape, 10 + number * step, np.uint8))


@pytest.mark.row("stream")
@pytest.mark.parametrize("shape", [(H, W, 1), (H, W, 2), (H, W, 4)])
def test_every_layout_is_published_once_and_in_order(shape):
    with StreamGear(output="x.mpd", **SMALL) as streamer:
        streamer.stream(None)
        feed(streamer, 25, shape)
    shown = levels("x.mpd")
    assert len(shown) == 25 and all(before + 4 < after for before, after in zip(shown, shown[1:]))


@pytest.mark.row("stream")
@pytest.mark.parametrize("pixel", [(250, 10, 10), (250, 10, 10, 255)])
def test_rgb_frames_keep_their_colours(pixel):
    with StreamGear(output="x.m3u8", format="hls", **SMALL) as streamer:
        streamer.stream(np.full((H, W, len(pixel)), pixel, np.uint8), rgb_mode=True)
    red, _, blue = np.frombuffer(ffmpeg("-i", "x.m3u8", "-frames:v", "1", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"), np.uint8)[:3]
    assert red > 200 and blue < 60


@pytest.mark.row("odd sizes")
def test_odd_sizes_are_padded():
    with StreamGear(output="x.mpd", **SMALL) as streamer:
        feed(streamer, 5, (H + 1, W + 1, 3))
    assert tracks("x.mpd") == [("h264", W + 2, H + 2)] and decoded("x.mpd") == 5


@pytest.mark.row("stream")
def test_a_frame_that_does_not_fit_is_refused_and_the_others_are_published():
    with StreamGear(output="x.mpd", **SMALL) as streamer:
        feed(streamer, 3)
        for wrong in ((H, W + 2, 3), (H, W, 4), (H, W)):
            with pytest.raises(ValueError, match="after one of"):
                streamer.stream(np.zeros(wrong, np.uint8))
        with pytest.raises(ValueError, match="float64"):
            streamer.stream(np.zeros((H, W, 3)))
    assert decoded("x.mpd") == 3
    with pytest.raises(RuntimeError, match="closed"):
        streamer.stream(np.zeros((H, W, 3), np.uint8))


@pytest.mark.row("stream")
@pytest.mark.parametrize("frame", [np.zeros((H, W, 5), np.uint8), np.zeros((H,), np.uint8), np.zeros((0, W, 3), np.uint8), np.zeros((H, W, 3), np.uint16)])
def test_a_first_frame_that_is_none_writes_nothing(frame, place):
    with StreamGear(output="x.mpd") as streamer, pytest.raises(ValueError):
        streamer.stream(frame)
    assert [path.name for path in place.iterdir()] == ["run"]


@pytest.mark.row("close, terminate, with")
def test_without_frames_nothing_is_written(place):
    StreamGear(output="x.mpd").close()
    StreamGear(output="x.mpd").terminate()
    assert [path.name for path in place.iterdir()] == ["run"]


@pytest.mark.row("constructor")
@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"output": ""}, ValueError, "output is empty"),
        ({}, ValueError, "output is empty"),
        ({"output": "x.m3u8"}, AssertionError, "wants .mpd"),
        ({"output": "x.mpd", "format": "hls"}, AssertionError, "wants .m3u8"),
        ({"output": "x.mpd", "format": "hash"}, ValueError, "did you mean 'dash'"),
        ({"output": "x.mpd", "format": "mp4v"}, ValueError, "'dash' or 'hls'"),
        ({"output": "x.mpd", "format": None}, ValueError, "'dash' or 'hls'"),
        ({"output": "nowhere/x.mpd"}, ValueError, "no folder"),
        ({"output": "rtmp://127.0.0.1/x.mpd"}, ValueError, "http or https"),
        ({"output": "x.mpd", "custom_ffmpeg": "nowhere"}, RuntimeError, "no FFmpeg"),
        ({"output": "x.mpd", "-video_source": __file__}, AssertionError, "no video"),
    ],
)
def test_errors_are_of_vidgears_types(arguments, error, words):
    with pytest.raises(error, match=words):
        StreamGear(**arguments)


@pytest.mark.row("constructor", "close, terminate, with")
@pytest.mark.parametrize("named", ["own", "own/ffmpeg"])
def test_another_ffmpeg_is_named_by_its_program_or_its_folder(named, place):
    (place / "own").mkdir()
    (place / "own/ffmpeg").write_text(f'#!/bin/sh\necho "$@" >>{place}/lines\nexec {shutil.which("ffmpeg")} "$@"\n')
    (place / "own/ffmpeg").chmod(0o755)
    streamer = StreamGear(output="x.mpd", custom_ffmpeg=named, **SMALL)
    feed(streamer, 3)
    streamer.terminate()
    assert decoded("x.mpd") == 3 and ended("x.mpd")
    assert "libx264" in (place / "lines").read_text()


@pytest.mark.row("constructor")
def test_a_missing_daemon_is_told_at_once(monkeypatch):
    monkeypatch.setenv("RINGGEAR_BINARY", "/nowhere")
    with pytest.raises(RuntimeError, match="RINGGEAR_BINARY"):
        StreamGear(output="x.mpd")


@pytest.mark.row("methods of the other mode")
def test_methods_of_the_other_mode_are_refused(movie):
    with pytest.raises(RuntimeError, match="-video_source"):
        StreamGear(output="x.mpd").transcode_source()
    with pytest.raises(RuntimeError, match="transcode_source"):
        StreamGear(output="x.mpd", **{"-video_source": movie}).stream(np.zeros((H, W, 3), np.uint8))


@pytest.mark.row("logging")
def test_an_option_that_ffmpeg_refuses_is_told_with_its_words(place):
    streamer = StreamGear(output="x.mpd", **{"-preset": "warp"})
    with pytest.raises(EncodingFailed, match="warp"):
        feed(streamer, 1000)
    streamer.close()
    assert [path.name for path in place.iterdir()] == ["run"] and list((place / "run").iterdir()) == []


def test_an_option_that_the_daemon_refuses_is_told_with_its_words(place):
    with pytest.raises(ValueError, match="crf"), StreamGear(output="x.mpd", **{"-crf": 99}) as streamer:
        feed(streamer, 1)
    assert [path.name for path in place.iterdir()] == ["run"]


@pytest.mark.row("-clear_prev_assets")
def test_a_rerun_replaces_what_it_has_written_and_nothing_else(place):
    for name in ("chunk-stream0-00001.m4s", "other.mpd"):
        (place / name).write_text("somebody else's")
    for count in (3, 4):
        with StreamGear(output="x.mpd", **SMALL) as streamer:
            feed(streamer, count)
    assert decoded("x.mpd") == 4
    assert len([path for path in place.iterdir() if path.is_dir() and path.name != "run"]) == 1
    assert (place / "other.mpd").exists() and (place / "chunk-stream0-00001.m4s").exists()
    StreamGear(output=str(place), **{"-clear_prev_assets": True}).close()
    assert sorted(path.name for path in place.iterdir()) == ["chunk-stream0-00001.m4s", "other.mpd", "run"]


@pytest.mark.row("not live")
def test_a_recording_can_be_watched_while_it_grows(format):
    streamer = StreamGear(output=out(format), format=format, **{"-seg_duration" if format == "dash" else "-hls_time": 1, **SMALL})
    feed(streamer, 75, step=1)
    wait_until("some of it is published", lambda: os.path.exists(out(format)))
    if format == "dash":
        # The MPD of a recording says at any time how long it is.
        assert decoded(out(format)) >= 25
    else:
        assert not ended(out(format))
    streamer.close()
    assert ended(out(format)) and decoded(out(format)) == 75


@pytest.mark.row("wish: low latency")
def test_a_private_daemon_serves_its_stream_at_low_latency():
    port = free_port()
    streamer = StreamGear(output="x.mpd", **{"-livestream": True, "-ringgear_listen": f"127.0.0.1:{port}", **SMALL})

    def in_parts():
        feed(streamer, 1)
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/x/stream0/media.m3u8", timeout=5) as answer:
            return b"#EXT-X-PART:" in answer.read()

    wait_until("the playlist has parts", in_parts)
    streamer.close()


@pytest.mark.row("constructor")
def test_a_folder_as_output_gets_a_dated_manifest(place):
    (place / "www").mkdir()
    with StreamGear(output="www", format="hls", **SMALL) as streamer:
        feed(streamer, 3)
    (manifest,) = (place / "www").glob("hls-2*.m3u8")
    assert decoded(manifest) == 3


@pytest.mark.row("settings of the muxers")
def test_nothing_stays_if_it_is_to_be_removed_at_exit(place):
    with StreamGear(output="x.mpd", **{"-remove_at_exit": 1}, **SMALL) as streamer:
        feed(streamer, 3)
    assert [path.name for path in place.iterdir()] == ["run"]


@pytest.mark.row("settings of the muxers")
def test_a_base_url_stands_before_each_segment(place):
    base = f"{place}/"
    with StreamGear(output="x.m3u8", format="hls", **{"-hls_base_url": base}, **SMALL) as streamer:
        feed(streamer, 3)
    (media,) = [line for line in (place / "x.m3u8").read_text().splitlines() if not line.startswith("#")]
    segments = [line for line in (place / media).read_text().splitlines() if not line.startswith("#")]
    assert segments and all(line.startswith(base) for line in segments) and decoded("x.m3u8") == 3


class Store(http.server.BaseHTTPRequestHandler):
    """A server that keeps what is put, and fails at first."""

    def do_DELETE(self):
        (self.server.root / self.path.lstrip("/")).unlink()
        self.server.allowed.append(self.headers["Authorization"])
        self.send_response(204)
        self.end_headers()

    def do_PUT(self):
        self.server.allowed.append(self.headers["Authorization"])
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.refusals -= 1
        if self.server.refusals < 0:
            path = self.server.root / self.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
            self.server.order.append(path.suffix)
        self.send_response(201 if self.server.refusals < 0 else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def store(place):
    """A server that takes what is put, but for the first two files."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        server.root, server.order, server.allowed, server.refusals = place / "store", [], [], 2
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.row("output to a URL")
@pytest.mark.parametrize("live", [False, True])
def test_a_url_gets_every_file_by_put_the_manifest_last(place, store, format, live):
    output = f"http://127.0.0.1:{store.server_port}/live/{out(format)}"
    with StreamGear(output=output, format=format, **{"-livestream": live, **SMALL}) as streamer:
        feed(streamer, 25)
    manifest = place / "store" / "live" / out(format)
    assert ended(manifest)
    # A machine that stands still for long makes the clock of a live stream pass frames over.
    assert decoded(manifest) >= 15 if live else decoded(manifest) == 25
    assert store.order[0] in (".mp4", ".m4s") and store.order[-1] == manifest.suffix
    assert sorted(path.name for path in place.iterdir()) == ["run", "store"] and list((place / "run").iterdir()) == []


@pytest.fixture(scope="session")
def late(tmp_path_factory):
    """A file with a keyframe each second, and after two minutes each 10 s."""
    path = tmp_path_factory.mktemp("media") / "late.mp4"
    keyframes = "if(lt(t,120),gte(t,n_forced),not(mod(t,10)))"
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=size={W}x{H}:rate=5", "-t", "144", "-c:v", "libx264", "-g", "1000", "-sc_threshold", "0", "-force_key_frames", f"expr:{keyframes}", "-pix_fmt", "yuv420p", path)
    return str(path)


@pytest.mark.row("output to a URL", "source: -vcodec copy")
def test_a_first_try_that_is_given_up_late_leaves_nothing_at_the_url(place, store, late, format, caplog):
    output = f"http://127.0.0.1:{store.server_port}/live/{out(format)}"
    StreamGear(output=output, format=format, **{"-video_source": late, "-vcodec": "copy"}).transcode_source()
    assert packets(place / "store" / "live" / out(format)) == packets(late)
    assert "segments last up to 10" in caplog.text and "becomes" not in caplog.text
    media = {path.relative_to(store.root / "live").parts[0] for path in store.root.rglob("*.m*4*")}
    assert len(media) == 1, "nothing is left of the first try"


@pytest.mark.row("output to a URL")
def test_what_leaves_the_folder_leaves_the_server_by_delete_with_the_urls_user_and_password(place, store):
    for name in ("x.m3u8", "x-1/x/stream0/init-1f6a.mp4", "x-1/x/stream0/0.m4s", "x-1/x/stream0/1.m4s", "x-1/x/index.m3u8", "x-1/x/state.json"):
        (place / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "here" / name).write_text(name)
    uploading = upload.Upload(str(place / "here"), f"http://me:s%40cret@127.0.0.1:{store.server_port}/live/x.m3u8")
    assert uploading.finish() is None
    found = lambda: sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*.*"))
    media = "live/x-1/x/stream0"
    assert found() == [f"{media}/0.m4s", f"{media}/1.m4s", f"{media}/init-1f6a.mp4", "live/x.m3u8"]
    (place / "here/x-1/x/stream0/0.m4s").unlink()
    uploading.pass_over()
    assert found() == [f"{media}/1.m4s", f"{media}/init-1f6a.mp4", "live/x.m3u8"]
    uploading.remove()
    assert found() == []
    assert {base64.b64decode(words.split(" ")[1]) for words in store.allowed} == {b"me:s@cret"}


@pytest.mark.row("output to a URL")
def test_a_server_that_takes_nothing_for_half_a_minute_is_given_up(place, store, monkeypatch):
    store.refusals = 1000
    clock = SimpleNamespace(now=0.0)
    clock.sleep = lambda seconds: setattr(clock, "now", clock.now + seconds)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(upload, "time", clock)
    (place / "x.mpd").write_text("<MPD/>")
    wrong = upload.Upload(str(place), f"http://127.0.0.1:{store.server_port}/x.mpd").finish()
    assert "nothing has been taken for 30 s" in wrong and "PUT of x.mpd with status 503" in wrong
    assert 30 < clock.now < 32 and len(store.allowed) > 50


SCRIPT = """
    import sys, time
    import numpy as np
    from ringgear.streamgear import StreamGear

    streamer = StreamGear(output="x.mpd", **{"-livestream": sys.argv[1] == "live", "-preset": "ultrafast"})
    for number in range(25):
        streamer.stream(np.full((108, 192, 3), number, np.uint8))
    print("fed", flush=True)
    time.sleep(60 if sys.argv[2] == "killed" else 0)
"""


def daemons(place):
    """The processes whose command line names this test's private folder, the keeper first."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if str(place / "run").encode() in line:
            found.insert(0 if b"runpy" in line else len(found), int(entry.name))
    return found


@pytest.mark.row("close, terminate, with")
@pytest.mark.parametrize("mode, end", [("live", "killed"), ("recorded", "forgotten")])
def test_the_daemon_ends_with_the_script_and_the_stream_in_good_order(mode, end, place):
    """A script that is killed, and one that never calls close()."""
    script = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SCRIPT), mode, end], stdout=subprocess.PIPE)
    try:
        assert script.stdout.readline() == b"fed\n"
        if end == "killed":
            assert len(daemons(place)) >= 2, "the keeper and the daemon"
            script.send_signal(signal.SIGKILL)
        script.wait(30)
    finally:
        script.kill()
    wait_until("nobody is left", lambda: not daemons(place))
    assert ended("x.mpd") and list((place / "run").iterdir()) == []
    # Of a script that is killed, the clock may not have come to the last frames.
    assert decoded("x.mpd") >= 15 if end == "killed" else decoded("x.mpd") == 25


def test_the_keepers_death_ends_the_daemon(place):
    streamer = StreamGear(output="x.mpd", **{"-livestream": True}, **SMALL)
    feed(streamer, 5)
    keeper = daemons(place)[0]
    os.kill(keeper, signal.SIGKILL)
    wait_until("nobody is left", lambda: not daemons(place))
    with pytest.raises(EncodingFailed):
        feed(streamer, 1000, step=0)
    streamer.close()


@pytest.mark.row("-enable_force_termination")
def test_force_termination_ends_a_daemon_that_hangs(place):
    streamer = StreamGear(output="x.mpd", **{"-seg_duration": 1, "-enable_force_termination": True}, **SMALL)
    feed(streamer, 75, step=1)
    wait_until("some of it is published", lambda: os.path.exists("x.mpd"))
    _, *rest = daemons(place)
    for process in rest:
        os.kill(process, signal.SIGSTOP)
    with pytest.raises(EncodingFailed, match="not all frames are published"):
        streamer.close()
    wait_until("nobody is left", lambda: not daemons(place))
    assert decoded("x.mpd") >= 25


@pytest.mark.row("logging")
def test_logging_shows_what_happens(caplog, capfd):
    with StreamGear(output="x.mpd", logging=True, **SMALL) as streamer:
        feed(streamer, 3)
    assert "the daemon's config" in caplog.text
    assert "encoder started" in capfd.readouterr().err


def test_a_running_daemon_is_fed_when_asked(daemon):
    with StreamGear(output="x.mpd", **{"-ringgear_stream": "cam", "-ringgear_socket": daemon.socket}) as streamer:
        feed(streamer, 25)
    assert len(daemon.frames_shown()) >= 20 and not os.path.exists("x.mpd")
