//! Sound from producers: heard when it was captured, silence when they die, and a lie ends its own session alone.

use std::time::Duration;

use ringgear_producer::messages::{EndCode, OpenSound, PROTOCOL, Reply, Request};
use ringgear_producer::{
    AudioProducer, AudioProducerOptions, MemoryKind, ProducerError, SampleFormat, SoundFormat,
};

use super::recordings::{feed, open};
use super::sound::{audio, playlist, wait_for_segments};
use super::source_sound::{assert_clicks, whole};
use crate::harness::clap::claps;
use crate::harness::daemon::Daemon;
use crate::harness::liar::{COMMITTED, Liar, READY, SLOT_HEADER_BYTES, SLOT_HEADERS};
use crate::harness::place::Who;
use crate::harness::process::{Process, run};
use crate::harness::streams::small_stream;
use crate::harness::tone::{PUSH, loudness, tone};
use crate::harness::{beside_others, wait_for};

const SOON: Duration = Duration::from_secs(20);

fn fed_stream(name: &str) -> String {
    small_stream(name, "window = \"60s\"")
        + &format!("[streams.{name}.audio]\nsource = \"producer\"\n")
}

fn microphone(daemon: &Daemon) -> Process {
    let process = daemon.producer_with(&PUSH, tone(daemon, 60).into());
    wait_for("the tone is heard", SOON, || {
        let audio = audio(daemon)?;
        let session = audio.session.filter(|session| session.committed > 20)?;
        let told = (session.format.as_str(), session.rate, session.channels);
        assert_eq!(told, ("s16le", 44_100, 1));
        audio.playing.then_some(())
    });
    process
}

#[test]
fn a_killed_producer_of_sound_is_silence_until_another_comes_and_disturbs_no_picture() {
    let _machine = beside_others();
    let daemon = Daemon::start(&(fed_stream("cam") + &small_stream("mute", "")));
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    let nobody = audio(&daemon).unwrap();
    assert!(nobody.session.is_none() && nobody.detail.unwrap().contains("nobody feeds"));

    let mut first = microphone(&daemon);
    let refused = |words: &[&str], why: &str| {
        let mut command = daemon.place.command(Who::Camera);
        let outcome = run(command.args(words), SOON);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains(why), "{outcome:?}");
    };
    refused(&PUSH, "the sound of stream 'cam' is fed by process");
    refused(&["push", "mute", "--audio"], "stream 'mute' has no sound");
    wait_for_segments(&daemon, "audio", 2);
    first.kill();
    wait_for("it is known to be gone", SOON, || {
        audio(&daemon)?.session.is_none().then_some(())
    });
    wait_for_segments(&daemon, "audio", 2);
    let _second = microphone(&daemon);
    wait_for_segments(&daemon, "audio", 3);

    let folder = daemon.place.live().join("cam").join("audio");
    let listed = playlist(&daemon, "audio").unwrap();
    let broken = listed.segments.iter().any(|s| s.gap || s.discontinuity);
    assert!(!broken, "{listed:?}");
    let loud: Vec<bool> = loudness(&folder, &listed)
        .into_iter()
        .map(|loud| loud > 0.2)
        .collect();
    // As long as a segment and more: what is shorter comes and goes with a busy machine.
    let runs: Vec<(bool, usize)> = loud
        .chunk_by(|a, b| a == b)
        .map(|run| (run[0], run.len()))
        .filter(|(_, blocks)| *blocks > 25)
        .collect();
    let order: Vec<bool> = runs.iter().map(|(loud, _)| *loud).collect();
    let expected: &[bool] = &[false, true, false, true];
    assert!(order.ends_with(&expected[1..]), "{runs:?}");

    let stream = daemon.stream("cam");
    assert_eq!((stream.ticks.missed, stream.restarts), (0, 0));
    assert_eq!(stream.encoder.restarts, 0);
}

fn open_sound() -> Request {
    Request::OpenSound(OpenSound {
        protocol: PROTOCOL,
        stream: "cam".to_owned(),
        format: "s16le".to_owned(),
        rate: 8000,
        channels: 2,
        slots: Some(6),
        memory: MemoryKind::Memfd,
        take_over: true,
        client: Some("liar".to_owned()),
    })
}

/// Commits block `sequence` as an honest producer would, but for what it says of itself.
fn commit(liar: &Liar, sequence: u64, first: u64, captured: u64, bytes: u64) {
    let slot = (sequence - 1) % 6;
    let header = SLOT_HEADERS + SLOT_HEADER_BYTES * slot;
    liar.word(header + 8, first);
    liar.word(header + 16, captured);
    liar.word(header + 24, bytes);
    liar.slot(slot, sequence, READY);
    liar.word(COMMITTED, sequence);
}

#[test]
fn each_lie_in_a_ring_of_sound_ends_its_own_session_by_its_name() {
    let _machine = beside_others();
    let daemon = Daemon::start(&fed_stream("cam"));
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    type Lie = (&'static str, fn(&Liar));
    let lies: [Lie; 7] = [
        ("a block of 4004 bytes of sound: 1 to 4000 fit", |liar| {
            commit(liar, 2, 10, 0, 4004);
        }),
        ("a block of 0 bytes", |liar| commit(liar, 2, 10, 0, 0)),
        ("18446744073709551615 bytes", |liar| {
            commit(liar, 2, 10, 0, u64::MAX);
        }),
        ("7 bytes of sound is no whole number", |liar| {
            commit(liar, 2, 10, 0, 7);
        }),
        ("begins with sample 9, but the one before", |liar| {
            commit(liar, 2, 9, 0, 40);
        }),
        ("begins with sample 18446744073709551615", |liar| {
            commit(liar, 2, u64::MAX, 0, 40);
        }),
        ("committed rose by", |liar| liar.word(COMMITTED, 1 << 60)),
    ];
    for (name, lie) in lies {
        let mut liar = Liar::session_by(&daemon, &open_sound());
        // A time that can't be is counted, and the session goes on.
        commit(&liar, 1, 0, u64::MAX, 40);
        wait_for("the block is taken", SOON, || {
            let session = audio(&daemon)?.session?;
            (session.client.as_deref() == Some("liar") && session.disbelieved == 1).then_some(())
        });
        lie(&liar);
        match liar.reply(SOON) {
            Some(Reply::Ended(said)) => {
                assert_eq!(said.code, EndCode::RingCorrupt, "{name}: {said:?}");
                assert!(said.message.contains(name), "{name}: {said:?}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    // Who writes noise and closes is answered all the same.
    let mut liar = Liar::session_by(&daemon, &open_sound());
    (1..=6).for_each(|sequence| commit(&liar, sequence, sequence * 10, 0, 40));
    match liar.ask(&Request::Close {}) {
        Some(Reply::Closed(counts)) => {
            assert_eq!(counts.used + counts.superseded + counts.late, 6);
        }
        other => panic!("{other:?}"),
    }
    let stream = daemon.stream("cam");
    assert_eq!((stream.ticks.missed, stream.restarts), (0, 0));
}

/// A second of sound at 44.1 kHz, with a click of 10 ms at its beginning if `loud`.
fn second(loud: bool) -> Vec<u8> {
    let sample = |at: u32| match (loud && at < 441, at / 22 % 2) {
        (false, _) => 0_i16,
        (true, 0) => 24_000,
        (true, _) => -24_000,
    };
    (0..44_100)
        .flat_map(|at| sample(at).to_le_bytes())
        .collect()
}

#[test]
fn a_recording_has_each_sample_that_its_producer_wrote_however_fast() {
    const SECONDS: u64 = 8;
    let _machine = beside_others();
    let config = small_stream("cam", "mode = \"vod\"");
    let daemon = Daemon::start(&(config + "[streams.cam.audio]\nsource = \"producer\"\n"));
    let sound = || {
        let format = SoundFormat::new(SampleFormat::S16le, 44_100, 1).unwrap();
        let mut options = AudioProducerOptions::new("cam", format);
        options.socket = daemon.place.socket();
        AudioProducer::open(options, |_| ())
    };
    match sound() {
        Err(ProducerError::Refused(refused)) => {
            let message = refused.message;
            assert!(message.contains("records nothing now"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    // By a single thread, in turn, the pictures first.
    let mut pictures = open(&daemon);
    feed(&mut pictures, 0..25).unwrap();
    let mut microphone = sound().unwrap();
    for at in 0..SECONDS {
        assert!(microphone.write(&second(at % 2 == 1), None).unwrap());
        feed(&mut pictures, 25 * (at + 1)..25 * (at + 2)).unwrap();
    }
    let blocks = microphone.committed();
    let counts = microphone.close().unwrap().unwrap();
    assert_eq!(
        (counts.used, counts.superseded, counts.late),
        (blocks, 0, 0)
    );
    pictures.close().unwrap();
    let folder = |daemon: &Daemon| {
        let name = daemon.stream("cam").recordings.remove(0);
        daemon.place.live().join("cam").join(name)
    };
    let first = folder(&daemon);
    // A second of pictures has no sound: there is silence.
    assert!((whole(&first, "small", "audio") - 9.0).abs() < 0.001);
    assert_clicks(&claps(&first, "small", "audio").1, 8.0);

    // Who is still there when the pictures end is told, and what it wrote before is there.
    let mut pictures = open(&daemon);
    let mut microphone = sound().unwrap();
    assert!(microphone.write(&second(true), None).unwrap());
    feed(&mut pictures, 0..50).unwrap();
    pictures.close().unwrap();
    wait_for("it is told that the recording is over", SOON, || {
        microphone.check().unwrap();
        (!microphone.is_connected()).then_some(())
    });
    assert_eq!(microphone.close().unwrap(), None);
    let second = folder(&daemon);
    assert_ne!(first, second);
    assert!((whole(&second, "small", "audio") - 2.0).abs() < 0.001);
    let clicks = claps(&second, "small", "audio").1;
    assert!(clicks.len() == 1 && clicks[0].abs() < 20.0, "{clicks:?}");
}

mod alone {
    use super::super::sound::alone::assert_in_step;
    use super::*;
    use crate::harness::alone;

    #[test]
    fn a_click_that_a_producer_says_the_time_of_is_heard_with_its_flash() {
        let _machine = alone();
        let daemon = Daemon::start(&fed_stream("cam"));
        // Its sound is one channel at 44.1 kHz, in a session beside the one of its pictures.
        let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180", "--clap"]);
        daemon.wait_until_playable("cam");
        wait_for_segments(&daemon, "audio", 12);
        // Where it belongs is known at once, but for how late the pictures are.
        assert_in_step(&daemon, 4000.0);
        let session = audio(&daemon).unwrap().session.unwrap();
        assert_eq!((session.rate, session.channels), (44_100, 1));
        assert_eq!(session.disbelieved, 0);
    }
}
