//! LL-DASH against the running origin: rules 33 and 34.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, UNIX_EPOCH};

use mp4_atom::{Any, DecodeMaybe as _};
use roxmltree::{Document, Node};

use crate::harness::daemon::Daemon;
use crate::harness::tick_log::{self, Kind};
use crate::harness::{beside_others, wait_for};
use crate::low_latency::started;

/// A rendition's media.
#[derive(Clone, Copy)]
struct Track {
    name: &'static str,
    timescale: u64,
    /// In a segment.
    parts: usize,
}

const PICTURES: Track = Track {
    name: "high",
    timescale: 25,
    parts: 5,
};
const SOUND: Track = Track {
    name: "sound",
    timescale: 48_000,
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
    let mut pictures = Vec::new();
    for track in [PICTURES, SOUND, PICTURES] {
        let name = track.name;
        let (number, body) = wait_for("one comes before it is whole", soon, || {
            let number = open_segment(&daemon, track) + 1;
            Some((number, stream_segment(&daemon, name, number)?))
        });
        let finished = daemon.get(&format!("/cam/{name}/{number}.m4s"));
        assert_eq!(finished.status, 200);
        assert!(finished.header("content-length").is_some());
        assert_eq!(body, finished.body, "rule 34: byte for byte");
        let times = reference_times(&body, track);
        match name == SOUND.name {
            true => check_silence(&times),
            false => pictures.extend(times),
        }
    }
    pictures.extend(the_api_tells_the_newest_parts_reference_time(&daemon));
    check_pictures(&daemon, &pictures);
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

/// Asks for a segment before it is finished, with a Range that has to be ignored: the body, if its first part came before the segment was whole. On a
/// busy machine it may be whole by the time that somebody asks, or reads.
fn stream_segment(daemon: &Daemon, rendition: &str, number: u64) -> Option<Vec<u8>> {
    let port = daemon.place.port;
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let request = format!(
        "GET /cam/{rendition}/{number}.m4s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nRange: bytes=5-9\r\n\r\n"
    );
    (&stream).write_all(request.as_bytes()).unwrap();
    let mut stream = BufReader::new(stream);
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        assert!(stream.read_until(b'\n', &mut bytes).unwrap() > 0);
    }
    let head = bytes.len();
    stream.read_until(b'\n', &mut bytes).unwrap();
    let size =
        std::str::from_utf8(&bytes[head..]).map(|line| usize::from_str_radix(line.trim(), 16));
    if let Ok(Ok(size)) = size {
        let begun = bytes.len();
        bytes.resize(begun + size, 0);
        stream.read_exact(&mut bytes[begun..]).unwrap();
    }
    let open = is_open(daemon, rendition, number);
    stream.read_to_end(&mut bytes).unwrap();
    let answer = crate::harness::http::parse(&bytes, false).unwrap();
    if !open {
        return None;
    }
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    assert_eq!(answer.header("content-length"), None);
    Some(answer.body)
}

/// Whether the next part of a rendition is one of this segment's.
fn is_open(daemon: &Daemon, rendition: &str, number: u64) -> bool {
    let playlist = daemon.get(&format!("/cam/{rendition}/media.m3u8")).text();
    playlist.contains(&format!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{number}."))
}

/// Says what the parts of the segments around that one say.
fn the_api_tells_the_newest_parts_reference_time(daemon: &Daemon) -> Vec<ReferenceTime> {
    let window = daemon.stream("cam").window;
    let newest = humantime::parse_rfc3339(&window.newest_captured.unwrap()).unwrap();
    let newest = newest.duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let newest = i64::try_from(newest).unwrap();
    let open = window.last_segment.unwrap() + 1;
    wait_for("its segment is listed", Duration::from_secs(15), || {
        (daemon.stream("cam").window.last_segment > Some(open)).then_some(())
    });
    // The part may be the last that is listed already, or the first of the segment after the open one.
    let mut times = Vec::new();
    for number in open - 1..=open + 1 {
        let segment = daemon.get(&format!("/cam/high/{number}.m4s")).body;
        times.extend(reference_times(&segment, PICTURES));
    }
    // To the millisecond, cut off.
    let told = |time: &ReferenceTime| (-ROUNDING..1_000_000).contains(&(time.captured - newest));
    assert!(times.iter().any(told), "{newest}: {times:?}");
    times
}

/// In nanoseconds: what is lost where times are cut off to fractions of a second.
const ROUNDING: i64 = 2;

/// When a part's first picture or sample was captured, and when it is shown, in nanoseconds of the published time.
#[derive(Clone, Copy, Debug)]
struct ReferenceTime {
    /// In the track's timescale.
    media_time: u64,
    captured: i64,
    shown: i64,
}

/// Rule 33: what each part says.
fn reference_times(segment: &[u8], track: Track) -> Vec<ReferenceTime> {
    const FROM_1900_TO_1970: u64 = 2_208_988_800;
    let mut rest = segment;
    let mut times = Vec::new();
    while let Some(atom) = Any::decode_maybe(&mut rest).unwrap() {
        let Any::Prft(prft) = atom else { continue };
        assert_eq!(prft.utc_time_semantics, mp4_atom::ReferenceTime::RealTime);
        let nanos = |units: u64, in_a_second: u64| {
            let nanos = u128::from(units) * 1_000_000_000 / u128::from(in_a_second);
            i64::try_from(nanos).unwrap()
        };
        times.push(ReferenceTime {
            media_time: prft.media_time,
            captured: nanos(prft.ntp_timestamp - (FROM_1900_TO_1970 << 32), 1 << 32),
            shown: nanos(prft.media_time, track.timescale),
        });
    }
    assert_eq!(times.len(), track.parts, "one for each part");
    times
}

/// Silence is captured when it is shown.
fn check_silence(times: &[ReferenceTime]) {
    for time in times {
        let before = time.shown - time.captured;
        assert!(before.abs() <= ROUNDING, "{time:?}");
    }
}

/// A part's first picture was captured when the daemon's log says: by the published time, and no later than it is shown. One that is shown
/// again counts from its tick.
fn check_pictures(daemon: &Daemon, times: &[ReferenceTime]) {
    let log = tick_log::read(&daemon.place.tick_logs(), "cam");
    let row = |time: &ReferenceTime| {
        let row = log.iter().find(|row| row.tick == time.media_time);
        row.unwrap_or_else(|| panic!("no tick {}", time.media_time))
    };
    let own = |time: &&ReferenceTime| row(time).kind == Kind::Fresh;
    let ahead = times.iter().filter(own);
    let ahead = ahead.map(|time| time.captured - row(time).captured).max();
    let ahead = ahead.expect("most have pictures of their own");
    let known = daemon.published_time_ahead();
    let rounded = known.start() - ROUNDING..=*known.end();
    assert!(rounded.contains(&ahead), "{ahead} in {known:?}: {times:?}");
    for time in times {
        let captured = match row(time).kind {
            Kind::Fresh => time.shown.min(row(time).captured + ahead),
            _ => time.shown,
        };
        assert!(
            (time.captured - captured).abs() <= ROUNDING,
            "{time:?}: {:?}",
            row(time)
        );
    }
}
