//! A running origin for tests: the real thing on a real socket, over windows made of real media: FFmpeg's, cut into parts at its chunks.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ringgear_ring::MediaRun;
use tokio::sync::{oneshot, watch};

use super::waiting::Waiting;
use super::*;
use crate::archive::{ArchivePlan, ArchiveThread};
use crate::clock::SystemClock;
use crate::config::ViewerLimits;
use crate::package::Part;
use crate::picture::{PictureFormat, PixelBuffer, Size};
use crate::sample::TrackDescription;
use crate::status::{
    EncoderStatus, FrameStatus, LatencyStatus, RenditionStatus, SessionStatus, StreamState,
    TickStatus, WindowStatus,
};
use crate::tick::{Framerate, Grid, SegmentNumber, Tick, UnixTime};
use crate::window::{Mode, OpenSegment, Period, Segment, TrackInit, TrackView};

pub(super) const SEGMENT: Duration = Duration::from_secs(2);
/// How many segments the made media has.
pub(super) const SEGMENTS: usize = 10;

/// An init segment and segments of two chunks each.
pub(super) struct Media {
    pub(super) init: Bytes,
    segments: Vec<[Bytes; 2]>,
}

/// Encoded once for all tests.
pub(super) static MEDIA: LazyLock<Media> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.mp4");
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i"])
        .arg(format!("testsrc2=s=640x360:r=30:d={}", 2 * SEGMENTS))
        .args([
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-tune",
            "zerolatency",
        ])
        .args([
            "-g",
            "60",
            "-keyint_min",
            "60",
            "-pix_fmt",
            "yuv420p",
            "-b:v",
            "900k",
        ])
        .args([
            "-movflags",
            "+cmaf+empty_moov+default_base_moof",
            "-frag_duration",
            "1000000",
        ])
        .arg(&file)
        .status()
        .unwrap();
    assert!(status.success());
    let bytes = Bytes::from(std::fs::read(&file).unwrap());
    let (mut init, mut chunks, mut at) = (Vec::new(), Vec::<Vec<u8>>::new(), 0);
    while at + 8 <= bytes.len() {
        let size = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let content = &bytes[at..at + size];
        match &content[4..8] {
            b"ftyp" | b"moov" => init.extend_from_slice(content),
            b"moof" => chunks.push(content.to_vec()),
            b"mdat" => chunks.last_mut().unwrap().extend_from_slice(content),
            _ => {}
        }
        at += size;
    }
    assert_eq!(chunks.len(), 2 * SEGMENTS);
    // As the window keeps it.
    let mut run = MediaRun::default();
    let keep = |chunk: Vec<u8>| run.keep(&chunk).map_or(chunk.into(), Bytes::from_owner);
    let mut chunks = chunks.into_iter().map(keep);
    let pairs = std::iter::from_fn(|| Some([chunks.next()?, chunks.next()?]));
    Media {
        init: init.into(),
        segments: pairs.collect(),
    }
});

pub(super) fn grid() -> Grid {
    let framerate = Framerate::new(30, 1).unwrap();
    Grid::new(framerate, SEGMENT, Duration::from_secs(1))
}

/// A window of one track: `retained` segments before `first`, `listed` from it, and one part of the next.
pub(crate) fn snapshot(
    stream: &str,
    first: usize,
    retained: usize,
    listed: usize,
) -> Arc<Snapshot> {
    // Making it takes seconds, in which what is retained would come nearer to its end.
    LazyLock::force(&MEDIA);
    let now = Anchor::new(Arc::new(SystemClock)).now();
    let grid = grid();
    let track = TrackInit {
        description: TrackDescription {
            sample_entry: Bytes::new(),
            codecs: "avc1.42c01e".to_owned(),
            size: Size::new(640, 360),
            framerate: grid.framerate,
            audio: None,
        },
        version: "5eed".to_owned(),
        init: MEDIA.init.clone(),
    };
    let period = Arc::new(Period::new(Tick(0), grid, false, vec![track]));
    let part = |number: usize, part: u32| Part {
        segment: SegmentNumber(number as u64),
        number: part,
        first_tick: Tick(60 * number as u64 + 30 * u64::from(part)),
        ticks: 30,
        independent: part == 0,
        last: part == 1,
        captured: UnixTime::default(),
        bytes: part_bytes(number, part as usize),
    };
    let segment = |number: usize, expires: Option<UnixTime>| {
        Arc::new(Segment {
            number: SegmentNumber(number as u64),
            period: Arc::clone(&period),
            first_tick: Tick(60 * number as u64),
            ticks: 60,
            parts: vec![part(number, 0), part(number, 1)],
            stored: 0,
            captured: None,
            remains: Vec::new(),
            gap: false,
            expires,
        })
    };
    let open = first + listed;
    // The oldest retained one has just expired, the others have ten seconds and more.
    let expires = |number: usize| {
        let left = number + retained - first;
        match left {
            0 => now.saturating_sub(Duration::from_secs(1)),
            left => now.saturating_add(Duration::from_secs(10 * left as u64)),
        }
    };
    let track = TrackView {
        name: "360p".to_owned(),
        listed: (first..open).map(|n| segment(n, None)).collect(),
        retained: (first - retained..first)
            .map(|n| segment(n, Some(expires(n))))
            .collect(),
        open: (listed > 0).then(|| OpenSegment {
            number: SegmentNumber(open as u64),
            period: Arc::clone(&period),
            first_tick: Tick(60 * open as u64),
            parts: vec![part(open, 0)],
            captured: None,
        }),
        peak_bandwidth: 1_000_000,
        average_bandwidth: 900_000,
    };
    Arc::new(Snapshot {
        stream: stream.to_owned(),
        mode: Mode::Live,
        target_duration: 2,
        longest_playlist: Duration::ZERO,
        media_sequence: SegmentNumber(first as u64),
        discontinuity_sequence: 0,
        window_ticks: 60 * 6,
        tracks: vec![track],
        ended: false,
        updated: now,
    })
}

/// The least that players need; counts how often it is asked.
#[derive(Default)]
pub(super) struct PlainManifests {
    pub(super) rendered: AtomicUsize,
}

impl Manifests for PlainManifests {
    fn multivariant(&self, _: &Snapshot) -> String {
        self.rendered.fetch_add(1, Ordering::Relaxed);
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-STREAM-INF:BANDWIDTH=1000000,\
         AVERAGE-BANDWIDTH=900000,CODECS=\"avc1.42c01e\",RESOLUTION=640x360,FRAME-RATE=30.000\n360p/media.m3u8\n"
            .to_owned()
    }

    fn media(&self, snapshot: &Snapshot, track: usize, _: Extent) -> String {
        self.rendered.fetch_add(1, Ordering::Relaxed);
        let listed = &snapshot.tracks[track].listed;
        let mut text = format!(
            "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{}\n#EXT-X-MAP:URI=\"init-5eed.mp4\"\n",
            snapshot.media_sequence
        );
        let newest = listed.len();
        for (place, segment) in listed.iter().enumerate() {
            let back = SEGMENT * u32::try_from(newest - place).unwrap();
            let date = snapshot.updated.saturating_sub(back);
            text += &format!(
                "#EXT-X-PROGRAM-DATE-TIME:{date}\n#EXTINF:2.000,\n{}.m4s\n",
                segment.number
            );
        }
        text
    }

    fn mpd(&self, _: &Snapshot) -> String {
        self.rendered.fetch_add(1, Ordering::Relaxed);
        format!("<MPD>{}</MPD>", "<S d=\"60\"/>".repeat(100))
    }

    fn low_latency_mpd(&self, snapshot: &Snapshot) -> String {
        self.mpd(snapshot)
    }
}

pub(super) fn status(name: &str, state: StreamState, segments: u64) -> StreamStatus {
    let fed = state != StreamState::Waiting;
    StreamStatus {
        recording: None,
        recordings: Vec::new(),
        record: None,
        name: name.to_owned(),
        state,
        detail: (state == StreamState::Failed)
            .then(|| "FFmpeg has no encoder 'libx264': install a build that has it".to_owned()),
        mode: "live".to_owned(),
        framerate: "30".to_owned(),
        restarts: 0,
        started: None,
        source: None,
        session: fed.then(|| SessionStatus {
            id: 1,
            pid: 4711,
            uid: 1000,
            client: Some("ringgear pattern".to_owned()),
            format: "bgr24".to_owned(),
            width: 640,
            height: 360,
            opened: "2026-01-31T23:59:59.000Z".to_owned(),
            committed: 18_000,
        }),
        frames: FrameStatus {
            received: 18_000,
            used: 17_990,
            superseded: 10,
            late: 0,
            per_second: if fed { 30.0 } else { 0.0 },
        },
        ticks: TickStatus {
            total: 18_000,
            fresh: 17_990,
            repeated: 10,
            ..TickStatus::default()
        },
        encoder: EncoderStatus {
            pid: fed.then_some(4712),
            delay_seconds: Some(0.007),
            ..EncoderStatus::default()
        },
        renditions: vec![RenditionStatus {
            name: "360p".to_owned(),
            codec: "libx264".to_owned(),
            fallback: None,
            codecs: None,
            width: Some(640),
            height: Some(360),
            configured_bits_per_second: Some(900_000),
            average_bits_per_second: if fed { 912_000 } else { 0 },
            peak_bits_per_second: 1_000_000,
        }],
        latency: LatencyStatus::default(),
        audio: None,
        window: WindowStatus {
            segments,
            seconds: 12.0,
            bytes: 2_900_000,
            ..WindowStatus::default()
        },
        restricted: false,
    }
}

pub(super) fn picture(size: Size, shade: u8) -> Picture {
    let mut pixels = vec![128; PictureFormat::I420.bytes(size)];
    let (w, h) = (size.width as usize, size.height as usize);
    for (at, luma) in pixels[..w * h].iter_mut().enumerate() {
        *luma = u8::try_from((at % w) * 200 / w)
            .unwrap()
            .wrapping_add(shade)
            | 16;
    }
    let pixels = PixelBuffer::unpooled(pixels);
    Picture::new(
        PictureFormat::I420,
        size,
        MonotonicTime(u64::from(shade)),
        pixels,
    )
}

/// A running origin with the streams `door` (segments 7 to 12 listed, 3 to 6 retained, of which 3 has expired, 13 open)
/// and `gate` (waiting).
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    pub(super) manifests: Arc<PlainManifests>,
    pub(super) window: watch::Sender<Arc<Snapshot>>,
    pub(super) picture: watch::Sender<Option<Picture>>,
    /// Who waits for parts of `door`.
    pub(super) waiting: Arc<Waiting>,
    _streams: watch::Sender<Arc<Streams>>,
    _recorded: Mutex<Option<ArchiveThread>>,
    _gate: (watch::Sender<Arc<Snapshot>>, watch::Sender<Option<Picture>>),
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) thread: Option<std::thread::JoinHandle<()>>,
}

impl Origin {
    pub(super) fn start() -> Self {
        Self::start_on("127.0.0.1:0")
    }

    pub(super) fn start_on(address: &str) -> Self {
        Self::start_recording(address, None)
    }

    /// One that records `door` to a folder.
    pub(super) fn start_recording(address: &str, dir: Option<&Path>) -> Self {
        let manifests = Arc::new(PlainManifests::default());
        let (window, window_seen) = watch::channel(snapshot("door", 7, 4, 6));
        let (picture, picture_seen) = watch::channel(Some(picture(Size::new(1280, 720), 0)));
        let mut empty = Arc::into_inner(snapshot("gate", 1, 0, 0)).unwrap();
        empty.tracks.clear();
        let (gate_window, gate_window_seen) = watch::channel(Arc::new(empty));
        let (gate_picture, gate_picture_seen) = watch::channel(None);
        let anchor = Anchor::new(Arc::new(SystemClock));
        let recorded = dir.map(|dir| {
            let plan = ArchivePlan {
                stream: "door".to_owned(),
                dir: dir.to_owned(),
                // Its media is of 1970.
                keep: Duration::MAX,
                max_bytes: None,
                keep_free: 0,
            };
            Archive::start(plan, anchor.clone(), window_seen.clone()).unwrap()
        });
        let (archive, recorded) = recorded.unzip();
        let mut door = StreamPort::new(
            "door".to_owned(),
            window_seen,
            picture_seen,
            Arc::new(|| status("door", StreamState::Live, 6)),
            Arc::clone(&manifests) as Arc<dyn Manifests>,
        );
        door.archive = archive;
        let waiting = Arc::clone(&door.waiting);
        let gate = StreamPort {
            dash: false,
            ..StreamPort::new(
                "gate".to_owned(),
                gate_window_seen,
                gate_picture_seen,
                Arc::new(|| status("gate", StreamState::Waiting, 0)),
                Arc::clone(&manifests) as Arc<dyn Manifests>,
            )
        };
        let streams = [door, gate].map(|port| (port.name.clone(), port));
        let (streams, streams_seen) = watch::channel(Arc::new(BTreeMap::from(streams)));
        let site = Site::new(anchor, streams_seen);
        let listener = std::net::TcpListener::bind(address).unwrap();
        // As many may wait as the daemon's own listener lets wait; the standard library's lets 128.
        rustix::net::listen(&listener, 1024).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let stopped = async { drop(stopped.await) };
                serve(listener, site, ViewerLimits::default(), None, stopped).await;
            });
        });
        Self {
            address,
            manifests,
            window,
            picture,
            waiting,
            _streams: streams,
            _recorded: Mutex::new(recorded),
            _gate: (gate_window, gate_picture),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[])
    }

    pub(super) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if headers.iter().all(|(name, _)| *name != "Host") {
            request += "Host: localhost\r\n";
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        self.send(&(request + "\r\n"))
    }

    pub(super) fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Answer::parse(&bytes)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking());
        }
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn is_chunked(&self) -> bool {
        self.headers.contains_key("transfer-encoding")
    }

    pub(super) fn parse(bytes: &[u8]) -> Self {
        let end = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap();
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        Self {
            status,
            headers: headers
                .map(|(k, v)| (k.to_lowercase(), v.to_owned()))
                .collect(),
            body: bytes[end + 4..].to_vec(),
        }
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(super) fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of an error, having checked what every error has.
    pub(super) fn error(&self) -> String {
        assert_eq!(self.header("cache-control"), "no-store");
        let json = self.json();
        assert!(!json["error"]["message"].as_str().unwrap().is_empty());
        json["error"]["code"].as_str().unwrap().to_owned()
    }

    pub(super) fn max_age(&self) -> u64 {
        let value = self.header("cache-control");
        let after = value.split("max-age=").nth(1).unwrap();
        after.split(',').next().unwrap().parse().unwrap()
    }
}

/// A part of segment `number`: the made media over and over, each time at its own place on the timeline.
pub(super) fn part_bytes(number: usize, part: usize) -> Bytes {
    let mut bytes = MEDIA.segments[number % SEGMENTS][part].to_vec();
    // tfdt: type, version and flags, then the decode time in FFmpeg's timescale for 30 fps.
    let at = bytes.windows(4).position(|four| four == b"tfdt").unwrap() + 8;
    let decode_time = (2 * number + part) as u64 * 15_360;
    bytes[at..at + 8].copy_from_slice(&decode_time.to_be_bytes());
    bytes.into()
}

pub(super) fn segment_bytes(number: usize) -> Vec<u8> {
    [part_bytes(number, 0), part_bytes(number, 1)].concat()
}
