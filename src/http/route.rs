//! Paths: what a URL asks for. Parsing is strict and pure, so that every thing has one name and nothing else has any:
//! no escapes, no leading zeros, no signs, no dots beyond those of the contract.

use crate::config::defaults::RECORD_FOLDER;
use crate::tick::{PartNumber, SegmentNumber};

/// What a path names. The names in it are well formed, but may be unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    Index,
    Favicon,
    Asset(&'a str),
    Healthz,
    Readyz,
    Time,
    Metrics,
    ApiStreams,
    ApiStream(&'a str),
    /// A stream's name without the slash after it.
    Bare(&'a str),
    Stream(&'a str, Item<'a>),
    /// A stream's and a recording's name without the slash after it.
    BareRecording(&'a str, &'a str),
    Recording(&'a str, &'a str, Item<'a>),
    /// A live stream's past.
    Past(&'a str, Past<'a>),
}

/// What a path names within a stream's past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past<'a> {
    /// It, without the slash after it.
    Bare,
    Page,
    List,
    /// A recording's name without the slash after it.
    BareReel(&'a str),
    Reel(&'a str, Item<'a>),
}

/// What a path names within a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Player,
    Snapshot,
    Clip,
    Multivariant,
    Mpd,
    LowLatencyMpd,
    Media(&'a str),
    Init(&'a str, &'a str),
    Segment(&'a str, SegmentNumber),
    Part(&'a str, SegmentNumber, PartNumber),
}

/// What a URL's path names, as it stands in the request line, and the pass in it: `/{stream}/~{pass}/` stands for `/{stream}/`, so that all
/// that is named from there by relative URLs has the pass too, without a word of it in playlists.
pub(super) fn parse(path: &str) -> Option<(Target<'_>, Option<&str>)> {
    let in_pass = || {
        let (stream, rest) = path.strip_prefix('/')?.split_once('/')?;
        let (pass, rest) = rest.strip_prefix('~')?.split_once('/')?;
        Some((Target::in_stream(name(stream)?, rest)?, Some(pass)))
    };
    in_pass().or_else(|| Some((Target::parse(path)?, None)))
}

/// `path` for the log, with `~` in the place of its pass.
pub(super) fn without_pass(path: &str) -> String {
    let shown = |name: &str| match name.starts_with('~') {
        true => "~".to_owned(),
        false => name.to_owned(),
    };
    path.split('/').map(shown).collect::<Vec<_>>().join("/")
}

impl<'a> Target<'a> {
    /// The target of a path without a pass.
    fn parse(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        match path {
            "" => return Some(Self::Index),
            "favicon.ico" => return Some(Self::Favicon),
            "healthz" => return Some(Self::Healthz),
            "readyz" => return Some(Self::Readyz),
            "time" => return Some(Self::Time),
            "metrics" => return Some(Self::Metrics),
            "api/v1/streams" => return Some(Self::ApiStreams),
            _ => {}
        }
        if let Some(asset) = path.strip_prefix("assets/") {
            return Some(Self::Asset(asset));
        }
        if let Some(stream) = path.strip_prefix("api/v1/streams/") {
            return name(stream).map(Self::ApiStream);
        }
        let Some((stream, rest)) = path.split_once('/') else {
            return name(path).map(Self::Bare);
        };
        Self::in_stream(name(stream)?, rest)
    }

    fn in_stream(stream: &'a str, rest: &'a str) -> Option<Self> {
        match rest {
            "status.json" => return Some(Self::ApiStream(stream)),
            "time" => return Some(Self::Time),
            _ => {}
        }
        if let Some(past) = rest.strip_prefix(RECORD_FOLDER)
            && (past.is_empty() || past.starts_with('/'))
        {
            return Some(Self::Past(stream, Past::parse(past)?));
        }
        if is_recording(rest) {
            return Some(Self::BareRecording(stream, rest));
        }
        match rest.split_once('/') {
            Some((recording, "time")) if is_recording(recording) => Some(Self::Time),
            Some((recording, item)) if is_recording(recording) => {
                Some(Self::Recording(stream, recording, Item::parse(item)?))
            }
            _ => Some(Self::Stream(stream, Item::parse(rest)?)),
        }
    }

    /// The stream that it is of, if it is of one.
    pub(super) fn stream(self) -> Option<&'a str> {
        match self {
            Self::ApiStream(stream)
            | Self::Bare(stream)
            | Self::Stream(stream, _)
            | Self::BareRecording(stream, _)
            | Self::Recording(stream, _, _)
            | Self::Past(stream, _) => Some(stream),
            _ => None,
        }
    }
}

impl<'a> Past<'a> {
    /// What follows the name of the folder.
    fn parse(rest: &'a str) -> Option<Self> {
        match rest {
            "" => return Some(Self::Bare),
            "/" => return Some(Self::Page),
            "/index.json" => return Some(Self::List),
            _ => {}
        }
        let rest = rest.strip_prefix('/')?;
        match rest.split_once('/') {
            None if is_recording(rest) => Some(Self::BareReel(rest)),
            Some((reel, item)) if is_recording(reel) => Some(Self::Reel(reel, Item::parse(item)?)),
            _ => None,
        }
    }
}

impl<'a> Item<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        match path {
            "" => return Some(Self::Player),
            "snapshot.jpg" => return Some(Self::Snapshot),
            "clip.mp4" => return Some(Self::Clip),
            "index.m3u8" => return Some(Self::Multivariant),
            "manifest.mpd" => return Some(Self::Mpd),
            "manifest-ll.mpd" => return Some(Self::LowLatencyMpd),
            _ => {}
        }
        let (rendition, file) = path.split_once('/')?;
        let rendition = name(rendition)?;
        if file == "media.m3u8" {
            return Some(Self::Media(rendition));
        }
        if let Some(file) = file.strip_prefix("init-") {
            let version = file.strip_suffix(".mp4")?;
            return name(version).map(|version| Self::Init(rendition, version));
        }
        let numbers = file.strip_suffix(".m4s")?;
        match numbers.split_once('.') {
            None => Some(Self::Segment(rendition, SegmentNumber(number(numbers)?))),
            Some((segment, part)) => {
                let part = u32::try_from(number(part)?).ok()?;
                Some(Self::Part(rendition, SegmentNumber(number(segment)?), part))
            }
        }
    }
}

/// A stream's, rendition's or version's name, if it is one.
fn name(text: &str) -> Option<&str> {
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    ((1..=64).contains(&text.len()) && text.bytes().all(fits)).then_some(text)
}

/// Whether `text` names a recording: when it began, like `20261123t070312z`, and `-2` after it if it was the second of its second.
pub(crate) fn is_recording(text: &str) -> bool {
    let (time, rest) = text.split_at_checked(16).unwrap_or((text, ""));
    let shape = |(at, byte): (usize, u8)| match at {
        8 => byte == b't',
        15 => byte == b'z',
        _ => byte.is_ascii_digit(),
    };
    let ordinal = rest.is_empty()
        || rest.len() <= 4
            && rest
                .strip_prefix('-')
                .and_then(number)
                .is_some_and(|n| n >= 2);
    time.len() == 16 && time.bytes().enumerate().all(shape) && ordinal
}

/// A number as we write it: digits without a leading zero.
fn number(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (canonical && digits).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_contract_has_its_target() {
        let stream = |item| Some(Target::Stream("door", item));
        for (path, target) in [
            ("/", Some(Target::Index)),
            ("/door", Some(Target::Bare("door"))),
            ("/door/", stream(Item::Player)),
            ("/door/index.m3u8", stream(Item::Multivariant)),
            ("/door/manifest.mpd", stream(Item::Mpd)),
            ("/door/manifest-ll.mpd", stream(Item::LowLatencyMpd)),
            ("/door/snapshot.jpg", stream(Item::Snapshot)),
            ("/door/clip.mp4", stream(Item::Clip)),
            ("/door/720p/media.m3u8", stream(Item::Media("720p"))),
            (
                "/door/720p/init-0a1b.mp4",
                stream(Item::Init("720p", "0a1b")),
            ),
            (
                "/door/720p/0.m4s",
                stream(Item::Segment("720p", SegmentNumber(0))),
            ),
            (
                "/door/720p/881234567.11.m4s",
                stream(Item::Part("720p", SegmentNumber(881_234_567), 11)),
            ),
            (
                "/door/20261123t070312z",
                Some(Target::BareRecording("door", "20261123t070312z")),
            ),
            (
                "/door/20261123t070312z-2/",
                Some(Target::Recording(
                    "door",
                    "20261123t070312z-2",
                    Item::Player,
                )),
            ),
            (
                "/door/20261123t070312z/720p/3.m4s",
                Some(Target::Recording(
                    "door",
                    "20261123t070312z",
                    Item::Segment("720p", SegmentNumber(3)),
                )),
            ),
            (
                "/door/recordings2/media.m3u8",
                stream(Item::Media("recordings2")),
            ),
            ("/door/recordings", Some(Target::Past("door", Past::Bare))),
            ("/door/recordings/", Some(Target::Past("door", Past::Page))),
            (
                "/door/recordings/index.json",
                Some(Target::Past("door", Past::List)),
            ),
            (
                "/door/recordings/20261123t070000z",
                Some(Target::Past("door", Past::BareReel("20261123t070000z"))),
            ),
            (
                "/door/recordings/20261123t070000z-2/720p/3.m4s",
                Some(Target::Past(
                    "door",
                    Past::Reel(
                        "20261123t070000z-2",
                        Item::Segment("720p", SegmentNumber(3)),
                    ),
                )),
            ),
            ("/metrics", Some(Target::Metrics)),
            ("/api/v1/streams", Some(Target::ApiStreams)),
            ("/api/v1/streams/door", Some(Target::ApiStream("door"))),
            ("/healthz", Some(Target::Healthz)),
            ("/readyz", Some(Target::Readyz)),
            ("/time", Some(Target::Time)),
            ("/door/time", Some(Target::Time)),
            ("/door/20261123t070000z/time", Some(Target::Time)),
            ("/assets/app-1.css", Some(Target::Asset("app-1.css"))),
        ] {
            assert_eq!(Target::parse(path), target, "{path}");
        }
    }

    #[test]
    fn a_pass_in_the_path_changes_nothing_but_the_rights() {
        let at = |path| Target::parse(path).unwrap();
        for (path, target, pass) in [
            ("/door/~1-a/", at("/door/"), "1-a"),
            ("/door/~1-a/720p/1.m4s", at("/door/720p/1.m4s"), "1-a"),
            ("/door/~1-a/status.json", Target::ApiStream("door"), "1-a"),
            ("/door/~/index.m3u8", at("/door/index.m3u8"), ""),
            (
                "/door/~1-a/20261123t070312z/index.m3u8",
                at("/door/20261123t070312z/index.m3u8"),
                "1-a",
            ),
        ] {
            assert_eq!(parse(path), Some((target, Some(pass))), "{path}");
        }
        let door = Some((at("/door/"), None));
        assert_eq!(parse("/door/"), door);
        for path in [
            "/door/~1-a",
            "/~1-a/",
            "/door/~1-a/~1-a/",
            "/door/~1-a/../gate/",
            "/door/720p/~1-a/1.m4s",
            "/api/~1-a/v1/streams",
            "/door/%7e1-a/index.m3u8",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_pass_is_not_shown() {
        for (path, shown) in [
            ("/", "/"),
            ("/door/720p/1.m4s", "/door/720p/1.m4s"),
            ("/door/~1-a/720p/1.m4s", "/door/~/720p/1.m4s"),
        ] {
            assert_eq!(without_pass(path), shown);
        }
    }

    #[test]
    fn anything_else_is_unknown() {
        for path in [
            "",
            "*",
            "//",
            "/door//",
            "/../door/",
            "/door/../",
            "/door/720p/../media.m3u8",
            "/%64oor/",
            "/door%2findex.m3u8",
            "/door/720p%2fmedia.m3u8",
            "/DOOR/",
            "/d\u{f6}r/",
            "/door/720p/",
            "/door/recordings/x",
            "/door/recordingsx",
            "/door/recordings//",
            "/door/recordings/720p/1.m4s",
            "/door/recordings/../20261123t070000z/",
            "/door/720p/01.m4s",
            "/door/720p/+1.m4s",
            "/door/720p/-1.m4s",
            "/door/720p/1.01.m4s",
            "/door/720p/1.m4s/",
            "/door/720p/.m4s",
            "/door/720p/1..m4s",
            "/door/720p/1.2.3.m4s",
            "/door/720p/18446744073709551616.m4s",
            "/door/720p/1.4294967296.m4s",
            "/door/720p/init-.mp4",
            "/door/720p/init-..mp4",
            "/door/720p/init-a/b.mp4",
            "/api/v1/streams/",
            "/door/20261123t07031z/",
            "/door/20261123t070312z-1/",
            "/door/20261123t070312z-02/",
            "/door/20261123x070312z/",
            "/door/20261123t070312z/../",
            "/api/v1/streams/a/b",
            "/door/720p/\u{661}.m4s",
        ] {
            assert_eq!(Target::parse(path), None, "{path}");
        }
        assert_eq!(Target::parse(&format!("/{}", "a".repeat(65))), None);
    }
}
