//! A plain web server over the publish folder: Debian's nginx, under the daemon's own user.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use super::http;
use super::place::{Who, command_as, give_to_daemon};
use super::process::Process;
use super::wait_for;

/// A running nginx.
pub(crate) struct Nginx {
    _process: Process,
    _dir: TempDir,
    pub(crate) port: u16,
}

impl Nginx {
    /// Serves `folder` on loopback, as files and nothing else.
    #[track_caller]
    pub(crate) fn start(folder: &Path) -> Self {
        let dir = TempDir::with_prefix("ringgear-nginx-").unwrap();
        give_to_daemon(dir.path());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let at = dir.path().display();
        let config = format!(
            "worker_processes 1;
pid {at}/pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {at}/body;
    proxy_temp_path {at}/proxy;
    fastcgi_temp_path {at}/fastcgi;
    uwsgi_temp_path {at}/uwsgi;
    scgi_temp_path {at}/scgi;
    types {{
        application/vnd.apple.mpegurl m3u8;
        application/dash+xml mpd;
        video/mp4 mp4 m4s;
    }}
    server {{
        listen 127.0.0.1:{port};
        root {};
        add_header Access-Control-Allow-Origin *;
        add_header Access-Control-Expose-Headers Date;
        location ~ \\.(m3u8|mpd)$ {{
            add_header Access-Control-Allow-Origin *;
            add_header Access-Control-Expose-Headers Date;
            add_header Cache-Control no-cache;
        }}
    }}
}}
",
            folder.display()
        );
        let path = dir.path().join("nginx.conf");
        std::fs::write(&path, config).unwrap();
        // Debian keeps it where only root's PATH looks.
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"]
            .into_iter()
            .find(|program| Path::new(program).exists())
            .unwrap_or("nginx");
        let mut command = command_as(Who::Daemon, program);
        command
            .arg("-p")
            .arg(dir.path())
            .arg("-e")
            .arg("stderr")
            .arg("-c")
            .arg(&path)
            .args(["-g", "daemon off;"])
            .stdin(Stdio::null());
        let process = Process::start("nginx", &mut command);
        wait_for("nginx answers", Duration::from_secs(10), || {
            http::get(port, "/").ok().map(|_| ())
        });
        Self {
            _process: process,
            _dir: dir,
            port,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}
