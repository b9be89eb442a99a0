//! The real FFmpeg, with every encoder that it has.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::clock::MonotonicTime;
use crate::config::RateControl;
use crate::encode::{EncodeRendition, ProbeCache, encode_ahead, find_ffmpeg, probe};
use crate::picture::PixelBuffer;
use crate::tick::Framerate;

const DEADLINE: Duration = Duration::from_secs(60);
const CODECS: [(&str, Option<&str>); 5] = [
    ("libx264", Some("ultrafast")),
    ("libx265", Some("ultrafast")),
    ("libsvtav1", Some("12")),
    ("libvpx-vp9", None),
    ("libaom-av1", Some("8")),
];

fn rendition(codec: &str, preset: Option<&str>, size: Size, rate: RateControl) -> EncodeRendition {
    EncodeRendition {
        name: format!("{codec}-{size}"),
        size,
        codec: codec.into(),
        preset: preset.map(str::to_owned),
        rate,
        options: Vec::new(),
        every: NonZeroU32::MIN,
        device: None,
        filter: None,
        output_args: Vec::new(),
    }
}

fn plan(rate: &str, segment: Duration, size: Size, renditions: Vec<EncodeRendition>) -> EncodePlan {
    let framerate: Framerate = rate.parse().unwrap();
    EncodePlan {
        ffmpeg: find_ffmpeg(Path::new("ffmpeg")).unwrap(),
        input_format: PictureFormat::I420,
        input_size: size,
        grid: Grid::new(framerate, segment, segment / 4),
        at_once: NonZeroU32::MIN,
        renditions,
    }
}

fn small(codec: &str, preset: Option<&str>, rate: &str) -> EncodePlan {
    let size = Size::new(128, 96);
    let rate_control = RateControl::Bitrate(300_000);
    let one = rendition(codec, preset, size, rate_control);
    plan(rate, Duration::from_millis(400), size, vec![one])
}

fn start_at(tick: u64, renditions: usize) -> EncoderStart {
    EncoderStart {
        first_tick: Tick(tick),
        keyframes_at: vec![None; renditions],
        step: NonZeroU32::MIN,
        queue: NonZeroUsize::new(8).unwrap(),
        large_pipe: true,
    }
}

/// A moving gradient with some texture.
fn moving(plan: &EncodePlan, n: u64) -> Picture {
    let bytes = plan.input_format.bytes(plan.input_size);
    let width = plan.input_size.width as usize;
    let n = usize::try_from(n).unwrap();
    let pixels = (0..bytes)
        .map(|i| u8::try_from(16 + (i % width + i / width * 3 + n * 5) * 7 % 200).unwrap())
        .collect();
    picture(plan, pixels)
}

fn noise(plan: &EncodePlan, n: u64) -> Picture {
    let mut state = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let bytes = plan.input_format.bytes(plan.input_size);
    let pixels = (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            16 + (state >> 32).to_be_bytes()[7] % 220
        })
        .collect();
    picture(plan, pixels)
}

fn picture(plan: &EncodePlan, pixels: Vec<u8>) -> Picture {
    Picture::new(
        plan.input_format,
        plan.input_size,
        MonotonicTime(0),
        PixelBuffer::unpooled(pixels),
    )
}

fn started(plan: &EncodePlan, start: &EncoderStart) -> (Encoder, Receiver<EncoderEvent>) {
    let descriptions = probe(plan, &ProbeCache::new()).unwrap();
    started_with(plan, &descriptions, start)
}

fn started_with(
    plan: &EncodePlan,
    descriptions: &[TrackDescription],
    start: &EncoderStart,
) -> (Encoder, Receiver<EncoderEvent>) {
    let (sender, events) = channel();
    let send = move |event| drop(sender.send(event));
    let encoder = Encoder::start(plan, descriptions, start, send).unwrap();
    (encoder, events)
}

fn feed_when_room(encoder: &Encoder, picture: &Picture) {
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = encoder.feed(picture.clone()) {
        assert_eq!(error, FeedError::Full(8));
        assert!(Instant::now() < deadline, "the encoder takes nothing");
        thread::yield_now();
        thread::sleep(Duration::from_micros(200));
    }
}

/// All samples by track, and the report.
fn drained(events: &Receiver<EncoderEvent>, tracks: usize) -> (Vec<Vec<Sample>>, ExitReport) {
    let mut samples = vec![Vec::new(); tracks];
    loop {
        match events.recv_timeout(DEADLINE).expect("the encoder ends") {
            EncoderEvent::Sample(sample) => samples[sample.track].push(sample),
            EncoderEvent::Failed { error, .. } => panic!("{error}"),
            EncoderEvent::Exited(report) => return (samples, report),
        }
    }
}

fn encoded(
    plan: &EncodePlan,
    start: &EncoderStart,
    pictures: u64,
) -> (Vec<Vec<Sample>>, ExitReport) {
    let (encoder, events) = started(plan, start);
    for n in 0..pictures {
        feed_when_room(&encoder, &moving(plan, n));
    }
    encoder.finish();
    drained(&events, plan.renditions.len())
}

/// Every tick in order, keyframes at the first, at the grid's edges and at `extra`, and nowhere else.
fn assert_on_grid(samples: &[Sample], plan: &EncodePlan, first: Tick, count: u64, extra: &[Tick]) {
    let ticks: Vec<Tick> = samples
        .iter()
        .map(|sample| plan.grid.tick_of_decode_time(sample.decode_time).unwrap())
        .collect();
    let expected: Vec<Tick> = (0..count).map(|n| first.plus(n)).collect();
    assert_eq!(ticks, expected);
    let keyframes: Vec<Tick> = ticks
        .iter()
        .zip(samples)
        .filter_map(|(&tick, sample)| sample.keyframe.then_some(tick))
        .collect();
    let wanted =
        |tick: &Tick| *tick == first || plan.grid.starts_segment(*tick) || extra.contains(tick);
    let wanted: Vec<Tick> = expected.into_iter().filter(wanted).collect();
    assert_eq!(keyframes, wanted, "{}", plan.renditions[0].codec);
    assert!(
        samples
            .iter()
            .all(|sample| sample.duration == plan.grid.framerate.den())
    );
}

#[test]
fn every_encoder_yields_each_tick_once_with_keyframes_where_they_were_asked_for() {
    for (codec, preset) in CODECS {
        for rate in ["30", "30000/1001"] {
            let plan = small(codec, preset, rate);
            plan.ffmpeg.require_encoder(codec).unwrap();
            let mut start = start_at(54_000_000_007, 1);
            let extra = start.first_tick.plus(2);
            start.keyframes_at = vec![Some(extra)];
            let (samples, report) = encoded(&plan, &start, 40);
            assert!(report.expected, "{codec}: {report:?}");
            assert_on_grid(&samples[0], &plan, start.first_tick, 40, &[extra]);
        }
    }
}

#[test]
fn every_second_picture_lasts_two_ticks_with_the_same_headers_and_edges() {
    for (codec, preset) in CODECS {
        // Twelve ticks a segment, three a part: each part has samples of two ticks and of one.
        let plan = small(codec, preset, "30");
        let mut start = start_at(54_000_000_007, 1);
        start.step = NonZeroU32::new(2).unwrap();
        let extra = start.first_tick.plus(1);
        start.keyframes_at = vec![Some(extra)];
        let cadence = start.cadence(plan.grid);
        let (samples, report) = encoded(&plan, &start, 40);
        assert!(report.expected, "{codec}: {report:?}");
        assert_eq!(samples[0].len(), 40, "{codec}");
        let mut tick = start.first_tick;
        for sample in &samples[0] {
            assert_eq!(sample.decode_time, plan.grid.decode_time(tick), "{codec}");
            let asked = tick == start.first_tick || tick == extra || plan.grid.starts_segment(tick);
            assert_eq!(sample.keyframe, asked, "{codec}: tick {tick}");
            let after = cadence.after(tick);
            assert_eq!(u64::from(sample.duration), after.since(tick), "{codec}");
            tick = after;
        }
        assert!(tick.since(start.first_tick) > 55, "{codec}: {tick}");
    }
}

#[test]
fn a_rendition_of_half_the_framerate_yields_every_second_tick_with_the_same_edges() {
    for (codec, preset) in CODECS {
        let mut plan = small(codec, preset, "30000/1001");
        let half = EncodeRendition {
            every: NonZeroU32::new(2).unwrap(),
            ..plan.renditions[0].clone()
        };
        plan.renditions.push(half);
        let (segment, part) = (Duration::from_millis(400), Duration::from_millis(130));
        plan.grid = Grid::in_steps(plan.grid.framerate, segment, part, plan.renditions[1].every);
        let descriptions = probe(&plan, &ProbeCache::new()).unwrap();
        let rates = descriptions.iter().map(|description| description.framerate);
        let rates: Vec<_> = rates.map(<(u32, u32)>::from).collect();
        assert_eq!(rates, [(30_000, 1001), (30_000, 2002)], "{codec}");
        // From an edge, from within a segment where one track has returned more than the other, and with half of the pictures.
        for (first, resumed, step) in [(120, None, 1), (125, Some(126), 1), (127, Some(128), 2)] {
            let mut start = start_at(first, 2);
            start.keyframes_at[1] = resumed.map(Tick);
            start.step = NonZeroU32::new(step).unwrap();
            let fed = start.cadence(plan.grid);
            let (encoder, events) = started_with(&plan, &descriptions, &start);
            for n in 0..40 {
                feed_when_room(&encoder, &moving(&plan, n));
            }
            encoder.finish();
            let (samples, report) = drained(&events, 2);
            assert!(report.expected, "{codec}, {first}: {report:?}");
            let ticks = std::iter::successors(Some(Tick(first)), |tick| Some(fed.after(*tick)));
            let last = ticks.take(40).last().unwrap();
            for (track, samples) in samples.iter().enumerate() {
                let cadence = start.track_cadence(&plan, track);
                let mut tick = start.first_tick;
                for sample in samples {
                    let what = format!("{codec}, {first}, track {track}: tick {tick}");
                    assert_eq!(sample.decode_time, plan.grid.decode_time(tick), "{what}");
                    let asked = tick == start.first_tick
                        || plan.grid.starts_segment(tick)
                        || start.keyframes_at[track] == Some(tick);
                    assert_eq!(sample.keyframe, asked, "{what}");
                    let after = cadence.after(tick);
                    let ticks = u64::from(sample.duration / plan.grid.framerate.den());
                    assert_eq!(ticks, after.since(tick), "{what}");
                    tick = after;
                }
                assert!(tick > last, "{codec}, {first}, track {track}: up to {tick}");
            }
            let second = samples[1].len();
            let wanted = if step == 1 { 20..=21 } else { 38..=40 };
            assert!(
                wanted.contains(&second),
                "{codec}, {first}: {second} samples"
            );
        }
    }
}

#[test]
fn a_renditions_own_filter_may_change_the_size_and_its_options_come_last() {
    let mut plan = small("libx264", Some("ultrafast"), "30");
    let one = &mut plan.renditions[0];
    one.filter = Some("transpose=clock,format=rgb24".into());
    one.output_args = ["-profile:v", "baseline", "-level", "3.1"]
        .map(String::from)
        .to_vec();
    let descriptions = probe(&plan, &ProbeCache::new()).unwrap();
    assert_eq!(descriptions[0].codecs, "avc1.42c01f");
    assert_eq!(descriptions[0].size, Size::new(128, 96));
    let (samples, report) = encoded(&plan, &start_at(0, 1), 20);
    assert!(report.expected, "{report:?}");
    assert_on_grid(&samples[0], &plan, Tick(0), 20, &[]);
    plan.renditions[0].filter = Some("no_such_filter".into());
    let error = probe(&plan, &ProbeCache::new()).unwrap_err().to_string();
    assert!(error.contains("no_such_filter"), "{error}");
}

#[test]
fn every_framerate_comes_back_on_its_grid() {
    for rate in [
        "30",
        "25",
        "30000/1001",
        "60000/1001",
        "15",
        "120000/1001",
        "119",
        "5",
        "1",
    ] {
        let plan = small("libx264", Some("ultrafast"), rate);
        let start = start_at(1_000_003, 1);
        let (samples, report) = encoded(&plan, &start, 130);
        assert!(report.expected, "{rate}: {report:?}");
        assert_on_grid(&samples[0], &plan, start.first_tick, 130, &[]);
    }
}

#[test]
fn descriptions_say_what_the_encoder_is_and_are_equal_each_time() {
    for (codec, preset) in CODECS {
        let plan = small(codec, preset, "30");
        let cache = ProbeCache::new();
        let first = probe(&plan, &cache).unwrap();
        assert_eq!(first, probe(&plan, &cache).unwrap());
        assert_eq!(first, probe(&plan, &ProbeCache::new()).unwrap(), "{codec}");
        let start = match codec {
            "libx264" => "avc1.",
            "libx265" => "hvc1.1.6.L",
            "libvpx-vp9" => "vp09.00.",
            _ => "av01.0.",
        };
        assert!(first[0].codecs.starts_with(start), "{}", first[0].codecs);
    }
}

#[test]
fn a_ladder_comes_out_of_one_process_scaled_and_padded() {
    let size = Size::new(320, 180);
    let sizes = [size, Size::new(160, 90), Size::new(128, 128)];
    let rate = RateControl::Crf(28);
    let renditions = sizes.map(|size| rendition("libx264", Some("ultrafast"), size, rate));
    for format in [PictureFormat::I420, PictureFormat::Nv12] {
        let mut plan = plan("25", Duration::from_millis(400), size, renditions.to_vec());
        plan.input_format = format;
        let (samples, report) = encoded(&plan, &start_at(1005, 3), 60);
        assert!(report.expected, "{report:?}");
        assert_eq!(
            (report.pictures, &report.samples[..]),
            (60, &[60, 60, 60][..])
        );
        for track in &samples {
            assert_on_grid(track, &plan, Tick(1005), 60, &[]);
        }
    }
}

#[test]
fn an_encoder_that_works_on_several_pictures_holds_so_many_until_its_end() {
    const AT_ONCE: u32 = 4;
    let mut plan = small("libx264", Some("ultrafast"), "30");
    let half = EncodeRendition {
        every: NonZeroU32::new(2).unwrap(),
        ..plan.renditions[0].clone()
    };
    plan.renditions.push(half);
    plan.grid = Grid::in_steps(
        plan.grid.framerate,
        Duration::from_millis(400),
        Duration::from_millis(130),
        plan.renditions[1].every,
    );
    plan.at_once = NonZeroU32::new(AT_ONCE).unwrap();
    let start = start_at(60, 2);
    let (encoder, events) = started(&plan, &start);
    let mut returned = [Vec::new(), Vec::new()];
    let take = |returned: &mut [Vec<Sample>; 2]| match events.recv_timeout(DEADLINE).unwrap() {
        EncoderEvent::Sample(sample) => returned[sample.track].push(sample),
        other => panic!("{other:?}"),
    };
    // Of every second picture it works on half as many.
    let [held, of_half] = [AT_ONCE, AT_ONCE / 2].map(|own| usize::try_from(own - 1).unwrap());
    for n in 0..40 {
        feed_when_room(&encoder, &moving(&plan, n));
    }
    while returned[0].len() < 40 - held || returned[1].len() < 20 - of_half {
        take(&mut returned);
    }
    encoder.finish();
    let (rest, report) = drained(&events, 2);
    assert!(report.expected, "{report:?}");
    assert_eq!(
        rest.iter().map(Vec::len).collect::<Vec<_>>(),
        [held, of_half]
    );
    let [mut whole, _] = returned;
    whole.extend(rest.into_iter().next().unwrap());
    assert_on_grid(&whole, &plan, start.first_tick, 40, &[]);
}

#[test]
fn a_killed_encoder_delivers_what_was_whole_and_then_its_end() {
    let plan = small("libx264", Some("ultrafast"), "30");
    let (encoder, events) = started(&plan, &start_at(7, 1));
    for n in 0..20 {
        feed_when_room(&encoder, &moving(&plan, n));
    }
    let mut samples = Vec::new();
    while samples.len() < 10 {
        match events.recv_timeout(DEADLINE).unwrap() {
            EncoderEvent::Sample(sample) => samples.push(sample),
            other => panic!("{other:?}"),
        }
    }
    encoder.kill();
    let (rest, report) = drained(&events, 1);
    samples.extend(rest.into_iter().flatten());
    assert_on_grid(&samples, &plan, Tick(7), samples.len() as u64, &[]);
    assert_eq!(report.status, "signal: 9 (SIGKILL)");
    assert!(!report.expected);
    assert_eq!(report.samples, [samples.len() as u64]);
    assert_eq!(encoder.feed(moving(&plan, 0)), Err(FeedError::Gone));
    assert!(
        events.recv_timeout(DEADLINE).is_err(),
        "nothing follows, and no thread holds the sender"
    );
}

/// A program that starts the real FFmpeg in some other way.
fn wrapper(folder: &Path, script: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("ffmpeg");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

#[test]
fn an_encoders_own_children_end_with_it_and_keep_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    // A child that holds every pipe open, beside FFmpeg or in its place.
    for script in ["sleep 600 & exec ffmpeg \"$@\"", "ffmpeg \"$@\"; exit $?"] {
        for kill_leader in [false, true] {
            let mut plan = small("libx264", Some("ultrafast"), "30");
            let descriptions = probe(&plan, &ProbeCache::new()).unwrap();
            plan.ffmpeg.path = wrapper(folder.path(), script);
            let (encoder, events) = started_with(&plan, &descriptions, &start_at(0, 1));
            for n in 0..5 {
                feed_when_room(&encoder, &moving(&plan, n));
            }
            let first = events.recv_timeout(DEADLINE).unwrap();
            assert!(matches!(first, EncoderEvent::Sample(_)), "{first:?}");
            let group = Pid::from_raw(i32::try_from(encoder.pid()).unwrap()).unwrap();
            assert!(Vitals::of(group).is_some());
            if kill_leader {
                rustix::process::kill_process(group, rustix::process::Signal::KILL).unwrap();
            } else {
                encoder.kill();
            }
            let (_, report) = drained(&events, 1);
            assert_eq!(report.status, "signal: 9 (SIGKILL)");
            let deadline = Instant::now() + DEADLINE;
            while Vitals::of(group).is_some() {
                assert!(Instant::now() < deadline, "'{script}' leaves a process");
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

#[test]
fn a_restart_resumes_at_a_keyframe_with_the_same_headers() {
    let plan = small("libx264", Some("ultrafast"), "30");
    let descriptions = probe(&plan, &ProbeCache::new()).unwrap();
    for first in [100, 105] {
        let mut start = start_at(first, 1);
        start.keyframes_at = vec![Some(Tick(first + 3))];
        let (encoder, events) = started_with(&plan, &descriptions, &start);
        for n in 0..10 {
            feed_when_room(&encoder, &moving(&plan, n));
        }
        encoder.finish();
        let (samples, report) = drained(&events, 1);
        assert!(report.expected);
        assert_on_grid(&samples[0], &plan, Tick(first), 10, &[Tick(first + 3)]);
    }
}

#[test]
fn other_headers_than_the_probes_are_an_error() {
    let plan = small("libx264", Some("ultrafast"), "30");
    let mut other = plan.clone();
    other.renditions[0].options = vec![
        ("profile".into(), "high".into()),
        ("level".into(), "5.1".into()),
    ];
    let descriptions = probe(&other, &ProbeCache::new()).unwrap();
    let (encoder, events) = started_with(&plan, &descriptions, &start_at(0, 1));
    for n in 0..3 {
        feed_when_room(&encoder, &moving(&plan, n));
    }
    let event = events.recv_timeout(DEADLINE).unwrap();
    assert!(
        matches!(
            &event,
            EncoderEvent::Failed {
                track: 0,
                error: EncodeError::Bitstream { .. }
            }
        ),
        "{event:?}"
    );
}

#[test]
fn reordering_is_an_error() {
    let mut plan = small("libx264", Some("veryfast"), "30");
    plan.renditions[0].options = vec![("bf".into(), "2".into()), ("tune".into(), "film".into())];
    let (encoder, events) = started(&plan, &start_at(0, 1));
    for n in 0..60 {
        feed_when_room(&encoder, &moving(&plan, n));
    }
    encoder.finish();
    let event = events.recv_timeout(DEADLINE).unwrap();
    let EncoderEvent::Failed { error, .. } = event else {
        panic!("{event:?}")
    };
    assert!(matches!(error, EncodeError::Reordered { .. }), "{error}");
}

#[test]
fn an_encoder_that_refuses_its_options_is_quoted() {
    let mut plan = small("libx264", Some("bogus"), "30");
    let error = probe(&plan, &ProbeCache::new()).unwrap_err();
    assert!(matches!(error, EncodeError::Refused { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("bogus") || text.contains("preset"), "{text}");
    assert!(!text.contains('\n') && !text.contains("0x"), "{text}");
    plan.renditions[0].codec = "libx266".into();
    let error = probe(&plan, &ProbeCache::new()).unwrap_err();
    assert!(matches!(error, EncodeError::NoEncoder { .. }), "{error:?}");
}

#[test]
fn a_full_queue_refuses_at_once_and_a_wrong_picture_always() {
    let plan = small("libx264", Some("ultrafast"), "30");
    let (encoder, _events) = started(&plan, &start_at(0, 1));
    let group = Pid::from_raw(i32::try_from(encoder.pid()).unwrap()).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::STOP).unwrap();
    let picture = moving(&plan, 0);
    let deadline = Instant::now() + DEADLINE;
    while encoder.feed(picture.clone()) != Err(FeedError::Full(8)) {
        assert!(Instant::now() < deadline, "the pipe takes everything");
    }
    assert_eq!(encoder.queued(), 8);
    let other = EncodePlan {
        input_size: Size::new(64, 64),
        ..plan
    };
    assert_eq!(encoder.feed(moving(&other, 0)), Err(FeedError::Unfit));
}

fn tasks(pid: u32) -> Vec<(String, i32)> {
    let Ok(folder) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    folder
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok())
        .filter_map(|stat| {
            let (name, rest) = stat.rsplit_once(") ")?;
            let nice = rest.split(' ').nth(16)?.parse().ok()?;
            Some((name.to_owned(), nice))
        })
        .collect()
}

#[test]
fn every_thread_of_the_encoder_is_nice_and_ours_are_not() {
    let plan = small("libx265", Some("ultrafast"), "30");
    // The test may be run nice itself, and then all of its threads are.
    let own = tasks(std::process::id())[0].1;
    let (encoder, events) = started(&plan, &start_at(0, 1));
    for n in 0..5 {
        feed_when_room(&encoder, &moving(&plan, n));
    }
    while !matches!(
        events.recv_timeout(DEADLINE).unwrap(),
        EncoderEvent::Sample(_)
    ) {}
    let theirs = tasks(encoder.pid());
    assert!(theirs.len() > 1, "{theirs:?}");
    // x265 makes its own threads nicer still.
    let wanted = (own + 5).min(19);
    let least = theirs.iter().map(|(_, nice)| *nice).min();
    assert_eq!(least, Some(wanted), "{theirs:?}");
    let ours = tasks(std::process::id());
    let ours = ours.iter().filter(|(name, _)| name.contains("ffmpeg-feed"));
    assert!(ours.clone().count() > 0 && ours.clone().all(|(_, nice)| *nice == own));
}

/// Run by [`killing_the_daemon_leaves_no_ffmpeg`] in a process of its own, which never gets further than `park`.
#[test]
#[ignore = "a part of another test"]
fn a_parent_to_be_killed() {
    let plan = small("libx264", Some("ultrafast"), "30");
    let (encoder, _events) = started(&plan, &start_at(0, 1));
    for n in 0..5 {
        feed_when_room(&encoder, &moving(&plan, n));
    }
    println!("\nencoder {}", encoder.pid());
    loop {
        thread::park();
    }
}

#[test]
fn killing_the_daemon_leaves_no_ffmpeg() {
    let mut parent = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "encode::encoder::tests::a_parent_to_be_killed",
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(parent.stdout.take().unwrap());
    let pid: u32 = std::io::BufRead::lines(output)
        .find_map(|line| line.unwrap().strip_prefix("encoder ")?.parse().ok())
        .unwrap();
    assert!(!tasks(pid).is_empty());
    parent.kill().unwrap();
    parent.wait().unwrap();
    let deadline = Instant::now() + DEADLINE;
    let runs = || {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| stat.contains("(ffmpeg)") && !stat.contains(") Z "))
    };
    while runs() {
        assert!(Instant::now() < deadline, "FFmpeg outlives its daemon");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Run by [`nothing_leaks_over_fifty_encoders`] in a process of its own, so that other tests' threads don't count.
#[test]
#[ignore = "a part of another test"]
fn fifty_encoders_come_and_go() {
    let plan = small("libx264", Some("ultrafast"), "30");
    let descriptions = probe(&plan, &ProbeCache::new()).unwrap();
    let counts = || {
        let count = |folder| std::fs::read_dir(folder).unwrap().count();
        (count("/proc/self/fd"), count("/proc/self/task"))
    };
    let begin = counts();
    for round in 0..50 {
        let (encoder, events) = started_with(&plan, &descriptions, &start_at(0, 1));
        for n in 0..round % 4 {
            feed_when_room(&encoder, &moving(&plan, n));
        }
        encoder.kill();
        let (_, report) = drained(&events, 1);
        assert_eq!(report.status, "signal: 9 (SIGKILL)");
        assert!(tasks(encoder.pid()).is_empty(), "it is reaped");
    }
    // The last thread ends a moment after its last event, as the probe's may have done after `begin`.
    let deadline = Instant::now() + DEADLINE;
    let grown = || {
        let now = counts();
        (now.0 > begin.0 || now.1 > begin.1).then_some(now)
    };
    while let Some(now) = grown() {
        assert!(Instant::now() < deadline, "{begin:?} became {now:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn nothing_leaks_over_fifty_encoders() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "encode::encoder::tests::fifty_encoders_come_and_go",
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Prints figures; the machine decides what they are. `cargo test --lib delay_of_a_picture -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn delay_of_a_picture() {
    let size = Size::new(1280, 720);
    let sizes = [size, Size::new(854, 480), Size::new(640, 360)];
    for count in [1, 3] {
        for (codec, preset) in [("libx264", "ultrafast"), ("libx264", "veryfast")] {
            let rate = RateControl::Bitrate(2_500_000);
            let renditions = sizes[..count]
                .iter()
                .map(|&s| rendition(codec, Some(preset), s, rate));
            let plan = plan("30", Duration::from_secs(2), size, renditions.collect());
            let descriptions = probe(&plan, &ProbeCache::new()).unwrap();
            let (sender, events) = channel();
            let send = move |event| drop(sender.send((Instant::now(), event)));
            let encoder = Encoder::start(&plan, &descriptions, &start_at(0, count), send).unwrap();
            let pictures: Vec<Picture> = (0..30).map(|n| moving(&plan, n)).collect();
            let begin = Instant::now();
            let fed: Vec<Instant> = (0..300_u32)
                .map(|n| {
                    let due = begin + n * Duration::from_secs(1) / 30;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    feed_when_room(&encoder, &pictures[n as usize % 30]);
                    Instant::now()
                })
                .collect();
            encoder.finish();
            let mut delays = vec![Duration::ZERO; fed.len()];
            while let Ok((at, event)) = events.recv_timeout(DEADLINE) {
                if let EncoderEvent::Sample(sample) = event {
                    let n = usize::try_from(sample.decode_time).unwrap();
                    delays[n] = delays[n].max(at - fed[n]);
                }
            }
            delays.drain(..30);
            delays.sort();
            let at = |percent: usize| delays[(delays.len() - 1) * percent / 100];
            println!(
                "{count} x {codec} {preset}: p50 {:?}, p99 {:?}, max {:?}",
                at(50),
                at(99),
                at(100)
            );
        }
    }
}

/// `idr_pic_id` of an x264 keyframe (ITU-T H.264, 7.3.3): behind the first macroblock, the slice's type, the picture parameter set and
/// four bits of `frame_num`.
fn idr_picture_id(sample: &Sample) -> u32 {
    let mut rest = &sample.data[..];
    while let Some((size, tail)) = rest.split_first_chunk::<4>() {
        let (nal, next) = tail.split_at(u32::from_be_bytes(*size) as usize);
        if nal[0] & 31 == 5 {
            let header = u32::from_be_bytes([nal[1], nal[2], nal[3], nal[4]]);
            assert_eq!(header >> 19, 0b1_0001_0001_0000, "as x264 writes it");
            return match header << 13 >> 29 {
                0b100..=0b111 => 0,
                0b010 => 1,
                other => panic!("{other:03b} is neither 0 nor 1"),
            };
        }
        rest = next;
    }
    panic!("a keyframe has an IDR slice")
}

#[test]
fn a_picture_encoded_ahead_fits_what_every_live_encoder_publishes() {
    for (codec, preset) in CODECS {
        let mut plan = small(codec, preset, "25");
        plan.renditions.push(EncodeRendition {
            every: NonZeroU32::new(2).unwrap(),
            ..plan.renditions[0].clone()
        });
        let descriptions = probe(&plan, &ProbeCache::new()).unwrap();
        let dark = picture(&plan, vec![40; plan.input_format.bytes(plan.input_size)]);
        let encode = |count, second_keyframe| {
            let count = NonZeroUsize::new(count).unwrap();
            encode_ahead(&plan, &descriptions, &dark, count, second_keyframe).unwrap()
        };
        // Every second picture is shown by as many samples.
        for samples in encode(4, false) {
            let keyframes: Vec<bool> = samples.iter().map(|sample| sample.keyframe).collect();
            assert_eq!(keyframes, [true, false, false, false], "{codec}");
            assert!(
                samples[1..].iter().all(|sample| sample.data.len() < 200),
                "{codec}: nothing changes"
            );
        }
        let twice = encode(2, true);
        assert!(
            twice.iter().flatten().all(|sample| sample.keyframe),
            "{codec}"
        );
        let twice = &twice[0];
        if codec == "libx264" {
            assert_eq!([&twice[0], &twice[1]].map(idr_picture_id), [0, 1]);
        }
    }
}

#[path = "rate_tests.rs"]
mod rate_tests;
