//! The config through the library: what it comes to, what is refused, where, and with which mend.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use ringgear::cli::CliError;
use ringgear::cli::check::{self, CheckArgs};
use ringgear::config::{
    self, Account, AtExit, AudioInput, ConfigErrors, Environment, FfmpegProblem, Plan, RateControl,
    SourceInput,
};
use ringgear::picture::Size;

const FILE: &str = "bad.toml";

fn parse(text: &str) -> Result<config::Loaded, ConfigErrors> {
    config::parse(text, Path::new(FILE), &Environment::TEXT_ONLY)
}

fn plan(text: &str) -> Plan {
    parse(text).unwrap_or_else(|errors| panic!("{errors}")).plan
}

/// A stream with a good framerate and `rest`, which starts on line 3.
fn stream(rest: &str) -> String {
    format!("[streams.door]\nframerate = 30\n{rest}\n")
}

/// A stream with one rendition of `rest`, which starts on line 4.
fn rendition(rest: &str) -> String {
    stream(&format!("[[streams.door.renditions]]\n{rest}"))
}

/// A stream with sound and `rest` in its table, which starts on line 5.
fn audio(rest: &str) -> String {
    stream(&format!(
        "[streams.door.audio]\nsource = \"music.ogg\"\n{rest}"
    ))
}

/// A stream that is copied, with `more` in its own table and `rest` in its rendition's.
fn copied(more: &str, rest: &str) -> String {
    format!(
        "[streams.door]\nsource = \"rtsp://cam/1\"\n{more}\n[[streams.door.renditions]]\nname = \"cam\"\ncodec = \"copy\"\n{rest}\n"
    )
}

#[test]
fn a_copied_stream_needs_no_framerate_and_has_nothing_of_an_encoder() {
    let plan = plan(&copied("segment = \"4s\"", ""));
    let door = &plan.streams["door"];
    assert!(door.copies());
    assert_eq!(door.grid.framerate.to_string(), "90000");
    assert_eq!(door.grid.cut.map(|ticks| ticks.get()), Some(360_000));
    for (text, said) in [
        (copied("framerate = 25", ""), "can't have a framerate"),
        (copied("", "size = \"64x64\""), "can't have size"),
        (copied("", "bitrate = \"1M\""), "can't have bitrate"),
        (copied("", "preset = \"fast\""), "can't have preset"),
        (copied("", "filter = \"hflip\""), "can't have filter"),
        (copied("", "options = { bf = 0 }"), "can't have options"),
        (
            copied("", "[[streams.door.renditions]]\nname = \"low\""),
            "is one of 2",
        ),
        (
            copied("", "[streams.door.audio]\nsource = \"a.ogg\""),
            "only the sound of their own source",
        ),
        (
            copied(
                "",
                "[streams.door.audio]\n[[streams.door.audio.renditions]]\nname = \"a\"\nbitrate = \"96k\"",
            ),
            "has the source's bitrate",
        ),
        (
            "[streams.door]\n[[streams.door.renditions]]\nname = \"a\"\ncodec = \"copy\"\n"
                .to_owned(),
            "fed by producers can't be copied",
        ),
    ] {
        let errors = parse(&text).map(|_| ()).unwrap_err().to_string();
        assert!(errors.contains(said), "{said}: {errors}");
    }
    let heard = parse(&copied("", "[streams.door.audio]")).unwrap();
    let renditions = heard.plan.streams["door"].audio_renditions();
    assert_eq!(renditions[0].codec, config::AudioCodec::Copy);
    let warned = parse(&copied("slack = 2\npart = \"200ms\"", "")).unwrap();
    assert_eq!(warned.warnings.len(), 1, "{:?}", warned.warnings);
    let parts = |loaded: &config::Loaded| loaded.plan.streams["door"].grid.ticks_per_part.get();
    assert_eq!(parts(&warned), 18_000);
    assert_eq!(parts(&parse(&copied("", "")).unwrap()), 29_970);
}

#[test]
fn sound_has_its_defaults_and_its_files_are_found_from_the_configs_folder() {
    let parse = |text: &str| {
        let loaded = config::parse(text, Path::new("/etc/here/x.toml"), &Environment::TEXT_ONLY);
        loaded.unwrap().plan.streams["door"].clone()
    };
    let plan = parse(&audio(""));
    let sound = plan.audio.as_ref().unwrap();
    let own = |plan: &config::AudioPlan| match &plan.source {
        AudioInput::Own(source) => source.clone(),
        other => panic!("{other:?}"),
    };
    let source = own(sound);
    assert_eq!(
        (source.input.as_str(), source.repeat),
        ("/etc/here/music.ogg", true)
    );
    assert_eq!(sound.renditions.len(), 1);
    assert_eq!(sound.renditions[0].bitrate, 128_000);
    assert_eq!(plan.track_names(), ["source", "audio"]);
    for (input, rest) in [
        ("https://a/b.mp3", ""),
        ("hw:0", "input_args = [\"-f\", \"alsa\"]"),
        ("sine", "input_args = [\"-f\", \"lavfi\"]"),
    ] {
        let text = stream(&format!("[streams.door.audio]\nsource = {input:?}\n{rest}"));
        let given = own(&parse(&text).audio.unwrap());
        assert_eq!(given.input, input);
    }
    for (input, rest) in [
        ("a.pcm", "input_args = [\"-f\", \"s16le\"]"),
        ("file:a.pcm", ""),
    ] {
        let text = stream(&format!("[streams.door.audio]\nsource = {input:?}\n{rest}"));
        let given = own(&parse(&text).audio.unwrap());
        assert_eq!(given.input, "/etc/here/a.pcm");
    }
    let fed = parse(&stream("[streams.door.audio]\nsource = \"producer\""));
    assert_eq!(fed.audio.unwrap().source, AudioInput::Producer);
    assert_eq!(parse(&stream("")).audio, None);
}

#[test]
fn what_is_kept_has_its_defaults_and_a_folder_for_each_stream() {
    let record = |rest: &str| stream(&format!("[streams.door.record]\n{rest}"));
    let kept = |rest: &str| plan(&record(rest)).streams["door"].record.clone().unwrap();
    let live = Path::new("/live");
    let plain = kept("");
    assert_eq!(plain.keep, Duration::from_secs(86_400));
    assert_eq!(plain.max_bytes, None);
    assert_eq!(
        plain.folder(live, "door"),
        Path::new("/live/door/recordings")
    );
    let more = kept("keep = \"7d\"\nmax_bytes = \"50GiB\"\ndir = \"/big\"");
    assert_eq!(more.keep, Duration::from_secs(7 * 86_400));
    assert_eq!(more.max_bytes, Some(50 << 30));
    assert_eq!(more.folder(live, "door"), Path::new("/big/door"));
    for (text, said) in [
        (record("keep = \"1s\""), "keep can't be"),
        (record("max_bytes = \"1KiB\""), "max_bytes can't be"),
        (record("path = \"/big\""), "has no key"),
        (
            format!("[publish]\ndir = \"/big\"\n{}", record("dir = \"/big\"")),
            "that is the publish dir",
        ),
        (
            stream("mode = \"event\"\n[streams.door.record]"),
            "is one recording anyway",
        ),
        (rendition("name = \"recordings\""), "a path of the origin"),
    ] {
        let errors = parse(&text).unwrap_err().to_string();
        assert!(errors.contains(said), "{text}: {errors}");
    }
}

#[test]
fn sound_without_a_source_is_that_of_the_streams_source_live_and_recorded() {
    for mode in ["live", "event", "vod"] {
        let text = stream(&format!(
            "mode = {mode:?}\nsource = \"rtsp://me:x@cam/1\"\n[streams.door.audio]"
        ));
        let plan = plan(&text).streams["door"].clone();
        assert_eq!(plan.audio.as_ref().unwrap().source, AudioInput::Pictures);
        assert_eq!(plan.sound_from().as_deref(), Some("rtsp://***@cam/1"));
    }
    let text = stream("source = \"a.mp4\"\n[streams.door.audio]\nloop = false");
    let warnings = parse(&text).unwrap().warnings;
    let said = warnings.iter().map(ToString::to_string);
    assert_eq!(
        said.filter(|said| said.contains("loop of audio")).count(),
        1
    );
}

#[test]
fn each_mistake_is_named_with_its_place_and_mend() {
    let long = "x".repeat(65);
    let long_socket = format!("[daemon]\nsocket = \"/{}\"", "s".repeat(107));
    // One mistake a line.
    #[rustfmt::skip]
    let bad: Vec<(String, usize, usize, &str, &str)> = vec![
        // TOML itself.
        ("[streams.door\n".into(), 1, 14, "not TOML", "write"),
        ("[http]\nlisten = 127.0.0.1:8080".into(), 2, 0, "not TOML", "put text in quotes"),
        (stream("framerate = 25"), 3, 1, "duplicate key", "keep one"),
        // Keys and types.
        ("[deamon]".into(), 1, 2, "no key \"deamon\"", "did you mean daemon?"),
        (stream("segmnet = \"2s\""), 3, 1, "no key \"segmnet\"", "did you mean segment?"),
        (stream("colour = 1"), 3, 1, "[streams.door] has no key \"colour\"", "known here: framerate"),
        (rendition("name = \"a\"\nbit_rate = \"1M\""), 5, 1, "no key \"bit_rate\"", "did you mean bitrate?"),
        (stream("rendition = []"), 3, 1, "no key \"rendition\"", "did you mean renditions?"),
        (stream("segment = 2"), 3, 11, "segment can't be integer `2`", "like \"2s\""),
        (stream("stale_after = true"), 3, 15, "boolean `true`", "in quotes"),
        (stream("slack = \"1\""), 3, 9, "slack can't be string \"1\"", "without quotes"),
        (stream("slack = -1"), 3, 9, "integer `-1`", "from 0 to 4"),
        ("http = 8080".into(), 1, 8, "[http] is a table, not a number", "write [http]"),
        ("[streams]\ndoor = 30".into(), 2, 8, "[streams.door] is a table", "write [streams.door]"),
        (stream("renditions = \"720p\""), 3, 14, "a list of tables, not text", "two brackets"),
        (stream("[streams.door.renditions]\nname = \"a\""), 3, 0, "a list of tables, not a table", "two brackets"),
        // The daemon.
        ("[daemon]\nsocket_mode = 660".into(), 2, 15, "socket_mode can't be integer `660`", "\"0660\""),
        ("[daemon]\nsocket_mode = \"rw\"".into(), 2, 15, "\"rw\"", "octal digits"),
        ("[daemon]\nsocket_mode = \"0060\"".into(), 2, 15, "\"0060\"", "daemon's own user"),
        (long_socket, 2, 10, "is 108 bytes long", "at most 107"),
        ("[daemon]\nsocket = \"\"".into(), 2, 10, "socket can't be string \"\"", "not empty"),
        ("[daemon]\nsocket = \"/var/lib/ringgear/live/s\"".into(), 2, 10, "in the publish dir", "outside"),
        ("[http]\nlisten = \"localhost\"".into(), 2, 10, "\"localhost\"", "127.0.0.1:8080"),
        ("[http]\nlisten = \":8080\"".into(), 2, 10, "\":8080\"", "0.0.0.0:8080"),
        ("[http]\nlisten = \"0.0.0.0:80\"\n[streams.door]\nframerate = 30".into(), 2, 10, "listen 0.0.0.0:80 lets other machines watch stream \"door\"", "allow_anyone"),
        ("[http]\nadmin_listen = \"[::]:80\"".into(), 2, 1, "admin_listen [::]:80", "admin_token_file"),
        ("[http]\nadmin_token_file = \"t\"".into(), 2, 1, "no effect without admin_listen", "admin_listen = "),
        ("[http]\nadmin_listen = \"127.0.0.1:8080\"".into(), 2, 1, "where viewers are served", "another port"),
        ("[http]\ntrusted_proxies = [\"10.0.0.1/8\"]".into(), 2, 20, "\"10.0.0.1/8\"", "10.0.0.0/8"),
        ("[http]\nconnections = 1".into(), 2, 15, "integer `1`", "from 64"),
        // What is secret is not shown.
        (stream("tokens = [\"hush\"]"), 3, 11, "tokens can't be what stands there", "openssl rand -hex 32"),
        (stream("tokens = [20261]"), 3, 11, "tokens can't be what stands there", "in quotes"),
        (stream("tokens = []"), 3, 10, "tokens is empty", "everybody"),
        (stream("signing_key = \"hush\""), 3, 15, "signing_key can't be what stands there", "20 to 256"),
        // A stream.
        ("[streams.Door]\nframerate = 30".into(), 1, 10, "character 'D'", "a to z"),
        ("[streams.metrics]\nframerate = 30".into(), 1, 10, "can't be named \"metrics\"", "another name"),
        (format!("[streams.{long}]\nframerate = 30"), 1, 10, "has 65 bytes", "at most 64"),
        ("[streams.door]\n".into(), 1, 10, "has no framerate", "framerate = 30"),
        ("[streams.door]\nframerate = 0".into(), 2, 13, "integer `0`", "1 to 240"),
        ("[streams.door]\nframerate = \"30/0\"".into(), 2, 13, "\"30/0\"", "1 to 240"),
        ("[streams.door]\nframerate = 1e300".into(), 2, 13, "framerate can't be floating point", "1 to 240"),
        ("[streams.door]\nframerate = \"ntsc\"".into(), 2, 13, "\"ntsc\"", "29.97"),
        (stream("segment = \"2 parsecs\""), 3, 11, "\"2 parsecs\"", "500ms to 20s"),
        (stream("segment = \"21s\""), 3, 11, "\"21s\"", "500ms to 20s"),
        (stream("part = \"50ms\""), 3, 8, "\"50ms\"", "100ms to 1s"),
        (stream("segment = \"500ms\"\npart = \"1s\""), 4, 8, "longer than its segment of 500ms", "at most 500ms"),
        ("[streams.slow]\nframerate = 1.5\npart = \"1s\"".into(), 3, 8, "is 2 ticks at framerate 3/2, which last 1334ms", "make it 667ms"),
        ("[streams.slow]\nframerate = 29.97\npart = \"1s\"\nslack = 5".into(), 4, 9, "integer `5`", ""),
        ("[streams.slow]\nframerate = 5\npart = \"100ms\"".into(), 3, 8, "shorter than one tick", "at least 200ms"),
        ("[streams.slow]\nframerate = 1\nsegment = \"500ms\"".into(), 3, 11, "shorter than one tick", "at least 1000ms"),
        (stream("window = \"10s\""), 3, 10, "fewer than 6 segments of 2s", "at least 12s"),
        (stream("stale_after = \"0s\""), 3, 15, "\"0s\"", "from 1ms"),
        (stream("backfill = \"2h\""), 3, 12, "\"2h\"", "to 1m"),
        (stream("mode = \"fast\""), 3, 8, "can't be \"fast\"", "\"vod\""),
        (stream("formats = [\"hls\", \"rtmp\"]"), 3, 19, "no format \"rtmp\"", "\"dash\""),
        (stream("formats = []"), 3, 11, "formats is empty", "[\"hls\", \"dash\"]"),
        (stream("formats = [\"hls\", \"hls\"]"), 3, 19, "listed twice", "once"),
        (stream("allow_users = []"), 3, 15, "allow_users is empty", "leave it out"),
        (stream("allow_users = \"cam\""), 3, 15, "allow_users", ""),
        (stream("allow_users = [\"root\", \"no such user\"]"), 3, 24, "no user named \"no such user\"", "useradd"),
        (stream("allow_users = [\"4294967294\"]"), 3, 16, "no user named", "without quotes"),
        (stream("allow_users = [-1]"), 3, 16, "-1", "a name in quotes"),
        (stream("allow_groups = [0, 4294967295]"), 3, 20, "4294967295", "a number from 0"),
        (stream("allow_groups = [\"no such group\"]"), 3, 17, "no group named", "groupadd"),
        (stream("at_exit = \"stop\""), 3, 11, "can't be \"stop\"", "\"keep\""),
        (stream("pace = \"fast\""), 3, 8, "can't be \"fast\"", "\"arrival\""),
        (stream("degrade = \"half\""), 3, 11, "can't be \"half\"", "\"skip\""),
        (stream("source = \"\""), 3, 10, "source can't be string \"\"", "not empty"),
        (stream("source = \"pipe:0\""), 3, 10, "source can't be \"pipe:0\"", "ringgear push"),
        (stream("source = \"a\"\ninput_args = [\"-i\", \"b\"]"), 4, 15, "can't have \"-i\"", "take it out"),
        (stream("source = \"a\"\ninput_args = [\"-re\", \"-stream_loop\", \"1\"]"), 4, 22, "source_loop is the key", "take it out"),
        (stream("source = \"a\"\ninput_args = [\"v4l2\"]"), 4, 15, "begins with \"v4l2\", which is no option", "[\"-f\", \"v4l2\"]"),
        (stream("source = \"a\"\ninput_args = \"-re\""), 4, 14, "input_args", ""),
        (stream("source = \"a\"\nsource_loop = \"yes\""), 4, 15, "source_loop can't be string \"yes\"", "true or false"),
        (stream("source = \"a\"\nsource_timeout = \"0s\""), 4, 18, "\"0s\"", "from 1s"),
        ("[ffmpeg]\nfailures = 1".into(), 2, 12, "integer `1`", "from 2 to 100"),
        ("[ffmpeg]\nretry_every = \"0s\"".into(), 2, 15, "\"0s\"", "from 1s"),
        (rendition("name = \"a\"\nfallback = \"libx265x\""), 5, 12, "no encoder", "libx265"),
        (rendition("name = \"a\"\nfallback = \"libx264\""), 5, 12, "the codec itself", "another"),
        (rendition("name = \"a\"\nfallback = \"h264_vaapi\""), 5, 12, "has no crf", "bitrate"),
        // A rendition.
        (rendition("size = \"1280x720\""), 3, 0, "has no name", "name = \"720p\""),
        (rendition("name = \"720p\"\nsize = \"1281x720\""), 5, 8, "\"1281x720\"", "even sides, like \"1282x720\""),
        (rendition("name = \"720p\"\nsize = \"99999x2\""), 5, 8, "\"99999x2\"", "from 2 to 16384"),
        (rendition("name = \"720p\"\nsize = \"720p\""), 5, 8, "\"720p\"", "1280x720"),
        (rendition("name = \"../x\""), 4, 8, "character '.'", "a to z"),
        (rendition("name = \"720p\"\n[[streams.door.renditions]]\nname = \"720p\""), 6, 8, "two renditions named \"720p\"", "rename"),
        (rendition("name = \"a\"\nbitrate = \"15k\""), 5, 11, "\"15k\"", "16k to 1000M"),
        (rendition("name = \"a\"\nbitrate = 2"), 5, 11, "integer `2`", "2500k"),
        (rendition("name = \"a\"\nbitrate = \"1M\"\ncrf = 23"), 6, 7, "both bitrate and crf", "keep bitrate"),
        (rendition("name = \"a\"\ncrf = 64"), 5, 7, "integer `64`", "0 to 63"),
        (rendition("name = \"a\"\ncrf = 52"), 5, 7, "52 with libx264", "to 51"),
        (rendition("name = \"a\"\ncodec = \"h264\""), 5, 9, "no encoder", "libx264"),
        (rendition("name = \"a\"\ncodec = \"h264_nvenc\""), 3, 0, "no bitrate", "bitrate ="),
        (rendition("name = \"a\"\npreset = \"veryfats\""), 5, 10, "no preset \"veryfats\"", "did you mean \"veryfast\"?"),
        (rendition("name = \"a\"\noptions = { g = 60 }"), 5, 13, "\"g\" can't be set: keyframes", "remove"),
        (rendition("name = \"a\"\noptions = { \"c:v\" = \"x\" }"), 5, 13, "\"c:v\" can't be set", "remove"),
        (rendition("name = \"a\"\noptions = { bf = 2 }"), 5, 13, "never reorder", "remove"),
        (rendition("name = \"a\"\noptions = { -y = 1 }"), 5, 13, "no option of an encoder", "leading -"),
        (rendition("name = \"a\"\noptions = { threads = true }"), 5, 23, "true or false", "1 and 0"),
        (rendition("name = \"a\"\noptions = { x264-params = \"ref=1:keyint=5\" }"), 5, 27, "can't set keyint", "remove keyint"),
        (rendition("name = \"a\"\ncodec = \"libx265\"\noptions = { x265-params = \"aq-mode=1:no-open-gop=1\" }"), 6, 27, "can't set no-open-gop", "remove no-open-gop"),
        (rendition("name = \"a\"\ncodec = \"libsvtav1\"\noptions = { svtav1-params = \"tune=0:keyint=9\" }"), 6, 29, "can't set keyint", "remove keyint"),
        (rendition("name = \"a\"\nframerate = 20"), 5, 13, "20 is no whole fraction of 30", "write \"15\", each picture of 2"),
        (rendition("name = \"a\"\nframerate = 60"), 5, 13, "60 is no whole fraction of 30", "leave it out"),
        (stream("[[streams.door.renditions]]\nname = \"a\"\nframerate = \"30/7\"\n[[streams.door.renditions]]\nname = \"b\"\nframerate = 6"), 1, 10, "no new picture in common within 1s", "each is a whole fraction of the next"),
        (rendition("name = \"a\"\ndevice = \"/dev/dri/renderD128\""), 5, 10, "\"libx264\" takes no device", "remove it"),
        (rendition("name = \"a\"\nbitrate = \"1M\"\ncodec = \"h264_vaapi\"\ndevice = \"renderD128\""), 7, 10, "no device \"renderD128\"", "/dev/dri/renderD128"),
        (rendition("name = \"a\"\nbitrate = \"1M\"\ncodec = \"h264_vaapi\"\n[[streams.door.renditions]]\nname = \"b\"\nbitrate = \"1M\"\ncodec = \"h264_qsv\""), 7, 0, "\"a\" and \"b\" need two devices", "two streams"),
        (rendition("name = \"a\"\nfilter = \"split[a][b];[a]hflip\""), 5, 10, "filter has '['", "one chain"),
        (rendition("name = \"a\"\nfilter = \"hflip,fps=10\""), 5, 10, "can't have \"fps\"", "framerate makes"),
        (rendition("name = \"a\"\nfilter = \"hflip,,vflip\""), 5, 10, "empty place", "commas"),
        (rendition("name = \"a\"\noutput_args = [\"-g\", \"60\"]"), 5, 16, "can't set \"-g\": keyframes", "remove"),
        (rendition("name = \"a\"\noutput_args = [\"-profile:v\", \"main\", \"x.mp4\"]"), 5, 38, "\"x.mp4\" where an option", "in turn"),
        (rendition("name = \"a\"\noutput_args = [\"-profile:v\"]"), 5, 16, "has no value", "behind it"),
        (rendition("name = \"a\"\ncodec = \"libx265\"\noutput_args = [\"-x265-params\", \"aq-mode=1\"]"), 6, 16, "of its own in it", "options"),
        // Sound.
        (stream("audio = true"), 3, 9, "[streams.NAME.audio] is a table, not true or false", "a line of its own"),
        (stream("[streams.door.audio]\nloop = true"), 3, 0, "audio has no source", "source = "),
        (audio("loop = \"yes\""), 5, 8, "loop can't be string \"yes\"", "true or false"),
        (audio("sauce = 1"), 5, 1, "no key \"sauce\"", "did you mean source?"),
        (audio("input_args = [\"-f\", \"alsa\", \"-i\"]"), 5, 14, "input_args can't have \"-i\"", "take it out"),
        (audio("input_args = [\"-v\", \"quiet\"]"), 5, 14, "Ringgear reads what FFmpeg says", "take it out"),
        (stream("[streams.door.audio]\nsource = \"producer\"\nloop = true"), 5, 8, "loop is for what FFmpeg reads", "\"./producer\""),
        (stream("[streams.door.audio]\nsource = \"producer\"\ninput_args = [\"-f\", \"alsa\"]"), 5, 14, "input_args is for what FFmpeg reads", "take it out"),
        (audio("renditions = 1"), 5, 14, "a list of tables, not a number", "two brackets"),
        (audio("[[streams.door.audio.renditions]]\ncodec = \"aac\""), 5, 0, "has no name", "name = \"audio\""),
        (audio("[[streams.door.audio.renditions]]\nname = \"source\""), 6, 8, "two renditions named \"source\"", "rename"),
        (audio("[[streams.door.audio.renditions]]\nname = \"a\"\ncodec = \"mp3\""), 7, 9, "codec \"mp3\"", "\"libopus\""),
        (audio("[[streams.door.audio.renditions]]\nname = \"a\"\nbitrate = \"1M\""), 7, 11, "1000000 is too high", "512k"),
    ];
    assert!(bad.len() >= 24);
    for (text, line, column, what, mend) in bad {
        let errors = parse(&text).expect_err(&text);
        let context = format!("{text}\n{errors}");
        assert_eq!(errors.errors.len(), 1, "{context}");
        let error = &errors.errors[0];
        let place = error.position.expect("an error in the text has its place");
        assert_eq!(place.line, line, "{context}");
        // Column 0 in the table: where TOML's parser puts it is its own choice.
        assert!(
            column == 0 || place.column == column,
            "column {column}?\n{context}"
        );
        assert!(error.what.contains(what), "{what}\n{context}");
        assert!(error.mend.contains(mend), "{mend}\n{context}");
        let prefix = format!("{FILE}:{}:{}: ", place.line, place.column);
        assert!(errors.to_string().starts_with(&prefix), "{context}");
        assert_eq!(errors.to_string().lines().count(), 1, "{context}");
    }
}

#[test]
fn all_mistakes_of_a_file_are_named_at_once_in_its_order() {
    let text = "\
[daemon]
sokcet = \"/x\"
socket_mode = 660

[http]
listen = \"here\"

[streams.Door]
framerate = 300
part = \"3s\"
window = \"1m\"

[streams.yard]
framerate = 30
window = \"4s\"

[[streams.yard.renditions]]
name = \"720p\"
size = \"1280x721\"
bitrate = 12
crf = 90

[[streams.yard.renditions]]
name = \"720P\"
options = { g = 5, bf = 1 }
";
    let errors = parse(text).unwrap_err();
    let places: Vec<_> = errors
        .errors
        .iter()
        .map(|error| error.position.map(|at| (at.line, at.column)).unwrap())
        .collect();
    let expected = [
        (2, 1),
        (3, 15),
        (6, 10),
        (8, 10),
        (9, 13),
        (10, 8),
        (15, 10),
        (19, 8),
        (20, 11),
        (21, 7),
        (24, 8),
        (24, 8),
        (25, 13),
        (25, 20),
    ];
    assert_eq!(places, expected, "{errors}");
}

#[test]
fn a_stream_needs_only_a_framerate() {
    let plan = plan("[streams.door]\nframerate = 30");
    let door = &plan.streams["door"];
    assert_eq!(plan.socket, Path::new("/run/ringgear/control.sock"));
    assert_eq!(plan.socket_mode, 0o660);
    assert_eq!(
        (
            door.grid.ticks_per_segment.get(),
            door.grid.ticks_per_part.get()
        ),
        (60, 10)
    );
    assert_eq!((door.window, door.slack), (Duration::from_secs(30), 1));
    assert_eq!(
        (door.hls, door.dash, door.at_exit),
        (true, true, AtExit::Keep)
    );
    let [source] = &door.renditions[..] else {
        panic!("one rendition")
    };
    assert_eq!((source.name.as_str(), source.size), ("source", None));
    assert_eq!(source.rate, RateControl::Crf(23));
}

#[test]
fn every_key_reaches_the_plan() {
    let plan = plan(
        r#"
        [daemon]
        socket = "/tmp/x.sock"
        socket_mode = "0600"
        tick_log = "ticks"
        [http]
        listen = "[::1]:9000"
        [publish]
        dir = "/srv/live"
        [ffmpeg]
        path = "bin/ffmpeg"
        [streams.a-b_1]
        framerate = 29.97
        mode = "live"
        segment = "1s"
        part = "200ms"
        window = "1m30s"
        stale_after = "3s"
        slack = 0
        backfill = "0s"
        max_bytes = "100MiB"
        encoder_timeout = "1s"
        formats = ["dash"]
        at_exit = "end"
        allow_users = ["root", 1000]
        allow_groups = [44]
        [[streams.a-b_1.renditions]]
        name = "hd"
        size = "1280x720"
        bitrate = "2.5M"
        codec = "libx265"
        preset = "fast"
        options = { threads = 2, aq-strength = 0.8, "profile:v" = "main" }
        filter = "hflip, eq=gamma=1.2"
        output_args = ["-level", "5.1"]
        [[streams.a-b_1.renditions]]
        name = "gpu"
        codec = "hevc_vaapi"
        device = "/dev/dri/renderD129"
        bitrate = "1M"
        framerate = "14.985"
        [[streams.a-b_1.renditions]]
        name = "av1"
        codec = "libsvtav1"
        crf = 40
        "#,
    );
    assert_eq!(plan.socket_mode, 0o600);
    assert_eq!(plan.tick_log.as_deref(), Some(Path::new("ticks")));
    assert_eq!(plan.listen, "[::1]:9000".parse().unwrap());
    assert_eq!(plan.publish_dir, Path::new("/srv/live"));
    assert_eq!(plan.ffmpeg, Path::new("bin/ffmpeg"));
    let stream = &plan.streams["a-b_1"];
    assert_eq!(stream.grid.framerate.to_string(), "30000/1001");
    assert_eq!(
        (
            stream.grid.ticks_per_segment.get(),
            stream.grid.ticks_per_part.get()
        ),
        (30, 6)
    );
    assert_eq!(stream.window, Duration::from_secs(90));
    assert_eq!(stream.stale_after, Duration::from_secs(3));
    assert_eq!((stream.slack, stream.backfill), (0, Duration::ZERO));
    assert_eq!(stream.max_bytes, Some(100 << 20));
    assert_eq!(stream.encoder_timeout, Duration::from_secs(1));
    assert_eq!(
        (stream.hls, stream.dash, stream.at_exit),
        (false, true, AtExit::End)
    );
    let root = Account {
        id: 0,
        name: Some("root".into()),
    };
    let unnamed = |id| Account { id, name: None };
    assert_eq!(stream.feeders.users, [root, unnamed(1000)]);
    assert_eq!(stream.feeders.groups, [unnamed(44)]);
    let [hd, gpu, av1] = &stream.renditions[..] else {
        panic!("three renditions")
    };
    assert_eq!(hd.filter.as_deref(), Some("hflip, eq=gamma=1.2"));
    assert_eq!(hd.output_args, ["-level", "5.1"]);
    assert_eq!(gpu.device.as_deref(), Some("/dev/dri/renderD129"));
    assert_eq!((hd.every.get(), gpu.every.get()), (1, 2));
    assert_eq!(hd.size, Some(Size::new(1280, 720)));
    assert_eq!(
        (hd.codec.as_str(), hd.preset.as_deref()),
        ("libx265", Some("fast"))
    );
    assert_eq!(hd.rate, RateControl::Bitrate(2_500_000));
    let options: Vec<_> = hd
        .options
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        options,
        [
            ("aq-strength", "0.8"),
            ("profile:v", "main"),
            ("threads", "2")
        ]
    );
    assert_eq!(
        (av1.preset.as_deref(), av1.rate),
        (Some("10"), RateControl::Crf(40))
    );
}

#[test]
fn a_part_defaults_to_a_tick_where_that_is_longer() {
    for (rate, ticks) in [("1", 1), ("2", 1), ("3", 1), ("240", 80)] {
        let plan = plan(&format!("[streams.s]\nframerate = {rate}"));
        assert_eq!(plan.streams["s"].grid.ticks_per_part.get(), ticks, "{rate}");
    }
}

#[test]
fn the_default_window_grows_with_long_segments() {
    let plan = plan(&stream("segment = \"20s\""));
    assert_eq!(plan.streams["door"].window, Duration::from_secs(120));
}

#[test]
fn relative_paths_start_at_the_configs_folder() {
    let text = "[publish]\ndir = \"live\"\n[ffmpeg]\npath = \"ffmpeg6\"";
    let plan = config::parse(text, Path::new("/etc/cams/x.toml"), &Environment::TEXT_ONLY);
    let plan = plan.unwrap().plan;
    assert_eq!(plan.publish_dir, Path::new("/etc/cams/live"));
    assert_eq!(
        plan.ffmpeg,
        Path::new("ffmpeg6"),
        "a bare name is looked up in $PATH"
    );
}

#[test]
fn what_works_but_is_hardly_meant_is_a_warning() {
    let loaded = parse("").unwrap();
    assert!(loaded.warnings[0].to_string().contains("no streams"));
    let loaded = parse(&format!("[daemon]\nsocket_mode = \"0666\"\n{}", stream(""))).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    let warning = loaded.warnings[0].to_string();
    assert!(
        warning.starts_with("bad.toml:2:15: socket_mode 0666 lets every user"),
        "{warning}"
    );
    let loaded = parse(
        "[limits]\nwindow_memory = \"96MiB\"\n[streams.cam]\nframerate = 25\nwindow = \"60s\"\n[[streams.cam.renditions]]\nname = \"a\"\nbitrate = \"8M\"\n",
    );
    let warning = loaded.unwrap().warnings[0].to_string();
    assert!(
        warning.starts_with("bad.toml:2:17: the windows hold about 123 MiB")
            && warning.ends_with("raise [limits] window_memory, shorten windows or lower bitrates"),
        "{warning}"
    );
    let loaded = parse(&format!("[ffmpeg]\nfailures = 14\n{}", stream("")));
    let warning = loaded.unwrap().warnings[0].to_string();
    assert!(
        warning.starts_with("bad.toml:2:12: an encoder that fails at each start is started 14 times in 1m 3s 750ms, but failures_within is 1m,"),
        "{warning}"
    );
    let loaded = parse(&format!("[ffmpeg]\nfailures = 13\n{}", stream("")));
    assert_eq!(loaded.unwrap().warnings, []);
}

#[test]
fn a_sources_keys_that_do_nothing_are_warned_of() {
    let warnings = |rest: &str| -> Vec<String> {
        let loaded = parse(&stream(rest)).unwrap();
        loaded.warnings.iter().map(ToString::to_string).collect()
    };
    for (rest, what) in [
        (
            "source_loop = true",
            "3:15: source_loop does nothing without a source",
        ),
        (
            "source = \"a\"\nallow_users = [0]",
            "4:15: allow_users does nothing: the stream has a source",
        ),
        (
            "mode = \"vod\"\nsource = \"a\"\nsource_loop = true",
            "5:15: a recording of a source that begins again and again never ends",
        ),
        (
            "source = \"/dev/video0\"\nsource_loop = true",
            "4:15: source_loop does nothing: a device has no end",
        ),
    ] {
        let found = warnings(rest);
        assert!(
            found.len() == 1 && found[0].contains(what),
            "{rest}: {found:?}"
        );
    }
}

#[test]
fn a_source_is_taken_from_the_configs_folder_and_warned_of_while_it_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::write(root.join("there.mp4"), "").unwrap();
    let check = |source: &str| {
        let text = format!(
            "[daemon]\nsocket = \"s\"\n[publish]\ndir = \"live\"\n{}",
            stream(&format!("source = {source:?}"))
        );
        config::parse(&text, &root.join("c.toml"), &Environment::FOLDERS).unwrap()
    };
    let loaded = check("there.mp4");
    assert_eq!(loaded.warnings, []);
    let source = loaded.plan.streams["door"].source.clone().unwrap();
    assert_eq!(source.input, SourceInput::File(root.join("there.mp4")));
    assert_eq!(
        (source.repeat, source.timeout),
        (false, Duration::from_secs(10))
    );
    for (source, what, mend) in [
        (
            "later.mp4",
            "later.mp4 is not there",
            "until then it is looked for",
        ),
        (".", "is a folder", "name a file in it"),
        (
            "/dev/video-none",
            "/dev/video-none is not there",
            "put the device there",
        ),
    ] {
        let warnings = check(source).warnings;
        let [warning] = &warnings[..] else {
            panic!("{source}: {warnings:?}")
        };
        assert_eq!(
            warning.position.map(|at| (at.line, at.column)),
            Some((7, 10))
        );
        assert!(
            warning.what.contains(what) && warning.mend.contains(mend),
            "{warning}"
        );
    }
    for source in ["rtsp://cam/1", "frames-%04d.png"] {
        assert_eq!(check(source).warnings, [], "{source}");
    }
}

#[test]
fn folders_are_checked_and_none_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::write(root.join("file"), "").unwrap();
    let check = |socket: &str, dir: &str| {
        let text = format!(
            "[daemon]\nsocket = {socket:?}\n[publish]\ndir = {dir:?}\n{}",
            stream("")
        );
        config::parse(&text, &root.join("c.toml"), &Environment::FOLDERS)
    };
    assert!(check("s", "live/deep/down").is_ok());
    assert!(!root.join("live").exists(), "a check changes nothing");
    for (socket, dir, line, what, mend) in [
        ("no/s", "live", 2, "no doesn't exist", "create it"),
        ("file", "live", 2, "is no socket", "another path"),
        (
            "file/s",
            "live",
            2,
            "so the socket can't be there",
            "another path",
        ),
        ("s", "file", 4, "file is no folder", "another folder"),
        ("s", "file/live", 4, "file is no folder", "another folder"),
    ] {
        let errors = check(socket, dir).unwrap_err();
        let error = &errors.errors[0];
        assert_eq!(error.position.map(|at| at.line), Some(line), "{errors}");
        assert!(
            error.what.contains(what) && error.mend.contains(mend),
            "{errors}"
        );
    }
}

#[test]
fn a_folder_of_recordings_that_cant_be_used_is_warned_of_where_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::write(root.join("file"), "").unwrap();
    let warnings = |keep_free: &str, record: &str| -> Vec<String> {
        let text = format!(
            "[daemon]\nsocket = \"s\"\n[publish]\ndir = \"live\"\nkeep_free = {keep_free:?}\n{}",
            stream(&format!("[streams.door.record]\nkeep = \"1h\"\n{record}"))
        );
        let loaded = config::parse(&text, &root.join("c.toml"), &Environment::FOLDERS).unwrap();
        loaded.warnings.iter().map(ToString::to_string).collect()
    };
    assert!(warnings("0", "").is_empty());
    assert!(warnings("0", "dir = \"kept\"").is_empty());
    let unusable = warnings("0", "dir = \"file\"");
    assert_eq!(unusable.len(), 1, "{unusable:?}");
    let column = "dir = ".len() + 1;
    let place = format!("c.toml:10:{column}: record dir ");
    assert!(
        unusable[0].contains(&place)
            && unusable[0].contains(
                "is no folder, so nothing of stream door is recorded: name another folder"
            ),
        "{unusable:?}"
    );
    let full = warnings("1024GiB", "dir = \"kept\"");
    // Some disk may have more.
    let has_little = full.iter().any(|warning| warning.contains("publish dir"));
    let is_warned_of = full
        .iter()
        .any(|warning| warning.contains(&place) && warning.contains("twice the keep_free"));
    assert!(is_warned_of || !has_little, "{full:?}");
}

#[test]
fn an_unwritable_folder_is_an_error() {
    // Root may write anywhere but where nobody may: the kernel's own file systems.
    let folder = tempfile::tempdir().unwrap();
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    let closed = if rustix::process::geteuid().is_root() {
        PathBuf::from("/proc/1/net")
    } else {
        closed
    };
    let socket = folder.path().join("s");
    let text = format!(
        "[daemon]\nsocket = {socket:?}\n[publish]\ndir = {:?}",
        closed.join("live")
    );
    let result = config::parse(&text, Path::new(FILE), &Environment::FOLDERS);
    if let Ok(loaded) = &result {
        // Root in a container that may do even this has nothing to be refused.
        assert!(rustix::process::geteuid().is_root(), "{loaded:?}");
        return;
    }
    let errors = result.unwrap_err().to_string();
    assert!(errors.starts_with("bad.toml:4:7: publish dir"), "{errors}");
}

#[test]
fn a_missing_encoder_is_named_at_each_rendition_that_wants_it() {
    let ask = |path: &Path, codecs: &[&str]| {
        assert_eq!(path, Path::new("ffmpeg"));
        assert_eq!(codecs, ["libsvtav1", "libx264"]);
        vec![FfmpegProblem::told(
            Some("libsvtav1"),
            "this FFmpeg has no encoder libsvtav1: install one that has",
        )]
    };
    let environment = Environment {
        ffmpeg: Some(&ask),
        ..Environment::TEXT_ONLY
    };
    let text = rendition(
        "name = \"a\"\ncodec = \"libsvtav1\"\n[[streams.door.renditions]]\nname = \"b\"\n\
         [[streams.door.renditions]]\nname = \"c\"\ncodec = \"libsvtav1\"",
    );
    let errors = config::parse(&text, Path::new(FILE), &environment).unwrap_err();
    let lines: Vec<_> = errors
        .errors
        .iter()
        .map(|e| e.position.unwrap().line)
        .collect();
    assert_eq!(lines, [5, 10], "{errors}");
    assert_eq!(errors.errors[0].mend, "install one that has");
}

#[test]
fn a_file_that_is_no_text_is_refused_with_its_place() {
    let bytes = b"[daemon]\nsocket = \"\xff\"";
    let errors = config::parse_bytes(bytes, Path::new(FILE), &Environment::TEXT_ONLY).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "bad.toml:2:11: byte 0xff is not UTF-8: save the file as UTF-8"
    );
}

#[test]
fn a_config_that_is_not_there_says_how_to_name_one() {
    let error = config::find(Some("/nowhere/x.toml".into()))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("/nowhere/x.toml: the config can't be read"),
        "{error}"
    );
    assert!(error.ends_with("--config FILE"), "{error}");
}

#[test]
fn check_prints_a_good_config_and_refuses_a_bad_one_with_all_its_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let args = CheckArgs {
            file: Some(file.clone()),
            ..CheckArgs::default()
        };
        check::run(args, &|_, _| Vec::new())
    };
    let machine =
        "[daemon]\nsocket = \"s\"\n[http]\nlisten = \"127.0.0.1:0\"\n[publish]\ndir = \"live\"\n";
    check(&format!("{machine}{}", stream(""))).unwrap();
    let error = check(&format!("{machine}{}", stream("part = 1\nslack = 9"))).unwrap_err();
    let CliError::Config(errors) = error else {
        panic!("a bad config is its own kind of error");
    };
    let text = errors.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        lines[0].starts_with(&format!("{}:9:8: part", file.display())),
        "{text}"
    );
    assert!(
        lines[1].starts_with(&format!("{}:10:9: slack", file.display())),
        "{text}"
    );
}

/// A config with a value of each kind.
const GOOD: &str = r#"
[daemon]
socket = "/run/ringgear/control.sock"
socket_mode = "0660"

[http]
listen = "127.0.0.1:8080"

[streams.door]
framerate = 29.97
segment = "2s"
slack = 1
formats = ["hls", "dash"]

[[streams.door.renditions]]
name = "720p"
size = "1280x720"
bitrate = "2.5M"
options = { threads = 2, x264-params = "ref=1" }

[[streams.door.renditions]]
name = "av1"
codec = "libsvtav1"
crf = 40
"#;

#[test]
fn the_config_that_is_mangled_below_is_good() {
    assert_eq!(plan(GOOD).streams["door"].renditions.len(), 2);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = config::parse_bytes(&bytes, Path::new(FILE), &Environment::TEXT_ONLY);
    }

    #[test]
    fn a_good_config_with_any_stretch_replaced_never_panics(
        at in any::<prop::sample::Index>(),
        cut in 0_usize..20,
        put in "[\\[\\]{}\"'=.#\n a-z0-9üé\u{7f}\u{0}-]{0,12}",
    ) {
        let good = GOOD;
        let characters: Vec<char> = good.chars().collect();
        let at = at.index(characters.len());
        let rest = &characters[(at + cut).min(characters.len())..];
        let text: String = characters[..at].iter().copied().chain(put.chars()).chain(rest.iter().copied()).collect();
        if let Err(errors) = parse(&text) {
            let lines = text.lines().count() + 1;
            prop_assert!(!errors.errors.is_empty());
            for error in &errors.errors {
                prop_assert!(error.position.is_some_and(|at| (1..=lines).contains(&at.line)));
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }
}

/// What comes of a config in a folder with files of secrets.
fn parse_beside_secrets(http: &str, keys: &str) -> Result<config::Loaded, ConfigErrors> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text, mode) in [
        (
            "secret",
            "# of the wall\n\na-token-that-nobody-guesses\n",
            0o640,
        ),
        ("open", "a-token-that-nobody-guesses", 0o644),
        ("short", "a-token-that-nobody-guesses\nhush\n", 0o600),
        ("empty", "\n# nothing\n", 0o600),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let text = format!("[http]\n{http}\n{}", stream(keys));
    config::parse(
        &text,
        &folder.path().join("config.toml"),
        &Environment::SECRETS,
    )
}

#[test]
fn other_machines_are_served_with_what_keeps_them_out_or_if_the_config_says_that_nothing_has_to() {
    for (http, keys, good) in [
        ("listen = \"0.0.0.0:80\"", "", false),
        ("listen = \"192.0.2.1:80\"", "", false),
        ("listen = \"0.0.0.0:80\"\nallow_anyone = false", "", false),
        ("listen = \"0.0.0.0:80\"\nallow_anyone = true", "", true),
        (
            "listen = \"0.0.0.0:80\"\ntls_certificate = \"c\"\ntls_key = \"k\"",
            "",
            true,
        ),
        ("listen = \"0.0.0.0:80\"", "token_file = \"secret\"", true),
        (
            "listen = \"0.0.0.0:80\"",
            "token_file = \"secret\"\n[streams.gate]\nframerate = 30",
            false,
        ),
        ("listen = \"127.0.0.2:80\"", "", true),
        ("listen = \"[::ffff:127.0.0.1]:80\"", "", true),
        ("listen = \"[::1]:80\"", "", true),
        (
            "admin_listen = \"0.0.0.0:80\"\nadmin_token_file = \"secret\"",
            "",
            true,
        ),
    ] {
        let parsed = parse_beside_secrets(http, keys);
        assert_eq!(parsed.is_ok(), good, "{http} {keys}: {parsed:?}");
    }
}

#[test]
fn files_of_secrets_are_read_if_not_everybody_may_and_nothing_of_them_is_shown() {
    let keys = "token_file = \"secret\"\ntokens = [\"another-token-of-twenty\"]\nsigning_key_file = \"secret\"";
    let loaded = parse_beside_secrets("", keys).unwrap();
    let access = &loaded.plan.streams["door"].access;
    assert_eq!((access.tokens.len(), access.keys.len()), (2, 1));
    assert!(access.admits_token("a-token-that-nobody-guesses"));
    assert!(access.admits_token("another-token-of-twenty"));
    assert!(!format!("{:?}", loaded.plan).contains("token-"));
    for (file, told) in [
        ("open", "is open to every user (mode 0644): chmod o="),
        ("short", "short can't be used: write 20 to 256"),
        ("empty", "empty is empty"),
        ("none", "can't be read: No such file"),
        ("folder", "it is no plain file"),
    ] {
        let refused = parse_beside_secrets("", &format!("signing_key_file = \"{file}\""));
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.contains(told) && refused.contains("config.toml:5:"),
            "{refused}"
        );
        assert!(
            !refused.contains("hush") && !refused.contains("nobody"),
            "{refused}"
        );
    }
}
