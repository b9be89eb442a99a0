//! The router on a real socket, over windows made of real media: FFmpeg's, cut into parts at its chunks.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::*;
use crate::clock::SystemClock;
use crate::package::Part;
use crate::picture::{PictureFormat, PixelBuffer, Size};
use crate::sample::TrackDescription;
use crate::status::{
    EncoderStatus, FrameStatus, LatencyStatus, RenditionStatus, SessionStatus, StreamState,
    TickStatus, WindowStatus,
};
use crate::tick::{Framerate, Grid, SegmentNumber, Tick, UnixTime};
use crate::window::{OpenSegment, Period, Segment, TrackInit, TrackView};

const SEGMENT: Duration = Duration::from_secs(2);
/// How many segments the made media has.
const SEGMENTS: usize = 10;

/// An init segment and segments of two chunks each.
struct Media {
    init: Bytes,
    segments: Vec<[Bytes; 2]>,
}

/// Encoded once for all tests.
static MEDIA: LazyLock<Media> = LazyLock::new(|| {
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
    let mut chunks = chunks.into_iter().map(Bytes::from);
    let pairs = std::iter::from_fn(|| Some([chunks.next()?, chunks.next()?]));
    Media {
        init: init.into(),
        segments: pairs.collect(),
    }
});

fn grid() -> Grid {
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
    let now = Anchor::new(Arc::new(SystemClock)).now();
    let grid = grid();
    let period = Arc::new(Period {
        first_tick: Tick(0),
        grid,
        discontinuity: false,
        tracks: vec![TrackInit {
            description: TrackDescription {
                sample_entry: Bytes::new(),
                codecs: "avc1.42c01e".to_owned(),
                size: Size::new(640, 360),
                framerate: grid.framerate,
            },
            version: "5eed".to_owned(),
            init: MEDIA.init.clone(),
        }],
    });
    let part = |number: usize, part: u32| Part {
        segment: SegmentNumber(number as u64),
        number: part,
        first_tick: Tick(60 * number as u64 + 30 * u64::from(part)),
        ticks: 30,
        independent: part == 0,
        last: part == 1,
        bytes: part_bytes(number, part as usize),
    };
    let segment = |number: usize, expires: Option<UnixTime>| {
        Arc::new(Segment {
            number: SegmentNumber(number as u64),
            period: Arc::clone(&period),
            first_tick: Tick(60 * number as u64),
            ticks: 60,
            parts: vec![part(number, 0), part(number, 1)],
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
        }),
        peak_bandwidth: 1_000_000,
        average_bandwidth: 900_000,
    };
    Arc::new(Snapshot {
        stream: stream.to_owned(),
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

fn status(name: &str, state: StreamState, segments: u64) -> StreamStatus {
    let fed = state != StreamState::Waiting;
    StreamStatus {
        name: name.to_owned(),
        state,
        detail: (state == StreamState::Failed)
            .then(|| "FFmpeg has no encoder 'libx264': install a build that has it".to_owned()),
        mode: "live".to_owned(),
        framerate: "30".to_owned(),
        restarts: 0,
        started: None,
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
        window: WindowStatus {
            segments,
            seconds: 12.0,
            bytes: 2_900_000,
            ..WindowStatus::default()
        },
    }
}

fn picture(size: Size, shade: u8) -> Picture {
    let mut pixels = vec![128; PictureFormat::I420.bytes(size)];
    let (w, h) = (size.width as usize, size.height as usize);
    for (at, luma) in pixels[..w * h].iter_mut().enumerate() {
        *luma = u8::try_from((at % w) * 200 / w)
            .unwrap()
            .wrapping_add(shade)
            | 16;
    }
    let pixels = Arc::new(PixelBuffer::unpooled(pixels));
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
    picture: watch::Sender<Option<Picture>>,
    _streams: watch::Sender<Arc<Streams>>,
    _gate: (watch::Sender<Arc<Snapshot>>, watch::Sender<Option<Picture>>),
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Origin {
    pub(super) fn start() -> Self {
        Self::start_on("127.0.0.1:0")
    }

    fn start_on(address: &str) -> Self {
        let manifests = Arc::new(PlainManifests::default());
        let (window, window_seen) = watch::channel(snapshot("door", 7, 4, 6));
        let (picture, picture_seen) = watch::channel(Some(picture(Size::new(1280, 720), 0)));
        let mut empty = Arc::into_inner(snapshot("gate", 1, 0, 0)).unwrap();
        empty.tracks.clear();
        let (gate_window, gate_window_seen) = watch::channel(Arc::new(empty));
        let (gate_picture, gate_picture_seen) = watch::channel(None);
        let door = StreamPort::new(
            "door".to_owned(),
            window_seen,
            picture_seen,
            Arc::new(|| status("door", StreamState::Live, 6)),
            Arc::clone(&manifests) as Arc<dyn Manifests>,
        );
        let anchor = Anchor::new(Arc::new(SystemClock));
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
                serve(listener, router(site), 2048, None, stopped).await;
            });
        });
        Self {
            address,
            manifests,
            window,
            picture,
            _streams: streams,
            _gate: (gate_window, gate_picture),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[])
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        self.send(&(request + "\r\n"))
    }

    fn send(&self, request: &str) -> Answer {
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

    fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of an error, having checked what every error has.
    fn error(&self) -> String {
        assert_eq!(self.header("cache-control"), "no-store");
        assert_eq!(self.header("access-control-allow-origin"), "*");
        let json = self.json();
        assert!(!json["error"]["message"].as_str().unwrap().is_empty());
        json["error"]["code"].as_str().unwrap().to_owned()
    }

    fn max_age(&self) -> u64 {
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

#[test]
fn every_route_answers_with_its_type() {
    let origin = Origin::start();
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/door/", "text/html; charset=utf-8"),
        ("/door/index.m3u8", "application/vnd.apple.mpegurl"),
        ("/door/360p/media.m3u8", "application/vnd.apple.mpegurl"),
        ("/door/manifest.mpd", "application/dash+xml"),
        ("/door/360p/init-5eed.mp4", "video/mp4"),
        ("/door/360p/12.m4s", "video/mp4"),
        ("/door/360p/12.1.m4s", "video/mp4"),
        ("/door/360p/13.0.m4s", "video/mp4"),
        ("/door/snapshot.jpg", "image/jpeg"),
        ("/metrics", "text/plain; version=0.0.4"),
        ("/api/v1/streams", "application/json"),
        ("/api/v1/streams/door", "application/json"),
        ("/healthz", "text/plain; charset=utf-8"),
        ("/readyz", "application/json"),
        ("/time", "text/plain; charset=utf-8"),
        ("/favicon.ico", "image/svg+xml"),
    ] {
        let answer = origin.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), content_type, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
        assert_eq!(
            answer.header("content-length"),
            answer.body.len().to_string(),
            "{path}"
        );
        assert!(!answer.header("cache-control").is_empty(), "{path}");

        let head = origin.ask("HEAD", path, &[]);
        assert_eq!(head.status, 200, "HEAD {path}");
        assert_eq!(head.header("content-type"), content_type, "HEAD {path}");
        assert!(head.body.is_empty(), "HEAD {path}");
        let varies = ["/metrics", "/api/v1/streams", "/api/v1/streams/door"].contains(&path);
        if !varies {
            assert_eq!(
                head.header("content-length"),
                answer.body.len().to_string(),
                "HEAD {path}"
            );
        }
    }
}

#[test]
fn media_is_what_the_window_holds() {
    let origin = Origin::start();
    assert_eq!(origin.get("/door/360p/init-5eed.mp4").body, MEDIA.init);
    for number in 4..13 {
        let answer = origin.get(&format!("/door/360p/{number}.m4s"));
        assert_eq!(answer.body, segment_bytes(number), "{number}");
        for part in 0..2 {
            let answer = origin.get(&format!("/door/360p/{number}.{part}.m4s"));
            assert_eq!(answer.body, part_bytes(number, part), "{number}.{part}");
        }
    }
}

#[test]
fn rule_2_what_expired_or_is_not_there_yet_is_not_found() {
    let origin = Origin::start();
    for path in [
        "/door/360p/3.m4s",
        "/door/360p/3.0.m4s",
        "/door/360p/13.2.m4s",
        "/door/360p/14.0.m4s",
        "/door/360p/15.m4s",
        "/door/360p/12.2.m4s",
        "/door/360p/18446744073709551615.m4s",
        "/door/360p/init-beef.mp4",
    ] {
        let answer = origin.get(path);
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (404, "no_such_media"),
            "{path}"
        );
    }
}

#[test]
fn unknown_names_and_odd_paths_are_not_found() {
    let origin = Origin::start();
    for path in [
        "/../etc/passwd",
        "/door/../../etc/passwd",
        "/door/%2e%2e/index.m3u8",
        "/door%2Findex.m3u8",
        "/door/360p%2Fmedia.m3u8",
        "/door/360p/%2e%2e%2f12.m4s",
        "/door/360p/012.m4s",
        "/door/360p/+12.m4s",
        "/door/360p/12.00.m4s",
        "/door/360p/99999999999999999999.m4s",
        "/door/360p/12.4294967296.m4s",
        "/door/360p/12.m4s/",
        "//door/index.m3u8",
        "/door//index.m3u8",
        "/nobody/index.m3u8",
        "/door/1080p/media.m3u8",
        "/door/1080p/12.m4s",
        "/assets/../Cargo.toml",
        "/assets/style.css",
        "/assets/",
        "/api/v1/streams/nobody",
        "/api/v1/streams/",
        "/api/v2",
        "/metrics/x",
        "/door/state.json",
        "/%",
        "/%ff/",
        "/door/index.m3u8%00",
    ] {
        let answer = origin.get(path);
        assert_eq!(answer.status, 404, "{path}");
        answer.error();
    }
    for path in ["/nobody/", "/nobody"] {
        let answer = origin.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

#[test]
fn other_methods_are_not_allowed() {
    let origin = Origin::start();
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
        let answer = origin.ask(method, "/door/index.m3u8", &[("Content-Length", "0")]);
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (405, "method_not_allowed"),
            "{method}"
        );
        assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS");
    }
}

#[test]
fn rule_24_any_page_may_read_everything() {
    let origin = Origin::start();
    let preflight = [
        ("Origin", "http://elsewhere.example"),
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "range"),
    ];
    for path in [
        "/door/index.m3u8",
        "/door/360p/12.m4s",
        "/time",
        "/nothing/here",
    ] {
        let answer = origin.ask("OPTIONS", path, &preflight);
        assert!((200..300).contains(&answer.status), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
        assert!(
            answer
                .header("access-control-allow-methods")
                .contains("GET")
        );
        let headers = answer.header("access-control-allow-headers");
        assert!(headers == "*" || headers.contains("range"), "{headers}");
        assert!(!answer.header("access-control-max-age").is_empty());
    }
    let exposed = origin.ask("GET", "/door/360p/12.m4s", &preflight[..1]);
    let exposed = exposed.header("access-control-expose-headers").to_owned();
    for name in ["content-length", "content-range", "date"] {
        assert!(exposed.contains(name), "{exposed}");
    }
}

#[test]
fn rule_24_single_byte_ranges_are_cut_across_parts() {
    let origin = Origin::start();
    let whole = segment_bytes(12);
    let (total, edge) = (whole.len(), part_bytes(12, 0).len());
    let (last, over) = (total - 1, total + 100);
    for (range, first, end) in [
        ("bytes=0-0".to_owned(), 0, 0),
        ("bytes=0-".to_owned(), 0, last),
        (
            format!("bytes={}-{}", edge - 10, edge + 9),
            edge - 10,
            edge + 9,
        ),
        (format!("bytes={edge}-{over}"), edge, last),
        ("bytes=-7".to_owned(), total - 7, last),
        (format!("bytes=-{over}"), 0, last),
    ] {
        let answer = origin.ask("GET", "/door/360p/12.m4s", &[("Range", &range)]);
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(
            answer.header("content-range"),
            format!("bytes {first}-{end}/{total}")
        );
        assert_eq!(
            answer.header("content-length"),
            (end - first + 1).to_string()
        );
        assert_eq!(answer.body, &whole[first..=end], "{range}");
    }
    for range in [format!("bytes={total}-"), "bytes=-0".to_owned()] {
        let answer = origin.ask("GET", "/door/360p/12.m4s", &[("Range", &range)]);
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (416, "range_not_satisfiable"),
            "{range}"
        );
        assert_eq!(answer.header("content-range"), format!("bytes */{total}"));
    }
    for (range, condition) in [
        ("bytes=0-1,5-6", None),
        ("bytes=9-1", None),
        ("bytes=0-1", Some("\"x\"")),
    ] {
        let mut headers = vec![("Range", range)];
        headers.extend(condition.map(|tag| ("If-Range", tag)));
        let answer = origin.ask("GET", "/door/360p/12.m4s", &headers);
        assert_eq!((answer.status, answer.body.len()), (200, total), "{range}");
    }
    let playlist = origin.get("/door/360p/media.m3u8").body;
    let both = [("Range", "bytes=0-6"), ("Accept-Encoding", "gzip")];
    let answer = origin.ask("GET", "/door/360p/media.m3u8", &both);
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (206, &playlist[..7])
    );
    assert_eq!(answer.header("content-encoding"), "");
}

#[test]
fn rule_24_texts_are_compressed_on_request() {
    let origin = Origin::start();
    for path in [
        "/door/360p/media.m3u8",
        "/door/manifest.mpd",
        "/api/v1/streams",
        "/",
        "/door/",
    ] {
        let plain = origin.get(path);
        assert_eq!(plain.header("content-encoding"), "", "{path}");
        assert_eq!(plain.header("vary"), "accept-encoding", "{path}");
        let gzip = origin.ask("GET", path, &[("Accept-Encoding", "gzip, deflate")]);
        assert_eq!(gzip.header("content-encoding"), "gzip", "{path}");
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&gzip.body[..])
            .read_to_end(&mut unpacked)
            .unwrap();
        let brotli = origin.ask("GET", path, &[("Accept-Encoding", "gzip, br")]);
        assert_eq!(brotli.header("content-encoding"), "br", "{path}");
        let mut unbrotlied = Vec::new();
        brotli::Decompressor::new(&brotli.body[..], 4096)
            .read_to_end(&mut unbrotlied)
            .unwrap();
        if path != "/api/v1/streams" {
            assert_eq!(unpacked, plain.body, "{path}");
            assert_eq!(unbrotlied, plain.body, "{path}");
        }
        assert!(gzip.body.len() < plain.body.len() && brotli.body.len() < plain.body.len());
    }
    let media = origin.ask(
        "GET",
        "/door/360p/12.m4s",
        &[("Accept-Encoding", "gzip, br")],
    );
    assert_eq!(media.header("content-encoding"), "");
}

#[test]
fn rule_7_caches_may_keep_each_thing_for_as_long_as_it_is_true() {
    let origin = Origin::start();
    for path in [
        "/door/index.m3u8",
        "/door/360p/media.m3u8",
        "/door/manifest.mpd",
    ] {
        let answer = origin.get(path);
        assert_eq!(
            answer.header("cache-control"),
            "public, max-age=1",
            "{path}"
        );
        let tag = answer.header("etag").to_owned();
        let again = origin.ask("GET", path, &[("If-None-Match", &tag)]);
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        assert_eq!(again.header("etag"), tag);
    }
    for (path, most) in [
        // Retained, with 30 s left.
        ("/door/360p/6.m4s", 30),
        // The oldest listed one leaves next: then its own 2 s and the playlist's 12 s.
        ("/door/360p/7.m4s", 14),
        // The newest stays listed for the five after it.
        ("/door/360p/12.m4s", 24),
        ("/door/360p/12.1.m4s", 24),
        ("/door/360p/init-5eed.mp4", 24),
        ("/door/360p/13.0.m4s", 12),
    ] {
        let answer = origin.get(path);
        assert!(
            answer.header("cache-control").ends_with(", immutable"),
            "{path}"
        );
        let age = answer.max_age();
        assert!(age <= most && age + 4 >= most, "{path}: {age}");
    }
    for path in ["/time", "/api/v1/streams", "/door/snapshot.jpg", "/healthz"] {
        assert_eq!(
            origin.get(path).header("cache-control"),
            "no-store",
            "{path}"
        );
    }
}

#[test]
fn a_playlist_is_rendered_once_per_snapshot() {
    let origin = Origin::start();
    let rendered = || origin.manifests.rendered.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| origin.get("/door/360p/media.m3u8"));
        }
    });
    assert_eq!(rendered(), 1);
    origin.window.send_replace(snapshot("door", 8, 4, 6));
    let moved = origin.get("/door/360p/media.m3u8");
    let text = String::from_utf8(moved.body).unwrap();
    assert!(text.contains("MEDIA-SEQUENCE:8"), "{text}");
    assert_eq!(rendered(), 2);
}

#[test]
fn a_stream_without_media_asks_for_patience() {
    let origin = Origin::start();
    for path in [
        "/gate/index.m3u8",
        "/gate/360p/media.m3u8",
        "/gate/snapshot.jpg",
    ] {
        let answer = origin.get(path);
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (503, "not_yet"),
            "{path}"
        );
        assert_eq!(answer.header("retry-after"), "1");
        let message = answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(message, "stream 'gate' waits for its producer");
    }
    assert_eq!(origin.get("/gate/manifest.mpd").error(), "not_published");
    assert_eq!(origin.get("/gate/").status, 200);
}

#[test]
fn the_api_says_what_streams_do_and_who_watches() {
    let origin = Origin::start();
    let streams = origin.get("/api/v1/streams").json();
    let names: Vec<_> = streams["streams"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 2);
    assert_eq!(
        (&names[0]["name"], &names[0]["state"]),
        (&"door".into(), &"live".into())
    );
    assert_eq!(names[1]["state"], "waiting");
    assert_eq!(names[0]["window"]["viewers"], 0);
    origin.get("/door/360p/12.m4s");
    origin.get("/door/index.m3u8");
    origin.get("/door/");
    origin.get("/gate/index.m3u8");
    assert_eq!(
        origin.get("/api/v1/streams/door").json()["window"]["viewers"],
        1
    );
    assert_eq!(
        origin.get("/api/v1/streams/gate").json()["window"]["viewers"],
        0
    );
}

#[test]
fn the_time_is_utc_with_milliseconds() {
    let origin = Origin::start();
    let answer = origin.get("/time");
    let text = std::str::from_utf8(&answer.body).unwrap();
    let time = humantime::parse_rfc3339(text).unwrap();
    let off = time.elapsed().unwrap_or_default();
    assert!(off < Duration::from_secs(5), "{text}");
    assert_eq!(text.len(), "2026-01-31T23:59:59.999Z".len());
}

#[test]
fn a_snapshot_is_the_newest_picture_at_the_width_asked_for() {
    let origin = Origin::start();
    let shape = |path: &str| {
        let answer = origin.get(path);
        assert_eq!(answer.status, 200, "{path}");
        // SOF0: marker, length, precision, height, width.
        let at = answer
            .body
            .windows(2)
            .position(|two| two == [0xff, 0xc0])
            .unwrap();
        let side = |at: usize| u16::from_be_bytes([answer.body[at], answer.body[at + 1]]);
        (side(at + 7), side(at + 5))
    };
    assert_eq!(shape("/door/snapshot.jpg"), (1280, 720));
    assert_eq!(shape("/door/snapshot.jpg?width=320"), (320, 180));
    assert_eq!(shape("/door/snapshot.jpg?width=300&t=1"), (320, 180));
    assert_eq!(shape("/door/snapshot.jpg?width=5000"), (1280, 720));
    assert_eq!(shape("/door/snapshot.jpg?width=-1"), (1280, 720));
    let before = origin.get("/door/snapshot.jpg").body;
    origin
        .picture
        .send_replace(Some(picture(Size::new(1280, 720), 40)));
    let deadline = Instant::now() + Duration::from_secs(10);
    while origin.get("/door/snapshot.jpg").body == before {
        assert!(Instant::now() < deadline, "the new picture never came");
    }
}

#[test]
fn pages_are_ours_alone() {
    let origin = Origin::start();
    for path in ["/", "/door/"] {
        let page = origin.get(path);
        let policy = page.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'self'") && !policy.contains("unsafe"),
            "{policy}"
        );
        let html = String::from_utf8(page.body).unwrap();
        assert!(
            !html.contains("style=") && !html.contains("<script>"),
            "{path}"
        );
        for name in html.split("assets/").skip(1) {
            let name = name.split('"').next().unwrap();
            let asset = origin.get(&format!("/assets/{name}"));
            assert_eq!(asset.status, 200, "{name}");
            assert_eq!(
                asset.header("cache-control"),
                "public, max-age=31536000, immutable"
            );
        }
    }
    let bare = origin.get("/door");
    assert_eq!((bare.status, bare.header("location")), (308, "door/"));
}

#[test]
fn what_is_no_http_costs_one_connection() {
    let origin = Origin::start();
    assert_eq!(origin.send("no http at all\r\n\r\n").status, 400);
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(60_000));
    assert!([414, 431].contains(&origin.send(&long).status));
    assert_eq!(origin.get("/healthz").status, 200);
}

#[test]
fn stopping_answers_what_is_under_way() {
    let mut origin = Origin::start();
    // An idle connection does not hold it up.
    let _idle = TcpStream::connect(origin.address).unwrap();
    assert_eq!(origin.get("/healthz").status, 200);
    drop(origin.stop.take());
    let begun = Instant::now();
    origin.thread.take().unwrap().join().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert!(TcpStream::connect(origin.address).is_err());
}

/// Serves a moving window and pictures for a person with a browser: `RINGGEAR_LOOK=127.0.0.1:8099:60` names where and for how many seconds.
#[test]
#[ignore = "for a person with a browser"]
fn serves_for_a_look() {
    let Ok(look) = std::env::var("RINGGEAR_LOOK") else {
        return;
    };
    let (address, seconds) = look.rsplit_once(':').unwrap();
    let origin = Origin::start_on(address);
    let begun = Instant::now();
    let (wake, woken) = std::sync::mpsc::channel::<()>();
    let mut moved = 0;
    while begun.elapsed() < Duration::from_secs(seconds.parse().unwrap()) {
        // From the clock, so that numbers go on when this is stopped and started again.
        let now = Anchor::new(Arc::new(SystemClock)).now();
        let first = usize::try_from(now.as_nanos() / 2_000_000_000).unwrap();
        if first != moved {
            moved = first;
            origin.window.send_replace(snapshot("door", first, 4, 6));
        }
        let shade = u8::try_from(begun.elapsed().as_millis() / 40 % 255).unwrap();
        origin
            .picture
            .send_replace(Some(picture(Size::new(1280, 720), shade)));
        let _ = woken.recv_timeout(Duration::from_millis(40));
    }
    drop(wake);
}
