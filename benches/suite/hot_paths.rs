//! The paths that every frame, sample, part or viewer takes, for counting their instructions: counts don't move with the machine's load.
//!
//!     valgrind --tool=callgrind hot_paths PATH TIMES
//!
//! does one path so many times after a few others, so that the difference of two runs is that of the path alone; without PATH, says which there are.
//! benches/suite/hot_paths.py compares them with what they may take.

#![forbid(unsafe_code)]
// What goes wrong ends it.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use ringgear::clock::MonotonicTime;
use ringgear::encode::nut::{NutHead, Reader as NutReader};
use ringgear::ingest::Converter;
use ringgear::manifest::hls::{self, Extent};
use ringgear::package::TrackPackager;
use ringgear::sample::Sample;
use ringgear::tick::{Framerate, Grid, Tick, UnixTime};
use ringgear_producer::{FrameFormat, PixelFormat};
use ringgear_ring::{Reader, RingMemory, Writer};

#[path = "live_window.rs"]
mod live_window;

use live_window::LiveWindow;

const WARM_UP: usize = 3;
const SLOTS: u32 = 6;
/// What libx264 makes of a few small pictures, in NUT.
const NUT: &[u8] = include_bytes!("../../fuzz/seeds/nut/libx264");

/// One path: what is prepared does not count.
type Path = Box<dyn FnMut()>;
type Prepare = fn() -> Path;

const PATHS: [(&str, Prepare); 7] = [
    ("frame_bgr24_1080p", || frame(PixelFormat::Bgr24)),
    ("frame_nv12_1080p", || frame(PixelFormat::Nv12)),
    ("frame_i420_1080p", || frame(PixelFormat::Yuv420p)),
    ("nut", nut),
    ("part", part),
    ("playlist", playlist),
    ("snapshot", snapshot),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(asked), Some(times)) = (arguments.next(), arguments.next()) else {
        PATHS.iter().for_each(|(name, _)| println!("{name}"));
        return;
    };
    let (_, path) = PATHS.iter().find(|(name, _)| *name == asked).unwrap();
    let mut path = path();
    (0..WARM_UP).for_each(|_| path());
    let times: usize = times.parse().unwrap();
    (0..times).for_each(|_| path());
}

fn framerate() -> Framerate {
    Framerate::new(30, 1).unwrap()
}

fn grid() -> Grid {
    Grid::new(
        framerate(),
        Duration::from_secs(2),
        Duration::from_millis(333),
    )
}

/// A frame's commit, its way out of the ring, and what becomes of it as a picture.
fn frame(pixels: PixelFormat) -> Path {
    let format = FrameFormat::packed(pixels, 1920, 1080).unwrap();
    let memory = RingMemory::create(&format, SLOTS).unwrap();
    let fd = memory.fd().try_clone_to_owned().unwrap();
    let mut writer = Writer::from_fd(fd, &format, memory.bytes() as u64, SLOTS).unwrap();
    let mut reader = Reader::new(memory);
    let mut converter = Converter::new(format);
    let mut number = 0;
    Box::new(move || {
        number += 1;
        writer.begin().unwrap().commit(number, None);
        let taken = reader.take_oldest().unwrap().unwrap();
        let picture = converter.convert(&taken, MonotonicTime(number)).unwrap();
        black_box(picture.pixels()[0]);
    })
}

/// A whole stream of packets, as it comes out of a pipe.
fn nut() -> Path {
    let mut place = vec![0; 1 << 16];
    Box::new(move || {
        let mut reader = NutReader::new(1 << 16);
        // The first byte tells the fuzzer how to cut the others.
        for piece in NUT[1..].chunks(4096) {
            reader.push(piece);
            while let Some(head) = reader.head().unwrap() {
                if let NutHead::Packet(packet) = head {
                    let taken = reader.take(&mut place[..packet.bytes]);
                    reader.passed(packet.bytes - taken);
                }
            }
        }
        black_box(&place);
    })
}

/// The samples of one part.
fn part() -> Path {
    let grid = grid();
    let mut next = grid.segment_start(Tick(1_000_000_000));
    let mut packager = TrackPackager::start_at(0, grid, next);
    let data = Bytes::from(vec![7; 10_000]);
    Box::new(move || {
        loop {
            let sample = Sample {
                track: 0,
                decode_time: next.0,
                duration: 1,
                composition_offset: 0,
                keyframe: grid.starts_segment(next),
                data: data.clone(),
            };
            next = next.plus(1);
            if black_box(packager.push(sample).unwrap()).is_some() {
                break;
            }
        }
    })
}

/// A window that is full, with as much again that has left the playlist and stays for a while.
fn filled() -> LiveWindow {
    let begun = UnixTime::from_secs(1_800_000_000);
    let mut live = LiveWindow::begin(begun, Bytes::from_static(&[7; 1000]));
    (0..2 * LiveWindow::PARTS + 3).for_each(|_| live.take_part(live.next()));
    live
}

/// The low-latency playlist of a whole window.
fn playlist() -> Path {
    let live = filled();
    let snapshot = live.window.snapshot(live.next());
    Box::new(move || {
        black_box(hls::low_latency_media(&snapshot, 0, Extent::Full));
    })
}

/// A part's way into the window, and what is told of it.
fn snapshot() -> Path {
    let mut live = filled();
    Box::new(move || {
        live.take_part(live.next());
        black_box(live.window.snapshot(live.next()));
    })
}
