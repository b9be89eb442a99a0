//! The reference config, its docs and the examples say what the code does.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use ringgear::config::{self, Environment, Plan, defaults};

fn plan(text: &str) -> Plan {
    let loaded = config::parse(text, Path::new("reference.toml"), &Environment::TEXT_ONLY);
    loaded.unwrap_or_else(|errors| panic!("{errors}")).plan
}

/// A file of this repository.
fn repository(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The reference with every default's "#" taken away.
fn uncommented(text: &str) -> String {
    let uncomment = |line: &str| {
        let default = line
            .strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['));
        default.unwrap_or(line).to_owned() + "\n"
    };
    text.lines().map(uncomment).collect()
}

#[test]
fn the_reference_shows_every_key_and_its_default() {
    let reference = repository("config/ringgear.toml");
    let expected = plan("[streams.door]\nframerate = 30");
    assert_eq!(plan(&reference), expected);
    assert_eq!(plan(&uncommented(&reference)), expected);
    for (table, keys) in config::keys() {
        for key in keys {
            let shown = reference.lines().any(|line| {
                let line = line.trim_start_matches(['#', ' ', '[']);
                let line = line.strip_prefix("streams.door.").unwrap_or(line);
                line.strip_prefix(key)
                    .is_some_and(|rest| rest.starts_with([' ', ']']))
            });
            assert!(shown, "{key} of [{table}] is missing");
        }
    }
}

#[test]
fn the_docs_have_every_key_with_its_default() {
    let docs = repository("docs/config.md");
    // What has no sound is written apart from what has.
    let (mut written, mut sound) = (String::new(), String::new());
    for (table, keys) in config::keys() {
        let heading = match table {
            "streams" => "## [streams.NAME]".to_owned(),
            "renditions" => "## [[streams.NAME.renditions]]".to_owned(),
            "audio" => "## [streams.NAME.audio]".to_owned(),
            "audio renditions" => "## [[streams.NAME.audio.renditions]]".to_owned(),
            other => format!("## [{other}]"),
        };
        let section = docs
            .split_once(&heading)
            .unwrap_or_else(|| panic!("{heading} is missing"))
            .1;
        let section = section.split("\n## ").next().unwrap();
        let written = if table.starts_with("audio") {
            &mut sound
        } else {
            &mut written
        };
        *written += &match table {
            "audio" => "[streams.door.audio]\nsource = \"music.ogg\"\n".to_owned(),
            "audio renditions" => "[[streams.door.audio.renditions]]\n".to_owned(),
            "streams" => "[streams.door]\nframerate = 30\n".to_owned(),
            "renditions" => "[[streams.door.renditions]]\n".to_owned(),
            other => format!("[{other}]\n"),
        };
        for key in keys {
            let row = section
                .lines()
                .find(|line| line.starts_with(&format!("| `{key}` |")));
            let row = row.unwrap_or_else(|| panic!("{key} has no row under {heading}"));
            let default = row.split('|').nth(2).unwrap().trim();
            if let Some(default) = default.strip_prefix('`').and_then(|d| d.strip_suffix('`')) {
                *written += &format!("{key} = {default}\n");
            }
        }
    }
    written += &format!("name = {:?}\n", defaults::RENDITION);
    assert_eq!(
        plan(&written),
        plan("[streams.door]\nframerate = 30"),
        "{written}"
    );
    let only = "[streams.door]\nframerate = 30\n";
    let bare = format!("{only}[streams.door.audio]\nsource = \"music.ogg\"\n");
    let sound = format!("{only}{sound}name = {:?}\n", defaults::AUDIO_RENDITION);
    assert_eq!(plan(&sound), plan(&bare), "{sound}");
}

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
    assert_eq!(seen, 2);
}

/// nginx with the example on a Unix socket; ends with its owner.
struct Nginx {
    process: std::process::Child,
    folder: tempfile::TempDir,
}

impl Nginx {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display();
        let example = repository("config/examples/nginx.conf")
            .replace("listen 80;", &format!("listen unix:{root}/socket;"))
            .replace("/var/lib/ringgear/live", &format!("{root}/live"));
        assert!(example.contains("/socket;") && example.contains("/live;"));
        let whole = format!(
            "user root;\ndaemon off;\npid {root}/pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\naccess_log off;\nclient_body_temp_path {root}/b;\nproxy_temp_path {root}/p;\n\
             fastcgi_temp_path {root}/f;\nuwsgi_temp_path {root}/u;\nscgi_temp_path {root}/s;\n{example}}}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), whole).unwrap();
        let door = folder.path().join("live/door/720p");
        std::fs::create_dir_all(&door).unwrap();
        for name in [
            "720p/media.m3u8",
            "manifest.mpd",
            "720p/1.m4s",
            "720p/init-1.mp4",
            "snapshot.jpg",
            "state.json",
        ] {
            std::fs::write(folder.path().join("live/door").join(name), "content").unwrap();
        }
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let process = std::process::Command::new("nginx")
            .env("PATH", path)
            .args(["-e", "stderr", "-c"])
            .arg(folder.path().join("nginx.conf"))
            .spawn()
            .expect("nginx is installed: scripts/setup test");
        Self { process, folder }
    }

    /// The head of the answer for `path`.
    fn head(&self, path: &str) -> String {
        use std::io::{Read, Write};
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let mut socket = loop {
            match std::os::unix::net::UnixStream::connect(self.folder.path().join("socket")) {
                Ok(socket) => break socket,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            }
            std::thread::yield_now();
        };
        write!(
            socket,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer.split("\r\n\r\n").next().unwrap().to_lowercase()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM: a killed master would leave its worker behind.
        let pid = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}

#[test]
fn the_nginx_example_serves_each_file_with_its_type_and_life() {
    let nginx = Nginx::start();
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
