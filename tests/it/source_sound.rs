//! The sound that a source carries: published beside its pictures and in step with them, live and in recordings.

use std::path::Path;
use std::time::Duration;

use ringgear::status::SourceState;
use rustix::process::{Pid, Signal, kill_process};

use super::recordings::{feed, open};
use crate::harness::clap::{apart, clap_file, claps, listed, samples};
use crate::harness::daemon::Daemon;
use crate::harness::nginx::Nginx;
use crate::harness::place::{Place, Who, give_to_daemon};
use crate::harness::process::run;
use crate::harness::streams::small_stream;
use crate::harness::{beside_others, dash, hls, wait_for};

const PATIENCE: Duration = Duration::from_secs(40);

#[test]
fn a_recorded_source_has_its_sound_and_one_without_any_silence() {
    let _machine = beside_others();
    let place = Place::new();
    clap_file(&place.path().join("clap.mp4"), 7);
    let streams = small_stream("take", "mode = \"vod\"\nsource = \"clap.mp4\"")
        + "[streams.take.audio]\n"
        + &small_stream(
            "mute",
            "source = \"testsrc2=s=320x180:r=25\"\ninput_args = [\"-f\", \"lavfi\"]",
        )
        + "[streams.mute.audio]\n";
    let daemon = Daemon::start_in(place, &streams, &[]);
    wait_for("the source is recorded", PATIENCE, || {
        let take = daemon.stream("take");
        let ended = take.source?.state == SourceState::Ended;
        (ended && take.recording.is_none()).then_some(())
    });
    let take = daemon.stream("take").recordings.remove(0);
    let take = daemon.place.live().join("take").join(take);
    assert!((whole(&take, "small", "audio") - 7.0).abs() < 0.001);
    assert_clicks(&claps(&take, "small", "audio").1, 7.0);

    daemon.wait_until_playable("mute");
    let mute = daemon.stream("mute").audio.unwrap();
    assert_eq!(
        mute.detail.as_deref(),
        Some("the source has no sound: silence in its place")
    );
    let folder = daemon.place.live().join("mute").join("audio");
    let samples = samples(&folder, &listed(&folder));
    assert!(!samples.is_empty() && samples.iter().all(|value| value.abs() < 0.01));
}

/// The clicks of a recording's sound come every two seconds from 1 s on, up to its end.
#[track_caller]
pub(super) fn assert_clicks(clicks: &[f64], seconds: f64) {
    for (click, second) in clicks.iter().zip((1..).step_by(2)) {
        let off = click - f64::from(second) * 1000.0;
        assert!(off.abs() < 20.0, "{clicks:?}");
    }
    let last = clicks.last().copied().unwrap_or_default();
    assert!(last > (seconds - 2.1) * 1000.0, "{seconds} s: {clicks:?}");
}

/// Both tracks of what is in `folder` are of one length, within a frame of sound, and at their end; says which.
#[track_caller]
pub(super) fn whole(folder: &Path, video: &str, audio: &str) -> f64 {
    let (pictures, sound) = (listed(&folder.join(video)), listed(&folder.join(audio)));
    assert!(pictures.ended && sound.ended);
    assert_eq!(pictures.segments.len(), sound.segments.len());
    let apart = sound.seconds() - pictures.seconds();
    assert!((0.0..0.0214).contains(&apart), "{apart} s");
    pictures.seconds()
}

#[test]
fn a_file_is_transcoded_with_its_sound_or_without() {
    let place = Place::new();
    let path = |name: &str| place.path().join(name);
    clap_file(&path("clap.mp4"), 7);
    let transcode = |out: &str, more: &[&str]| {
        let mut command = place.command(Who::Daemon);
        let arguments = [path("clap.mp4"), path(out)];
        command.arg("transcode").args(arguments).args(more);
        let done = run(&mut command, Duration::from_secs(60));
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        done.stderr
    };
    let said = transcode("out", &["--preset", "ultrafast"]);
    assert!(said.contains(", with aac sound\n"), "{said}");
    let out = path("out");
    assert!((whole(&out, "source", "audio") - 7.0).abs() < 0.001);
    let claps = claps(&out, "source", "audio");
    assert_eq!((claps.0.len(), claps.1.len()), (3, 3), "{claps:?}");
    let apart = apart(&claps);
    assert!(apart.iter().all(|off| off.abs() < 20.0), "{apart:?}");
    let mpd = std::fs::read_to_string(out.join("manifest.mpd")).unwrap();
    assert!(
        mpd.contains("type=\"static\"") && mpd.contains("mediaPresentationDuration=\"PT7S\""),
        "{mpd}"
    );
    assert!(dash::read(&mpd).is_ok());

    let said = transcode("mute", &["--preset", "ultrafast", "--no-audio"]);
    assert!(
        said.contains(", with aac sound, which is left out\n"),
        "{said}"
    );
    assert!(!path("mute").join("audio").exists());
}

#[test]
fn a_recordings_sound_survives_its_encoder_and_the_daemon() {
    let place = Place::new();
    clap_file(&place.path().join("clap.mp4"), 30);
    let file = place.path().join("clap.mp4");
    give_to_daemon(&file);
    let streams = small_stream("cam", "mode = \"event\"")
        + &format!("[streams.cam.audio]\nsource = {file:?}\n");
    let mut daemon = Daemon::start_in(place, &streams, &[]);
    let mut producer = open(&daemon);
    feed(&mut producer, 0..150).unwrap();
    let name = daemon.stream("cam").recording.unwrap();
    let pid = wait_for("the sound is encoded", PATIENCE, || {
        daemon.stream("cam").audio?.encoder_pid
    });
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    feed(&mut producer, 150..300).unwrap();
    let folder = daemon.place.live().join("cam").join(&name);
    wait_for("most of it is published", PATIENCE, || {
        let audio = daemon.stream("cam").audio?;
        let text = std::fs::read_to_string(folder.join("audio/media.m3u8")).ok()?;
        let segments = hls::media(&text).ok()?.segments.len();
        (audio.encoder_restarts == 1 && segments >= 8).then_some(())
    });
    daemon.kill();
    daemon.wait(Duration::from_secs(5));
    daemon.restart();
    let mut producer = open(&daemon);
    feed(&mut producer, 1000..1250).unwrap();
    producer.close().unwrap();
    let seconds = whole(&folder, "small", "audio");
    assert!((18.0..=22.0).contains(&seconds), "{seconds} s");
    let (_, clicks) = claps(&folder, "small", "audio");
    assert_clicks(&clicks, seconds);
}

#[test]
fn a_downloads_sound_is_recorded_from_its_first_second_and_its_password_told_to_nobody() {
    let place = Place::new();
    let files = place.path().join("files");
    std::fs::create_dir(&files).unwrap();
    clap_file(&files.join("clap.mp4"), 30);
    give_to_daemon(&files);
    give_to_daemon(&files.join("clap.mp4"));
    let server = Nginx::start(&files);
    let url = format!(
        "http://me:s3cret@127.0.0.1:{}/clap.mp4?key=t0ken",
        server.port
    );
    let streams = small_stream("cam", "mode = \"event\"")
        + &format!("[streams.cam.audio]\nsource = {url:?}\n");
    let daemon = Daemon::start_in(place, &streams, &["RINGGEAR_LOG=debug".to_owned()]);
    let mut producer = open(&daemon);
    feed(&mut producer, 0..25).unwrap();
    wait_for("the sound has come", PATIENCE, || {
        daemon.stream("cam").audio?.playing.then_some(())
    });
    feed(&mut producer, 25..250).unwrap();
    let name = daemon.stream("cam").recording.unwrap();
    let source = daemon.stream("cam").audio.unwrap().source;
    producer.close().unwrap();
    let folder = daemon.place.live().join("cam").join(&name);
    let seconds = whole(&folder, "small", "audio");
    assert_clicks(&claps(&folder, "small", "audio").1, seconds);

    assert_eq!(
        source,
        format!("http://***@127.0.0.1:{}/clap.mp4?***", server.port)
    );
    let log = daemon.log();
    assert!(log.contains("audio source started"), "{log}");
    for secret in ["s3cret", "t0ken"] {
        assert!(!log.contains(secret), "{log}");
    }
}

mod alone {
    use super::super::sound::alone::assert_in_step;
    use super::super::sound::wait_for_segments;
    use super::*;
    use crate::harness::alone;

    #[test]
    fn a_files_sound_is_published_live_in_step_with_its_pictures() {
        let _machine = alone();
        let place = Place::new();
        clap_file(&place.path().join("clap.mp4"), 30);
        let streams = small_stream("cam", "window = \"60s\"\nsource = \"clap.mp4\"")
            + "[streams.cam.audio]\n";
        let daemon = Daemon::start_in(place, &streams, &[]);
        daemon.wait_until_playable("cam");
        let source = daemon.stream("cam").source.unwrap();
        assert_eq!(source.audio_codec.as_deref(), Some("aac"));
        wait_for_segments(&daemon, "audio", 6);
        // That of the beginning may have been placed before anybody knew when pictures are shown.
        assert_in_step(&daemon, 1500.0);
    }
}
