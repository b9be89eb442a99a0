//! What the origin answers, asked over a real socket.

use std::io::Read as _;
use std::net::TcpStream;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::fixtures::*;
use super::*;
use crate::clock::SystemClock;
use crate::picture::Size;

/// What the streams do, which is for administrators as far as a page shows it.
const STATUS: [&str; 4] = [
    "/metrics",
    "/api/v1/streams",
    "/api/v1/streams/door",
    "/door/status.json",
];

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
        if !STATUS.contains(&path) {
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
        "/door/360p/17.m4s",
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
    for (path, root) in [
        ("/nobody", "./"),
        ("/nobody/", "../"),
        ("/door/20260101t000000z/", "../../"),
        ("/door/recordings/", "../../"),
        ("/nobody/~1-a/20260101t000000z", "../../"),
    ] {
        let answer = origin.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        assert_eq!(answer.header("cache-control"), "no-store");
        let html = String::from_utf8(answer.body).unwrap();
        assert!(
            html.contains(&format!("class=\"mark\" href=\"{root}\"")),
            "{html}"
        );
        assert!(
            html.contains(&format!("rel=\"stylesheet\" href=\"{root}assets/")),
            "{html}"
        );
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
fn rule_24_any_page_may_read_what_viewers_may() {
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
        let mut named = headers.split(',');
        assert!(named.any(|name| name == "*"), "{headers}");
        // For which the asterisk does not stand (Fetch, 4.8).
        assert!(headers.contains("authorization"), "{headers}");
        assert!(!answer.header("access-control-max-age").is_empty());
    }
    for path in [
        "/",
        "/door/",
        "/door/index.m3u8",
        "/door/360p/12.m4s",
        "/door/360p/99.m4s",
        "/door/snapshot.jpg",
        "/time",
        "/nothing/here",
    ] {
        let answer = origin.ask("GET", path, &preflight[..1]);
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
    }
    let exposed = origin.ask("GET", "/door/360p/12.m4s", &preflight[..1]);
    let exposed = exposed.header("access-control-expose-headers").to_owned();
    for name in ["content-length", "content-range", "date"] {
        assert!(exposed.contains(name), "{exposed}");
    }
}

#[test]
fn what_this_machine_sees_is_not_for_pages_of_other_sites() {
    let origin = Origin::start();
    for path in STATUS {
        let seen = |host: &str| origin.ask("GET", path, &[("Host", host)]);
        let answer = seen("127.0.0.1:8080");
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
        // By a name that leads here, a page sees what any viewer may.
        let answer = seen("evil.example:8080");
        if path == "/metrics" {
            assert_eq!(answer.status, 403);
            let told = answer.json()["error"]["message"].to_string();
            assert!(told.contains("by an IP address or localhost"), "{told}");
            continue;
        }
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
        let text = String::from_utf8(answer.body).unwrap();
        assert!(text.contains("\"restricted\":true"), "{path}: {text}");
        assert!(!text.contains("4711"), "{path}: {text}");
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
    LazyLock::force(&MEDIA);
    let begun = Instant::now();
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
        // Two whole seconds: what was cut off of both.
        let (age, since) = (answer.max_age(), begun.elapsed().as_secs());
        assert!(
            age <= most && age + since + 2 >= most,
            "{path}: {age} after {since} s"
        );
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
fn a_recordings_playlist_is_rendered_once_too() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::start_recording("127.0.0.1:0", Some(&dir.path().join("reels")));
    let deadline = Instant::now() + Duration::from_secs(20);
    // Four that have left the window, and the six that are listed.
    while origin.get("/door/recordings/index.json").json()["recordings"][0]["segments"] != 10 {
        assert!(Instant::now() < deadline, "they were not recorded");
    }
    let path = "/door/recordings/19700101t000000z/360p/media.m3u8";
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(origin.get(path).status, 200));
        }
    });
    assert_eq!(origin.manifests.rendered.load(Ordering::Relaxed), 1);
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
