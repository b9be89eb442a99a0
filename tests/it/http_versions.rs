//! HTTP/2 in cleartext and over TLS, with a client of another make, and certificates that change under the daemon.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::daemon::Daemon;
use crate::harness::place::Place;
use crate::harness::{beside_others, wait_for};
use crate::low_latency::STREAM;

/// Makes a certificate for `name` and its key.
fn certificate(place: &Place, name: &str) {
    let path = |file: &str| place.path().join(file);
    let (certificate, key) = (path("new.pem"), path("new.key"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args(["-days", "2", "-subj", &format!("/CN={name}")])
        .args([
            "-addext",
            &format!("subjectAltName=DNS:{name},DNS:localhost"),
        ])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    for (from, to) in [(certificate, "cert.pem"), (key, "key.pem")] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(&from, mode).unwrap();
        std::fs::rename(from, path(to)).unwrap();
    }
}

/// The status, the version and the body of what curl gets.
fn curl(arguments: &[&str], url: &str) -> (String, Vec<u8>) {
    let mark = "\n%{http_code} %{http_version}";
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "10",
            "--write-out",
            mark,
        ])
        .args(arguments)
        .arg(url)
        .output()
        .unwrap();
    let at = output.stdout.iter().rposition(|byte| *byte == b'\n');
    let at = at.unwrap_or_else(|| panic!("{url}: {}", String::from_utf8_lossy(&output.stderr)));
    let said = String::from_utf8(output.stdout[at + 1..].to_vec()).unwrap();
    (said, output.stdout[..at].to_vec())
}

/// The name on the certificate that a new connection gets.
fn name_on(ca: &Path, port: u16) -> bool {
    let ca = ca.to_str().unwrap();
    let url = format!("https://localhost:{port}/healthz");
    curl(&["--cacert", ca, "--http2"], &url).0 == "200 2"
}

#[test]
fn http_2_is_spoken_in_cleartext_to_clients_that_know_it() {
    let _machine = beside_others();
    let daemon = Daemon::start(STREAM);
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    let knows = ["--http2-prior-knowledge"];
    let (said, playlist) = curl(&knows, &daemon.url("/cam/high/media.m3u8"));
    assert_eq!(said, "200 2");
    let text = String::from_utf8(playlist).unwrap();
    let last = text
        .lines()
        .rfind(|line| line.ends_with(".m4s") && !line.starts_with('#'));
    let number: u64 = last.unwrap().trim_end_matches(".m4s").parse().unwrap();
    // The segment that is being written, and a reload that blocks.
    let (said, open) = curl(
        &knows,
        &daemon.url(&format!("/cam/high/{}.m4s", number + 1)),
    );
    assert_eq!(said, "200 2");
    let (said, finished) = curl(
        &knows,
        &daemon.url(&format!("/cam/high/{}.m4s", number + 1)),
    );
    assert_eq!((said.as_str(), finished == open), ("200 2", true));
    // That segment may be whole and not listed yet: then this is the second one after the newest that is.
    let query = format!("/cam/high/media.m3u8?_HLS_msn={}", number + 2);
    assert_eq!(curl(&knows, &daemon.url(&query)).0, "200 2");
    assert_eq!(curl(&["--http1.1"], &daemon.url("/healthz")).0, "200 1.1");
    // The head alone, which says how long the rest is.
    for (version, said) in [
        ("--http2-prior-knowledge", "200 2"),
        ("--http1.1", "200 1.1"),
    ] {
        let (told, head) = curl(&[version, "--head"], &daemon.url("/cam/high/media.m3u8"));
        assert_eq!(told, said);
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(!head.contains("content-length: 0"), "{head}");
        assert!(head.contains("content-length: "), "{head}");
    }
}

#[test]
fn tls_carries_http_2_and_takes_up_new_certificates() {
    let _machine = beside_others();
    let mut place = Place::new();
    certificate(&place, "first.example");
    let first = place.write(
        "first.pem",
        &std::fs::read_to_string(place.path().join("cert.pem")).unwrap(),
    );
    "tls_certificate = \"cert.pem\"\ntls_key = \"key.pem\"\n".clone_into(&mut place.http);
    let mut daemon = Daemon::start_in(place, STREAM, &[]);
    let (port, path) = (daemon.place.port, daemon.place.path().to_owned());
    assert!(name_on(&first, port), "the first certificate, over HTTP/2");
    let old = ["--cacert", first.to_str().unwrap(), "--http1.1"];
    let url = format!("https://localhost:{port}/healthz");
    assert_eq!(curl(&old, &url).0, "200 1.1");
    assert_eq!(
        daemon.get("/healthz").status,
        200,
        "cleartext on the same port"
    );

    let log = daemon.log();
    assert!(log.contains("origin=https://"), "{log}");

    // A pair that does not fit together changes nothing.
    std::fs::write(path.join("cert.pem"), "no certificate").unwrap();
    wait_for(
        "the bad certificate is told",
        Duration::from_secs(8),
        || {
            daemon
                .log()
                .contains("certificate before stays in use")
                .then_some(())
        },
    );
    assert!(name_on(&first, port));
    certificate(&daemon.place, "second.example");
    let second = path.join("cert.pem");
    wait_for(
        "the new certificate is used",
        Duration::from_secs(8),
        || name_on(&second, port).then_some(()),
    );
    assert!(!name_on(&first, port));
    daemon.stop();
}
