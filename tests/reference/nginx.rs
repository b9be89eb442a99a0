//! nginx as the examples and the pages set it up, on Unix sockets, over a folder with one stream.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// It runs until its owner ends.
pub(crate) struct Nginx {
    process: Child,
    pub(crate) folder: tempfile::TempDir,
}

/// A call of nginx with `directives` in its http block. It listens at `socket` in `root`, and asks an origin that is at `origin` there.
fn nginx(directives: &str, root: &Path) -> Command {
    let place = root.join("nginx.conf");
    let root = root.display();
    let directives = directives
        .replace("listen 80;", &format!("listen unix:{root}/socket;"))
        .replace("/var/lib/ringgear/live", &format!("{root}/live"))
        .replace(
            "server 127.0.0.1:8080;",
            &format!("server unix:{root}/origin;"),
        )
        .replace(
            "http://127.0.0.1:8080",
            &format!("http://unix:{root}/origin:"),
        );
    assert!(directives.contains("/socket;"), "{directives}");
    let whole = format!(
        "user root;\ndaemon off;\npid {root}/pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\naccess_log off;\nclient_body_temp_path {root}/b;\nproxy_temp_path {root}/p;\n\
         fastcgi_temp_path {root}/f;\nuwsgi_temp_path {root}/u;\nscgi_temp_path {root}/s;\n{directives}}}\n"
    );
    std::fs::write(&place, whole).unwrap();
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut nginx = Command::new("nginx");
    nginx.env("PATH", path).args(["-e", "stderr", "-c"]);
    nginx.arg(place);
    nginx
}

/// What nginx says against `directives`, if it is anything.
pub(crate) fn check(directives: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let mut nginx = nginx(directives, folder.path());
    let out = nginx.arg("-t").output();
    let out = out.expect("nginx is installed: scripts/setup test");
    match out.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

impl Nginx {
    pub(crate) fn start(directives: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
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
        let process = nginx(directives, folder.path()).spawn();
        let process = process.expect("nginx is installed: scripts/setup test");
        Self { process, folder }
    }

    /// The head of the answer for `path`.
    pub(crate) fn head(&self, path: &str) -> String {
        let answer = self.answer(path, "");
        answer.split("\r\n\r\n").next().unwrap().to_lowercase()
    }

    /// The answer for `path`, asked for with `headers`.
    pub(crate) fn answer(&self, path: &str, headers: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut socket = loop {
            match UnixStream::connect(self.folder.path().join("socket")) {
                Ok(socket) => break socket,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::yield_now();
        };
        write!(
            socket,
            "GET {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
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
