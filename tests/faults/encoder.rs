//! Rows of the encoder.

use std::time::{Duration, Instant};

use ringgear::status::StreamState;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::broken_ffmpeg::BrokenFfmpeg;
use crate::harness::daemon::Daemon;
use crate::harness::held::ProcessorTime;
use crate::harness::memory_limit::MemoryLimit;
use crate::harness::process::Process;
use crate::harness::slowed::SlowedEncoder;
use crate::harness::streams::small_stream;
use crate::harness::tone::{PUSH, loudness, tone};
use crate::harness::{asked_for, beside_others, hls, not_shown, pause, wait_for};
use crate::scene::{
    Allowed, CAMERA, FRAMERATE, SPARE_SINCE, Scene, longest_wait_for_a_part, newest_is_old,
    newest_part, stream, stream_for,
};

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// What an encoder encodes.
#[derive(Clone, Copy)]
enum Of {
    Pictures,
    Sound,
}

impl Of {
    /// The encoder's process.
    #[track_caller]
    fn pid(self, scene: &Scene) -> u32 {
        match self {
            Self::Pictures => scene.encoder_pid(),
            Self::Sound => wait_for("an encoder of sound runs", Duration::from_secs(10), || {
                scene.daemon.stream("cam").audio?.encoder_pid
            }),
        }
    }

    fn rendition(self) -> &'static str {
        match self {
            Self::Pictures => "small",
            Self::Sound => "audio",
        }
    }
}

/// Breaks the encoder of pictures so often, and gives how long viewers waited for a part each time, sorted.
fn break_it(scene: &mut Scene, times: u64, how: Signal) -> Waits {
    break_encoder(scene, Of::Pictures, times, how)
}

fn break_encoder(scene: &mut Scene, of: Of, times: u64, how: Signal) -> Waits {
    const WATCHED: Duration = Duration::from_millis(2500);
    let machine = ProcessorTime::now();
    let mut waits: Vec<Duration> = (0..times)
        .map(|_| {
            let pid = of.pid(scene);
            signal(pid, how);
            let wait = longest_wait_for_a_part(&scene.daemon, of.rendition(), WATCHED);
            wait_for("another encoder runs", Duration::from_secs(5), || {
                (of.pid(scene) != pid).then_some(())
            });
            wait
        })
        .collect();
    waits.sort();
    Waits {
        sorted: waits,
        idle: machine.idle_share(),
    }
}

/// How long viewers waited for a part after each fault, sorted; and which share of the processors' time was idle meanwhile.
struct Waits {
    sorted: Vec<Duration>,
    idle: f64,
}

/// On a machine with time to spare, p95 is below a second; on another one, below two.
#[track_caller]
fn within_a_second(row: &str, waits: &Waits) {
    let Waits { sorted, idle } = waits;
    let (waits, idle) = (sorted, *idle);
    let p95 = waits[(waits.len() * 95).div_ceil(100) - 1];
    eprintln!(
        "{row}: {} times, a part after {:?} (median), {p95:?} (p95), {:?} (longest), {:.0} % idle",
        waits.len(),
        waits[waits.len() / 2],
        waits[waits.len() - 1],
        idle * 100.0
    );
    assert!(
        p95 < Duration::from_secs(if idle < SPARE_SINCE { 2 } else { 1 }),
        "{row}: {waits:?}"
    );
}

#[test]
fn killed() {
    let times = asked_for("RINGGEAR_KILLS", 5);
    let mut scene = Scene::begin("encoder killed", &stream_for(90 + 3 * times));
    let waits = break_it(&mut scene, times, Signal::KILL);
    scene.recovers();
    let status = scene.daemon.stream("cam");
    assert_eq!(status.encoder.restarts, times);
    assert_eq!(status.encoder.replaced, 0);
    scene.end(Allowed::NOTHING);
    within_a_second("encoder killed", &waits);
}

/// Nothing tells of a stopped process but that nothing comes: half a second of `encoder_timeout` goes by first.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn stopped() {
    let times = asked_for("RINGGEAR_KILLS", 5);
    let mut scene = Scene::begin("encoder stopped", &stream_for(90 + 4 * times));
    let waits = break_it(&mut scene, times, Signal::STOP);
    scene.recovers();
    assert_eq!(scene.daemon.stream("cam").encoder.restarts, times);
    scene.end(Allowed::NOTHING);
    within_a_second("encoder stopped", &waits);
}

/// A stream whose sound is a tone for so many seconds.
fn begin_with_sound(row: &'static str, seconds: u64) -> (Scene, Process) {
    begin_with(row, &stream_for(seconds), seconds)
}

/// The same of a stream of this config, which has no sound yet.
fn begin_with(row: &'static str, config: &str, seconds: u64) -> (Scene, Process) {
    let config = config.to_owned() + "[streams.cam.audio]\nsource = \"producer\"\n";
    let machine = beside_others();
    let daemon = Daemon::start(&config);
    let camera = daemon.producer(&CAMERA);
    let microphone = daemon.producer_with(&PUSH, tone(&daemon, seconds).into());
    (Scene::of(row, machine, daemon, Some(camera)), microphone)
}

/// After so many deaths, the tone is whole from segment `first` on.
#[track_caller]
fn sound_is_whole(scene: &Scene, first: u64, deaths: u64) {
    let status = scene.daemon.stream("cam");
    let audio = status.audio.unwrap();
    assert_eq!((audio.encoder_restarts, audio.detail), (deaths, None));
    assert_eq!((status.encoder.restarts, status.ticks.missed), (0, 0));
    let folder = scene.daemon.place.live().join("cam/audio");
    let text = std::fs::read_to_string(folder.join("media.m3u8")).unwrap();
    let mut playlist = hls::media(&text).unwrap();
    let broken = |segment: &hls::Listed| segment.gap || segment.discontinuity;
    assert!(!playlist.segments.iter().any(broken), "{text}");
    playlist.segments.retain(|segment| segment.number >= first);
    let loudness = loudness(&folder, &playlist);
    let silent = loudness.iter().filter(|loud| **loud < 0.2).count();
    eprintln!("{silent} of {} blocks of sound are silent", loudness.len());
    // On a busy machine the producer itself comes too late now and then.
    assert!(silent <= 5, "{silent} of {} blocks", loudness.len());
}

#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn sound_killed() {
    let times = asked_for("RINGGEAR_KILLS", 5);
    let (mut scene, _microphone) = begin_with_sound("sound's encoder killed", 90 + 5 * times);
    let (first, _) = newest_part(&scene.daemon, "audio").unwrap();
    let waits = break_encoder(&mut scene, Of::Sound, times, Signal::KILL);
    for _ in 0..times {
        // As soon as the new one works.
        let pid = Of::Sound.pid(&scene);
        signal(pid, Signal::KILL);
        wait_for("another one runs", Duration::from_secs(5), || {
            (Of::Sound.pid(&scene) != pid).then_some(())
        });
        let begun = newest_part(&scene.daemon, "audio");
        wait_for("it works", Duration::from_secs(5), || {
            (newest_part(&scene.daemon, "audio") > begun).then_some(())
        });
    }
    scene.recovers();
    sound_is_whole(&scene, first, 2 * times);
    scene.end(Allowed::NOTHING);
    within_a_second("sound's encoder killed", &waits);
}

#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn sound_stopped() {
    let times = asked_for("RINGGEAR_KILLS", 5);
    let (mut scene, _microphone) = begin_with_sound("sound's encoder stopped", 90 + 4 * times);
    let (first, _) = newest_part(&scene.daemon, "audio").unwrap();
    let waits = break_encoder(&mut scene, Of::Sound, times, Signal::STOP);
    scene.recovers();
    sound_is_whole(&scene, first, times);
    scene.end(Allowed::NOTHING);
    within_a_second("sound's encoder stopped", &waits);
}

/// Players play on beside silence, and beside the sound again.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn sound_keeps_failing() {
    const SOON: Duration = Duration::from_secs(20);
    let ffmpeg = BrokenFfmpeg::at("-output_ts_offset 1", "[ -e BROKEN ]");
    let keys = ffmpeg.config("failures = 3\nretry_every = \"4s\"");
    let config = keys + &stream_for(150);
    let (mut scene, _microphone) = begin_with("sound's encoder keeps failing", &config, 150);
    ffmpeg.break_it();
    signal(Of::Sound.pid(&scene), Signal::KILL);
    wait_for("silence", SOON, || {
        let log = scene.daemon.log();
        log.contains("silence stands for the sound").then_some(())
    });
    scene.recovers();
    // Silence is not its own work: it is tried no more often for that.
    ffmpeg.let_it_hang();
    let restarts = |scene: &Scene| scene.daemon.stream("cam").audio.unwrap().encoder_restarts;
    let (before, began) = (restarts(&scene), Instant::now());
    wait_for("it has hung", Duration::from_secs(60), || {
        (restarts(&scene) >= before + 3).then_some(())
    });
    let took = began.elapsed();
    assert!(took > Duration::from_secs(8), "{took:?}");
    scene.recovers();
    ffmpeg.mend_it();
    wait_for("it works again", Duration::from_secs(60), || {
        let audio = scene.daemon.stream("cam").audio?;
        audio.detail.is_none().then_some(())
    });
    scene.recovers();
    let folder = scene.daemon.place.live().join("cam/audio");
    let text = std::fs::read_to_string(folder.join("media.m3u8")).unwrap();
    let playlist = hls::media(&text).unwrap();
    let broken = |segment: &hls::Listed| segment.gap || segment.discontinuity;
    assert!(!playlist.segments.iter().any(broken), "{text}");
    scene.end(Allowed::NOTHING);
}

/// Players play the slate, and the camera's pictures again.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn keeps_failing() {
    const SOON: Duration = Duration::from_secs(10);
    let ffmpeg = BrokenFfmpeg::new("[ -e BROKEN ]");
    let config = ffmpeg.config("failures = 3\nretry_every = \"4s\"") + &stream();
    let mut scene = Scene::begin("encoder keeps failing", &config);
    wait_for("the slate", SOON, || {
        scene.daemon.log().contains("slate encoded").then_some(())
    });
    ffmpeg.break_it();
    signal(scene.encoder_pid(), Signal::KILL);
    scene
        .daemon
        .wait_for_state("cam", StreamState::Failed, SOON);
    scene.recovers();
    ffmpeg.mend_it();
    scene.daemon.wait_for_state("cam", StreamState::Live, SOON);
    scene.recovers();
    let status = scene.daemon.stream("cam");
    assert_eq!(status.ticks.missed, 0);
    // Of each part of the slate, one tick has a picture, which holds for the others.
    scene.end(Allowed {
        replaced: status.encoder.slate.div_ceil(5),
        held: status.encoder.slate,
        ..Allowed::NOTHING
    });
}

/// Pictures wait for their samples in the encoder, and for their place among those before.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn looking_ahead_killed_then_stopped() {
    let ahead =
        "preset = \"ultrafast\"\noptions = { x264-params = \"rc-lookahead=30:sliced-threads=0\" }";
    let config = stream().replace("preset = \"ultrafast\"", ahead);
    let mut scene = Scene::begin("encoder with lookahead", &config);
    let killed = break_it(&mut scene, 3, Signal::KILL).sorted;
    let stopped = break_it(&mut scene, 2, Signal::STOP).sorted;
    eprintln!("encoder with lookahead: new parts after {killed:?}, {stopped:?}");
    // Stopped, it is known to be late only beyond its lookahead of 1.2 s.
    scene.recovers_from_stall(Duration::from_secs(3));
    let encoder = scene.daemon.stream("cam").encoder;
    assert_eq!((encoder.restarts, encoder.replaced), (5, 0));
    scene.end(Allowed {
        // That one is stopped is known when it is late beyond its lookahead of 1.2 s, and the next one looks ahead as well.
        rules: &[5],
        ..Allowed::NOTHING
    });
}

/// By the kernel, because there is no memory left for it.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn killed_for_memory() {
    let Some(limit) = MemoryLimit::new() else {
        not_shown("this takes root, and a kernel with control groups for memory");
        return;
    };
    let mut scene = Scene::begin("encoder killed for memory", &stream());
    for _ in 0..3 {
        let pid = scene.encoder_pid();
        limit.run_out_around(pid);
        wait_for("another encoder runs", Duration::from_secs(10), || {
            (scene.encoder_pid() != pid).then_some(())
        });
        scene.recovers();
    }
    let encoder = scene.daemon.stream("cam").encoder;
    assert_eq!((encoder.restarts, encoder.replaced), (3, 0));
    scene.end(Allowed::NOTHING);
}

/// What comes while the encoder is dead is more than may be kept.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn stopped_with_too_little_memory_for_its_pictures() {
    // Twelve pictures: half a second.
    let config = format!("[limits]\nreplay_memory = \"1MiB\"\n{}", stream());
    let mut scene = Scene::begin("replay_memory exceeded", &config);
    let before = scene.daemon.stream("cam").encoder.replaced;
    break_it(&mut scene, 3, Signal::STOP);
    scene.recovers();
    let now = scene.daemon.stream("cam");
    assert!(now.encoder.replaced > before, "{:?}", now.encoder);
    assert_eq!((now.encoder.restarts, now.ticks.missed), (3, 0));
    let account = scene.end(Allowed {
        replaced: now.encoder.replaced,
        ..Allowed::NOTHING
    });
    eprintln!(
        "replay_memory exceeded: {} pictures of {} shown again",
        account.replaced.len(),
        now.encoder.replaced
    );
}

/// Another encoder's headers are others, so this is the one fault with a discontinuity.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn replaced_by_its_fallback() {
    let ffmpeg = BrokenFfmpeg::new("case \"$*\" in *libvpx*) [ -e BROKEN ] ;; *) false ;; esac");
    let vp9 = "codec = \"libvpx-vp9\"\nfallback = \"libx264\"\noptions = { cpu-used = 8 }";
    // The sound is of nobody: silence goes on across the change.
    let sound = "[streams.cam.audio]\nsource = \"producer\"\n";
    let config = ffmpeg.config("") + &stream().replace("preset = \"ultrafast\"", vp9) + sound;
    let mut scene = Scene::begin("encoder replaced by its fallback", &config);
    ffmpeg.break_it();
    signal(scene.encoder_pid(), Signal::KILL);
    wait_for("the fallback encodes", Duration::from_secs(20), || {
        let stream = scene.daemon.stream("cam");
        (stream.renditions[0].fallback.is_some() && stream.encoder.pid.is_some()).then_some(())
    });
    scene.recovers();
    let now = scene.daemon.stream("cam");
    assert_eq!((now.encoder.replaced, now.ticks.missed), (0, 0));
    assert!(now.encoder.slate < 25, "{:?}", now.encoder);
    let sound = scene.daemon.folder_playlist("cam", "audio");
    assert!(!sound.contains("#EXT-X-GAP"), "{sound}");
    scene.end(Allowed {
        discontinuities: 1,
        // Up to the next segment, with which the new encoding begins.
        replaced: now.encoder.slate.div_ceil(5),
        held: now.encoder.slate,
        ..Allowed::NOTHING
    });
}

/// With `degrade = "off"` it gets every picture, and what comes too late is left out: the window is never older than that.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn too_slow_for_its_ticks_and_given_all() {
    const SOON: Duration = Duration::from_secs(90);
    // `backfill`, and two segments on their way.
    const OLDEST: f64 = 5.0 + 2.0;
    let keys = "window = \"150s\"\ndegrade = \"off\"";
    let config = small_stream("cam", keys).replace("ultrafast", "slower");
    let mut scene = Scene::begin("encoder too slow, degrade off", &config);
    let slowed = SlowedEncoder::of(&scene.daemon, "cam");
    let mut share = 500;
    let mut oldest: f64 = 0.0;
    wait_for("ticks are left out, twice", SOON, || {
        let stream = scene.daemon.stream("cam");
        assert_eq!(stream.encoder.reduced_to_per_second, None, "{stream:?}");
        oldest = oldest.max(newest_is_old(&scene.daemon));
        if stream.ticks.missed > 5 * FRAMERATE {
            return Some(());
        }
        std::thread::sleep(Duration::from_millis(200));
        let lags = stream.encoder.pending > FRAMERATE || stream.ticks.missed > 0;
        if !lags {
            share = (share * 49 / 50).max(20);
            slowed.let_run(share);
        }
        None
    });
    let told = scene.daemon.stream("cam").detail.expect("why");
    eprintln!(
        "encoder too slow, degrade off: {told}; the newest segment began {oldest:.1} s ago at most"
    );
    assert!(oldest < OLDEST, "{oldest} s");
    slowed.let_run(1000);
    wait_for("it keeps up", SOON, || {
        scene.daemon.stream("cam").detail.is_none().then_some(())
    });
    // As long as it was behind.
    scene.recovers_from_stall(Duration::from_secs(6));
    let now = scene.daemon.stream("cam");
    assert_eq!((now.encoder.restarts, now.encoder.skipped), (0, 0));
    // Two gaps or three, and less than a segment before each.
    let slate = now.encoder.slate;
    assert!((1..3 * FRAMERATE).contains(&slate), "{slate} ticks");
    scene.end(Allowed {
        // Nothing new appears while the encoder is behind.
        rules: &[5],
        // The slate is shown to the end of the segment before a gap. What its last sample holds before that looks missing, too.
        missing: now.ticks.missed + slate,
        held: slate,
        // Beyond what is kept for its restart.
        replaced: now.encoder.replaced + slate.div_ceil(5),
        ..Allowed::NOTHING
    });
}

/// Slower and slower until half of the pictures is what it can do, then as fast as before.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn too_slow_for_its_ticks() {
    const SOON: Duration = Duration::from_secs(60);
    // A preset that has something to do.
    let config = stream_for(150).replace("ultrafast", "slower");
    let mut scene = Scene::begin("encoder too slow", &config);
    let slowed = SlowedEncoder::of(&scene.daemon, "cam");
    let mut share = 500;
    let reduced = wait_for("it is given fewer pictures", SOON, || {
        slowed.let_run(share);
        share = (share * 4 / 5).max(20);
        let looked = Instant::now();
        while looked.elapsed() < Duration::from_secs(4) {
            let stream = scene.daemon.stream("cam");
            if stream.encoder.reduced_to_per_second.is_some() {
                return Some(stream);
            }
            pause();
        }
        None
    });
    let told = reduced.encoder.too_slow.expect("a figure");
    eprintln!("encoder too slow: {told}");
    assert!(
        told.starts_with("small at slower reaches ") && told.ends_with(" of 25 fps here"),
        "{told}"
    );
    assert_eq!(reduced.detail, Some(told));
    scene.recovers();
    slowed.let_run(1000);
    wait_for("the full rate", SOON, || {
        let encoder = scene.daemon.stream("cam").encoder;
        (encoder.reduced_to_per_second.is_none() && encoder.too_slow.is_none()).then_some(())
    });
    scene.recovers();
    let now = scene.daemon.stream("cam");
    assert!(now.encoder.skipped > 0, "{:?}", now.encoder);
    assert_eq!((now.encoder.restarts, now.ticks.missed), (0, 0));
    // As many ticks are without a picture of their own as it says.
    scene.end(Allowed::NOTHING);
}
