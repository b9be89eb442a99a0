//! 2,000 viewers who wait for the next part of one stream, beside a bare loop that writes the same bytes to as many sockets in the same run: how
//! long the answers take to arrive from the moment the window changes, and what a waiting viewer costs in memory.
//!
//! Ours and the bare loop answer in another process's stead: the readers are one thread here, the same for both.

#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringgear::clock::{Anchor, SystemClock};
use ringgear::config::ViewerLimits;
use ringgear::http::{Manifests, Site, StreamPort, serve};
use ringgear::manifest::hls::{self, Extent};
use ringgear::status::StreamStatus;
use ringgear::window::Snapshot;
use rustix::event::epoll;
use tokio::sync::watch;

#[allow(dead_code, reason = "another bench uses the rest of it")]
#[path = "suite/live_window.rs"]
mod live_window;

use live_window::LiveWindow;

const VIEWERS: usize = 2000;
const ROUNDS: usize = 20;
const PART_BYTES: usize = 100_000;

struct LowLatency;

impl Manifests for LowLatency {
    fn multivariant(&self, snapshot: &Snapshot) -> String {
        hls::multivariant(snapshot)
    }

    fn media(&self, snapshot: &Snapshot, track: usize, extent: Extent) -> String {
        hls::low_latency_media(snapshot, track, extent)
    }

    fn mpd(&self, _: &Snapshot) -> String {
        String::new()
    }

    fn low_latency_mpd(&self, _: &Snapshot) -> String {
        String::new()
    }
}

/// A stream whose parts come when they are asked for.
struct Stream {
    live: LiveWindow,
    anchor: Anchor,
    changes: watch::Sender<Arc<Snapshot>>,
}

impl Stream {
    fn new(anchor: Anchor) -> Self {
        let live = LiveWindow::begin(anchor.now(), Bytes::from(vec![7; PART_BYTES]));
        let (changes, _) = watch::channel(live.window.snapshot(anchor.now()));
        let mut stream = Self {
            live,
            anchor,
            changes,
        };
        (0..LiveWindow::PARTS + 1).for_each(|_| stream.part());
        stream
    }

    fn part(&mut self) {
        let now = self.anchor.now();
        self.live.take_part(now);
        self.changes.send_replace(self.live.window.snapshot(now));
    }

    /// What asks for the playlist with the next part.
    fn next_reload(&self) -> String {
        let snapshot = Arc::clone(&self.changes.borrow());
        let next = snapshot.tracks[0].next_place().unwrap();
        format!(
            "GET /door/720p/media.m3u8?_HLS_msn={}&_HLS_part={} HTTP/1.1\r\nHost: x\r\n\r\n",
            next.segment, next.part
        )
    }
}

fn unknown_status() -> StreamStatus {
    let json = serde_json::json!({
        "name": "door", "state": "live", "mode": "live", "framerate": "30",
        "frames": {"received": 0, "used": 0, "superseded": 0, "late": 0, "per_second": 0.0},
        "ticks": {"total": 0, "fresh": 0, "repeated": 0, "slate": 0},
        "encoder": {"restarts": 0}, "renditions": [],
        "window": {"media_sequence": 0, "segments": 0, "seconds": 0.0, "bytes": 0, "viewers": 0},
    });
    serde_json::from_value(json).unwrap()
}

/// Starts the origin; ends with the process.
fn origin(stream: &Stream) -> SocketAddr {
    let (_, picture) = watch::channel(None);
    let port = StreamPort::new(
        "door".to_owned(),
        stream.changes.subscribe(),
        picture,
        Arc::new(unknown_status),
        Arc::new(LowLatency),
    );
    let streams = Arc::new([(port.name.clone(), port)].into());
    let (keep, streams) = watch::channel(streams);
    let site = Site::new(stream.anchor.clone(), streams);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            serve(
                listener,
                site,
                ViewerLimits::default(),
                None,
                std::future::pending(),
            )
            .await;
            drop(keep);
        });
    });
    address
}

/// The readers: connections, and an epoll over them.
struct Readers {
    sockets: Vec<TcpStream>,
    epoll: rustix::fd::OwnedFd,
}

impl Readers {
    fn connect(address: SocketAddr) -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let sockets: Vec<_> = (0..VIEWERS)
            .map(|index| {
                let socket = TcpStream::connect(address).unwrap();
                let data = epoll::EventData::new_u64(index as u64);
                epoll::add(&epoll, &socket, data, epoll::EventFlags::IN).unwrap();
                socket
            })
            .collect();
        Self { sockets, epoll }
    }

    fn ask(&mut self, request: &str) {
        for socket in &mut self.sockets {
            socket.write_all(request.as_bytes()).unwrap();
        }
    }

    /// Waits for `bytes` on each socket, or for one whole answer where that is none; says when each had them, and what the first was.
    fn read(
        &mut self,
        bytes: Option<usize>,
        since: impl Fn() -> Instant,
    ) -> (Vec<Duration>, Vec<u8>) {
        let mut events = Vec::with_capacity(256);
        let mut got = vec![0_usize; VIEWERS];
        let mut needed = vec![bytes; VIEWERS];
        let mut took = Vec::with_capacity(VIEWERS);
        let (mut first, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        while took.len() < VIEWERS {
            events.clear();
            epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            )
            .unwrap();
            for event in &events {
                let index = usize::try_from(event.data.u64()).unwrap();
                let read = self.sockets[index].read(&mut buffer).unwrap();
                assert!(read > 0, "the connection was closed");
                if index == 0 {
                    first.extend_from_slice(&buffer[..read]);
                }
                needed[index] = needed[index].or_else(|| whole(&buffer[..read]));
                got[index] += read;
                if Some(got[index]) == needed[index] {
                    took.push(since().elapsed());
                }
            }
        }
        (took, first)
    }
}

/// The length of the answer that begins with `bytes`.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
    let text = std::str::from_utf8(&bytes[..head]).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    Some(head + 4 + length.unwrap().parse::<usize>().unwrap())
}

fn resident_kb() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// What this process has used.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

/// The p50 and p99 in milliseconds.
fn figures(mut took: Vec<Duration>) -> (f64, f64) {
    took.sort_unstable();
    let at = |share: usize| took[took.len() * share / 100].as_secs_f64() * 1000.0;
    (at(50), at(99))
}

fn main() {
    let anchor = Anchor::new(Arc::new(SystemClock));
    let mut stream = Stream::new(anchor);
    let address = origin(&stream);
    let before = resident_kb();
    let mut viewers = Readers::connect(address);
    let mut ours = Vec::new();
    let mut bare = Vec::new();
    // What both take of the processors, the readers' part included.
    let (mut our_work, mut bare_work) = (Duration::ZERO, Duration::ZERO);
    let mut waiting_kb = 0;

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bare_readers = None;
    let mut bare_sockets = Vec::new();
    for round in 0..ROUNDS {
        viewers.ask(&stream.next_reload());
        // All of them are waiting when the server has read everything: nothing else would be worth measuring.
        std::thread::sleep(Duration::from_millis(300));
        if round == 0 {
            waiting_kb = resident_kb().saturating_sub(before);
        }
        let start = Instant::now();
        let processor = processor_time();
        stream.part();
        let (took, answer) = viewers.read(None, || start);
        ours.extend(took);
        our_work += processor_time() - processor;

        let readers = bare_readers.get_or_insert_with(|| {
            let address = listener.local_addr().unwrap();
            let accepting = std::thread::spawn({
                let listener = listener.try_clone().unwrap();
                move || -> Vec<TcpStream> {
                    (0..VIEWERS).map(|_| listener.accept().unwrap().0).collect()
                }
            });
            let readers = Readers::connect(address);
            bare_sockets = accepting.join().unwrap();
            readers
        });
        let begin = Barrier::new(2);
        let started = std::sync::OnceLock::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                begin.wait();
                started.set(Instant::now()).unwrap();
                for socket in &mut bare_sockets {
                    socket.write_all(&answer).unwrap();
                }
            });
            let processor = processor_time();
            begin.wait();
            let since = || *started.wait();
            bare.extend(readers.read(Some(answer.len()), since).0);
            bare_work += processor_time() - processor;
        });
    }
    let (ours, bare) = (figures(ours), figures(bare));
    println!(
        "{VIEWERS} viewers waiting for one part, {ROUNDS} rounds, ms from the window's change to the whole answer at the reader"
    );
    let each = |work: Duration| work.as_secs_f64() * 1e6 / (VIEWERS * ROUNDS) as f64;
    for (name, (p50, p99), work) in [
        ("origin", ours, each(our_work)),
        ("bare loop of writes", bare, each(bare_work)),
    ] {
        println!(
            "{name:<24} p50 {p50:7.1}   p99 {p99:7.1}   {work:6.1} us of processor time an answer, reading it included"
        );
    }
    println!(
        "{:<24} {:.2} times the bare loop's p99; the goal is 1.5",
        "",
        ours.1 / bare.1
    );
    println!(
        "memory for each waiting viewer: {:.1} KiB; the goal is 32",
        waiting_kb as f64 / VIEWERS as f64
    );
}
