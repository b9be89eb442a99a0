use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Instant;

use super::*;
use crate::encode::find_ffmpeg;

fn plan(name: &str, codec: AudioCodec) -> AudioRenditionPlan {
    AudioRenditionPlan {
        name: name.to_owned(),
        codec,
        bitrate: 128_000,
    }
}

const FIRST: u64 = 15_360 * 5_625_000_000;

/// What the encoder of `plans` makes of `blocks` blocks of 480 samples from [`FIRST`] on: each track's frames.
fn encode(
    plans: &[AudioRenditionPlan],
    blocks: usize,
    sound: impl Fn(u64) -> f32,
) -> (Vec<TrackDescription>, Vec<Vec<(Tick, Bytes)>>) {
    let ffmpeg = find_ffmpeg(Path::new("ffmpeg")).unwrap();
    let cache = ProbeCache::new();
    let descriptions = probe_audio(&ffmpeg, plans, &cache).unwrap();
    assert_eq!(probe_audio(&ffmpeg, plans, &cache).unwrap(), descriptions);
    let (sender, events) = channel();
    let said = move |event| drop(sender.send(event));
    let mut encoder = AudioEncoder::start(&ffmpeg, plans, &descriptions, FIRST, said).unwrap();
    let mut at = 0;
    for _ in 0..blocks {
        let until = Instant::now() + Duration::from_secs(20);
        while !encoder.feed((at..at + 480).map(|at| [sound(at); 2])) {
            assert!(Instant::now() < until, "the encoder takes nothing");
            thread::yield_now();
        }
        at += 480;
    }
    encoder.finish();
    let mut frames = vec![Vec::new(); plans.len()];
    loop {
        match events.recv_timeout(Duration::from_secs(20)).unwrap() {
            AudioEvent::Frame { track, frame, data } => frames[track].push((frame, data)),
            AudioEvent::Failed(error) => panic!("{error}"),
            AudioEvent::Exited(how) => {
                assert!(how.starts_with("exit status: 0"), "{how}");
                return (descriptions, frames);
            }
        }
    }
}

#[test]
fn an_encoder_does_not_wait_for_more_sound_than_its_first_frames_have() {
    let plans = [plan("aac", AudioCodec::Aac), plan("opus", AudioCodec::Opus)];
    let ffmpeg = find_ffmpeg(Path::new("ffmpeg")).unwrap();
    let descriptions = probe_audio(&ffmpeg, &plans, &ProbeCache::new()).unwrap();
    let (sender, events) = channel();
    let said = move |event| drop(sender.send(event));
    let encoder = AudioEncoder::start(&ffmpeg, &plans, &descriptions, FIRST, said).unwrap();
    assert!(encoder.feed([[0.0; 2]; 8192].into_iter()));
    let mut silent = [true; 2];
    while silent != [false; 2] {
        match events.recv_timeout(Duration::from_secs(20)).unwrap() {
            AudioEvent::Frame { track, .. } => silent[track] = false,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn frames_of_both_codecs_are_known_by_their_place_on_the_grid() {
    let plans = [plan("aac", AudioCodec::Aac), plan("opus", AudioCodec::Opus)];
    let (descriptions, frames) = encode(&plans, 200, |_| 0.0);
    let said: Vec<_> = descriptions.iter().map(|d| d.codecs.as_str()).collect();
    assert_eq!(said, ["mp4a.40.2", "opus"]);
    assert_eq!(descriptions[0].timescale(), 48_000);
    assert_eq!(descriptions[1].sample_duration(), 960);
    // The first frame of AAC is its priming, before all that was given.
    assert_eq!(frames[0][0].0, Tick(FIRST / 1024 - 1));
    assert_eq!(frames[1][0].0, Tick(FIRST / 960));
    assert!(frames[0].len() >= 94 && frames[1].len() >= 99);
    for track in &frames {
        for (at, (frame, data)) in (track[0].0.0..).zip(track) {
            assert_eq!(frame.0, at);
            assert!(!data.is_empty());
        }
    }
}

#[test]
fn sound_starts_where_it_is_given() {
    // Silence, and noise from the start of a frame that lies on both grids: the frames before are small.
    let loud = 15_360 * 3;
    let plans = [plan("aac", AudioCodec::Aac), plan("opus", AudioCodec::Opus)];
    let noise = |at: u64| {
        let chance = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        if at < loud {
            0.0
        } else {
            f32::from(u16::try_from(chance).unwrap()) / 65_536.0 - 0.5
        }
    };
    let (_, frames) = encode(&plans, 200, noise);
    for (track, samples) in [(0, 1024), (1, 960)] {
        let at = Tick((FIRST + loud) / samples);
        let size = |frame: u64| {
            let found = frames[track].iter().find(|(at, _)| at.0 == frame);
            found.unwrap().1.len()
        };
        // AAC's transform looks into the frame after.
        let (before, after) = (size(at.0 - 2), size(at.0 + 1));
        assert!(
            after > 4 * before,
            "track {track}: {before} and {after} bytes"
        );
    }
}

#[test]
fn an_encoder_begins_two_frames_early_where_all_frames_begin() {
    let aac = plan("a", AudioCodec::Aac).format();
    let opus = plan("b", AudioCodec::Opus).format();
    assert_eq!(start_sample(&[aac], &[Tick(100)]), 98 * 1024);
    assert_eq!(start_sample(&[opus, opus], &[Tick(7), Tick(9)]), 5 * 960);
    assert_eq!(
        start_sample(&[aac, opus], &[Tick(1500), Tick(1600)]) % 15_360,
        0
    );
    assert_eq!(start_sample(&[aac], &[Tick(1)]), 0);
}

#[test]
fn an_encoder_that_is_killed_says_so() {
    let ffmpeg = find_ffmpeg(Path::new("ffmpeg")).unwrap();
    let plans = [plan("a", AudioCodec::Aac)];
    let descriptions = probe_audio(&ffmpeg, &plans, &ProbeCache::new()).unwrap();
    let (sender, events) = channel();
    let said = move |event| drop(sender.send(event));
    let mut encoder = AudioEncoder::start(&ffmpeg, &plans, &descriptions, FIRST, said).unwrap();
    encoder.kill();
    assert!(!encoder.feed([[0.0; 2]].into_iter()));
    let exited = loop {
        match events.recv_timeout(Duration::from_secs(20)).unwrap() {
            AudioEvent::Exited(how) => break how,
            AudioEvent::Failed(error) => panic!("{error}"),
            AudioEvent::Frame { .. } => {}
        }
    };
    assert!(exited.contains("SIGKILL"), "{exited}");
}
