//! LL-DASH against the running origin: rules 33 and 34.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant, UNIX_EPOCH};

use mp4_atom::{Any, DecodeMaybe as _, ReferenceTime};
use roxmltree::{Document, Node};

use crate::harness::daemon::Daemon;
use crate::harness::{beside_others, wait_for};
use crate::low_latency::STREAM;

fn first<'a, 'i>(document: &'a Document<'i>, name: &str) -> Node<'a, 'i> {
    let mut nodes = document.descendants();
    nodes
        .find(|node| node.tag_name().name() == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn rules_33_and_34_hold_in_the_mpd_and_for_the_segment_that_is_being_written() {
    let _machine = beside_others();
    let daemon = Daemon::start(STREAM);
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
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
    assert_eq!(templates.len(), 2);
    for template in &templates {
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
            (ahead - 0.8).abs() < 1e-9,
            "rule 34: segment - part, {ahead}"
        );
    }
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
    for number in current + 1..current + 4 {
        let (body, took) = stream_segment(&daemon, number);
        assert!(
            took > Duration::from_millis(300),
            "all came within {took:?}, not part by part"
        );
        let finished = daemon.get(&format!("/cam/high/{number}.m4s"));
        assert_eq!(finished.status, 200);
        assert!(finished.header("content-length").is_some());
        assert_eq!(body, finished.body, "rule 34: byte for byte");
        check_reference_times(&body);
    }
    the_api_tells_the_newest_parts_reference_time(&daemon);
    let far = daemon.get(&format!("/cam/high/{}.m4s", current + 20));
    assert_eq!(far.status, 404);
}

/// Asks for a segment before it is finished, with a Range that has to be ignored: the body, and how long it took from its first byte on.
fn stream_segment(daemon: &Daemon, number: u64) -> (Vec<u8>, Duration) {
    let port = daemon.place.port;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let request = format!(
        "GET /cam/high/{number}.m4s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nRange: bytes=5-9\r\n\r\n"
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

/// Rule 33: each part says when its first picture was captured: shortly before its tick, by the same clock.
fn check_reference_times(segment: &[u8]) -> Vec<f64> {
    let mut rest = segment;
    let mut times = Vec::new();
    while let Some(atom) = Any::decode_maybe(&mut rest).unwrap() {
        let Any::Prft(prft) = atom else { continue };
        assert_eq!(prft.utc_time_semantics, ReferenceTime::RealTime);
        let seconds = (prft.ntp_timestamp >> 32) as f64 - 2_208_988_800.0;
        let captured = seconds + (prft.ntp_timestamp & 0xffff_ffff) as f64 / 4_294_967_296.0;
        let shown = prft.media_time as f64 / 25.0;
        let before = shown - captured;
        // Three ticks of 40 ms: one frame of slack, and a picture that came just after the tick before.
        assert!(
            (-0.001..=0.121).contains(&before),
            "captured {before} s before its tick"
        );
        times.push(captured);
    }
    assert_eq!(times.len(), 5, "one for each part");
    times
}
