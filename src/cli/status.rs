//! `ringgear status`, `ringgear stop` and `ringgear reload`: what the daemon is asked over its control socket.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, ErrorKind, IsTerminal as _, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringgear_producer::messages::{Reply, Request};

use super::{CliError, watch};
use crate::config::Changes;
use crate::status::{
    AudioStatus, LatencyStatus, SoundSessionStatus, SourceStatus, StreamStatus, StreamsStatus,
};

/// No answer is longer.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;
/// A daemon that is well answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Streams that end by a reload publish their last pictures first; recordings may have many of them. The unit's `TimeoutStartSec=`, which
/// bounds reloads as well, is longer.
const PATIENCE_WITH_ENDS: Duration = Duration::from_secs(90);

/// Shows streams, sessions, rates and drops.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// The JSON of /api/v1/streams instead of a table
    #[arg(long)]
    json: bool,
    /// Show it again each second until Ctrl-C: on a terminal with bars for rates, lag and drops
    #[arg(long)]
    watch: bool,
}

/// Prints what the daemon says of itself.
pub(super) fn run(args: StatusArgs, socket: &Path) -> Result<(), CliError> {
    match (args.watch, args.json) {
        (true, true) => watch::print(|| Ok(said(socket)?.to_string() + "\n")),
        (true, false) if std::io::stdout().is_terminal() => watch::show(|| status(socket)),
        (true, false) => watch::print(|| Ok(table(&status(socket)?) + "\n")),
        (false, json) => {
            let text = match json {
                true => serde_json::to_string_pretty(&said(socket)?).unwrap_or_default() + "\n",
                false => table(&status(socket)?),
            };
            // A reader that has seen enough closes the pipe; that is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            Ok(())
        }
    }
}

/// What the daemon says of itself, whatever its version.
fn said(socket: &Path) -> Result<serde_json::Value, CliError> {
    match ask(socket, &Request::Status {})? {
        Reply::Status { status } => Ok(status),
        Reply::Refused(refused) => Err(CliError::Failed(refused.message)),
        _ => Err(CliError::Failed(
            "the daemon answered something else than its status".to_owned(),
        )),
    }
}

fn status(socket: &Path) -> Result<StreamsStatus, CliError> {
    serde_json::from_value(said(socket)?).map_err(|error| {
        CliError::Failed(format!(
            "the daemon is of another version: {error}; try --json"
        ))
    })
}

/// Asks the daemon to stop, as SIGTERM does.
pub(super) fn stop(socket: &Path) -> Result<(), CliError> {
    match ask(socket, &Request::Stop {})? {
        Reply::Done {} => Ok(()),
        Reply::Refused(refused) => Err(CliError::Failed(refused.message)),
        _ => Err(CliError::Failed(
            "the daemon answered something unexpected".to_owned(),
        )),
    }
}

/// Asks the daemon to read its config again, as SIGHUP does, and prints what has changed.
pub(super) fn reload(socket: &Path) -> Result<(), CliError> {
    let (_, changes) = changes(socket, false)?;
    print!("{changes}");
    Ok(())
}

/// What a reload changes, or would change, and the config that says so.
pub(super) fn changes(socket: &Path, dry_run: bool) -> Result<(PathBuf, Changes), CliError> {
    match ask_patiently(socket, &Request::Reload { dry_run }, PATIENCE_WITH_ENDS)? {
        Reply::Reloaded { config, changes } => {
            let changes = serde_json::from_value(changes).map_err(|error| {
                CliError::Failed(format!("the daemon is of another version: {error}"))
            })?;
            Ok((config.into(), changes))
        }
        Reply::Refused(refused) => Err(CliError::Failed(refused.message)),
        _ => Err(CliError::Failed(
            "the daemon answered something unexpected".to_owned(),
        )),
    }
}

fn ask(socket: &Path, request: &Request) -> Result<Reply, CliError> {
    ask_patiently(socket, request, PATIENCE)
}

fn ask_patiently(socket: &Path, request: &Request, patience: Duration) -> Result<Reply, CliError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        CliError::Failed(format!(
            "{what} {}: {error}; is the daemon running? --socket or $RINGGEAR_SOCKET name its socket",
            socket.display()
        ))
    };
    let mut stream = UnixStream::connect(socket).map_err(|error| failed("no daemon at", &error))?;
    let answer = (|| {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        match stream.write_all(&line) {
            // A daemon that refuses a connection says why before it closes it, and does not wait for a request.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            written => written?,
        }
        let mut answer = String::new();
        BufReader::new(&stream)
            .take(MAX_ANSWER)
            .read_line(&mut answer)?;
        std::io::Result::Ok(serde_json::from_str(&answer)?)
    })();
    answer.map_err(|error| failed("no answer from the daemon at", &error))
}

fn table(status: &StreamsStatus) -> String {
    let mut text = format!(
        "ringgear {}, up {}\n",
        status.version,
        humantime::format_duration(whole_seconds(status.uptime_seconds))
    );
    if status.streams.is_empty() {
        text.push_str("no streams in the config\n");
        return text;
    }
    let header = [
        "STREAM",
        "STATE",
        "RATE",
        "PRODUCER",
        "FRAMES/S",
        "USED",
        "DROPPED",
        "REPEATED",
        "SLATE",
        "OVERDUE",
        "DELAY",
        "VIEWERS",
        "RENDITIONS",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(status.streams.iter().map(row));
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..header.len()).map(width).collect();
    for row in &rows {
        let line = row
            .iter()
            .zip(&widths)
            .fold(String::new(), |mut line, (cell, width)| {
                let _ = write!(line, "{cell:<width$}  ", width = *width);
                line
            });
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for stream in &status.streams {
        if let Some(source) = &stream.source {
            let _ = writeln!(text, "{}: {}", stream.name, told(source));
        }
        let audio = stream.audio.as_ref();
        if let Some((audio, session)) =
            audio.and_then(|audio| Some((audio, audio.session.as_ref()?)))
        {
            let _ = writeln!(text, "{}: {}", stream.name, heard(audio, session));
        }
        if let Some(detail) = audio.and_then(|audio| audio.detail.as_ref()) {
            let _ = writeln!(text, "{}: {detail}", stream.name);
        }
        if let Some(detail) = &stream.detail {
            let _ = writeln!(text, "{}: {detail}", stream.name);
        }
        if let Some(latency) = latency(&stream.latency) {
            let _ = writeln!(text, "{}: {latency}", stream.name);
        }
    }
    text
}

/// `sound from pid 4711: s16le 48000 Hz, channels 2, drift 12.3 ppm, 0 of 8123 blocks passed over`.
fn heard(audio: &AudioStatus, session: &SoundSessionStatus) -> String {
    format!(
        "sound from pid {}: {} {} Hz, channels {}, drift {:.1} ppm, {} of {} blocks passed over",
        session.pid,
        session.format,
        session.rate,
        session.channels,
        audio.drift_ppm,
        session.superseded,
        session.committed
    )
}

/// `source rtsp://cam/1 is running: rtsp h264 1280x720, 25 fps`.
fn told(source: &SourceStatus) -> String {
    let mut text = format!("source {} is {}", source.source, source.state);
    let size = source.width.zip(source.height);
    let found = [
        source.container.clone(),
        source.codec.clone(),
        size.map(|(width, height)| format!("{width}x{height}")),
        source.framerate.map(|framerate| format!("{framerate} fps")),
        source
            .audio_codec
            .as_ref()
            .map(|codec| format!("{codec} sound")),
        source
            .keyframe_seconds
            .map(|seconds| format!("keyframes {seconds:.1} s apart")),
        source
            .next_try
            .as_ref()
            .map(|time| format!("next try at {time}")),
    ];
    let found: Vec<String> = found.into_iter().flatten().collect();
    if !found.is_empty() {
        text += &format!(": {}", found.join(", "));
    }
    text
}

/// Median and 99th percentile of each distribution that has any; nothing before the first tick.
fn latency(latency: &LatencyStatus) -> Option<String> {
    let told = [
        ("tick late", &latency.tick_lateness),
        ("in the encoder", &latency.encoder_delay),
        ("commit to part", &latency.commit_to_part),
    ];
    let told = told.into_iter().filter_map(|(what, distribution)| {
        let (p50, p99) = (distribution.p50_seconds?, distribution.p99_seconds?);
        Some(format!("{what} {:.1}/{:.1} ms", p50 * 1e3, p99 * 1e3))
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| format!("{} (half/99 %)", told.join(", ")))
}

pub(super) fn whole_seconds(seconds: f64) -> Duration {
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Duration::from_secs(duration.as_secs())
}

fn row(stream: &StreamStatus) -> Vec<String> {
    let producer = stream
        .session
        .as_ref()
        .map_or("none".to_owned(), |session| {
            format!(
                "pid {} {}x{} {}",
                session.pid, session.width, session.height, session.format
            )
        });
    let renditions = stream.renditions.iter().map(|rendition| {
        let size = rendition
            .width
            .zip(rendition.height)
            .map_or(String::new(), |(w, h)| format!(" {w}x{h}"));
        format!(
            "{}{size} {}k",
            rendition.name,
            rendition.average_bits_per_second / 1000
        )
    });
    let delay = stream
        .encoder
        .delay_seconds
        .map_or("-".to_owned(), |delay| format!("{:.1} ms", delay * 1e3));
    vec![
        stream.name.clone(),
        stream.state.to_string(),
        stream.framerate.clone(),
        producer,
        format!("{:.0}", stream.frames.per_second),
        stream.frames.used.to_string(),
        (stream.frames.superseded + stream.frames.late).to_string(),
        stream.ticks.repeated.to_string(),
        stream.ticks.slate.to_string(),
        stream.ticks.overdue.to_string(),
        delay,
        stream.window.viewers.to_string(),
        renditions.collect::<Vec<_>>().join(", "),
    ]
}
