//! Sound beside the picture: published by the same rules, in step with it, and never in its way.

use std::process::Command;
use std::time::Duration;

use ringgear::status::{AudioStatus, StreamState};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::beside_others;
use crate::harness::broken_ffmpeg::BrokenFfmpeg;
use crate::harness::checker::Checker;
use crate::harness::clap::claps;
use crate::harness::daemon::Daemon;
use crate::harness::hls::{self, MediaPlaylist};
use crate::harness::place::{Place, give_to_daemon};
use crate::harness::process::run;
use crate::harness::streams::small_stream;
use crate::harness::tick_log::{self, Kind};
use crate::harness::tone::loudness;
use crate::harness::wait_for;

/// However late the picture's encoder is, there is no gap.
const WITHOUT_HASTE: &str = "window = \"60s\"\nbackfill = \"30s\"";

/// Makes a file of `seconds` of a tone in `place`, in a rate and with channels that are not the published ones.
pub(super) fn tone(place: &Place, seconds: u32) -> String {
    let path = place.path().join("tone.flac");
    let source = format!("sine=frequency=440:sample_rate=44100:duration={seconds}");
    let out = run(
        Command::new("ffmpeg")
            .args(["-v", "error", "-f", "lavfi", "-i", &source])
            .args(["-af", "volume=4", "-ac", "1"])
            .arg(&path),
        Duration::from_secs(20),
    );
    assert_eq!(out.code, Some(0), "{out:?}");
    give_to_daemon(&path);
    path.to_str().unwrap().to_owned()
}

pub(super) fn audio(daemon: &Daemon) -> Option<AudioStatus> {
    daemon.stream("cam").audio
}

fn signal(pid: Option<u32>) {
    let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    kill_process(pid.expect("it runs"), Signal::KILL).unwrap();
}

pub(super) fn playlist(daemon: &Daemon, rendition: &str) -> Option<MediaPlaylist> {
    let folder = daemon.place.live().join("cam").join(rendition);
    let text = std::fs::read_to_string(folder.join("media.m3u8")).ok()?;
    hls::media(&text).ok()
}

/// The newest segment that `rendition` lists.
fn newest(daemon: &Daemon, rendition: &str) -> Option<u64> {
    Some(playlist(daemon, rendition)?.segments.last()?.number)
}

/// Waits until `rendition` lists `more` segments more than it does.
pub(super) fn wait_for_segments(daemon: &Daemon, rendition: &str, more: u64) {
    let soon = Duration::from_secs(30);
    let before = wait_for("segments are listed", soon, || newest(daemon, rendition));
    wait_for("new segments are listed", soon, || {
        (newest(daemon, rendition)? >= before + more).then_some(())
    });
}

#[test]
fn sound_is_published_beside_the_picture_and_its_faults_disturb_no_tick() {
    let _machine = beside_others();
    let place = Place::new();
    let file = tone(&place, 2);
    let streams = small_stream("cam", WITHOUT_HASTE)
        + &format!(
            "[streams.cam.audio]\nsource = {file:?}\n\
             [[streams.cam.audio.renditions]]\nname = \"aac\"\n\
             [[streams.cam.audio.renditions]]\nname = \"opus\"\ncodec = \"libopus\"\nbitrate = \"64k\"\n"
        );
    let mut daemon = Daemon::start_in(place, &streams, &[]);
    let checker = Checker::over_http(&daemon, "cam");
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    wait_for("the tone is heard", Duration::from_secs(30), || {
        let playlist = playlist(&daemon, "aac")?;
        let loudness = loudness(&daemon.place.live().join("cam/aac"), &playlist);
        loudness.iter().any(|loud| *loud > 0.2).then_some(())
    });
    wait_for_segments(&daemon, "aac", 2);
    let before = daemon.stream("cam");
    for deaths in 1..=3 {
        signal(audio(&daemon).and_then(|audio| audio.encoder_pid));
        wait_for("another encoder runs", Duration::from_secs(15), || {
            let audio = audio(&daemon)?;
            (audio.encoder_restarts == deaths && audio.encoder_pid.is_some()).then_some(())
        });
    }
    wait_for_segments(&daemon, "aac", 3);
    let whole = playlist(&daemon, "aac").unwrap();

    // From its beginning on, all that was published is the tone, before the encoder's deaths and after them.
    for rendition in ["aac", "opus"] {
        let folder = daemon.place.live().join("cam").join(rendition);
        let mut playlist = playlist(&daemon, rendition).unwrap();
        playlist
            .segments
            .retain(|segment| segment.number <= whole.segments.last().unwrap().number);
        assert!(
            playlist
                .segments
                .iter()
                .all(|segment| !segment.gap && !segment.discontinuity)
        );
        let loudness = loudness(&folder, &playlist);
        let first = loudness.iter().position(|loud| *loud > 0.2).unwrap();
        let silent = loudness[first + 2..]
            .iter()
            .filter(|loud| **loud < 0.2)
            .count();
        // Where a file begins again, its resampler does too.
        assert!(
            silent <= 2,
            "{rendition}: {silent} of {} blocks are silent",
            loudness.len()
        );
    }

    signal(audio(&daemon).and_then(|audio| audio.source_pid));
    wait_for("the source plays again", Duration::from_secs(20), || {
        let audio = audio(&daemon)?;
        (audio.source_restarts == 1 && audio.playing).then_some(())
    });
    wait_for_segments(&daemon, "aac", 2);
    let after = daemon.stream("cam");
    assert_eq!(
        after.encoder.restarts, before.encoder.restarts,
        "the video's encoder"
    );
    assert_eq!(after.encoder.pid, before.encoder.pid);
    assert_eq!((after.ticks.missed, after.restarts), (0, 0));

    // A daemon that dies goes on where it was, in sound too.
    daemon.kill();
    daemon.wait(Duration::from_secs(5));
    daemon.restart();
    wait_for_segments(&daemon, "aac", 3);
    // While nothing runs, nothing new can appear.
    checker.finish().assert_clean_but(&[5]);
    for rendition in ["small", "aac", "opus"] {
        let playlist = playlist(&daemon, rendition).unwrap();
        let broken = playlist
            .segments
            .iter()
            .find(|segment| segment.gap || segment.discontinuity);
        assert_eq!(broken, None, "{rendition}");
    }
}

#[test]
fn a_stream_whose_sound_cant_be_encoded_says_why_and_begins_by_itself_once_it_can() {
    const SOON: Duration = Duration::from_secs(30);
    let _machine = beside_others();
    let ffmpeg = BrokenFfmpeg::at("-c:a aac", "[ -e BROKEN ]");
    ffmpeg.break_it();
    let config = ffmpeg.config("failures = 2\nretry_every = \"1s\"")
        + &small_stream("cam", "")
        + "[streams.cam.audio]\nsource = \"producer\"\n";
    let daemon = Daemon::start(&config);
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    let failed = daemon.wait_for_state("cam", StreamState::Failed, SOON);
    let detail = failed.detail.unwrap();
    assert!(detail.contains("the device is lost"), "{detail}");
    let sound = failed.audio.and_then(|audio| audio.detail).unwrap();
    assert!(sound.contains("the device is lost"), "{sound}");
    ffmpeg.mend_it();
    let live = daemon.wait_for_state("cam", StreamState::Live, SOON);
    assert_eq!(live.detail, None);
    wait_for_segments(&daemon, "audio", 1);
}

#[test]
fn silence_stands_for_a_sound_whose_encoder_keeps_failing() {
    const SOON: Duration = Duration::from_secs(30);
    let _machine = beside_others();
    let place = Place::new();
    let file = tone(&place, 60);
    // What is tried at the start works.
    let ffmpeg = BrokenFfmpeg::at("-output_ts_offset 1", "[ -e BROKEN ]");
    let config = ffmpeg.config("failures = 2\nretry_every = \"1s\"")
        + &small_stream("cam", WITHOUT_HASTE)
        + &format!(
            "[streams.cam.audio]\nsource = {file:?}\n\
             [[streams.cam.audio.renditions]]\nname = \"aac\"\n\
             [[streams.cam.audio.renditions]]\nname = \"opus\"\ncodec = \"libopus\"\n"
        );
    let mut daemon = Daemon::start_in(place, &config, &[]);
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    wait_for("the tone is heard", SOON, || {
        let playlist = playlist(&daemon, "aac")?;
        let loudness = loudness(&daemon.place.live().join("cam/aac"), &playlist);
        loudness.iter().any(|loud| *loud > 0.2).then_some(())
    });
    wait_for_segments(&daemon, "aac", 2);
    let begun = newest(&daemon, "aac").unwrap();
    ffmpeg.break_it();
    signal(audio(&daemon).and_then(|audio| audio.encoder_pid));
    wait_for("the encoder is given up", SOON, || {
        let detail = audio(&daemon)?.detail?;
        detail.contains("the device is lost").then_some(())
    });
    wait_for_segments(&daemon, "aac", 3);
    // So it does for one that never worked since the daemon began.
    daemon.kill();
    daemon.wait(Duration::from_secs(5));
    daemon.restart();
    wait_for_segments(&daemon, "aac", 3);
    ffmpeg.mend_it();
    wait_for("it works again", SOON, || {
        audio(&daemon)?.detail.is_none().then_some(())
    });
    wait_for_segments(&daemon, "aac", 3);
    for rendition in ["aac", "opus"] {
        let mut playlist = playlist(&daemon, rendition).unwrap();
        let broken = |segment: &hls::Listed| segment.gap || segment.discontinuity;
        assert!(!playlist.segments.iter().any(broken), "{playlist:?}");
        playlist.segments.retain(|segment| segment.number >= begun);
        let folder = daemon.place.live().join("cam").join(rendition);
        let loudness = loudness(&folder, &playlist);
        let quiet = |loudness: &f32| *loudness < 0.01;
        let runs = loudness.chunk_by(|a, b| quiet(a) == quiet(b));
        let longest = runs.filter(|run| quiet(&run[0])).map(<[f32]>::len).max();
        // A block is 20 ms.
        assert!(longest > Some(100), "{rendition}: {longest:?}");
        let faint = loudness.iter().filter(|loud| **loud < 0.2).count();
        let beside = faint - longest.unwrap();
        assert!(
            beside <= 10,
            "{rendition}: {beside} blocks beside the silence"
        );
    }
    assert_eq!(daemon.stream("cam").encoder.restarts, 0);
}

pub(super) mod alone {
    use super::*;
    use crate::harness::alone;

    #[test]
    fn a_flash_and_a_click_of_one_moment_are_published_less_than_20_ms_apart() {
        let _machine = alone();
        let place = Place::new();
        let fifo = place.path().join("clap");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o666),
            0,
        )
        .unwrap();
        std::fs::set_permissions(&fifo, std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .unwrap();
        let streams = small_stream("cam", "window = \"60s\"")
            + &format!(
                "[streams.cam.audio]\nsource = {:?}\ninput_args = [\"-f\", \"s16le\", \"-ar\", \"48000\", \"-ac\", \"1\"]\n",
                fifo.to_str().unwrap()
            );
        let daemon = Daemon::start_in(place, &streams, &[]);
        let fifo = fifo.to_str().unwrap().to_owned();
        let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180", "--clap", &fifo]);
        daemon.wait_until_playable("cam");
        wait_for_segments(&daemon, "audio", 14);
        assert_in_step(&daemon, 4000.0);
    }

    /// Each click is heard with its flash, from so many milliseconds after the first on. What a flash was late by itself, because the machine stood
    /// still, is no lateness of the click.
    pub(crate) fn assert_in_step(daemon: &Daemon, settled: f64) {
        // A flash or two may have been passed over.
        let pairs = wait_for(
            "four flashes with their clicks",
            Duration::from_secs(30),
            || Some(flashes_and_clicks(daemon, settled)).filter(|pairs| pairs.len() >= 4),
        );
        eprintln!("clicks after their flashes, in ms: {pairs:.1?}");
        let mut off: Vec<f64> = pairs.iter().map(|(_, error)| error.abs()).collect();
        off.sort_by(f64::total_cmp);
        assert!(off[off.len() - 1] < 20.0, "{pairs:?}");
    }

    /// When each flash was shown, and by how much its click was heard later or earlier than the pictures of those seconds are shown after their
    /// captures, in milliseconds: so late flashes would be, but for what the machine did to each. The log of ticks tells it.
    fn flashes_and_clicks(daemon: &Daemon, settled: f64) -> Vec<(f64, f64)> {
        let live = daemon.place.live().join("cam");
        let (flashes, clicks) = claps(&live, "small", "audio");
        let log = tick_log::read(&daemon.place.tick_logs(), "cam");
        // 25 ticks a second. The log's clock begins elsewhere: only differences count.
        #[allow(clippy::cast_precision_loss)]
        let shown = |row: &tick_log::Row| row.tick as f64 * 40.0;
        #[allow(clippy::cast_precision_loss)]
        let lag = |row: &tick_log::Row| shown(row) - row.captured as f64 / 1e6;
        let fresh: Vec<_> = log.iter().filter(|row| row.kind == Kind::Fresh).collect();
        let lags: Vec<f64> = fresh.iter().copied().map(lag).collect();
        // What most pictures of a second are late by, over the last seconds: the least and the most of it.
        let usual = |at: usize| {
            let middle = |end: usize| {
                let mut second = lags[end.saturating_sub(31)..=end].to_vec();
                second.sort_by(f64::total_cmp);
                second[second.len() / 2]
            };
            let middles = (at.saturating_sub(75)..lags.len().min(at + 25)).map(middle);
            middles.fold((f64::MAX, f64::MIN), |(least, most), one| {
                (least.min(one), most.max(one))
            })
        };
        // Those of the first seconds, in which the source's latency was found out, don't count, nor what is not there in both.
        let from = flashes[0] + settled;
        flashes
            .iter()
            .filter(|flash| **flash > from)
            .filter_map(|flash| {
                let click = clicks.iter().find(|click| (*click - flash).abs() < 500.0)?;
                let at = fresh
                    .iter()
                    .position(|row| (shown(row) - flash).abs() < 20.0)?;
                let heard = click - flash + lags[at];
                let (least, most) = usual(at);
                Some((*flash, heard - heard.clamp(least, most)))
            })
            .collect()
    }
}
