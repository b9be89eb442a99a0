//! `ringgear demo`: a daemon with a built-in config in a temporary folder, and two cameras in processes of their own.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::watch;
use tracing::Level;

use super::logging::{self, LogArgs};
use super::{CliError, demo_folder, serve, signals};
use crate::config;
use crate::daemon::Asked;

/// Where the demo listens if the port is free; else the system chooses one.
const PORT: u16 = 8080;

/// Shows the main job: two cameras in a browser, from one command.
#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// End after this time, with exit status 0 [for example: 20s]
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Where the origin listens; without it 127.0.0.1:8080, or another port if that is taken
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    log: LogArgs,
}

/// Runs it.
pub(super) fn run(args: DemoArgs) -> Result<(), CliError> {
    logging::start(&args.log, Level::INFO)?;
    let failed =
        |what: &str, error: &dyn std::fmt::Display| CliError::Failed(format!("{what}: {error}"));
    let folder =
        demo_folder::make().map_err(|error| failed("no temporary folder can be made", &error))?;
    let listen = match args.listen {
        Some(listen) => listen,
        None => free_address().map_err(|error| failed("no port is free on 127.0.0.1", &error))?,
    };
    let socket = folder.path().join("control.sock");
    let plan = config::parse_builtin(&config_text(folder.path(), &socket, listen))
        .map_err(|error| failed("the built-in config is wrong", &error))?;
    let asked = signals::listen().map_err(|error| failed("signals can't be handled", &error))?;
    let to_stop = until(asked.to_stop.clone(), args.duration);
    serve::serve(&plan, None, Asked { to_stop, ..asked }, |daemon| {
        let start = |(index, stream): (usize, &&str)| camera(stream, &socket, index);
        let cameras: std::io::Result<Vec<_>> =
            ["door", "yard"].iter().enumerate().map(start).collect();
        println!(
            "\n  Open http://{}/ in a browser: two cameras play there. Ctrl-C ends.\n",
            daemon.address()
        );
        cameras.map_err(|error| failed("a camera process could not be started", &error))
    })
}

fn config_text(folder: &Path, socket: &Path, listen: SocketAddr) -> String {
    let live = folder.join("live");
    format!(
        r#"
        [daemon]
        socket = {socket:?}
        [http]
        listen = "{listen}"
        # Test pictures, and who names another address wants them seen.
        allow_anyone = true
        [publish]
        dir = {live:?}

        [streams.door]
        framerate = 30
        segment = "1s"
        window = "20s"
        [[streams.door.renditions]]
        name = "720p"
        size = "1280x720"
        bitrate = "2500k"
        preset = "ultrafast"
        [[streams.door.renditions]]
        name = "360p"
        size = "640x360"
        bitrate = "700k"
        preset = "ultrafast"

        [streams.yard]
        framerate = 15
        segment = "1s"
        window = "20s"
        [[streams.yard.renditions]]
        name = "480p"
        size = "854x480"
        bitrate = "1M"
        preset = "ultrafast"
        "#
    )
}

/// A camera process, ended when this is dropped.
struct Camera(Child);

impl Drop for Camera {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn camera(stream: &str, socket: &Path, index: usize) -> std::io::Result<Camera> {
    let size = ["1280x720", "960x540"][index % 2];
    Command::new(std::env::current_exe()?)
        .arg("pattern")
        .args([stream, "--size", size, "--socket"])
        .arg(socket)
        .arg(format!("--with-parent={}", std::process::id()))
        .stdin(Stdio::null())
        .spawn()
        .map(Camera)
}

/// Turns true when `asked` does, or after `duration`.
fn until(asked: watch::Receiver<bool>, duration: Option<Duration>) -> watch::Receiver<bool> {
    let Some(duration) = duration else {
        return asked;
    };
    let (over, told) = watch::channel(false);
    std::thread::spawn(move || {
        let end = std::time::Instant::now() + duration;
        while std::time::Instant::now() < end && !*asked.borrow() {
            std::thread::sleep(Duration::from_millis(20).min(duration));
        }
        over.send_replace(true);
    });
    told
}

fn free_address() -> std::io::Result<SocketAddr> {
    let bind = |port| TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)));
    bind(PORT).or_else(|_| bind(0))?.local_addr()
}
