//! What viewers must not do: watch what is not for them, reach what is not served, and use up what others need.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use ringgear::status::StreamsStatus;

use super::recordings::{feed, open};
use crate::harness::daemon::Daemon;
use crate::harness::held_players::HeldPlayers;
use crate::harness::http::{self, Answer};
use crate::harness::place::{Place, Who, give_to_daemon};
use crate::harness::process::{Process, run};
use crate::harness::streams::small_stream;
use crate::harness::{beside_others, wait_for};

const SOON: Duration = Duration::from_secs(20);
const TOKEN: &str = "a-token-of-the-camera-and-of-nobody-else";
const KEY: &str = "a-key-that-signs-urls-of-the-camera";

/// A file of secrets that the daemon alone may read.
fn secret_file(place: &Place, name: &str, text: &str) -> PathBuf {
    let path = place.write(name, text);
    give_to_daemon(&path);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

/// A daemon with the guarded stream `cam` and the stream `other`, guarded by the same key, and an address for administrators.
struct Guarded {
    daemon: Daemon,
    admin: u16,
    _camera: Process,
}

impl Guarded {
    fn start() -> Self {
        let mut place = Place::new();
        secret_file(&place, "tokens", &format!("# of the wall\n{TOKEN}\n"));
        secret_file(&place, "keys", KEY);
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = free.local_addr().unwrap().port();
        drop(free);
        place.http = format!("admin_listen = \"127.0.0.1:{admin}\"\n");
        let guarded = "token_file = \"tokens\"\nsigning_key_file = \"keys\"";
        let streams =
            small_stream("cam", guarded) + &small_stream("other", "signing_key_file = \"keys\"");
        let daemon = Daemon::start_in(place, &streams, &[]);
        let camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        let guarded = Self {
            daemon,
            admin,
            _camera: camera,
        };
        wait_for("the camera is to be seen", SOON, || {
            let answer = guarded.with_token("/cam/index.m3u8");
            (answer.status == 200).then_some(())
        });
        guarded
    }

    fn with_token(&self, path: &str) -> Answer {
        self.shown(path, &[("Authorization", &format!("Bearer {TOKEN}"))])
    }

    fn shown(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        http::request(self.daemon.place.port, "GET", path, headers).unwrap()
    }

    fn status(&self, path: &str) -> u16 {
        self.daemon.get(path).status
    }

    /// The path of the stream with a pass, without the slash after it.
    fn signed(&self, stream: &str, length: &str) -> String {
        let place = &self.daemon.place;
        let config = place.path().join("ringgear.toml");
        let mut command = place.command(Who::Daemon);
        command.args([
            "sign",
            stream,
            "--for",
            length,
            "--base",
            "http://x/",
            "--config",
        ]);
        let signed = run(command.arg(config), SOON);
        assert_eq!(signed.code, Some(0), "{signed:?}");
        let url = signed.stdout.trim_end();
        let path = url.strip_prefix("http://x").unwrap();
        path.trim_end_matches('/').to_owned()
    }

    fn administrators(&self) -> StreamsStatus {
        let answer = http::get(self.admin, "/api/v1/streams").unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }
}

/// What the playlist names, by URIs of lines and of attributes.
fn named(playlist: &str) -> Vec<String> {
    let of_line = |line: &str| match line.starts_with('#') {
        false => Some(line.to_owned()),
        true => Some(line.split_once("URI=\"")?.1.split('"').next()?.to_owned()),
    };
    playlist.lines().filter_map(of_line).collect()
}

#[test]
fn a_guarded_stream_is_for_who_shows_a_token_or_a_pass_and_all_that_it_names_is_too() {
    let _machine = beside_others();
    let guarded = Guarded::start();
    for path in [
        "/cam",
        "/cam/",
        "/cam/index.m3u8",
        "/cam/manifest.mpd",
        "/cam/manifest-ll.mpd",
        "/cam/small/media.m3u8",
        "/cam/small/1.m4s",
        "/cam/snapshot.jpg",
        "/cam/status.json",
        "/api/v1/streams/cam",
        "/cam/20260101t000000z/index.m3u8",
        "/cam/clip.mp4?last=2s",
        "/cam/snapshot.jpg?at=2026-01-01T00:00:00Z",
        "/cam/recordings",
        "/cam/recordings/",
        "/cam/recordings/index.json",
        "/cam/recordings/20260101t000000z/index.m3u8",
    ] {
        let answer = guarded.daemon.get(path);
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert!(answer.header("www-authenticate").is_some(), "{path}");
    }
    for (path, root) in [
        ("/cam", "./"),
        ("/cam/", "../"),
        ("/cam/20260101t000000z/", "../../"),
        ("/cam/recordings/", "../../"),
        ("/cam/~1-a/20260101t000000z/", "../../../"),
    ] {
        let page = guarded.daemon.get(path).text();
        let link = format!("class=\"button\" href=\"{root}\"");
        assert!(page.contains(&link), "{path}: {page}");
    }
    let base = guarded.signed("cam", "1h");
    // What players do: everything is named from the manifest's URL.
    let index = guarded.daemon.get(&format!("{base}/index.m3u8"));
    let variants = named(&index.text());
    assert_eq!(
        (index.status, &*variants),
        (200, &["small/media.m3u8".to_owned()][..])
    );
    let media = guarded.daemon.get(&format!("{base}/small/media.m3u8"));
    let text = media.text();
    assert!(
        !text.contains('~') && text.contains("#EXT-X-PRELOAD-HINT"),
        "{text}"
    );
    assert!(
        media
            .header("cache-control")
            .unwrap()
            .starts_with("private")
    );
    for uri in named(&text) {
        // Relative, without a step up or to a root: below the pass.
        assert!(!uri.starts_with(['/', '.']) && !uri.contains(':'), "{uri}");
        let answer = guarded.daemon.get(&format!("{base}/small/{uri}"));
        assert_eq!(answer.status, 200, "{uri}");
        assert!(
            answer
                .header("cache-control")
                .unwrap()
                .starts_with("private")
        );
        assert_eq!(guarded.status(&format!("/cam/small/{uri}")), 401, "{uri}");
    }
    let newest = text
        .lines()
        .rfind(|line| line.ends_with(".m4s") && !line.starts_with('#'));
    let newest: u64 = newest.unwrap().trim_end_matches(".m4s").parse().unwrap();
    let reload = format!(
        "{base}/small/media.m3u8?_HLS_msn={}&_HLS_part=0",
        newest + 2
    );
    assert_eq!(guarded.status(&reload), 200);
    let part = guarded.shown(
        &format!("{base}/small/{newest}.m4s"),
        &[("Range", "bytes=0-99")],
    );
    assert_eq!((part.status, part.body.len()), (206, 100));
    let mpd = guarded.daemon.get(&format!("{base}/manifest.mpd")).text();
    assert!(
        mpd.contains("media=\"small/$Number$.m4s\"") && !mpd.contains("BaseURL"),
        "{mpd}"
    );
    // Likewise by a header, a cookie, and the pass in the header.
    let pass = base.split_once('~').unwrap().1;
    for (name, value) in [
        ("Authorization", format!("Bearer {TOKEN}")),
        ("Authorization", format!("bearer {pass}")),
        ("Cookie", format!("a=b; ringgear=1-0; ringgear={pass}")),
    ] {
        let answer = guarded.shown("/cam/small/media.m3u8", &[(name, &value)]);
        assert_eq!(answer.status, 200, "{name}");
    }

    // The command for clips shows a token as well.
    let place = &guarded.daemon.place;
    let clip = place.path().join("clip.mp4");
    let url = format!("http://127.0.0.1:{}", place.port);
    let cut = |token: &str| {
        let mut command = place.command(Who::Daemon);
        command.args(["clip", "cam", "--last", "2s", "--url", &url]);
        command.args(["--token", token, "--output"]);
        run(command.arg(&clip), SOON)
    };
    let refused = cut("not-the-token-at-all");
    assert_eq!((refused.code, clip.exists()), (Some(1), false));
    assert!(refused.stderr.contains("needs a token"), "{refused:?}");
    let cut = cut(TOKEN);
    assert_eq!((cut.code, clip.exists()), (Some(0), true), "{cut:?}");

    // As a page: the pass moves into a cookie of the stream.
    let page = guarded.daemon.get(&format!("{base}/"));
    let cookie = page.header("set-cookie").unwrap();
    for part in ["Path=/cam/", "HttpOnly", "SameSite=Strict", "Max-Age=3"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert_eq!(page.header("refresh"), Some("0; url=../"));
    let past = guarded.daemon.get(&format!("{base}/recordings/"));
    assert_eq!(past.header("refresh"), Some("0; url=../../recordings/"));
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(guarded.shown("/cam/", &[("Cookie", cookie)]).status, 200);

    // Forged, of another stream, and expired.
    let (expires, signature) = pass.split_once('-').unwrap();
    let later = expires.parse::<u64>().unwrap() + 1;
    for path in [
        format!("/cam/~{later}-{signature}/index.m3u8"),
        format!("/cam/~{expires}-{}/index.m3u8", "0".repeat(64)),
        format!("/cam/~{TOKEN}/index.m3u8"),
        format!("/cam/~{KEY}/index.m3u8"),
        format!("/other/~{pass}/status.json"),
        format!("/cam/~{pass}/../other/status.json"),
    ] {
        assert!([401, 404].contains(&guarded.status(&path)), "{path}");
    }
    for wrong in [KEY, "", "x", &TOKEN[1..], &format!("{TOKEN}x")] {
        let wrong = format!("Bearer {wrong}");
        let answer = guarded.shown("/cam/index.m3u8", &[("Authorization", &wrong)]);
        assert_eq!(answer.status, 401, "{wrong}");
    }
    let token = format!("Bearer {TOKEN}");
    let other = guarded.shown("/other/status.json", &[("Authorization", &token)]);
    assert_eq!(other.status, 401);
    let short = guarded.signed("cam", "2s");
    wait_for("the pass expires", SOON, || {
        (guarded.status(&format!("{short}/index.m3u8")) == 401).then_some(())
    });

    what_only_administrators_see(&guarded);
    a_reload_takes_up_other_secrets(&guarded);
    let log = guarded.daemon.log();
    for secret in [TOKEN, KEY, signature, "the-next-token"] {
        assert!(!log.contains(secret), "{log}");
    }
}

fn what_only_administrators_see(guarded: &Guarded) {
    assert_eq!(guarded.status("/metrics"), 403);
    assert!(guarded.daemon.status().streams.is_empty());
    assert_eq!(guarded.status("/"), 200);
    let seen = guarded.with_token("/api/v1/streams");
    let seen: StreamsStatus = serde_json::from_slice(&seen.body).unwrap();
    let [cam] = &seen.streams[..] else {
        panic!("{seen:?}");
    };
    assert_eq!(
        (
            cam.name.as_str(),
            &cam.session,
            cam.encoder.pid,
            cam.restricted
        ),
        ("cam", &None, None, true)
    );
    let all = guarded.administrators();
    let cam = &all.streams[0];
    assert!(
        all.streams.len() == 2 && cam.session.is_some() && !cam.restricted,
        "{all:?}"
    );
    for path in ["/metrics", "/cam/index.m3u8", "/cam/"] {
        assert_eq!(
            http::get(guarded.admin, path).unwrap().status,
            200,
            "{path}"
        );
    }
    let status = http::get(guarded.admin, "/api/v1/streams").unwrap().text();
    assert!(!status.contains(TOKEN) && !status.contains(KEY));
}

fn a_reload_takes_up_other_secrets(guarded: &Guarded) {
    let place = &guarded.daemon.place;
    let started = guarded.administrators().streams[0].started.clone();
    let reload = || run(place.command(Who::Daemon).arg("reload"), SOON);
    secret_file(place, "tokens", "short\n");
    let refused = reload();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("line 1 of token_file"),
        "{refused:?}"
    );
    assert!(!refused.stderr.contains("short"), "{refused:?}");
    assert_eq!(guarded.with_token("/cam/index.m3u8").status, 200);
    secret_file(place, "tokens", "the-next-token-of-the-camera\n");
    let done = reload();
    assert!(
        done.stdout.contains("stream cam goes on, changed: tokens"),
        "{done:?}"
    );
    assert_eq!(guarded.with_token("/cam/index.m3u8").status, 401);
    let next = ("Authorization", "Bearer the-next-token-of-the-camera");
    assert_eq!(guarded.shown("/cam/index.m3u8", &[next]).status, 200);
    assert_eq!(guarded.administrators().streams[0].started, started);
}

#[test]
fn players_and_the_page_play_a_signed_url() {
    let _machine = beside_others();
    let guarded = Guarded::start();
    let base = guarded.daemon.url(&guarded.signed("cam", "1h"));
    let mut players = HeldPlayers::open_with_page(&base, &format!("{base}/"));
    let watched = Duration::from_secs(1);
    players.wait_until("all play", SOON, |seen| {
        seen.iter().all(|seen| seen.plays(watched, 2.0))
    });
}

#[test]
fn who_comes_from_elsewhere_is_no_administrator_though_nothing_is_guarded() {
    let mut place = Place::new();
    "trusted_proxies = [\"127.0.0.1\"]\n".clone_into(&mut place.http);
    let daemon = Daemon::start_in(place, &small_stream("cam", ""), &[]);
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    let as_seen = |from: &[(&str, &str)], path: &str| {
        http::request(daemon.place.port, "GET", path, from).unwrap()
    };
    let session = |from: &[(&str, &str)]| {
        let answer = as_seen(from, "/api/v1/streams");
        let seen: StreamsStatus = serde_json::from_slice(&answer.body).unwrap();
        seen.streams[0].session.clone()
    };
    let elsewhere = [("X-Forwarded-For", "192.0.2.7")];
    assert_eq!(as_seen(&elsewhere, "/metrics").status, 403);
    assert_eq!(as_seen(&elsewhere, "/cam/index.m3u8").status, 200);
    assert_eq!(session(&elsewhere), None);
    assert_eq!(as_seen(&[], "/metrics").status, 200);
    assert!(session(&[]).is_some());
}

#[test]
fn other_machines_are_not_served_by_default() {
    let place = Place::new();
    let text = format!(
        "[daemon]\nsocket = {:?}\n[http]\nlisten = \"0.0.0.0:0\"\n{}",
        place.socket(),
        small_stream("cam", "")
    );
    let config = place.write("some.toml", &text);
    let mut command = place.command(Who::Daemon);
    let refused = run(command.arg("serve").arg("--config").arg(config), SOON);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    for part in [
        "some.toml:4:",
        "0.0.0.0:0",
        "stream \"cam\"",
        "allow_anyone = true",
    ] {
        assert!(refused.stderr.contains(part), "{refused:?}");
    }
}

/// All that the daemon says to `bytes`, until it closes the connection.
fn said_to(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    // It may answer and close before it has read all.
    let _ = stream.write_all(bytes);
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read) = stream.read(&mut buffer) {
        if read == 0 {
            break;
        }
        said.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn what_is_no_proper_request_is_answered_once_and_costs_others_nothing() {
    let _machine = beside_others();
    let mut place = Place::new();
    "header_timeout = \"1s\"\nstall_timeout = \"1s\"\nheader_bytes = \"8KiB\"\nrequests_per_second = 10\ntrusted_proxies = [\"127.0.0.1\"]\n".clone_into(&mut place.http);
    let daemon = Daemon::start_in(place, &small_stream("cam", ""), &[]);
    let port = daemon.place.port;
    let secret = daemon.place.path().join("secret");
    std::fs::write(&secret, "nobody's business").unwrap();
    symlink(&secret, daemon.place.live().join("cam/7.m4s")).unwrap();

    for path in [
        "/../secret",
        "/cam/../../secret",
        "/cam/..%2f..%2fsecret",
        "/cam/%2e%2e/%2e%2e/secret",
        "/cam%2findex.m3u8",
        "/cam/small%2f1.m4s",
        "/cam/small/..\\..\\secret",
        "//cam/index.m3u8",
        "/cam/7.m4s",
        "/cam/state.json",
        "/cam/%00",
        "/assets/../../secret",
        "/assets/..%2fstyle.css",
        "/cam/~/../../secret",
    ] {
        let answer = daemon.get(path);
        assert!(
            [400, 404].contains(&answer.status),
            "{path}: {}",
            answer.status
        );
        assert!(!answer.text().contains("business"), "{path}");
    }

    // Where a second request hides in the first one, it is not answered.
    let hidden = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = hidden.len();
    let long = "x".repeat(9000);
    let many = "A: b\r\n".repeat(200);
    let get = "GET /time HTTP/1.1\r\nHost: x\r\n";
    for (request, status) in [
        (
            format!(
                "{get}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
            "400",
        ),
        (
            format!("{get}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
            "400",
        ),
        (
            format!("{get}Content-Length: {length}\r\n\r\n{hidden}"),
            "400",
        ),
        (
            format!("{get}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{hidden}"),
            "400",
        ),
        (
            format!("{get}Content-Length: +{length}\r\n\r\n{hidden}"),
            "400",
        ),
        (
            format!("{get}Content-Length: 0, {length}\r\n\r\n{hidden}"),
            "400",
        ),
        (
            format!("{get}Transfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n{hidden}"),
            "400",
        ),
        (
            format!("{get}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"),
            "400",
        ),
        (
            format!("{get}Transfer-Encoding:\n chunked\r\n\r\n0\r\n\r\n{hidden}"),
            "400",
        ),
        (
            format!("POST /time HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{hidden}"),
            "405",
        ),
        (
            format!("{get}A: b\nContent-Length: {length}\n\n{hidden}"),
            "400",
        ),
        (
            format!("{get}A: b\rTransfer-Encoding: chunked\r\n\r\n{hidden}"),
            "400",
        ),
        (format!("{get}A: \0\r\n\r\n{hidden}"), "400"),
        (format!("{get}A: {long}\r\n\r\n{hidden}"), "431"),
        (format!("{get}{many}\r\n{hidden}"), "431"),
        (
            format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n{hidden}"),
            "4",
        ),
        (
            format!("GET /time HTTP/9.9\r\nHost: x\r\n\r\n{hidden}"),
            "400",
        ),
    ] {
        let said = said_to(port, request.as_bytes());
        let shown = &request[..request.len().min(120)];
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status}")),
            "{shown:?}: {said:?}"
        );
        assert_eq!(said.matches("HTTP/1.").count(), 1, "{shown:?}: {said:?}");
    }

    slow_ones_are_dropped(&daemon);
    who_asks_too_often_is_refused_by_its_own_address(port);
}

fn slow_ones_are_dropped(daemon: &Daemon) {
    let port = daemon.place.port;
    let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    // Headers that never end, and nothing at all, at once or after an answer.
    let slow: Vec<TcpStream> = (0..32)
        .map(|nth| {
            let mut stream = connect();
            let begun = [
                "GET / HTTP/1.1\r\nA: ",
                "",
                "GET /time HTTP/1.1\r\nHost: x\r\n\r\n",
                "GET /time HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nA: ",
            ][nth % 4];
            stream.write_all(begun.as_bytes()).unwrap();
            stream
        })
        .collect();
    // Who asks again and again and never reads.
    let page = daemon.get("/").text();
    let style = page.split("assets/").find(|rest| rest.starts_with("style"));
    let style = style.unwrap().split('"').next().unwrap();
    let ask = format!("GET /assets/{style} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(100);
    let mut deaf = connect();
    deaf.set_write_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let started = Instant::now();
    wait_for("who reads nothing is dropped", SOON, || {
        let error = deaf.write(ask.as_bytes()).err()?;
        let kind = error.kind();
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        [BrokenPipe, ConnectionReset].contains(&kind).then_some(())
    });
    assert!(
        started.elapsed() > Duration::from_secs(1),
        "not before its time"
    );
    for mut stream in slow {
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut said = Vec::new();
        // Closed, with or without a word.
        let closed = stream.read_to_end(&mut said);
        assert!(!closed.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }
    assert_eq!(daemon.get("/healthz").status, 200);
}

fn who_asks_too_often_is_refused_by_its_own_address(port: u16) {
    let ask = |viewer: &str| {
        let headers = [("X-Forwarded-For", viewer)];
        http::request(port, "GET", "/healthz", &headers).unwrap()
    };
    let refused = wait_for("the viewer asks too often", SOON, || {
        let answers: Vec<Answer> = (0..30).map(|_| ask("198.51.100.7")).collect();
        answers.into_iter().find(|answer| answer.status == 503)
    });
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(ask("198.51.100.8").status, 200);
}

#[test]
fn a_link_in_the_place_of_a_recordings_segment_leads_nowhere() {
    let _machine = beside_others();
    let daemon = Daemon::start(&small_stream("cam", "mode = \"event\""));
    let mut producer = open(&daemon);
    feed(&mut producer, 0..60).unwrap();
    producer.close().unwrap();
    let name = daemon.stream("cam").recordings.remove(0);
    let path = format!("/cam/{name}/small/0.m4s");
    let file = daemon.place.live().join(&path[1..]);
    let segment = daemon.get(&path);
    assert_eq!(segment.status, 200);
    // Of the same length, so that nothing else gives it away.
    let secret = daemon
        .place
        .write("secret", &"s".repeat(segment.body.len()));
    std::fs::remove_file(&file).unwrap();
    symlink(&secret, &file).unwrap();
    assert_eq!(daemon.get(&path).status, 404);
    // Nor does a folder's.
    std::fs::remove_file(&file).unwrap();
    let elsewhere = daemon.place.path().join("elsewhere");
    std::fs::rename(file.parent().unwrap(), &elsewhere).unwrap();
    std::fs::copy(&secret, elsewhere.join("0.m4s")).unwrap();
    symlink(&elsewhere, file.parent().unwrap()).unwrap();
    assert_eq!(daemon.get(&path).status, 404);
}

#[test]
fn http_2_is_guarded_like_http_1() {
    let _machine = beside_others();
    let mut place = Place::new();
    secret_file(&place, "tokens", TOKEN);
    "header_timeout = \"1s\"\n".clone_into(&mut place.http);
    let daemon = Daemon::start_in(place, &small_stream("cam", "token_file = \"tokens\""), &[]);
    let status = |headers: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--http2-prior-knowledge", "--max-time", "10"]);
        command.args([
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code} %{http_version}",
        ]);
        for header in headers {
            command.args(["--header", header]);
        }
        run(command.arg(daemon.url("/cam/status.json")), SOON).stdout
    };
    assert_eq!(status(&[]), "401 2");
    assert_eq!(
        status(&[&format!("Authorization: Bearer {TOKEN}")]),
        "200 2"
    );
    // Who has asked and asks for nothing more is let go.
    let mut idle = TcpStream::connect(("127.0.0.1", daemon.place.port)).unwrap();
    idle.set_read_timeout(Some(SOON)).unwrap();
    // The preface, empty settings, and GET /time in literal headers.
    let block = b"\x82\x84\x86\x41\x01x";
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend_from_slice(&[0, 0, 6, 1, 5, 0, 0, 0, 1]);
    bytes.extend_from_slice(block);
    idle.write_all(&bytes).unwrap();
    let mut said = Vec::new();
    idle.read_to_end(&mut said).unwrap();
    assert!(!said.is_empty());
}
