//! `ringgear transcode`: a file, or anything else that FFmpeg opens and that ends, becomes HLS and DASH in a folder. No daemon is needed. One that
//! was cut off is gone on with by the same command.

mod folder;
mod progress;

use std::fmt::Write as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime};

use tracing::Level;

use super::logging::{self, LogArgs};
use super::{CliError, say, signals};
use crate::config::{self, AudioCodec, Plan, SourceInput, SourcePlan, StreamPlan};
use crate::encode::process::last_words;
use crate::publish::{self, Claim};
use crate::source::{self, Found};
use crate::status::{StreamState, StreamStatus};
use crate::stream::{Left, Transcode};
use progress::Progress;

/// How often it is looked whether something is wrong.
const LOOK: Duration = Duration::from_millis(200);
/// The stream's name in what the program itself writes.
const STREAM: &str = "transcode";

/// Makes HLS and DASH of a whole file, each picture once, as fast as it can be encoded; or copied. What was cut off is gone on with by the same
/// command.
#[derive(Debug, clap::Args)]
pub(super) struct TranscodeArgs {
    /// A file or URL, but no pipe: it is opened first to see what it is
    input: String,
    /// Where index.m3u8 and manifest.mpd are to be; made if it is missing, and else has to be empty, or to have the same work unfinished
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
    be_readable_twice(&args.input)?;
    let before = folder::look(&args.out_dir)?;
    // What of the arguments is wrong shows before anything is opened.
    let plan = plan_of(&config_of(
        &args,
        args.framerate.as_deref().unwrap_or("25"),
        None,
    ))?;
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
    let Some(rate) = rate.or(args.copy.then(|| "25".to_owned())) else {
        let message = format!(
            "FFmpeg can't tell how many pictures a second {} has: give --framerate",
            args.input
        );
        return Err(CliError::Failed(message));
    };
    let config = config_of(&args, &rate, sound);
    let plan = plan_of(&config)?;
    let stream = stream_of(&plan)?.clone();
    let source = source_of(&stream)?;
    let shown = source.input.shown();
    let work = {
        let input = told_apart(source, &found);
        let config = config.replace(&quoted(&args.input), &quoted(&shown));
        folder::work_of(&input, &config)
    };
    if let Some(before) = &before {
        folder::be_same(&args.out_dir, before, &work)?;
    }
    let note = match (&found.sound, sound) {
        (None, _) => ", without sound",
        (Some(_), None) => ", which is left out",
        (Some(_), Some(AudioCodec::Copy)) => ", copied",
        (Some(_), Some(_)) if args.copy => ", which is encoded: only AAC can be copied",
        _ => "",
    };
    say(format_args!("{shown}: {found}{note}"));
    if args.copy && found.turned.is_some() {
        say(format_args!(
            "{shown}: players are not told how to turn what is copied: leave out --copy, and it is turned"
        ));
    }
    // What has no end has no place in it that could be found again; nor has a copy, which is made of packets.
    let has_end = found.duration.is_some() || matches!(source.input, SourceInput::File(_));
    let work = Some(work).filter(|_| !args.copy && has_end && source::is_repeatable(source));
    let job = Job {
        out: &args.out_dir,
        command: command(&args.input, &shown),
        hides: args.input.contains("://") && args.input != shown,
        stream,
        resumable: work.is_some(),
    };
    let mut stays = 0;
    if before.is_some() {
        stays = Transcode::reopen(&job.stream, job.out).map_err(CliError::Failed)?;
        let from = job.stream.grid.framerate.duration_of(stays).as_secs_f64();
        say(format_args!(
            "{}: goes on at {from:.1} s, where it was cut off",
            job.out.display()
        ));
    }
    if let Some(work) = work {
        folder::begin(job.out, &work)?;
    }
    job.run(&plan, stays)
}

/// What is to be done.
struct Job<'a> {
    out: &'a Path,
    /// The command line that asks for it, for people.
    command: String,
    /// Whether that has not all of the input's URL.
    hides: bool,
    stream: StreamPlan,
    /// Whether it can be gone on with if it is cut off.
    resumable: bool,
}

/// What a transcode hears.
enum News {
    /// All of it is published.
    Over,
    /// It is to stop.
    Signal(i32),
}

impl Job<'_> {
    /// Does it, `stays` pictures having been done before.
    fn run(&self, plan: &Plan, stays: u64) -> Result<(), CliError> {
        let (news, heard) = channel();
        let asked = news.clone();
        signals::on_first(move |signal| {
            // Who has ended needs no news.
            let _ = asked.send(News::Signal(signal));
        })
        .map_err(|error| CliError::Failed(format!("signals can't be handled: {error}")))?;
        let begun = Instant::now();
        let over = move || drop(news.send(News::Over));
        let work = Transcode::start(plan, self.stream.clone(), self.out, over);
        let work = work.map_err(|error| self.failed(&error, Left::of(&self.stream, self.out)))?;
        let mut progress = Progress::after(stays);
        let (mut failure, mut signal) = (None, None);
        loop {
            match heard.recv_timeout(LOOK) {
                Ok(News::Over) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(News::Signal(number)) => {
                    signal = Some(number);
                    break;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let status = work.status();
            failure = trouble(&status).or_else(|| work.unwritten());
            if failure.is_some() {
                break;
            }
            progress.show(&status);
        }
        progress.clear();
        if let Some(signal) = signal {
            let name = signals::name_of(signal);
            say(format_args!(
                "{name}: what is under way is still written; a second one ends it at once"
            ));
        }
        work.finish();
        let status = work.status();
        let unwritten = work.unwritten();
        drop(work);
        let left = Left::of(&self.stream, self.out);
        if let Some(signal) = signal {
            let cause = format!("interrupted by {}", signals::name_of(signal));
            let told = self.told(&cause, left, self.resumable);
            return Err(CliError::Interrupted { signal, told });
        }
        let failure = failure.or_else(|| trouble(&status)).or(unwritten);
        if let Some(failure) = failure {
            return Err(self.failed(&failure, left));
        }
        if left.length.is_zero() {
            return Err(self.failed("there are no pictures in it", left));
        }
        folder::end(self.out)?;
        if let Some(short) = cut_short(&status, left) {
            return Err(CliError::Failed(self.told(&short, left, false)));
        }
        let (out, length) = (self.out.display(), left.length.as_secs_f64());
        let (frames, took) = (stays + status.ticks.fresh, begun.elapsed().as_secs_f64());
        say(format_args!(
            "{out}: {frames} pictures, {length:.1} s, in {took:.1} s"
        ));
        Ok(())
    }

    fn failed(&self, cause: &str, left: Left) -> CliError {
        CliError::Failed(self.told(cause, left, self.resumable))
    }

    /// What has failed, what there is of it, and how to go on. What is of no use is removed.
    fn told(&self, cause: &str, left: Left, resumable: bool) -> String {
        let (cause, out) = (of_the_command_line(cause), self.out.display());
        let command = match self.hides {
            true => format!(", with its user, password and query: {}", self.command),
            false => format!(": {}", self.command),
        };
        if left.length.is_zero() {
            // What can't be removed stays, and is told of by the next one; what another process makes there is its own.
            let claim = self.out.is_dir().then(|| Claim::take(self.out));
            if !matches!(claim, None | Some(Ok(None))) {
                let _ = folder::end(self.out);
                let _ = publish::clear_if_empty(self.out);
            }
            return format!("{cause}\n{out} has nothing of it\nto begin anew{command}");
        }
        let length = left.length.as_secs_f64();
        let plays = match left.plays {
            true => "and plays",
            false => "but does not play yet",
        };
        let on = match resumable {
            true => format!("to go on from there{command}"),
            false => {
                format!("it can't be gone on with; to begin anew, remove {out}, then{command}")
            }
        };
        format!("{cause}\n{out} has the first {length:.1} s, {plays}\n{on}")
    }
}

/// Why `status` is not whole though it has ended: its input breaks off, and FFmpeg has found something wrong with it. Pictures alone may end before
/// the sound does, which is only told.
fn cut_short(status: &StreamStatus, left: Left) -> Option<String> {
    let source = status.source.as_ref()?;
    let (length, words) = (left.length.as_secs_f64(), last_words(&source.last_error));
    let shown = &source.source;
    let wrong = source
        .last_error
        .iter()
        .any(|line| line.contains("[error]"));
    let told = source.duration_seconds;
    match told.filter(|told| length + source::BROKEN_OFF.as_secs_f64() < *told) {
        Some(told) if wrong => {
            return Some(format!(
                "{shown} breaks off after {length:.1} s, and should be {told:.1} s long (FFmpeg says: {words}): get the whole of it"
            ));
        }
        Some(told) => say(format_args!(
            "{shown}: its pictures end after {length:.1} of {told:.1} s"
        )),
        None if wrong => say(format_args!("{shown}: FFmpeg finds faults in it: {words}")),
        None => {}
    }
    None
}

/// Refuses what can be read once alone.
fn be_readable_twice(input: &str) -> Result<(), CliError> {
    let kind = std::fs::metadata(input).map(|found| found.file_type());
    if input == "-" || kind.is_ok_and(|kind| kind.is_fifo() || kind.is_socket()) {
        return Err(CliError::Usage(format!(
            "{input} can't be transcoded: an input is opened first to see what it is, then to be read, and what comes through a pipe is gone \
             after the first time; write it to a file, and name that"
        )));
    }
    Ok(())
}

/// What tells an input from what else may come to stand at the same place.
fn told_apart(source: &SourcePlan, found: &Found) -> String {
    let file = match &source.input {
        SourceInput::File(path) => std::fs::metadata(path).ok(),
        _ => None,
    };
    let file = file.map_or_else(String::new, |file| {
        let changed = file.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let changed = humantime::format_rfc3339_nanos(changed);
        format!(" {} bytes, changed {changed},", file.len())
    });
    format!("{}:{file} {found}", source.input.shown())
}

/// The command line of this process, as a shell takes it, with `input` as `shown` if it is a URL, which may have a password.
fn command(input: &str, shown: &str) -> String {
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let shown = |word: String| match word == input && input.contains("://") {
        true => shown.to_owned(),
        false => word,
    };
    let words: Vec<_> = words.map(shown).map(|word| in_a_shell(&word)).collect();
    words.join(" ")
}

/// `word` as a shell takes it.
fn in_a_shell(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:@,+%".contains(&byte);
    match !word.is_empty() && word.bytes().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// `text` as a string in TOML.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The config that does it.
fn config_of(args: &TranscodeArgs, framerate: &str, sound: Option<AudioCodec>) -> String {
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
    text
}

/// `config`, checked as every other.
fn plan_of(config: &str) -> Result<Plan, CliError> {
    // Its places are those of a file that nobody has seen.
    config::parse_builtin(config).map_err(|errors| {
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

fn source_of(stream: &StreamPlan) -> Result<&SourcePlan, CliError> {
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
        (", or shorten the window".to_owned(), ""),
        (", or lower [publish] keep_free".to_owned(), ""),
        (
            ", or set [publish] dir to another folder".to_owned(),
            ", or name another folder",
        ),
        (
            "; let the daemon's user write there".to_owned(),
            "; let yourself write there, or name another folder",
        ),
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
    let detail = status.detail.as_deref().unwrap_or_default();
    // Here it is not tried again.
    let detail = detail.split("; it has failed ").next().unwrap_or_default();
    (status.state == StreamState::Failed).then(|| detail.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_command_is_told_as_a_shell_takes_it() {
        assert_eq!(in_a_shell("--rendition"), "--rendition");
        assert_eq!(in_a_shell("720p=1280x720@2500k"), "720p=1280x720@2500k");
        assert_eq!(in_a_shell("my film.mkv"), "'my film.mkv'");
        assert_eq!(in_a_shell("it's"), "'it'\\''s'");
        assert_eq!(in_a_shell(""), "''");
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
