//! Sound beside the picture: published by the same rules, in step with it, and never in its way.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ringgear::status::AudioStatus;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::beside_others;
use crate::harness::checker::Checker;
use crate::harness::clap::{claps, samples};
use crate::harness::daemon::Daemon;
use crate::harness::hls::{self, MediaPlaylist};
use crate::harness::place::{Place, give_to_daemon};
use crate::harness::process::run;
use crate::harness::streams::small_stream;
use crate::harness::wait_for;

/// A block of samples whose loudness is looked at.
const BLOCK: usize = 960;

/// Makes a file of `seconds` of a tone in `place`, in a rate and with channels that are not the published ones.
fn tone(place: &Place, seconds: u32) -> String {
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

/// Waits until `rendition` lists `more` segments more than it does.
pub(super) fn wait_for_segments(daemon: &Daemon, rendition: &str, more: u64) {
    let last = |daemon: &Daemon| Some(playlist(daemon, rendition)?.segments.last()?.number);
    let soon = Duration::from_secs(30);
    let before = wait_for("segments are listed", soon, || last(daemon));
    wait_for("new segments are listed", soon, || {
        (last(daemon)? >= before + more).then_some(())
    });
}

/// How loud what `playlist` lists is: the root mean square of each block of 20 ms.
pub(super) fn loudness(folder: &Path, playlist: &MediaPlaylist) -> Vec<f32> {
    let square = |block: &[f32]| block.iter().map(|value| value * value).sum::<f32>();
    #[allow(clippy::cast_precision_loss)]
    let loudness = |block: &[f32]| (square(block) / block.len() as f32).sqrt();
    let samples = samples(folder, playlist);
    samples.chunks_exact(BLOCK).map(loudness).collect()
}

#[test]
fn sound_is_published_beside_the_picture_and_its_faults_disturb_no_tick() {
    let _machine = beside_others();
    let place = Place::new();
    let file = tone(&place, 2);
    let streams = small_stream("cam", "window = \"60s\"")
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
    signal(audio(&daemon).and_then(|audio| audio.encoder_pid));
    wait_for("another encoder runs", Duration::from_secs(15), || {
        (audio(&daemon)?.encoder_restarts == 1).then_some(())
    });
    wait_for_segments(&daemon, "aac", 3);
    let whole = playlist(&daemon, "aac").unwrap();

    // From its beginning on, all that was published is the tone, before the encoder's death and after it.
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
    // While nothing runs, nothing new can appear: rules 2 and 5 count from the restart.
    checker.finish().assert_clean_but(&[2, 5]);
    for rendition in ["small", "aac", "opus"] {
        let playlist = playlist(&daemon, rendition).unwrap();
        let broken = playlist
            .segments
            .iter()
            .find(|segment| segment.gap || segment.discontinuity);
        assert_eq!(broken, None, "{rendition}");
    }
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

    /// Each click is heard with its flash, from so many milliseconds after the first on.
    pub(crate) fn assert_in_step(daemon: &Daemon, settled: f64) {
        let live = daemon.place.live().join("cam");
        let (flashes, clicks) = claps(&live, "small", "audio");
        // Those of the first seconds, in which the source's latency was found out, don't count, nor what is not there in both.
        let from = flashes[0] + settled;
        let pairs: Vec<(f64, f64)> = flashes
            .iter()
            .filter(|flash| **flash > from)
            .filter_map(|flash| {
                let click = clicks.iter().find(|click| (*click - flash).abs() < 500.0);
                Some((*flash, click? - flash))
            })
            .collect();
        eprintln!("clicks after their flashes, in ms: {pairs:.1?}");
        assert!(pairs.len() >= 4, "{flashes:?} {clicks:?}");
        let mut off: Vec<f64> = pairs.iter().map(|(_, error)| error.abs()).collect();
        off.sort_by(f64::total_cmp);
        assert!(off[off.len() / 2] < 20.0, "{pairs:?}");
        // A picture that came late by itself is shown a tick later.
        assert!(off[off.len() - 1] < 20.0 + 40.0, "{pairs:?}");
    }
}
