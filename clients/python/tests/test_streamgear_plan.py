"""How StreamGear's parameters are read, and the daemon's config that they become: without a daemon."""

import io
import logging
import re
from fractions import Fraction

import numpy as np
import pytest
from conftest import ROOT

from ringgear.streamgear import _plan, _reasons, _wishes
from ringgear.streamgear._keeper import assets, mirror
from ringgear.streamgear._keeper.notes import Notes
from ringgear.streamgear._progress import Progress

PLACE = _plan.Place("/run/x/control.sock", "/srv/www", "live-1", "/usr/bin/ffmpeg", None)


def read(params, live=False, hls=False):
    return _wishes.read(_wishes.Params(params), live=live, hls=hls)


def config(params, live=False, hls=False, size=(640, 360), rate=25, **more):
    return _plan.config(read(params, live, hls), _plan.Picture(*size, Fraction(rate)), PLACE, **more)


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.WARNING, "ringgear.streamgear")
    return lambda: [record.getMessage() for record in caplog.records]


def renditions(text):
    """Each rendition's keys, as they are written."""
    tables = text.split(f"[[streams.{PLACE.stream}.renditions]]\n")[1:]
    return [dict(line.split(" = ", 1) for line in table.split("\n[")[0].splitlines() if line) for table in tables]


def test_without_parameters_a_recording_grows_and_has_vidgears_quality(told):
    text = config({})
    assert 'mode = "event"' in text and 'segment = "5000000us"' in text and 'formats = ["dash"]' in text
    assert renditions(text) == [{"name": '"stream0"', "codec": '"libx264"', "crf": "20"}]
    assert told() == []


@pytest.mark.row("-livestream", "settings of the muxers")
@pytest.mark.parametrize(
    "params, hls, segment, window",
    [
        ({}, True, 2, 24),
        ({}, False, 2, 100),
        ({"-hls_time": 4, "-hls_list_size": 10}, True, 4, 40),
        ({"-hls_init_time": 1}, True, 1, 6),
        ({"-seg_duration": 1, "-window_size": 8}, False, 1, 8),
        ({"-gop": 50}, True, 2, 24),
    ],
)
def test_a_live_stream_lists_as_many_seconds_as_vidgear(params, hls, segment, window, told):
    text = config(params, live=True, hls=hls)
    assert 'mode = "live"' in text and 'at_exit = "end"' in text
    assert f'segment = "{segment * 1000000}us"' in text and f'window = "{window * 1000000}us"' in text
    assert told() == []


def test_viewers_of_its_own_origin_have_both_formats():
    text = _plan.config(read({}), _plan.Picture(64, 36, Fraction(25)), PLACE._replace(listen="0.0.0.0:8080"))
    assert 'listen = "0.0.0.0:8080"\nallow_anyone = true\n' in text and 'formats = ["hls", "dash"]' in text
    assert 'listen = "127.0.0.1:0"\n[publish]' in config({})


def test_a_window_that_is_too_short_for_players_is_told(told):
    text = config({"-seg_duration": 4, "-window_size": 3}, live=True)
    assert 'window = "24000000us"' in text
    assert told() == ["the playlists list 24 s, not 12: they hold at least 6 segments, and at most 3600 s"]


@pytest.mark.row("not live")
def test_a_live_stream_that_lists_everything_is_a_recording_that_grows():
    assert 'mode = "event"' in config({"-hls_list_size": 0}, live=True, hls=True)
    assert 'mode = "vod"' in config({"-hls_playlist_type": "vod"}, hls=True)


@pytest.mark.row("-streams", "-bpp, -gop")
def test_streams_have_bitrates_that_hold_and_true_framerates(told):
    params = {
        "-streams": [
            {"-resolution": "1280x720", "-video_bitrate": "4000k"},
            {"-resolution": "640x360", "-framerate": 30.0},
            {"-resolution": "320x180", "-framerate": 20},
            {"-resolution": "321x181", "-video_bitrate": "0.5M"},
        ]
    }
    _, large, double, third, odd = renditions(config(params, rate=60))
    assert large["bitrate"] == "4000000" and large["size"] == '"1280x720"' and "framerate" not in large
    # vidgear's rule: pixels by 0.1 bits by the framerate.
    assert double["bitrate"] == "691000" and double["framerate"] == '"30/1"'
    assert third["bitrate"] == "115000" and third["framerate"] == '"20/1"'
    assert odd["size"] == '"320x180"' and odd["bitrate"] == "500000"
    assert told() == ["-resolution 321x181 becomes 320x180: encoded sides are even"]


def test_a_framerate_that_is_no_fraction_counts_for_the_bitrate_alone(told):
    text = config({"-streams": [{"-resolution": "640x360", "-framerate": 20.0}, {"-resolution": "320x180", "-framerate": 60.0}]})
    assert [stream.get("framerate") for stream in renditions(text)] == [None, None, None]
    assert renditions(text)[2]["bitrate"] == "346000"
    assert len(told()) == 1 and "-framerate 20 counts for the bitrate alone" in told()[0]


@pytest.mark.row("-streams")
def test_a_framerate_beside_a_bitrate_is_true_or_left_out_and_told(told):
    stream = {"-resolution": "640x360", "-video_bitrate": "800k"}
    half, third, double = renditions(config({"-streams": [{**stream, "-framerate": rate} for rate in (15.0, 20, 60)]}, rate=30))[1:]
    assert half["framerate"] == '"15/1"' and "framerate" not in third and "framerate" not in double
    assert {entry["bitrate"] for entry in (half, third, double)} == {"800000"}
    assert [words.split(":")[0] for words in told()] == ["-framerate 20 is left out", "-framerate 60 is left out"]


@pytest.mark.parametrize(
    "stream, reason",
    [
        ({"-video_bitrate": "850k"}, "no -resolution"),
        ({"-resolution": "unxun"}, "no -resolution"),
        ({"-resolution": "640x480", "-video_bitrate": "unknown"}, "neither"),
        ({"-resolution": "640x480", "-framerate": "unknown"}, "neither"),
    ],
)
def test_a_stream_that_says_too_little_is_left_out_and_told(stream, reason, told):
    text = config({"-streams": [stream, {"-resolution": "320x240", "-framerate": 20.0}]}, rate=20, size=(640, 480))
    assert [entry.get("size") for entry in renditions(text)] == [None, '"320x240"']
    assert any(reason in line for line in told())


@pytest.mark.parametrize("streams", ["invalid", [1], {"-resolution": "640x360"}])
def test_streams_of_another_type_are_left_out_and_told(streams, told):
    assert len(renditions(config({"-streams": streams}))) == 1
    assert "-streams" in told()[0]


@pytest.mark.row("-bpp, -gop", "-vcodec and its settings")
@pytest.mark.parametrize(
    "params, codec, rate",
    [
        ({"-vcodec": "libx265"}, "libx265", ("crf", "20")),
        ({"-c:v": "libx264", "-crf": "23"}, "libx264", ("crf", "23")),
        ({"-vcodec": "h264", "-crf": 0}, "libx264", ("crf", "0")),
        ({"-b:v": "2M"}, "libx264", ("bitrate", "2000000")),
        ({"-bpp": 0.2}, "libx264", ("bitrate", "1152000")),
        ({"-bpp": 0.2, "-crf": 18}, "libx264", ("crf", "18")),
        ({"-vcodec": "h264_nvenc"}, "h264_nvenc", ("bitrate", "576000")),
        ({"-vcodec": "hevc"}, "libx265", ("crf", "20")),
    ],
)
def test_the_primary_stream_has_a_quality_or_a_bitrate(params, codec, rate, told):
    (primary,) = renditions(config(params))
    assert primary["codec"] == f'"{codec}"' and primary[rate[0]] == rate[1]
    assert ("crf" in primary) != ("bitrate" in primary)
    assert told() == []


@pytest.mark.row("-vcodec and its settings")
def test_a_hardware_encoder_gets_its_device_and_needs_no_filters_of_its_own(told):
    (primary,) = renditions(config({"-vcodec": "h264_vaapi", "-vaapi_device": "/dev/dri/renderD128", "-vf": "format=nv12,hwupload"}))
    assert primary["device"] == '"/dev/dri/renderD128"' and "filter" not in primary
    assert primary["fallback"] == '"libx264"'
    assert told() == []


def test_an_encoder_is_not_given_what_it_does_not_have(told):
    (primary,) = renditions(config({"-vcodec": "libvpx-vp9", "-preset": "fast", "-cpu-used": 5}))
    assert "preset" not in primary and primary["options"] == '{ "cpu-used" = "5" }'
    (primary,) = renditions(config({"-vcodec": "h264_nvenc", "-crf": 20}))
    assert "crf" not in primary and "bitrate" in primary
    assert [words.split(" ")[0] for words in told()] == ["-preset", "-crf"]


def test_filters_and_settings_of_the_encoder_go_to_it(told):
    params = {"-vf": "hflip,format=yuv420p", "-preset": "fast", "-profile:v": "main", "-x264-params": "ref=2", "-tune": "zerolatency", "-threads": 2}
    (primary,) = renditions(config(params))
    assert primary["filter"] == '"hflip"' and primary["preset"] == '"fast"'
    assert primary["options"] == '{ "profile" = "main", "x264-params" = "ref=2", "threads" = "2" }'
    assert told() == []


def test_settings_of_one_stream_go_to_that_one():
    text = config({"-profile:v:1": "baseline", "-streams": [{"-resolution": "320x180", "-video_bitrate": "200k"}]})
    assert [stream.get("options") for stream in renditions(text)] == [None, '{ "profile" = "baseline" }']


@pytest.mark.parametrize(
    "params, word",
    [
        ({"-tag:v": "hvc1"}, "tags it as players want it"),
        ({"-lag-in-frames": 9}, "order"),
        ({"-x264-params": "keyint=60:no_scenecut"}, "keyint=60:no_scenecut in -x264-params"),
        ({"-vf": "scale_vaapi=w=640:h=-2"}, "-s and -streams"),
        ({"-vf": "fps=15"}, "its place in time"),
        ({"-vf": "[in]hflip[out]"}, "one chain"),
        ({"-clones": ["-tag:v", "hvc1"]}, "-tag:v in -clones"),
        ({"-no such": 1}, "FFmpeg's"),
        ({"-level": "a\nb"}, "plain text"),
        ({"-g": 40}, "keyframes"),
        ({"-bf": 1}, "order"),
        ({"-tune": "film"}, "delay"),
        ({"-aspect": "4:3"}, "shape"),
        ({"-hls_segment_type": "mpegts"}, "CMAF"),
        ({"-hls_flags": "single_file"}, "whatever the flags"),
        ({"-extra_window_size": 5}, "as long again"),
        ({"-ffmpeg_download_path": "C:/x"}, "no FFmpeg is downloaded"),
        ({"-vcodec": "copy"}, "have to be encoded"),
        ({"-clones": ["-map", "0:v:0", "-map", "1:a?"]}, "which pictures and sounds"),
        ({"-clones": "invalid"}, "a list"),
        ({"-maxrate": "1M"}, "bitrate"),
        ({"-ar": 44100}, "audio"),
        ({"-vbr": 4}, "audio"),
        ({"-vaapi_device": "/dev/dri/renderD128"}, "h264_vaapi"),
        ({"-r": 10}, "-r 10 is left out"),
        ({"-window_size": 5}, "a recording lists all"),
        ({"-seg_duration": -334.23}, "from 0.5 to 20"),
        ({"-gop": "unknown"}, "keyframes"),
        ({"-bpp": "unknown"}, "bits per pixel"),
        ({"-remove_at_exit": 4.56}, "0 or 1"),
    ],
)
def test_what_cant_apply_is_told_once_and_harms_nothing(params, word, told):
    assert renditions(config(params)) == [{"name": '"stream0"', "codec": '"libx264"', "crf": "20"}]
    assert len(told()) == 1 and word in told()[0], told()


def test_what_vidgear_drops_itself_or_what_is_so_anyway_is_not_told(told):
    config({"-s:v:0": "unknown", "-b:v:0": "unknown", "-b:a:0": "unknown", "-bf": 0, "-pix_fmt": "yuv420p", " -hls_segment_type ": "fmp4 "}, hls=True)
    assert told() == []


def test_a_source_that_is_copied_has_nothing_of_an_encoder(told):
    text = config({"-vcodec": "copy"}, live=True, source="in.mp4")
    assert renditions(text) == [{"name": '"stream0"', "codec": '"copy"'}]
    assert not any(key in text for key in ("framerate", "slack", "stale_after"))
    assert told() == []
    heard = config({"-vcodec": "copy", "-acodec": "copy"}, source="in.mp4", audio=_plan.Audio())
    assert heard.count('codec = "copy"') == 2 and "bitrate" not in heard
    assert 'codec = "aac"\nbitrate = 128000' in config({"-vcodec": "copy"}, source="in.mp4", audio=_plan.Audio())
    assert told() == []
    assert "audio" not in config({"-vcodec": "copy"}, source="in.mp4", audio=_plan.Audio("a.ogg")) and "only the source's own" in told()[0]
    several = renditions(config({"-vcodec": "copy", "-streams": [{"-resolution": "160x90", "-video_bitrate": "100k"}]}, source="in.mp4"))
    assert [rendition["codec"] for rendition in several] == ['"libx264"'] * 2


SPARSE = (
    "the keyframes of /films/a.mp4 are 3.2 s apart: segments of stream 'a' would be too long; set segment = \"3200ms\" in [streams.a], or a shorter"
    " keyframe interval (GOP) at the source, or write an encoder instead of codec = \"copy\""
)


@pytest.mark.row("source: -vcodec copy")
def test_what_cant_be_copied_is_encoded_or_has_longer_segments(told):
    wishes = read({"-vcodec": "copy", "-acodec": "copy"}, hls=True)
    assert _plan.hints(wishes) == ('codec = "copy"', 'codec = "aac"')
    heard = _plan.eased(wishes, 'its sound is pcm_s16le: only AAC can be copied; write codec = "aac" in [[streams.a.audio.renditions]]', has_length=False)
    assert heard == wishes._replace(audio_codec=None) and _plan.hints(heard) == ('codec = "copy"',)
    longer = _plan.eased(heard, SPARSE, has_length=False)
    assert longer == heard._replace(segment=3.2)
    # Few tries, whatever comes.
    lengths = []
    while longer.codec == "copy":
        lengths.append(longer.segment)
        longer = _plan.eased(longer, SPARSE.replace("3200", "3500"), has_length=False)
    assert lengths == [3.2, 6.4, 12.8, 20.0] and longer == heard._replace(codec=None) and _plan.hints(longer) == ()
    named = heard._replace(segment=2.0)
    assert _plan.eased(named, SPARSE, has_length=True) == named._replace(codec=None)
    assert _plan.eased(heard, "No space left on device", has_length=False) is None
    assert _plan.eased(heard._replace(codec=None), SPARSE, has_length=False) is None
    assert [words.split(":")[0] for words in told()][:2] == ["-acodec copy becomes aac", "segments last up to 3.2 s"]


@pytest.mark.row("-clones, -core, any other key")
def test_words_for_the_command_line_go_on():
    clones = ["-map", "0:v:0", "-strict", "-2", "-y", "-level", "4.0", "-x265-params", "rd=2:keyint=9"]
    (primary,) = renditions(config({"-clones": clones, "-core0": ["-dump_attachment:t", "x", "-profile:v", "main"]}))
    assert primary["output_args"] == '["-strict", "-2", "-level", "4.0", "-profile:v", "main"]'
    assert primary["options"] == '{ "x265-params" = "rd=2" }'


def owned_by_the_daemon():
    """Its tables: names that `options` may not have, and what encoders' own lists of parameters may not, by the lists' names."""
    text = (ROOT / "src" / "config" / "options.rs").read_text()
    tables = re.search(r"const OWNED: .*?\n\];\n.*?const OWNED_WITHIN: .*?\n\];\n", text, re.S)[0]
    names, within = re.split(r"const OWNED_WITHIN: ", tables)
    quoted = r'"([^"]+)"'
    rows = re.findall(r"\(\s*&\[([^\]]*)\],\s*&\[([^\]]*)\]", within)
    return set(re.findall(quoted, names)), {a: set(re.findall(quoted, owned)) for lists, owned in rows for a in re.findall(quoted, lists)}


@pytest.mark.row("-clones, -core, any other key")
def test_nothing_goes_on_that_the_daemon_refuses():
    extras = (ROOT / "src" / "config" / "extras.rs").read_text()
    of_time = re.findall(r'"([^"]+)"', re.search(r"const OF_TIME: .*?\];", extras, re.S)[0])
    assert len(of_time) > 10 and set(of_time) == _reasons.OF_TIME
    names, within = owned_by_the_daemon()
    assert len(names) > 80 and len(within) == 5
    assert {name: set(owned) for name, owned in _reasons.OWNED_WITHIN.items()} == within
    for specifier in ("", ":v", ":v:0", ":s:v"):
        # 9, for `-b 1` and `-crf 1` are good.
        (primary,) = renditions(config({f"-{name}{specifier}": "9" for name in names if name != "preset"}))
        assert not {"options", "output_args"} & set(primary), (specifier, primary)
        for name in names:
            (primary,) = renditions(config({"-clones": [f"-{name}{specifier}", *([] if name in _reasons.FLAGS else ["1"])]}))
            assert not {"options", "output_args"} & set(primary), (name, primary)


@pytest.mark.row("-audio")
def test_audio_has_a_bitrate_for_each_stream_that_names_one():
    audio = _plan.Audio("hw:1", ("-f", "alsa"))
    params = {"-streams": [{"-resolution": "320x180", "-video_bitrate": "200k", "-audio_bitrate": "96k"}]}
    text = config(params, audio=audio)
    table = text.split("[streams.live-1.audio]\n")[1]
    assert 'source = "hw:1"\ninput_args = ["-f", "alsa"]\nloop = false\n' in table
    assert [line for line in table.splitlines() if "bitrate" in line][:2] == ["bitrate = 128000", "bitrate = 96000"]
    assert config({}).count("audio") == 0
    carried = config({}, audio=_plan.Audio(), source="a.mp4").split("[streams.live-1.audio]\n")[1]
    assert carried.startswith("[[streams.live-1.audio.renditions]]\n")


def test_bitrates_of_audio_are_those_that_are_possible(told):
    wanted = ["8k", "96k", "1M", "512k", "64k", "48k"]
    params = {"-streams": [{"-resolution": "320x180", "-video_bitrate": "200k", "-audio_bitrate": bits} for bits in wanted]}
    text = config(params, audio=_plan.Audio("hw:1"))
    table = text.split("[streams.live-1.audio]\n")[1].split("[[streams.live-1.renditions]]")[0]
    assert re.findall(r"bitrate = (\d+)", table) == ["128000", "16000", "96000", "512000"]
    changed = ["8000 becomes 16000", "1000000 becomes 512000", "64000 is left out", "48000 is left out"]
    assert len(told()) == 4 and all(words in line for words, line in zip(changed, told()))


@pytest.mark.row("-input_framerate")
@pytest.mark.parametrize(
    "given, fraction",
    [
        (29.97002997, "30000/1001"),
        (29.97, "30000/1001"),
        (23.98, "24000/1001"),
        ("25", "25"),
        (12.5, "25/2"),
        (1000 / 33, "1000/33"),
        ("30000/1001", "30000/1001"),
        (np.float32(29.97), "30000/1001"),
        (np.int64(25), "25"),
        (1.002, "1"),
    ],
)
def test_framerates_are_exact(given, fraction):
    assert _wishes.framerate_of(given, "-input_framerate") == Fraction(fraction)


@pytest.mark.parametrize("given", ["invalid", -1, float("nan"), float("inf"), True, [25], "1/0"])
def test_what_is_no_framerate_is_left_out_and_told(given, told):
    assert _wishes.framerate_of(given, "-input_framerate") is None
    assert "-input_framerate" in told()[0]


@pytest.mark.parametrize("given, near", [(0.5, 1), (np.float32(1e-9), 1), (1000, 240), ("90000", 240)])
def test_a_framerate_that_no_stream_has_becomes_the_nearest_and_is_told(given, near, told):
    assert _wishes.framerate_of(given, "-input_framerate") == near
    assert len(told()) == 1 and f"becomes {near}: a stream has 1 to 240" in told()[0]


def test_text_is_quoted_as_toml():
    text = config({"-preset": 'a"b\\c\n\u00fc\x7f'})
    assert 'preset = "a\\"b\\\\c\\n\u00fc\\u007f"' in text
    with pytest.raises(ValueError, match="rename it"):
        config({}, audio=_plan.Audio("\udcff.aac", ()))


def test_addresses_in_the_manifest_lead_into_the_folder():
    text = '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,URI="audio/media.m3u8"\n#EXT-X-STREAM-INF:BANDWIDTH=1\nstream0/media.m3u8\n'
    assert mirror.hls(text, "a/") == text.replace("audio/", "a/audio/").replace("stream0/", "a/stream0/")
    changed, names = mirror.variants(text, lambda address: address.replace("/", "-"))
    assert names == {"audio/media.m3u8": "audio-media.m3u8", "stream0/media.m3u8": "stream0-media.m3u8"}
    assert changed == text.replace("audio/", "audio-").replace("stream0/", "stream0-")
    mpd = '<MPD type="dynamic">\n<SegmentTemplate media="s/$Number$.m4s" initialization="s/init-1.mp4">\n'
    clock = '<UTCTiming schemeIdUri="urn:mpeg:dash:utc:http-head:2014" value="{}"/>'
    shown = mirror.dash(mpd + clock.format("manifest.mpd"), "a/b/", "my out.mpd")
    assert 'media="a/b/s/$Number$.m4s" initialization="a/b/s/init-1.mp4"' in shown
    assert clock.format("my%20out.mpd") in shown


def write(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.row("-clear_prev_assets")
def test_only_what_this_class_wrote_is_removed(tmp_path):
    folder = assets.make(str(tmp_path / "Out Put.mpd"), "dash")
    inside = tmp_path / folder.path
    assert inside.name.startswith("out-put-2") and inside.parent == tmp_path and assets.stream_name("a/time.mpd") == "time-stream"
    for name in ("manifest.mpd", "state.json", "stream0/1.m4s", "stream0/1.2.m4s", "stream0/init-ab12.mp4", "out-put/r1/stream0/media.m3u8"):
        write(inside / name)
    write(tmp_path / "Out Put.mpd", f'<MPD media="{inside.name}/stream0/"/>')
    strangers = [tmp_path / "other.mpd", tmp_path / "chunk-stream0-00001.m4s", tmp_path / "folder" / "1.m4s", inside / "stream0" / "mine.txt"]
    for stranger in strangers:
        write(stranger)
    (inside / "stream0" / "2.m4s").symlink_to(tmp_path / "other.mpd")
    assert list(assets.found(str(tmp_path), "hls")) == [] == list(assets.found(str(tmp_path), "dash", "other.mpd"))
    (old,) = assets.found(str(tmp_path), "dash", "Out Put.mpd")
    with assets.lock(old.path):
        assert not assets.remove(old, with_manifest=True), "a keeper uses it"
    assert assets.remove(old, with_manifest=True)
    left = sorted(path for path in tmp_path.rglob("*") if not path.is_dir())
    assert left == sorted([*strangers, inside / "stream0" / "2.m4s"])


def test_a_manifest_that_names_another_folder_stays(tmp_path):
    folder = assets.make(str(tmp_path / "out.mpd"), "dash")
    write(tmp_path / "out.mpd", "<MPD media='chunk-stream0'/>")
    assert assets.remove(folder, with_manifest=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mpd"]


@pytest.mark.parametrize("content", ["", "{}", '{"manifest": "../x.mpd", "format": "dash", "playlists": []}', '{"manifest": 1, "format": "dash", "playlists": []}', "\0" * 100])
def test_a_strange_marker_marks_nothing(tmp_path, content):
    write(tmp_path / "x" / ".ringgear-streamgear.json", content)
    assert list(assets.found(str(tmp_path), "dash")) == []


@pytest.mark.row("source: progress and failure")
def test_progress_is_logged_by_tenths_with_the_rate_and_what_is_left(caplog):
    caplog.set_level(logging.INFO, "ringgear.streamgear")
    progress = Progress("/films/foo.mp4", 200.0)
    for done in (1, 19, 20, 21, 110, 200):
        progress.show(done)
    told = [record.getMessage().split(", ")[0] for record in caplog.records]
    assert told == [f"foo.mp4: {share} %" for share in (10, 55, 100)]
    assert progress.words(50, 10.0) == "foo.mp4: 25 %, 50 frames, 5 a second, 30 s left"


@pytest.mark.row("source: progress and failure")
def test_progress_is_one_line_of_a_terminal(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    progress = Progress("/films/foo.mp4", 200.0)
    progress.show(50)
    progress.show(200)
    progress.close()
    *_, last = terminal.getvalue().split("\r")
    assert terminal.getvalue().count("\r") == 2 and last.startswith("foo.mp4: 100 %") and last.endswith("\x1b[K\n")


@pytest.mark.row("logging")
def test_a_script_is_told_of_each_thing_that_is_not_well_once():
    notes = Notes()
    renditions = [{"name": name, "codec": "libx264", "fallback": f"h264_vaapi: no device for {name}"} for name in ("stream0", "stream1")]
    status = {"renditions": renditions, "detail": renditions[0]["fallback"], "audio": {"detail": "the audio source ended: [alsa @ 0x55d0] gone"}}
    assert notes.new(status) == [
        "stream0 is encoded by libx264 instead: h264_vaapi: no device for stream0",
        "stream1 is encoded by libx264 instead: h264_vaapi: no device for stream1",
        "the audio source ended: [alsa @ 0x55d0] gone",
    ]
    assert notes.new({**status, "audio": {"detail": "the audio source ended: [alsa @ 0x77af] gone"}}) == []
    slow = "stream0 at veryfast reaches {} of 30 fps here"
    assert [notes.new({"detail": slow.format(rate)}) for rate in (21, 22)] == [[slow.format(21)], []]
    assert notes.new({"detail": "its source has ended: a.mp4", "audio": {"detail": "the file has ended: silence follows"}}) == []
    assert notes.new({"detail": None}) == [] == notes.new({})
