//! `ringgear check`: says whether the config is good, and what it comes to. It changes nothing on the machine.

use std::fmt::Write as _;
use std::io;
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{CliError, status};
use crate::config::{
    self, AtExit, Environment, FfmpegCheck, Plan, RateControl, RecordPlan, SourcePlan, StreamPlan,
};
use crate::picture::{PictureFormat, Size};

/// The arguments of `ringgear check`.
#[derive(Debug, Default, clap::Args)]
pub struct CheckArgs {
    /// The config file [default: $RINGGEAR_CONFIG, then /etc/ringgear/ringgear.toml]
    pub file: Option<PathBuf>,
    /// The same, written as `serve` has it
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub config: Option<PathBuf>,
    /// Say what a reload would change in the daemon that runs, instead of all that the config comes to
    #[arg(long)]
    pub diff: bool,
}

/// Checks the config: a good one's summary goes to stdout, warnings to stderr; a bad one is [`CliError::Config`] with all its
/// errors, one a line. `ffmpeg` says what FFmpeg can't do.
pub fn run(args: CheckArgs, ffmpeg: FfmpegCheck<'_>) -> Result<(), CliError> {
    let path = config::find(args.file.or(args.config))?;
    let environment = Environment {
        folders: true,
        secrets: true,
        ffmpeg: Some(ffmpeg),
        listen: Some(&may_listen),
    };
    let loaded = config::read(&path, &environment)?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    let text = match args.diff {
        true => difference(&path, &loaded.plan)?,
        false => summary(&loaded.plan),
    };
    print!("{} is good\n{text}", path.display());
    Ok(())
}

/// What a reload would change in the daemon of `plan`, which has to be that of the config at `path`.
fn difference(path: &Path, plan: &Plan) -> Result<String, CliError> {
    let (config, changes) = status::changes(&plan.socket, true)?;
    let same = |a: &Path, b: &Path| Some(a.canonicalize().ok()? == b.canonicalize().ok()?);
    match same(&config, path) {
        Some(true) => Ok(changes.to_string()),
        _ => Err(CliError::Failed(format!(
            "the daemon at {} reads {}, not {}: check that one, or copy yours over it",
            plan.socket.display(),
            config.display(),
            path.display()
        ))),
    }
}

/// Tries to listen as `plan` says. An address that the running daemon seems to hold is fine.
fn may_listen(plan: &Plan) -> Result<(), (String, String)> {
    let address = plan.listen;
    let Err(error) = TcpListener::bind(address) else {
        return Ok(());
    };
    let in_use = error.kind() == io::ErrorKind::AddrInUse;
    if in_use && UnixStream::connect(&plan.socket).is_ok() {
        return Ok(());
    }
    let what = format!("{address} can't be listened on: {error}");
    let mend = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program holds it, and no daemon answers at {}; stop it (ss -ltnp shows which) or take another port",
            plan.socket.display()
        ),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege; take a higher one".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; write \"127.0.0.1\" or \"0.0.0.0\" before the port"
                .to_owned()
        }
        _ => "take another address".to_owned(),
    };
    Err((what, mend))
}

/// What the config comes to, with lengths as rounded to whole ticks.
pub(super) fn summary(plan: &Plan) -> String {
    let mut text = String::new();
    let user = rustix::process::geteuid();
    let rights = if user.is_root() {
        "as root; the daemon's own user may have fewer rights".to_owned()
    } else {
        format!("as uid {}", user.as_raw())
    };
    line(&mut text, 1, "folders checked", rights);
    let socket = format!("{} (mode {:04o})", plan.socket.display(), plan.socket_mode);
    line(&mut text, 1, "socket", socket);
    line(&mut text, 1, "publish", plan.publish_dir.display());
    line(&mut text, 1, "ffmpeg", plan.ffmpeg.display());
    line(&mut text, 1, "pages", format!("http://{}/", plan.listen));
    if let Some(address) = plan.http.admin_listen {
        line(&mut text, 1, "administration", format!("http://{address}/"));
    }
    line(&mut text, 1, "window memory", window_memory(plan));
    line(&mut text, 1, "picture memory", picture_memory(plan));
    for stream in plan.streams.values() {
        describe(&mut text, plan, stream);
    }
    text
}

/// What is kept of a stream, and where.
fn recorded(plan: &Plan, stream: &StreamPlan, record: &RecordPlan) -> String {
    let keep = humantime::format_duration(record.keep);
    let bytes = record.max_bytes.map_or_else(String::new, |bytes| {
        format!(" and {} MiB at most", bytes >> 20)
    });
    let folder = record.folder(&plan.publish_dir, &stream.name);
    format!("{keep}{bytes}, in {}", folder.display())
}

fn describe(text: &mut String, plan: &Plan, stream: &StreamPlan) {
    let grid = &stream.grid;
    let rate = grid.framerate;
    let ticks = |count: u32| {
        let length = rate.duration_of(u64::from(count)).as_secs_f64();
        format!(
            "{} = {count} tick{}",
            seconds(length),
            if count == 1 { "" } else { "s" }
        )
    };
    let _ = writeln!(text, "\nstream {}", stream.name);
    match grid.cut {
        None => {
            line(text, 1, "framerate", rate);
            line(text, 1, "segment", ticks(grid.ticks_per_segment.get()));
            line(text, 1, "part", ticks(grid.ticks_per_part.get()));
        }
        Some(nominal) => {
            let length =
                |ticks: NonZeroU32| seconds(rate.duration_of(ticks.get().into()).as_secs_f64());
            let most = length(grid.ticks_per_segment);
            let least = length(nominal);
            let from = format!("from {least} to the source's next keyframe, at most {most}");
            line(text, 1, "framerate", "the source's");
            line(text, 1, "segment", from);
            if grid.is_cut_in_parts() {
                let part = length(grid.ticks_per_part);
                line(text, 1, "part", format!("about {part}, in whole pictures"));
            }
        }
    }
    line(text, 1, "window", seconds(stream.window.as_secs_f64()));
    let at_exit = match stream.at_exit {
        AtExit::Keep => "the window stays, a restart goes on from it",
        AtExit::End => "the stream ends",
    };
    line(text, 1, "at exit", at_exit);
    if let Some(record) = &stream.record {
        line(text, 1, "record", recorded(plan, stream, record));
    }
    if !stream.copies() {
        line(text, 1, "replay", replay(plan, stream));
    }
    match &stream.source {
        Some(source) => line(text, 1, "source", described(source)),
        None => line(text, 1, "fed by", &stream.feeders),
    }
    for rendition in &stream.renditions {
        if stream.copies() {
            let copied = format!("{}: the source's, not encoded", rendition.name);
            line(text, 1, "rendition", copied);
            continue;
        }
        let size = match rendition.size {
            Some(size) => size.to_string(),
            None => "the source's size".to_owned(),
        };
        let pace = match rate.every(rendition.every) {
            Some(own) if own != rate => format!(" at {} fps", own.as_f64()),
            _ => String::new(),
        };
        let how = match rendition.rate {
            RateControl::Bitrate(bits) => format!("{} kbit/s", bits / 1000),
            RateControl::Crf(crf) => format!("crf {crf}"),
        };
        let preset = rendition.preset.iter().map(|preset| format!(" {preset}"));
        let codec: String = std::iter::once(rendition.codec.clone())
            .chain(preset)
            .collect();
        let fallback = rendition
            .fallback
            .as_ref()
            .map_or(String::new(), |fallback| format!(", else {fallback}"));
        line(
            text,
            1,
            "rendition",
            format!("{}: {size}{pace}, {codec}, {how}{fallback}", rendition.name),
        );
    }
    if let Some(audio) = &stream.audio {
        let pictures = "the source of the pictures; silence if it has none";
        let from = audio.shown().unwrap_or_else(|| pictures.to_owned());
        line(text, 1, "audio from", from);
        for rendition in &audio.renditions {
            let name = &rendition.name;
            let how = match rendition.codec.needed() {
                None => "the source's AAC, not encoded".to_owned(),
                Some(encoder) => format!("{encoder}, {} kbit/s", rendition.bitrate / 1000),
            };
            line(text, 1, "audio", format!("{name}: {how}"));
        }
    }
    let access = match (stream.access.tokens.len(), stream.access.keys.len()) {
        _ if !stream.access.guarded => "everybody".to_owned(),
        (0, _) => "whoever has a signed URL".to_owned(),
        (_, 0) => "whoever has a token".to_owned(),
        _ => "whoever has a token or a signed URL".to_owned(),
    };
    line(text, 1, "watched by", access);
    let base = format!("http://{}/{}", plan.listen, stream.name);
    line(text, 1, "player", format!("{base}/"));
    if stream.hls {
        line(text, 1, "hls", format!("{base}/index.m3u8"));
    }
    if stream.dash {
        line(text, 1, "dash", format!("{base}/manifest.mpd"));
    }
}

/// A source, as far as the config tells.
fn described(source: &SourcePlan) -> String {
    let repeat = if source.repeat {
        ", again and again"
    } else {
        ""
    };
    let timeout = humantime::format_duration(source.timeout);
    format!(
        "{}{repeat}, opened anew after {timeout} without a picture",
        source.input.shown()
    )
}

/// What the windows may hold, and what they need as far as the config tells.
fn window_memory(plan: &Plan) -> String {
    let needed: u64 = plan
        .streams
        .values()
        .fold(0, |sum, stream| sum.saturating_add(stream.window_bytes()));
    let limit = mebibytes(plan.limits.window_memory);
    match needed {
        0 => format!("at most {limit}"),
        needed => format!(
            "at most {limit}; the renditions with a bitrate need about {}",
            mebibytes(needed)
        ),
    }
}

/// What pictures of all streams may take together.
fn picture_memory(plan: &Plan) -> String {
    let limit = plan.limits.picture_memory;
    if let Some(bytes) = plan.limits.replay_memory {
        let streams = plan.streams.len() as u64;
        return format!(
            "at most {} in all",
            mebibytes(bytes.saturating_mul(streams).min(limit))
        );
    }
    let pictures = plan.streams.values().map(kept_pictures);
    format!(
        "at most {} in all were every source {EXAMPLE}, and what the encoders hold; [limits] picture_memory bounds it",
        mebibytes(pictures.map(bytes_of_example).sum::<u64>().min(limit))
    )
}

/// A source that the config says nothing of.
const EXAMPLE: Size = Size::new(1920, 1080);

fn kept_pictures(stream: &StreamPlan) -> u32 {
    if stream.copies() {
        return 0;
    }
    stream.grid.framerate.ticks_in(stream.replay()).get()
}

fn bytes_of_example(pictures: u32) -> u64 {
    u64::from(pictures) * PictureFormat::I420.bytes(EXAMPLE) as u64
}

/// What is kept for the encoder's restart.
fn replay(plan: &Plan, stream: &StreamPlan) -> String {
    if let Some(bytes) = plan.limits.replay_memory {
        return format!("at most {} of pictures", mebibytes(bytes));
    }
    let pictures = kept_pictures(stream);
    format!(
        "{pictures} pictures beside those that the encoder holds: {} of {EXAMPLE} yuv420p",
        mebibytes(bytes_of_example(pictures))
    )
}

/// Rounded up.
fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// Seconds to the millisecond, without needless zeros.
fn seconds(seconds: f64) -> String {
    let text = format!("{seconds:.3}");
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}

fn line(text: &mut String, indent: usize, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(
        text,
        "{:indent$}{name:<16} {value}",
        "",
        indent = indent * 2
    );
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn plan(text: &str) -> Plan {
        let loaded = config::parse(text, Path::new("test.toml"), &Environment::TEXT_ONLY);
        loaded.unwrap().plan
    }

    #[test]
    fn the_summary_shows_lengths_in_whole_ticks() {
        let text = summary(&plan(
            "[streams.door]\nframerate = 29.97\npart = \"200ms\"\n",
        ));
        for expected in [
            "window memory    at most 1024 MiB\n",
            "picture memory   at most 267 MiB in all were every source 1920x1080",
            "framerate        30000/1001",
            "segment          2.002 s = 60 ticks",
            "part             0.2 s = 6 ticks",
            "window           30 s",
            "replay           90 pictures beside those that the encoder holds: 267 MiB of 1920x1080 yuv420p",
            "rendition        source: the source's size, libx264 veryfast, crf 23",
            "hls              http://127.0.0.1:8080/door/index.m3u8",
            "dash             http://127.0.0.1:8080/door/manifest.mpd",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn the_summary_shows_what_windows_of_known_bitrates_need() {
        // Twice the window and four segments of 2 s.
        let text = summary(&plan(
            "[limits]\nwindow_memory = \"96MiB\"\n[streams.door]\nframerate = 30\n[[streams.door.renditions]]\nname = \"a\"\nbitrate = \"8M\"\n",
        ));
        let expected =
            "window memory    at most 96 MiB; the renditions with a bitrate need about 65 MiB\n";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn a_port_that_another_program_holds_is_an_error_and_a_daemons_own_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let plan = plan(&format!(
            "[daemon]\nsocket = {:?}\n[http]\nlisten = \"{address}\"\n",
            socket.to_str().unwrap()
        ));
        let (what, mend) = may_listen(&plan).unwrap_err();
        assert!(what.contains(&address.to_string()) && mend.contains("another port"));
        let _daemon = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(may_listen(&plan), Ok(()));
    }
}
