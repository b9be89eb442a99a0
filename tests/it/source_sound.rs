//! The sound that a source carries: published beside its pictures and in step with them, live and in recordings.

use std::time::Duration;

use ringgear::status::SourceState;

use crate::harness::clap::{apart, clap_file, claps, listed, samples};
use crate::harness::daemon::Daemon;
use crate::harness::place::Place;
use crate::harness::streams::small_stream;
use crate::harness::{beside_others, wait_for};

const PATIENCE: Duration = Duration::from_secs(40);

#[test]
fn a_files_sound_is_published_live_in_step_with_its_pictures() {
    let _machine = beside_others();
    let place = Place::new();
    clap_file(&place.path().join("clap.mp4"), 9);
    let streams = small_stream("cam", "window = \"60s\"\nsource = \"clap.mp4\"")
        + "[streams.cam.audio]\n"
        + &small_stream(
            "mute",
            "source = \"testsrc2=s=320x180:r=25\"\ninput_args = [\"-f\", \"lavfi\"]",
        )
        + "[streams.mute.audio]\n";
    let daemon = Daemon::start_in(place, &streams, &[]);
    wait_for("the file has ended", PATIENCE, || {
        let source = daemon.stream("cam").source?;
        (source.state == SourceState::Ended).then_some(())
    });
    let source = daemon.stream("cam").source.unwrap();
    assert_eq!(source.audio_codec.as_deref(), Some("aac"));
    let live = daemon.place.live().join("cam");
    wait_for("all of it is published", PATIENCE, || {
        let (flashes, clicks) = claps(&live, "small", "audio");
        (flashes.len() >= 4 && clicks.len() >= 4).then_some(())
    });
    let mut apart = apart(&claps(&live, "small", "audio"));
    eprintln!("clicks after their flashes, in ms: {apart:.1?}");
    assert!(apart.len() >= 3);
    apart.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    // Those of the beginning were placed before anybody knew when pictures are shown.
    assert!(apart[apart.len() / 2].abs() < 40.0, "{apart:?}");

    let mute = daemon.stream("mute").audio.unwrap();
    assert_eq!(
        mute.detail.as_deref(),
        Some("the source has no sound: silence in its place")
    );
    let folder = daemon.place.live().join("mute").join("audio");
    let samples = samples(&folder, &listed(&folder));
    assert!(samples.len() > 48_000 && samples.iter().all(|value| value.abs() < 0.01));
}
