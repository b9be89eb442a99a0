//! How fast frames go through a ring, beside what else there is: the same frame by memcpy, through GStreamer's shared-memory pair, and
//! through a Unix socket. First criterion measures single steps; then all ways are run in turns, several rounds of each, and compared by
//! their medians, so that a busy machine is unfair to none. Every way copies into as many buffers in turn: one that is used again and again would
//! stay in the cache. A goal that is missed, or that a missing program keeps from being measured, makes the bench fail; docs/design/ring.md has the results.

// A bench is a test here: what goes wrong ends it.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use ringgear_ring::format::{FrameFormat, PixelFormat};
use ringgear_ring::layout::Policy;
use ringgear_ring::{Deadline, MemoryKind, Reader, RingMemory, Writer};

/// Says to this program, started again, that it is the producer of a named ring: name, format, frames.
const PRODUCER: &str = "RINGGEAR_BENCH_PRODUCER";
const SLOTS: u32 = 6;
const FRAMES: u64 = 600;
/// How many frames are sent where nothing is copied.
const HANDED_OVER: u64 = 20_000;
const ROUNDS: usize = 7;

fn full_hd(pixels: PixelFormat) -> FrameFormat {
    FrameFormat::packed(pixels, 1920, 1080).unwrap()
}

fn pair(kind: MemoryKind, policy: Policy, format: &FrameFormat) -> (Reader, Writer) {
    let memory = RingMemory::create_as(kind, policy, format, SLOTS).unwrap();
    let bytes = memory.bytes() as u64;
    let writer = match memory.name() {
        Some(name) => Writer::open_named(name, format, bytes, SLOTS),
        None => {
            let fd = memory.fd().try_clone_to_owned().unwrap();
            Writer::from_fd(fd, format, bytes, SLOTS)
        }
    };
    (Reader::new(memory), writer.unwrap())
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

/// Commits frames until one slot is left, so that who commits one and takes one from then on goes through all slots in turn.
fn fill_up(writer: &mut Writer) {
    for number in 1..u64::from(SLOTS) {
        writer.begin().unwrap().commit(number, None);
    }
}

/// A frame that isn't one page of zeros many times over.
fn picture(format: &FrameFormat) -> Vec<u8> {
    (0..format.bytes())
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect()
}

fn single_steps(criterion: &mut Criterion) {
    for pixels in [PixelFormat::Bgr24, PixelFormat::Nv12] {
        let format = full_hd(pixels);
        let frame = picture(&format);
        let name = format!("1080p {pixels}");
        let mut group = criterion.benchmark_group(&name);
        group.throughput(Throughput::Bytes(frame.len() as u64));
        // Into as many buffers as the ring has slots: one alone would stay in the cache.
        let mut copies = vec![frame.clone(); SLOTS as usize];
        let mut next = 0;
        group.bench_function("memcpy", |bencher| {
            bencher.iter(|| {
                next = (next + 1) % copies.len();
                copies[next].copy_from_slice(black_box(&frame));
                black_box(copies[next].as_ptr());
            });
        });
        let (mut reader, mut writer) = pair(MemoryKind::Memfd, Policy::Latest, &format);
        fill_up(&mut writer);
        group.bench_function("copy into a slot, commit, take", |bencher| {
            bencher.iter(|| {
                let mut slot = writer.begin().unwrap();
                slot.fill(black_box(&frame)).unwrap();
                slot.commit(1, None);
                drop(reader.take_oldest().unwrap().unwrap());
            });
        });
        let mut group = {
            group.finish();
            criterion.benchmark_group(&name)
        };
        group.bench_function("begin, commit, take (nothing written)", |bencher| {
            bencher.iter(|| {
                let mut slot = writer.begin().unwrap();
                black_box(slot.bytes_mut().as_ptr());
                slot.commit(1, None);
                drop(reader.take_oldest().unwrap().unwrap());
            });
        });
        group.finish();
    }
}

/// From commit to take, by a reader that sleeps on its futex on another thread.
fn latency(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit to take, reader asleep");
    for kind in [MemoryKind::Memfd, MemoryKind::Named] {
        let format = full_hd(PixelFormat::Nv12);
        let (mut reader, mut writer) = pair(kind, Policy::Latest, &format);
        let (taken, over) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    let _ = reader
                        .wait(Deadline::after(Duration::from_millis(100)))
                        .unwrap();
                    while let Some(frame) = reader.take_oldest().unwrap() {
                        let now = Deadline::after(Duration::ZERO).0;
                        let took = now - frame.captured().unwrap().0;
                        drop(frame);
                        taken.store(took.max(1), Ordering::Release);
                    }
                }
            });
            group.bench_function(
                BenchmarkId::from_parameter(format!("{kind:?}")),
                |bencher| {
                    bencher.iter_custom(|frames| {
                        let mut whole = Duration::ZERO;
                        for number in 0..frames {
                            // Time for the reader to fall asleep; not measured.
                            std::thread::sleep(Duration::from_micros(200));
                            taken.store(0, Ordering::Relaxed);
                            let slot = writer.begin().unwrap();
                            let now = Deadline::after(Duration::ZERO).0;
                            slot.commit(number, Some(ringgear_ring::Captured(now)));
                            whole += loop {
                                match taken.load(Ordering::Acquire) {
                                    0 => std::thread::yield_now(),
                                    took => break Duration::from_nanos(took),
                                }
                            };
                        }
                        whole
                    });
                },
            );
            over.store(true, Ordering::Release);
        });
    }
    group.finish();
}

/// This program as a producer process.
fn produce(arguments: &str) {
    let words: Vec<&str> = arguments.split(' ').collect();
    let [name, pixels, frames, how] = words[..] else {
        panic!("{arguments}")
    };
    let format = full_hd(PixelFormat::from_name(pixels).unwrap());
    let frames: u64 = frames.parse().unwrap();
    let frame = picture(&format);
    if how == "socket" {
        let mut socket = UnixStream::connect(name).unwrap();
        for _ in 0..frames {
            socket.write_all(&frame).unwrap();
        }
        return;
    }
    let bytes = ringgear_ring::layout::Layout::new(&format, SLOTS)
        .unwrap()
        .bytes() as u64;
    let mut writer = Writer::open_named(name, &format, bytes, SLOTS).unwrap();
    for number in 0..frames {
        assert!(writer.wait_for_room(soon()).unwrap());
        let mut slot = writer.begin().unwrap();
        if how == "copy" {
            slot.fill(&frame).unwrap();
        }
        slot.commit(number, None);
    }
}

fn producer(arguments: &str) -> Child {
    let mut me = Command::new(std::env::current_exe().unwrap());
    me.env(PRODUCER, arguments).spawn().unwrap()
}

/// Frames a second, none where it can't be run.
type Way = fn(&FrameFormat) -> Option<f64>;

fn rate(frames: u64, started: Option<Instant>) -> Option<f64> {
    Some((frames - 1) as f64 / started?.elapsed().as_secs_f64())
}

fn by_memcpy(format: &FrameFormat) -> Option<f64> {
    let frame = picture(format);
    let mut copies = vec![frame.clone(); SLOTS as usize];
    let started = Instant::now();
    for slot in (0..copies.len())
        .cycle()
        .zip(1..FRAMES)
        .map(|(slot, _)| slot)
    {
        copies[slot].copy_from_slice(black_box(&frame));
        black_box(copies.as_ptr());
    }
    rate(FRAMES, Some(started))
}

/// Copy-in alone, on one thread: what a producer pays.
fn by_copy_in(format: &FrameFormat) -> Option<f64> {
    let frame = picture(format);
    let (mut reader, mut writer) = pair(MemoryKind::Memfd, Policy::Latest, format);
    fill_up(&mut writer);
    let started = Instant::now();
    for number in 1..FRAMES {
        let mut slot = writer.begin().unwrap();
        slot.fill(black_box(&frame)).unwrap();
        slot.commit(number, None);
        drop(reader.take_oldest().unwrap().unwrap());
    }
    assert_eq!(writer.superseded(), 0);
    rate(FRAMES, Some(started))
}

fn by_ring(format: &FrameFormat) -> Option<f64> {
    between_processes(format, FRAMES, "copy")
}

/// The producer paints in its slots, so nothing is copied; here it paints nothing.
fn hand_over_by_ring(format: &FrameFormat) -> Option<f64> {
    between_processes(format, HANDED_OVER, "nothing")
}

fn between_processes(format: &FrameFormat, frames: u64, how: &str) -> Option<f64> {
    let memory = RingMemory::create_as(MemoryKind::Named, Policy::Lossless, format, SLOTS).unwrap();
    let (name, pixels) = (memory.name().unwrap().to_owned(), format.pixels());
    let mut child = producer(&format!("{name} {pixels} {frames} {how}"));
    let mut reader = Reader::new(memory);
    let mut started = None;
    // Where pixels are written, frames are let wait until one slot is left, so that the writer goes through all of them in turn.
    let waiting = if how == "copy" { SLOTS as usize - 1 } else { 1 };
    for taken in 0..frames {
        let waiting = waiting.min(usize::try_from(frames - taken).unwrap());
        while reader.ready().unwrap().len() < waiting {
            assert!(reader.wait(soon()).unwrap());
        }
        drop(reader.take_oldest().unwrap().unwrap());
        started.get_or_insert_with(Instant::now);
    }
    let rate = rate(frames, started);
    assert!(child.wait().unwrap().success());
    rate
}

fn by_socket(format: &FrameFormat) -> Option<f64> {
    let folder = std::env::temp_dir().join(format!("ringgear-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("socket");
    let _ = std::fs::remove_file(&path);
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let pixels = format.pixels();
    let mut child = producer(&format!("{} {pixels} {FRAMES} socket", path.display()));
    let (mut socket, _) = listener.accept().unwrap();
    let mut frame = vec![0; format.bytes()];
    let mut started = None;
    for _ in 0..FRAMES {
        socket.read_exact(&mut frame).unwrap();
        started.get_or_insert_with(Instant::now);
    }
    let rate = rate(FRAMES, started);
    assert!(child.wait().unwrap().success());
    let _ = std::fs::remove_dir_all(&folder);
    rate
}

/// A frame in ordinary memory, sent again and again: `shmsink` copies it in each time, `shmsrc` doesn't copy it out, as in [`by_ring`].
fn by_gstreamer(format: &FrameFormat) -> Option<f64> {
    let file = std::env::temp_dir().join(format!("ringgear-bench-{}.raw", std::process::id()));
    std::fs::write(&file, picture(format)).ok()?;
    let (path, bytes) = (file.display(), format.bytes());
    let rate = gstreamer(
        format,
        FRAMES,
        &format!(
            "filesrc location={path} blocksize={bytes} ! \
             rawvideoparse format={} width=1920 height=1080 framerate=30/1",
            format.pixels().name().trim_end_matches("24")
        ),
    );
    let _ = std::fs::remove_file(&file);
    rate
}

/// A frame that `videotestsrc` has painted into shared memory, sent again and again: nothing is copied.
fn hand_over_by_gstreamer(format: &FrameFormat) -> Option<f64> {
    let pixels = format.pixels().name().trim_end_matches("24").to_uppercase();
    let source = format!(
        "videotestsrc num-buffers=1 ! \
         video/x-raw,format={pixels},width=1920,height=1080,framerate=30/1"
    );
    // As many as this GStreamer reliably gets through: with thousands that cost it nothing, both ends come to wait for each other.
    gstreamer(format, FRAMES, &source)
}

/// Sends `source`'s one frame `frames` times through `shmsink` and `shmsrc`. The rate is by GStreamer's own measure of the receiving side's time.
fn gstreamer(format: &FrameFormat, frames: u64, source: &str) -> Option<f64> {
    let folder = std::env::temp_dir().join(format!("ringgear-bench-gst-{}", std::process::id()));
    std::fs::create_dir_all(&folder).ok()?;
    let path = folder.join("socket");
    let _ = std::fs::remove_file(&path);
    let socket = path.display();
    // Room for as many frames as the ring has slots.
    let room = (format.bytes() + 65_536) * SLOTS as usize;
    let gst = |pipeline: &str| {
        let mut gst = Command::new("gst-launch-1.0");
        gst.args(pipeline.split_whitespace()).env("LC_ALL", "C");
        gst.stderr(Stdio::null());
        gst
    };
    let mut sink = gst(&format!(
        "{source} ! imagefreeze num-buffers={} ! \
         shmsink socket-path={socket} shm-size={room} wait-for-connection=true sync=false",
        frames + 1
    ));
    let mut sink = sink.stdout(Stdio::null()).spawn().ok()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !path.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    // One that comes to no end is ended, so that a bench without it goes on.
    let receive = format!("shmsrc socket-path={socket} num-buffers={frames} ! fakesink sync=false");
    let mut limited = Command::new("timeout");
    limited
        .arg("10")
        .arg("gst-launch-1.0")
        .args(receive.split_whitespace());
    let output = limited.stderr(Stdio::null()).env("LC_ALL", "C").output();
    // By a signal that lets it remove its memory's name.
    let _ = rustix::process::kill_process(
        rustix::process::Pid::from_child(&sink),
        rustix::process::Signal::INT,
    );
    let _ = sink.wait();
    let _ = std::fs::remove_dir_all(&folder);
    let said = String::from_utf8(output.ok()?.stdout).ok()?;
    let (_, time) = said.split_once("Execution ended after ")?;
    let mut seconds = 0.0;
    for field in time.lines().next()?.split(':') {
        seconds = seconds * 60.0 + field.trim().parse::<f64>().ok()?;
    }
    Some(frames as f64 / seconds)
}

const WAYS: [(&str, Way); 7] = [
    ("memcpy", by_memcpy),
    ("ring, copy-in, one thread", by_copy_in),
    ("ring, two processes", by_ring),
    ("GStreamer shm, two processes", by_gstreamer),
    ("Unix socket, two processes", by_socket),
    ("ring, nothing copied", hand_over_by_ring),
    ("GStreamer shm, nothing copied", hand_over_by_gstreamer),
];

/// What a ring costs beside the writing of pixels: a slot begun, committed and taken, in microseconds.
fn slot_alone() -> f64 {
    let format = full_hd(PixelFormat::Nv12);
    let (mut reader, mut writer) = pair(MemoryKind::Memfd, Policy::Latest, &format);
    fill_up(&mut writer);
    let mut rounds = [(); ROUNDS].map(|()| {
        let started = Instant::now();
        for number in 0..HANDED_OVER {
            let mut slot = writer.begin().unwrap();
            black_box(slot.bytes_mut().as_ptr());
            slot.commit(number, None);
            drop(reader.take_oldest().unwrap().unwrap());
        }
        started.elapsed().as_secs_f64() * 1e6 / HANDED_OVER as f64
    });
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// Says how `value` fares beside its goal; whether it was measured and reached.
fn reached(what: &str, value: Option<f64>, goal: f64, at_most: bool) -> bool {
    let limit = if at_most { "at most" } else { "at least" };
    let Some(value) = value else {
        println!("  {what}: NOT MEASURED (goal: {limit} {goal})");
        return false;
    };
    let good = if at_most {
        value <= goal
    } else {
        value >= goal
    };
    let verdict = if good { "" } else { ", MISSED" };
    println!("  {what}: {value:.2} (goal: {limit} {goal}{verdict})");
    good
}

/// Runs all ways in turns and compares their medians; whether all goals are reached.
fn compare() -> bool {
    let mut good = true;
    for pixels in [PixelFormat::Bgr24, PixelFormat::Nv12] {
        let format = full_hd(pixels);
        println!("\n1080p {pixels}, median of {ROUNDS} rounds in turns");
        let mut rates = [const { Vec::new() }; WAYS.len()];
        for _ in 0..ROUNDS {
            for (rates, (_, way)) in rates.iter_mut().zip(WAYS) {
                rates.extend(way(&format));
            }
        }
        let medians = rates.map(|mut rates: Vec<f64>| {
            rates.sort_by(f64::total_cmp);
            rates.get(rates.len() / 2).copied()
        });
        for ((name, _), median) in WAYS.iter().zip(medians) {
            match median {
                Some(rate) => {
                    let each = 1e6 / rate;
                    print!("  {name:<30} {rate:>8.0} frames/s {each:>9.2} us");
                    match name.ends_with("nothing copied") {
                        true => println!(),
                        false => println!(" {:>7.2} GB/s", rate * format.bytes() as f64 / 1e9),
                    }
                }
                None => println!("  {name:<30} could not be run"),
            }
        }
        let mut ratio = |what, over: Option<f64>, under: Option<f64>, goal| {
            let ratio = over.zip(under).map(|(over, under)| over / under);
            good &= reached(what, ratio, goal, false);
        };
        let [
            memcpy,
            copy_in,
            ring,
            gstreamer,
            _,
            handed,
            handed_gstreamer,
        ] = medians;
        ratio("copy-in / memcpy", copy_in, memcpy, 0.9);
        // Twice is not to be had where both copy once: GStreamer's pair is nearly as quick as memcpy.
        ratio("ring / GStreamer, one copy each", ring, gstreamer, 0.9);
        ratio(
            "ring / GStreamer, nothing copied",
            handed,
            handed_gstreamer,
            2.0,
        );
    }
    println!("\nbeside the pixels");
    good & reached("a slot's microseconds", Some(slot_alone()), 2.0, true)
}

fn main() -> ExitCode {
    if let Ok(arguments) = std::env::var(PRODUCER) {
        produce(&arguments);
        return ExitCode::SUCCESS;
    }
    // `cargo test --benches` runs this too, to see that it runs at all.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    single_steps(&mut criterion);
    latency(&mut criterion);
    criterion.final_summary();
    if compare() {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "a goal was missed or not measured: docs/design/ring.md says what to expect; other work on the machine is unfair to hand-overs"
    );
    ExitCode::FAILURE
}
