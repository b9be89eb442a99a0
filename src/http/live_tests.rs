//! Answers that are waited for, on a real socket: how many renders they cost, and how they end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::fixtures::{Answer, Origin, part_bytes, segment_bytes, snapshot};

/// Sends a request and leaves the answer to come.
fn ask(origin: &Origin, path: &str) -> TcpStream {
    ask_in("1.1", origin, path)
}

/// The same in another version of HTTP.
fn ask_in(version: &str, origin: &Origin, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(origin.address).unwrap();
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).unwrap();
    let request = format!("GET {path} HTTP/{version}\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    Answer::parse(&bytes)
}

/// Waits until `count` viewers wait.
fn wait_for_viewers(origin: &Origin, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while origin.waiting.viewers() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} wait",
            origin.waiting.viewers()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_thousand_waiting_viewers_cost_one_render() {
    let origin = Origin::start();
    // Segment 13 is open with its first part.
    let path = "/door/360p/media.m3u8?_HLS_msn=13";
    let viewers: Vec<_> = (0..1000).map(|_| ask(&origin, path)).collect();
    wait_for_viewers(&origin, 1000);
    assert_eq!(origin.manifests.rendered.load(Ordering::Relaxed), 0);
    origin.window.send_replace(snapshot("door", 8, 4, 6));
    let mut answers = viewers.into_iter().map(answer);
    let first = answers.next().unwrap();
    assert_eq!(first.status, 200);
    assert!(String::from_utf8_lossy(&first.body).contains("13.m4s"));
    assert!(answers.all(|answer| answer.body == first.body));
    assert_eq!(origin.manifests.rendered.load(Ordering::Relaxed), 1);
}

#[test]
fn rule_17_after_the_end_the_directives_are_ignored() {
    let origin = Origin::start();
    let mut ended = Arc::into_inner(snapshot("door", 8, 4, 6)).unwrap();
    ended.ended = true;
    origin.window.send_replace(Arc::new(ended));
    let plain = answer(ask(&origin, "/door/360p/media.m3u8"));
    assert_eq!(plain.status, 200);
    for query in ["_HLS_part=1", "_HLS_msn=99", "_HLS_skip=YES", "_HLS_msn=x"] {
        let asked = answer(ask(&origin, &format!("/door/360p/media.m3u8?{query}")));
        assert_eq!(
            (asked.status, asked.body),
            (200, plain.body.clone()),
            "{query}"
        );
    }
}

#[test]
fn rule_19_the_announced_part_is_sent_as_soon_as_it_is_whole() {
    let origin = Origin::start();
    let early = ask(&origin, "/door/360p/13.1.m4s");
    wait_for_viewers(&origin, 1);
    origin.window.send_replace(snapshot("door", 8, 4, 6));
    let early = answer(early);
    assert_eq!(
        (early.status, early.body),
        (200, part_bytes(13, 1).to_vec())
    );
}

#[test]
fn rule_34_the_open_segment_is_sent_part_by_part_and_whole() {
    let origin = Origin::start();
    let open = ask(&origin, "/door/360p/13.m4s");
    let next = ask(&origin, "/door/360p/14.m4s");
    // Its first part is on its way before the segment is whole.
    assert_eq!(open.peek(&mut [0]).unwrap(), 1);
    origin.window.send_replace(snapshot("door", 8, 4, 6));
    let open = answer(open);
    assert_eq!(open.header("transfer-encoding"), "chunked");
    assert_eq!(dechunked(&open.body), segment_bytes(13));
    origin.window.send_replace(snapshot("door", 9, 4, 6));
    let next = answer(next);
    // Who is read only now finds it whole.
    let body = match next.is_chunked() {
        true => dechunked(&next.body),
        false => next.body,
    };
    assert_eq!(body, segment_bytes(14));
}

#[test]
fn without_chunks_the_open_segment_is_sent_whole_or_not_at_all() {
    let origin = Origin::start();
    let [open, given_up] = [13, 14].map(|number| {
        let path = format!("/door/360p/{number}.m4s");
        ask_in("1.0", &origin, &path)
    });
    wait_for_viewers(&origin, 2);
    origin.window.send_replace(snapshot("door", 8, 4, 6));
    let open = answer(open);
    assert_eq!((open.status, open.body), (200, segment_bytes(13)));
    origin.window.send_replace(snapshot("door", 15, 0, 2));
    let given_up = answer(given_up);
    assert_eq!(given_up.status, 404);
    let gone = answer(ask_in("1.0", &origin, "/door/360p/14.m4s"));
    assert_eq!(gone.status, 404);
}

#[test]
fn a_player_whose_clock_is_ahead_of_a_late_stream_waits_for_what_may_come() {
    let origin = Origin::start();
    let asked = ask(&origin, "/door/360p/16.m4s");
    wait_for_viewers(&origin, 1);
    let too_far = answer(ask(&origin, "/door/360p/17.m4s"));
    assert_eq!(too_far.status, 404);
    origin.window.send_replace(snapshot("door", 10, 4, 6));
    origin.window.send_replace(snapshot("door", 11, 4, 6));
    let asked = answer(asked);
    let body = match asked.is_chunked() {
        true => dechunked(&asked.body),
        false => asked.body,
    };
    assert_eq!((asked.status, body), (200, segment_bytes(16)));
}

#[test]
fn a_segment_that_is_given_up_breaks_off() {
    let origin = Origin::start();
    let mut open = ask(&origin, "/door/360p/13.m4s");
    let mut first = [0; 1];
    open.read_exact(&mut first).unwrap();
    // The numbers go on, but 13 is not among them.
    origin.window.send_replace(snapshot("door", 14, 0, 2));
    let mut rest = Vec::new();
    let _ = open.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "it must not look whole");
}

#[test]
fn who_waits_for_a_stream_that_goes_is_answered_at_once() {
    let mut origin = Origin::start();
    let viewer = ask(&origin, "/door/360p/media.m3u8?_HLS_msn=13");
    let (window, _) = tokio::sync::watch::channel(snapshot("door", 7, 4, 6));
    drop(std::mem::replace(&mut origin.window, window));
    let answer = answer(viewer);
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
}

fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
}
