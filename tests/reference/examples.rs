//! The whole configs in `config/examples/`, and the web server's beside them.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;

use ringgear::config::{self, Environment};

use crate::nginx::Nginx;
use crate::repository;

#[test]
fn the_examples_are_good_configs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let loaded = config::read(&path, &Environment::TEXT_ONLY);
            let loaded = loaded.unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!(loaded.warnings, []);
            seen += 1;
        }
    }
    assert_eq!(seen, 5);
}

#[test]
fn the_nginx_example_serves_each_file_with_its_type_and_life() {
    let nginx = Nginx::start(&repository("config/examples/nginx.conf"));
    for (path, kind, life) in [
        (
            "/door/720p/media.m3u8",
            "application/vnd.apple.mpegurl",
            "max-age=1",
        ),
        ("/door/manifest.mpd", "application/dash+xml", "max-age=1"),
        ("/door/720p/1.m4s", "video/mp4", "max-age=30, immutable"),
        (
            "/door/720p/init-1.mp4",
            "video/mp4",
            "max-age=30, immutable",
        ),
        ("/door/snapshot.jpg", "image/jpeg", "no-cache"),
    ] {
        let head = nginx.head(path);
        assert!(head.starts_with("http/1.1 200"), "{path}\n{head}");
        assert!(
            head.contains(&format!("content-type: {kind}")),
            "{path}\n{head}"
        );
        assert!(
            head.contains(&format!("cache-control: {life}")),
            "{path}\n{head}"
        );
        assert!(
            head.contains("access-control-allow-origin: *"),
            "{path}\n{head}"
        );
    }
    for path in ["/door/state.json", "/door/720p/2.m4s", "/"] {
        let head = nginx.head(path);
        assert!(
            head.starts_with("http/1.1 404") && !head.contains("cache-control"),
            "{path}\n{head}"
        );
    }
}

#[test]
fn the_edge_box_serves_whole_segments_from_the_disk_and_the_rest_from_the_origin() {
    let nginx = Nginx::start(&repository("config/examples/edge-box.nginx.conf"));
    let origin = UnixListener::bind(nginx.folder.path().join("origin")).unwrap();
    let asked = [
        "/",
        "/door/",
        "/door/manifest.mpd",
        "/door/720p/media.m3u8?_HLS_msn=7",
        "/door/720p/2.m4s",
    ];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for path in asked {
                let (mut connection, _) = origin.accept().unwrap();
                let mut request = [0; 4096];
                let got = connection.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..got]);
                assert!(
                    request.starts_with(&format!("GET {path} HTTP/1.1\r\n"))
                        && request.contains("\r\nHost: x\r\n")
                        && request.contains("\r\nX-Forwarded-For: ")
                        && request.contains("\r\nX-Forwarded-Proto: http\r\n"),
                    "{request}"
                );
                let answer =
                    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\norigin";
                connection.write_all(answer).unwrap();
            }
        });
        for path in asked {
            let answer = nginx.answer(path, "");
            assert!(answer.ends_with("\r\n\r\norigin"), "{path}\n{answer}");
        }
    });
    let whole = nginx.answer("/door/720p/1.m4s", "");
    assert!(whole.ends_with("\r\n\r\ncontent"), "{whole}");
    assert!(nginx.head("/metrics").starts_with("http/1.1 404"));
}
