//! LL-DASH against the running origin: rules 33 and 34.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant, UNIX_EPOCH};

use mp4_atom::{Any, DecodeMaybe as _, ReferenceTime};
use roxmltree::{Document, Node};

use crate::harness::daemon::Daemon;
use crate::harness::{beside_others, wait_for};
use crate::low_latency::started;

/// A rendition's media.
#[derive(Clone, Copy)]
struct Track {
    name: &'static str,
    timescale: f64,
    /// In a segment.
    parts: usize,
}

const PICTURES: Track = Track {
    name: "high",
    timescale: 25.0,
    parts: 5,
};
const SOUND: Track = Track {
    name: "sound",
    timescale: 48e3,
    parts: 6,
};

fn first<'a, 'i>(document: &'a Document<'i>, name: &str) -> Node<'a, 'i> {
    let mut nodes = document.descendants();
    nodes
        .find(|node| node.tag_name().name() == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn rules_33_and_34_hold_in_the_mpd_and_for_the_segment_that_is_being_written() {
    let _machine = beside_others();
    let (daemon, _camera) = started();
    let answer = daemon.get("/cam/manifest-ll.mpd");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/dash+xml"));
    let text = answer.text();
    let document = Document::parse(&text).unwrap();
    assert!(first(&document, "Latency").attribute("target").is_some());
    let reference = first(&document, "ProducerReferenceTime");
    assert_eq!(reference.attribute("type"), Some("captured"));
    let templates: Vec<_> = document
        .descendants()
        .filter(|node| node.tag_name().name() == "SegmentTemplate")
        .collect();
    assert_eq!(templates.len(), 3, "two of pictures, one of sound");
    for (template, part) in templates.iter().zip([0.2, 0.2, 0.192]) {
        assert_eq!(
            template.attribute("availabilityTimeComplete"),
            Some("false")
        );
        let ahead: f64 = template
            .attribute("availabilityTimeOffset")
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            (ahead - (1.0 - part)).abs() < 1e-9,
            "rule 34: segment - part, {ahead}"
        );
    }
    let before = open_segment(&daemon, PICTURES);
    // The number that a player computes from the time is the one that is being written.
    let number = |name: &str| {
        templates[0]
            .attribute(name)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let start = first(&document, "Period").attribute("start").unwrap();
    let start: f64 = start
        .trim_start_matches("PT")
        .trim_end_matches('S')
        .parse()
        .unwrap();
    let time = humantime::parse_rfc3339(&daemon.get("/time").text()).unwrap();
    let time = time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let segment = number("duration") as f64 / number("timescale") as f64;
    let current =
        number("startNumber") + Duration::from_secs_f64((time - start) / segment).as_secs();
    assert!(before <= current + 1, "{before} before {current}");
    let soon = Duration::from_secs(15);
    wait_for("that one is being written", soon, || {
        (open_segment(&daemon, PICTURES) >= current).then_some(())
    });
    for track in [PICTURES, SOUND, PICTURES] {
        let name = track.name;
        let number = open_segment(&daemon, track) + 1;
        let (body, took) = stream_segment(&daemon, name, number);
        // Where the machine is busy, sound may come at once.
        assert!(
            took > Duration::from_millis(300) || name == SOUND.name,
            "all came within {took:?}, not part by part"
        );
        let finished = daemon.get(&format!("/cam/{name}/{number}.m4s"));
        assert_eq!(finished.status, 200);
        assert!(finished.header("content-length").is_some());
        assert_eq!(body, finished.body, "rule 34: byte for byte");
        check_reference_times(&body, track);
    }
    the_api_tells_the_newest_parts_reference_time(&daemon);
    let far = daemon.get(&format!("/cam/high/{}.m4s", current + 20));
    assert_eq!(far.status, 404);
}

/// The segment of which a track has the first parts, and not all.
fn open_segment(daemon: &Daemon, track: Track) -> u64 {
    let path = format!("/cam/{}/media.m3u8", track.name);
    wait_for("a segment is begun", Duration::from_secs(15), || {
        let playlist = daemon.get(&path).text();
        let (_, hint) = playlist.split_once("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"")?;
        let (segment, part) = hint.split_once('.')?;
        (!part.starts_with("0.")).then(|| segment.parse().unwrap())
    })
}

/// Asks for a segment before it is finished, with a Range that has to be ignored: the body, and how long it took from its first byte on.
fn stream_segment(daemon: &Daemon, rendition: &str, number: u64) -> (Vec<u8>, Duration) {
    let port = daemon.place.port;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let request = format!(
        "GET /cam/{rendition}/{number}.m4s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nRange: bytes=5-9\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = vec![0; 1];
    stream.read_exact(&mut bytes).unwrap();
    let first = Instant::now();
    stream.read_to_end(&mut bytes).unwrap();
    let took = first.elapsed();
    let answer = crate::harness::http::parse(&bytes, false).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    assert_eq!(answer.header("content-length"), None);
    (answer.body, took)
}

fn the_api_tells_the_newest_parts_reference_time(daemon: &Daemon) {
    let window = daemon.stream("cam").window;
    let newest = humantime::parse_rfc3339(&window.newest_captured.unwrap()).unwrap();
    let newest = newest.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let open = window.last_segment.unwrap() + 1;
    wait_for("its segment is listed", Duration::from_secs(15), || {
        (daemon.stream("cam").window.last_segment > Some(open)).then_some(())
    });
    // The part may be the last that is listed already, or the first of the segment after the open one.
    let mut times = Vec::new();
    for number in open - 1..=open + 1 {
        times.extend(check_reference_times(
            &daemon.get(&format!("/cam/high/{number}.m4s")).body,
            PICTURES,
        ));
    }
    // To the millisecond, cut off; seconds since 1970 have a quarter of a microsecond in an f64.
    assert!(
        times
            .iter()
            .any(|time| (-0.000_001..0.0011).contains(&(time - newest))),
        "{newest}: {times:?}"
    );
}

/// Rule 33: each part says when its first picture or sample was captured: shortly before its tick, by the same clock.
fn check_reference_times(segment: &[u8], track: Track) -> Vec<f64> {
    let mut rest = segment;
    let mut times = Vec::new();
    while let Some(atom) = Any::decode_maybe(&mut rest).unwrap() {
        let Any::Prft(prft) = atom else { continue };
        assert_eq!(prft.utc_time_semantics, ReferenceTime::RealTime);
        let seconds = (prft.ntp_timestamp >> 32) as f64 - 2_208_988_800.0;
        let captured = seconds + (prft.ntp_timestamp & 0xffff_ffff) as f64 / 4_294_967_296.0;
        let shown = prft.media_time as f64 / track.timescale;
        let before = shown - captured;
        // Three ticks of 40 ms: one frame of slack, and a picture that came just after the tick before.
        assert!(
            (-0.001..=0.121).contains(&before),
            "captured {before} s before its tick"
        );
        times.push(captured);
    }
    assert_eq!(times.len(), track.parts, "one for each part");
    times
}
