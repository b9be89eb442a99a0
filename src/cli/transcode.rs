//! `ringgear transcode`: a file, or anything else that FFmpeg opens and that ends, becomes HLS and DASH in a folder. No daemon is needed.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tracing::Level;

use super::bar::bar;
use super::logging::{self, LogArgs};
use super::{CliError, signals};
use crate::config::{self, AudioCodec, Plan, StreamPlan};
use crate::source;
use crate::status::{StreamState, StreamStatus};
use crate::stream::Transcode;
use crate::tick::Framerate;

/// How often the progress is shown on a terminal, and elsewhere.
const LOOK: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(10);
/// How wide the progress bar is, in characters: the whole line has to fit into 80.
const BAR: usize = 12;
/// The stream's name in what the program itself writes.
const STREAM: &str = "transcode";

/// Makes HLS and DASH of a whole file, each picture once, as fast as it can be encoded; or copied.
#[derive(Debug, clap::Args)]
pub(super) struct TranscodeArgs {
    /// A file or URL
    input: String,
    /// Where index.m3u8 and manifest.mpd are to be; made if it is missing, and else has to be empty
    out_dir: PathBuf,
    /// NAME=WIDTHxHEIGHT@BITRATE, either of the two may be left out; again for each further one [for example: 720p=1280x720@2500k]
    #[arg(long = "rendition", value_name = "RENDITION", value_parser = Rendition::parse)]
    renditions: Vec<Rendition>,
    /// The encoder, by FFmpeg's name [default: libx264]
    #[arg(long)]
    codec: Option<String>,
    /// Copy the input's H.264 or HEVC instead of encoding it, and its AAC: segments begin at its own keyframes
    #[arg(long, conflicts_with_all = ["codec", "preset", "framerate"])]
    copy: bool,
    /// The encoder's preset
    #[arg(long)]
    preset: Option<String>,
    /// Pictures a second; without it, as many as the input has
    #[arg(long, value_name = "RATE")]
    framerate: Option<String>,
    /// Leave the input's sound out
    #[arg(long)]
    no_audio: bool,
    /// A segment's length [default: 6s]
    #[arg(long, value_name = "TIME")]
    segment: Option<String>,
    /// The FFmpeg program
    #[arg(long, default_value = config::defaults::FFMPEG)]
    ffmpeg: PathBuf,
    #[command(flatten)]
    log: LogArgs,
}

/// One rendition as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rendition {
    name: String,
    size: Option<String>,
    bitrate: Option<String>,
}

impl Rendition {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, rest) = text
            .split_once('=')
            .ok_or("write NAME=WIDTHxHEIGHT@BITRATE, as in 720p=1280x720@2500k")?;
        let (size, bitrate) = match rest.split_once('@') {
            Some((size, bitrate)) => (size, Some(bitrate)),
            None => (rest, None),
        };
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Ok(Self {
            name: name.to_owned(),
            size: given(size),
            bitrate: bitrate.and_then(given),
        })
    }
}

/// Runs it.
pub(super) fn run(args: TranscodeArgs) -> Result<(), CliError> {
    logging::start(&args.log, Level::WARN)?;
    be_empty(&args.out_dir)?;
    // What of the arguments is wrong shows before anything is opened.
    let plan = plan_of(&args, args.framerate.as_deref().unwrap_or("25"), None)?;
    let found = source::look(&args.ffmpeg, source_of(stream_of(&plan)?)?);
    let found = found.map_err(|error| CliError::Failed(of_the_command_line(&error)))?;
    let sound = found.sound.as_deref().filter(|_| !args.no_audio);
    let sound = sound.map(|codec| match (args.copy, codec) {
        // Other sound can't be copied, and is encoded beside the pictures.
        (true, "aac") => AudioCodec::Copy,
        _ => config::defaults::AUDIO_CODEC,
    });
    let rate = found.framerate.map(|rate| rate.to_string());
    // A copy has the input's times.
    let rate = args.framerate.clone().or(rate);
    let plan = match rate.or(args.copy.then(|| "25".to_owned())) {
        Some(rate) => plan_of(&args, &rate, sound)?,
        None => {
            let message = format!(
                "FFmpeg can't tell how many pictures a second {} has: give --framerate",
                args.input
            );
            return Err(CliError::Failed(message));
        }
    };
    let note = match (&found.sound, sound) {
        (None, _) => ", without sound",
        (Some(_), None) => ", which is left out",
        (Some(_), Some(AudioCodec::Copy)) => ", copied",
        (Some(_), Some(_)) if args.copy => ", which is encoded: only AAC can be copied",
        _ => "",
    };
    eprintln!("{}: {found}{note}", args.input);
    let stream = stream_of(&plan)?.clone();
    transcode(&args, &plan, stream)
}

fn transcode(args: &TranscodeArgs, plan: &Plan, stream: StreamPlan) -> Result<(), CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(error.to_string());
    let asked = signals::listen()
        .map_err(|error| CliError::Failed(format!("signals can't be handled: {error}")))?;
    let begun = Instant::now();
    let (over, ended) = channel();
    let work = Transcode::start(plan, stream, &args.out_dir, move || drop(over))
        .map_err(|error| failed(&error))?;
    let mut progress = Progress::new();
    let trouble = loop {
        match ended.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Disconnected) => break None,
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
        }
        let status = work.status();
        if *asked.to_stop.borrow() {
            break Some("it was interrupted".to_owned());
        }
        if let Some(trouble) = trouble(&status) {
            break Some(trouble);
        }
        progress.show(&status, begun.elapsed());
    };
    progress.clear();
    work.finish();
    let status = work.status();
    let whole = status.window.seconds;
    let out = args.out_dir.display();
    if let Some(trouble) = trouble.or_else(|| trouble_at_end(&status)) {
        let rest = match whole > 0.0 {
            true => format!("; {out} has the first {whole:.1} s, and plays"),
            false => String::new(),
        };
        let trouble = of_the_command_line(&trouble);
        return Err(CliError::Failed(format!("{trouble}{rest}")));
    }
    let (frames, took) = (status.ticks.fresh, begun.elapsed().as_secs_f64());
    eprintln!("{out}: {frames} pictures, {whole:.1} s, in {took:.1} s");
    Ok(())
}

/// Makes the folder, or sees that nothing is in it.
fn be_empty(folder: &Path) -> Result<(), CliError> {
    let shown = folder.display();
    let refused = |error: std::io::Error| {
        CliError::Failed(format!(
            "{shown} can't be used: {error}; name another folder"
        ))
    };
    std::fs::create_dir_all(folder).map_err(refused)?;
    match std::fs::read_dir(folder).map_err(refused)?.next() {
        None => Ok(()),
        Some(_) => Err(CliError::Usage(format!(
            "{shown} is not empty: name another folder, or remove what is in it"
        ))),
    }
}

/// The config that does it, checked as every other.
fn plan_of(
    args: &TranscodeArgs,
    framerate: &str,
    sound: Option<AudioCodec>,
) -> Result<Plan, CliError> {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut text = format!(
        "[ffmpeg]\npath = {}\n[streams.{STREAM}]\nmode = \"vod\"\nsource = {}\n",
        quoted(&args.ffmpeg.to_string_lossy()),
        quoted(&args.input)
    );
    let mut key = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            let _ = writeln!(text, "{key} = {}", quoted(value));
        }
    };
    key("segment", args.segment.as_deref());
    key("framerate", Some(framerate).filter(|_| !args.copy));
    if let Some(codec) = sound {
        let (name, codec) = (config::defaults::AUDIO_RENDITION, codec.encoder());
        let _ = writeln!(
            text,
            "[streams.{STREAM}.audio]\n[[streams.{STREAM}.audio.renditions]]\nname = \"{name}\"\ncodec = \"{codec}\""
        );
    }
    let alone = [Rendition {
        name: config::defaults::RENDITION.to_owned(),
        size: None,
        bitrate: None,
    }];
    let renditions = match args.renditions.is_empty() {
        true => &alone[..],
        false => &args.renditions[..],
    };
    for rendition in renditions {
        let _ = writeln!(text, "[[streams.{STREAM}.renditions]]");
        let keys = [
            ("name", Some(rendition.name.as_str())),
            ("size", rendition.size.as_deref()),
            ("bitrate", rendition.bitrate.as_deref()),
            (
                "codec",
                match args.copy {
                    true => Some(config::defaults::COPY),
                    false => args.codec.as_deref(),
                },
            ),
            ("preset", args.preset.as_deref()),
        ];
        for (key, value) in keys {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = {}", quoted(value));
            }
        }
    }
    // Its places are those of a file that nobody has seen.
    config::parse_builtin(&text).map_err(|errors| {
        let told = errors.to_string();
        let first = told.lines().next().unwrap_or_default();
        let bare = first.splitn(4, ':').nth(3).unwrap_or(first);
        CliError::Usage(bare.trim_start().to_owned())
    })
}

fn stream_of(plan: &Plan) -> Result<&StreamPlan, CliError> {
    let stream = plan.streams.get(STREAM);
    stream.ok_or_else(|| CliError::Failed("there is nothing to transcode".to_owned()))
}

fn source_of(stream: &StreamPlan) -> Result<&config::SourcePlan, CliError> {
    let source = stream.source.as_ref();
    source.ok_or_else(|| CliError::Failed("there is nothing to transcode".to_owned()))
}

/// What is told of a stream's table in a config, told of the arguments.
fn of_the_command_line(told: &str) -> String {
    let table = format!("[streams.{STREAM}]");
    let mends = [
        ("set segment = ".to_owned(), "give --segment "),
        (format!(" in {table}, or a shorter"), ", or a shorter"),
        (
            format!("write an encoder instead of codec = \"copy\" in {table}"),
            "leave out --copy",
        ),
        (
            ", or write an encoder instead of codec = \"copy\"".to_owned(),
            ", or leave out --copy",
        ),
        (
            format!("another source in {table}, or its format in input_args: [\"-f\", \"...\"]"),
            "another INPUT",
        ),
        (format!("another source in {table}"), "another INPUT"),
        (format!("source of {table}"), "INPUT"),
    ];
    let mends = mends.iter();
    mends.fold(told.to_owned(), |told, (config, here)| {
        told.replace(config, here)
    })
}

/// Why it can't go on. Unlike a camera, a file that fails once will fail again.
fn trouble(status: &StreamStatus) -> Option<String> {
    let source = status.source.as_ref()?;
    if source.failures > 0 {
        return source.error.clone();
    }
    (status.state == StreamState::Failed).then(|| status.detail.clone().unwrap_or_default())
}

/// What was wrong though it has ended.
fn trouble_at_end(status: &StreamStatus) -> Option<String> {
    let nothing = || "there are no pictures in it".to_owned();
    trouble(status).or_else(|| (status.window.segments == 0).then(nothing))
}

/// How far it is.
struct Progress {
    terminal: bool,
    shown: Instant,
}

impl Progress {
    fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            shown: Instant::now(),
        }
    }

    fn show(&mut self, status: &StreamStatus, taken: Duration) {
        let wait = if self.terminal { LOOK } else { LINE };
        if self.shown.elapsed() < wait {
            return;
        }
        self.shown = Instant::now();
        let framerate = status.framerate.parse::<Framerate>();
        let framerate = framerate.map_or(25.0, Framerate::as_f64);
        let source = status.source.as_ref();
        let length = source.and_then(|source| source.duration_seconds);
        let (share, line) = progress(status.ticks.fresh, framerate, length, taken);
        let bar = share.map_or_else(String::new, |share| format!("{} ", bar(share, BAR)));
        // Nobody reads it if that fails.
        let _ = match self.terminal {
            true => write!(std::io::stderr(), "\r\x1b[K{bar}{line}"),
            false => writeln!(std::io::stderr(), "{line}"),
        };
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// How much is done of `length` seconds, if that is known; and in one line what is encoded, how fast, and how long the rest will take at that pace.
fn progress(
    pictures: u64,
    framerate: f64,
    length: Option<f64>,
    taken: Duration,
) -> (Option<f64>, String) {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let pictures = pictures as f64;
    let (done, taken) = (pictures / framerate, taken.as_secs_f64().max(0.001));
    let rate = pictures / taken;
    let Some(length) = length.filter(|length| *length > 0.0) else {
        return (None, format!("{done:.1} s, {rate:.0} pictures a second"));
    };
    let share = (done / length).min(1.0);
    let left = Duration::from_secs_f64((taken / share.max(0.001) * (1.0 - share)).min(1e6));
    let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
    let line = format!(
        "{:3.0} %, {done:.1} of {length:.1} s, {rate:.0} pictures a second, {left} left",
        share * 100.0
    );
    (Some(share), line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_how_much_is_done_and_how_long_the_rest_takes() {
        let taken = Duration::from_secs(5);
        let of = |pictures, length| progress(pictures, 30.0, length, taken);
        let unknown = (None, "10.0 s, 60 pictures a second".to_owned());
        assert_eq!(of(300, None), unknown);
        let line = " 25 %, 10.0 of 40.0 s, 60 pictures a second, 15s left";
        assert_eq!(of(300, Some(40.0)), (Some(0.25), line.to_owned()));
        // A container may say less than there is.
        let (share, line) = of(1500, Some(40.0));
        assert!(share == Some(1.0) && line.ends_with(" 0s left"), "{line}");
    }

    #[test]
    fn a_rendition_has_a_name_and_may_have_a_size_and_a_bitrate() {
        let parts = |text: &str| {
            let rendition = Rendition::parse(text).unwrap();
            (rendition.name, rendition.size, rendition.bitrate)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            parts("720p=1280x720@2500k"),
            ("720p".into(), some("1280x720"), some("2500k"))
        );
        assert_eq!(parts("low=@300k"), ("low".into(), None, some("300k")));
        assert_eq!(
            parts("big=1920x1080"),
            ("big".into(), some("1920x1080"), None)
        );
        assert!(Rendition::parse("1280x720").is_err());
    }

    #[test]
    fn mends_speak_of_the_arguments_and_of_no_config() {
        let told = "there is no such file as x: put it there, or name another in source of [streams.transcode]";
        let here = of_the_command_line(told);
        assert!(here.ends_with("name another in INPUT"), "{here}");
        let told = "too long; set segment = \"10000ms\" in [streams.transcode], or a shorter keyframe interval (GOP) at the source, or write an encoder instead of codec = \"copy\"";
        let here = of_the_command_line(told);
        assert_eq!(
            here,
            "too long; give --segment \"10000ms\", or a shorter keyframe interval (GOP) at the source, or leave out --copy"
        );
    }
}
