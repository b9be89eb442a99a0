//! A stream's `source`: what FFmpeg is to open for it, and what can be said of that without opening it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use toml::Spanned;

use super::defaults;
use super::error::{Offset, Report};
use super::sections::Stream;
use super::table::Section;
use super::value::{Read, Text};
use crate::window::Mode;

/// How many arguments a source may have.
const MAX_ARGUMENTS: usize = 64;

/// FFmpeg's devices: what stands after `-i` is theirs to read, and no file or URL.
const DEVICES: &[&str] = &[
    "alsa",
    "android_camera",
    "caca",
    "decklink",
    "fbdev",
    "iec61883",
    "jack",
    "kmsgrab",
    "lavfi",
    "libcdio",
    "libdc1394",
    "openal",
    "oss",
    "pulse",
    "sndio",
    "v4l2",
    "video4linux2",
    "x11grab",
];

/// Options that would take the source out of Ringgear's hands, and why.
const OWNED: &[(&[&str], &str)] = &[
    (&["i"], "source is what FFmpeg opens"),
    (
        &["stream_loop"],
        "source_loop is the key for it, or loop where it is audio's",
    ),
    (
        &[
            "stdin",
            "nostdin",
            "loglevel",
            "v",
            "report",
            "progress",
            "stats",
            "nostats",
            "hide_banner",
            "y",
            "n",
        ],
        "Ringgear reads what FFmpeg says by itself",
    ),
    (
        &[
            "map",
            "filter_complex",
            "lavfi",
            "vf",
            "filter",
            "copyts",
            "start_at_zero",
        ],
        "Ringgear takes the source's pictures and their times by itself",
    ),
];

/// What a stream's pictures come from, where that is no producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlan {
    /// What is opened.
    pub input: SourceInput,
    /// FFmpeg's arguments before its `-i`.
    pub input_args: Vec<String>,
    /// Whether it begins again at its end.
    pub repeat: bool,
    /// How long it may give nothing until it is opened anew.
    pub timeout: Duration,
}

/// What FFmpeg opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceInput {
    /// A file on this machine.
    File(PathBuf),
    /// What one of FFmpeg's devices reads: `/dev/video0`, a graph of lavfi.
    Device {
        /// The device: `v4l2`, `lavfi`.
        format: String,
        /// What it reads.
        name: String,
    },
    /// Anything else, by its protocol.
    Url {
        /// `rtsp`, `http`, in lower case.
        scheme: String,
        /// The whole of it, passwords too: for FFmpeg's eyes alone.
        url: String,
    },
}

impl SourcePlan {
    /// Tells it from any other by what its pictures follow from, without showing that to anybody.
    pub(crate) fn fingerprint(&self) -> u32 {
        let (kind, name) = match &self.input {
            SourceInput::File(path) => ("file", path.as_os_str().as_encoded_bytes()),
            SourceInput::Device { format, name } => (format.as_str(), name.as_bytes()),
            SourceInput::Url { url, .. } => ("url", url.as_bytes()),
        };
        let mut digest = Sha256::new();
        let input = [kind.as_bytes(), name, &[u8::from(self.repeat)]];
        let arguments = self.input_args.iter().map(String::as_bytes);
        for word in input.into_iter().chain(arguments) {
            digest.update((word.len() as u64).to_le_bytes());
            digest.update(word);
        }
        let digest: [u8; 32] = digest.finalize().into();
        let [a, b, c, d, ..] = digest;
        u32::from_le_bytes([a, b, c, d])
    }
}

impl SourceInput {
    /// What `text` means, with these arguments before it; else why it can't be opened and how to mend that.
    pub(super) fn of(
        text: &str,
        arguments: &[String],
    ) -> Result<Self, (&'static str, &'static str)> {
        let format = value_of(arguments, "-f");
        if let Some(format) = format.filter(|format| DEVICES.contains(format)) {
            return Ok(Self::Device {
                format: format.to_owned(),
                name: text.to_owned(),
            });
        }
        if format.is_none() && (text.starts_with("/dev/video") || text.starts_with("/dev/v4l/")) {
            return Ok(Self::Device {
                format: "v4l2".to_owned(),
                name: text.to_owned(),
            });
        }
        let no_pipe = (
            "a pipe is nobody's to write to",
            "let the program before it feed the stream by `ringgear push`, and take source out",
        );
        match scheme_of(text) {
            None if text == "-" => Err(no_pipe),
            None => Ok(Self::File(text.into())),
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "pipe" | "fd" => Err(no_pipe),
                "file" => Ok(Self::File(rest.into())),
                scheme => Ok(Self::Url {
                    scheme: scheme.to_owned(),
                    url: text.to_owned(),
                }),
            },
        }
    }

    /// As people may see it: a URL without passwords and without its query, which often has some.
    pub fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Device { format, name } => format!("{format}:{name}"),
            Self::Url { url, .. } => without(&secrets(url), url),
        }
    }

    /// What of it nobody but FFmpeg may see, each with what is shown instead.
    pub fn secrets(&self) -> Vec<(String, &'static str)> {
        match self {
            Self::Url { url, .. } => secrets(url),
            _ => Vec::new(),
        }
    }

    /// The same with a file's relative path taken from `folder`.
    #[must_use]
    pub(super) fn within(self, folder: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(folder.join(path)),
            other => other,
        }
    }
}

/// The value of the last `option` in a list of arguments.
fn value_of<'a>(arguments: &'a [String], option: &str) -> Option<&'a str> {
    let at = arguments.iter().rposition(|word| word == option)?;
    arguments.get(at + 1).map(String::as_str)
}

/// A URL's scheme and what follows it. One letter is none: FFmpeg has no such protocol.
fn scheme_of(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    // FFmpeg writes a protocol's options behind a comma: `subfile,,start,0,end,0,,:x.ts`.
    let word = scheme.split(',').next().unwrap_or(scheme);
    let good = word.len() > 1
        && word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    good.then_some((word, rest))
}

/// `text` with something else in the place of secrets.
pub(crate) fn without(secrets: &[(String, &'static str)], text: &str) -> String {
    let mut shown = text.to_owned();
    for (secret, instead) in secrets {
        shown = shown.replace(secret, instead);
    }
    shown
}

/// User and password, and the query, with the signs around them: a short one must not stand for any text that is like it.
pub(super) fn secrets(url: &str) -> Vec<(String, &'static str)> {
    let mut secrets = Vec::new();
    let behind = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = behind.split('/').next().unwrap_or(behind);
    let mut place = behind;
    // A password may have an @ of its own, and signs that it should not have.
    if let Some((user, _)) = authority.rsplit_once('@') {
        secrets.push((format!("//{user}@"), "//***@"));
        place = &behind[user.len()..];
    }
    let query = place.split_once('?').map(|(_, query)| query);
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        secrets.push((format!("?{query}"), "?***"));
    }
    secrets
}

/// Checks a stream's source, and says where it stands. `sound_is_fed`: a producer feeds its sound.
pub(super) fn check(
    mode: Mode,
    sound_is_fed: bool,
    section: &Section<Stream>,
    report: &mut Report,
) -> Option<(SourcePlan, Offset)> {
    let stream = &section.values;
    let arguments = check_arguments(stream, report);
    let Some(entry) = &stream.source else {
        let lone = [
            ("input_args", stream.input_args.as_ref().map(Spanned::span)),
            (
                "source_loop",
                stream.source_loop.as_ref().map(Spanned::span),
            ),
            (
                "source_timeout",
                stream.source_timeout.as_ref().map(Spanned::span),
            ),
        ];
        for (key, span) in lone {
            if let Some(span) = span.filter(|_| !section.has("source")) {
                let what = format!("{key} does nothing without a source");
                report.warning(span.start, what, "add source = \"...\", or take it out");
            }
        }
        return None;
    };
    let at = entry.span().start;
    let input = match SourceInput::of(&entry.get_ref().0.0, &arguments) {
        Ok(input) => input,
        Err((why, mend)) => {
            report.error(
                at,
                format!("source can't be {:?}: {why}", entry.get_ref().0.0),
                mend,
            );
            return None;
        }
    };
    for (key, list) in [
        ("allow_users", &stream.allow_users),
        ("allow_groups", &stream.allow_groups),
    ] {
        if let Some(list) = list.as_ref().filter(|_| !sound_is_fed) {
            let what =
                format!("{key} does nothing: the stream has a source, so no producer may feed it");
            report.warning(list.span().start, what, "take one of the two out");
        }
    }
    let repeat = stream
        .source_loop
        .as_ref()
        .is_some_and(|entry| *entry.get_ref());
    if repeat && let (SourceInput::Device { .. }, Some(entry)) = (&input, &stream.source_loop) {
        let what = "source_loop does nothing: a device has no end to begin again at";
        report.warning(entry.span().start, what, "take it out");
    }
    if repeat
        && mode.is_recorded()
        && let Some(entry) = &stream.source_loop
    {
        let what = "a recording of a source that begins again and again never ends";
        report.warning(entry.span().start, what, "take source_loop out");
    }
    let timeout = stream.source_timeout.as_ref();
    let plan = SourcePlan {
        input,
        input_args: arguments,
        repeat,
        timeout: timeout.map_or(defaults::SOURCE_TIMEOUT, |entry| entry.get_ref().0.0),
    };
    Some((plan, at))
}

fn check_arguments(stream: &Stream, report: &mut Report) -> Vec<String> {
    let Some(list) = &stream.input_args else {
        return Vec::new();
    };
    if list.get_ref().len() > MAX_ARGUMENTS {
        let what = format!("input_args has {} arguments", list.get_ref().len());
        report.error(
            list.span().start,
            what,
            format!("use at most {MAX_ARGUMENTS}"),
        );
        return Vec::new();
    }
    let mut arguments: Vec<String> = Vec::new();
    for entry in list.get_ref() {
        let Read(Text(word)) = entry.get_ref();
        let option = word.strip_prefix('-').unwrap_or_default();
        if let Some(why) = why_owned(word) {
            let what = format!("input_args can't have {word:?}: {why}");
            report.error(entry.span().start, what, "take it out");
        }
        if arguments.is_empty() && option.is_empty() {
            let what = format!("input_args begins with {word:?}, which is no option");
            let mend =
                "write options before their values, each in quotes of its own: [\"-f\", \"v4l2\"]";
            report.error(entry.span().start, what, mend);
        }
        arguments.push(word.clone());
    }
    arguments
}

/// Why `input_args` can't have this word, if so.
pub(super) fn why_owned(word: &str) -> Option<&'static str> {
    let name = word.strip_prefix('-')?.split(':').next()?;
    let (_, why) = OWNED.iter().find(|(names, _)| names.contains(&name))?;
    Some(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(text: &str, arguments: &[&str]) -> SourceInput {
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        SourceInput::of(text, &arguments).unwrap()
    }

    #[test]
    fn a_source_is_a_file_a_device_or_a_url() {
        let file = |path: &str| SourceInput::File(path.into());
        let device = |format: &str, name: &str| SourceInput::Device {
            format: format.into(),
            name: name.into(),
        };
        let url = |scheme: &str, url: &str| SourceInput::Url {
            scheme: scheme.into(),
            url: url.into(),
        };
        for (text, arguments, expected) in [
            ("a b.mp4", &[][..], file("a b.mp4")),
            ("./12:30.mkv", &[], file("./12:30.mkv")),
            ("file:/x/a.ts", &[], file("/x/a.ts")),
            ("x.h264", &["-f", "h264"], file("x.h264")),
            ("/dev/video0", &[], device("v4l2", "/dev/video0")),
            (
                "/dev/video0",
                &["-f", "v4l2"],
                device("v4l2", "/dev/video0"),
            ),
            (
                "testsrc2=s=64x64",
                &["-f", "lavfi"],
                device("lavfi", "testsrc2=s=64x64"),
            ),
            (":0.0", &["-f", "x11grab"], device("x11grab", ":0.0")),
            ("RTSP://cam/1", &[], url("rtsp", "RTSP://cam/1")),
            (
                "udp://@:5000",
                &["-f", "mpegts"],
                url("udp", "udp://@:5000"),
            ),
            ("concat:a.ts|b.ts", &[], url("concat", "concat:a.ts|b.ts")),
        ] {
            assert_eq!(input(text, arguments), expected, "{text}");
        }
        for text in ["-", "pipe:0", "pipe:", "fd:3"] {
            assert!(SourceInput::of(text, &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn nobody_sees_a_password() {
        for (url, shown) in [
            ("rtsp://me:s3c@ret@cam/1", "rtsp://***@cam/1"),
            ("rtsp://cam/1", "rtsp://cam/1"),
            ("rtmp://cam/a?user=me&password=x", "rtmp://cam/a?***"),
            ("http://me:x@cam/me:x/y?a@b/c", "http://***@cam/me:x/y?***"),
            ("http://cam/?", "http://cam/?"),
            ("rtsp://me:w?y@cam/1?x=2", "rtsp://***@cam/1?***"),
        ] {
            assert_eq!(input(url, &[]).shown(), shown);
        }
        assert_eq!(input("a?b@c.mp4", &[]).shown(), "a?b@c.mp4");
    }
}
