//! One stream's table, checked.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Offset, Report};
use super::sections::{Entry, Stream};
use super::table::{self, Section};
use super::value::{Read, Text};
use super::{
    AtExit, AudioInput, AudioPlan, Degrade, MIN_SEGMENTS, Pace, RenditionPlan, StreamPlan, access,
    audio, defaults, feeders, record, rendition, source,
};
use crate::access::Access;
use crate::tick::{Framerate, Grid, common_multiple};
use crate::window::Mode;

/// How many streams one daemon has at most.
const MAX_STREAMS: usize = 256;

/// No part is longer.
const LONGEST_PART: Duration = Duration::from_secs(1);

/// The longest name of a stream or rendition, in bytes.
const MAX_NAME: usize = 64;

/// Names of the origin's own that no stream may have.
const RESERVED: [&str; 6] = ["api", "assets", "metrics", "time", "healthz", "readyz"];

/// A stream's plan, and the encoders that it can't do without, with their places in the file.
pub(super) struct Checked {
    pub(super) plan: StreamPlan,
    pub(super) codecs: Vec<(String, Offset)>,
    /// Where its source stands, if it has one.
    pub(super) source_at: Offset,
    /// Who may watch it.
    pub(super) access: access::Written,
    /// Where its recordings' folder stands.
    pub(super) record_at: Offset,
}

/// Checks the table `[streams]`. What it returns is only of use when nothing was reported.
pub(super) fn check_all(table: DeTable<'_>, report: &mut Report) -> BTreeMap<String, Checked> {
    let mut keys: Vec<_> = table.into_iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    let mut streams: BTreeMap<String, Checked> = BTreeMap::new();
    for (key, value) in keys {
        let at = key.span().start;
        let name = key.get_ref().as_ref();
        if streams.len() >= MAX_STREAMS {
            let what = format!("there are more than {MAX_STREAMS} streams");
            report.error(at, what, "give some to another daemon");
            break;
        }
        check_name("stream", name, at, report);
        if RESERVED.contains(&name) {
            let what = format!("a stream can't be named {name:?}");
            report.error(at, what, "take another name: this is a path of the origin");
        }
        let other = streams
            .keys()
            .find(|other| other.eq_ignore_ascii_case(name));
        if let Some(other) = other {
            let what = format!("streams {name:?} and {other:?} would share a folder");
            report.error(at, what, "rename one of them");
        }
        let checked = check(name, value, at, report);
        streams.insert(name.to_owned(), checked);
    }
    streams
}

/// Checks that `name` is fit for a path and a URL.
pub(super) fn check_name(of: &str, name: &str, at: Offset, report: &mut Report) {
    let good = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
    if name.is_empty() {
        report.error(at, format!("the {of}'s name is empty"), "name it");
    } else if let Some(bad) = name.chars().find(|&c| !good(c)) {
        let shown: String = name.chars().take(MAX_NAME).collect();
        let what = format!("the {of}'s name {shown:?} has the character {bad:?}");
        report.error(at, what, "use only a to z, 0 to 9, _ and -");
    }
    if of != "stream" && name == defaults::RECORD_FOLDER {
        let what = format!("a rendition can't be named {name:?}");
        report.error(at, what, "take another name: this is a path of the origin");
    }
    if name.len() > MAX_NAME {
        let what = format!("the {of}'s name has {} bytes", name.len());
        report.error(at, what, format!("use at most {MAX_NAME}"));
    }
}

fn check(name: &str, value: Spanned<DeValue<'_>>, at: Offset, report: &mut Report) -> Checked {
    let shown: String = name.chars().take(MAX_NAME).collect();
    let title = format!("[streams.{shown}]");
    let is_table = matches!(value.get_ref(), DeValue::Table(_));
    let (mut table, _) = table::as_table(&title, value, report);
    let renditions = table.remove("renditions");
    let audio = table.remove("audio");
    let record = table.remove("record");
    let section = table::read::<Stream>(&title, table, at, report);
    let stream = &section.values;

    let framerate = stream.framerate.as_ref().map(|rate| rate.get_ref().0);
    let mode = check_mode(&section, report);
    warn_of_live_keys(mode, &section, report);
    let (segment, part) = check_lengths(framerate, mode, &section, report);
    let (record, record_at) = record::check(record, mode, report).unzip();
    let window = check_window(segment, &section, report);
    let (hls, dash) = check_formats(&section, report);
    let (renditions, mut codecs) = rendition::check_all(renditions, framerate, at, report);
    let step = check_steps(framerate, segment, &renditions, at, report);
    let (audio, audio_codecs) = audio::check(audio, &renditions, section.has("source"), report);
    let is_fed = |audio: &AudioPlan| audio.source == AudioInput::Producer;
    let sound_is_fed = audio.as_ref().is_some_and(is_fed);
    let copies = renditions.iter().any(|one| one.codec == defaults::COPY);
    if copies {
        check_copied(&section, &renditions, at, report);
    } else if is_table && !section.has("framerate") {
        let what = format!("stream {shown:?} has no framerate");
        report.error(at, what, "add framerate = 30, or what its camera gives");
    }
    let (source, source_at) = source::check(mode, sound_is_fed, &section, report).unzip();
    codecs.extend(audio_codecs);
    // Without a framerate there was an error, and the plan is dropped: any does.
    let framerate = framerate
        .unwrap_or_else(|| Framerate::new(30, 1).expect("30 frames per second are in range"));
    let plan = StreamPlan {
        name: name.to_owned(),
        mode,
        grid: match copies {
            true => {
                let part = length(&stream.part, |l| l.0).unwrap_or(defaults::PART);
                Grid::copied(segment, (!mode.is_recorded()).then_some(part.min(segment)))
            }
            false => Grid::in_steps(framerate, segment, part, step),
        },
        window,
        stale_after: length(&stream.stale_after, |l| l.0).unwrap_or(defaults::STALE_AFTER),
        slack: length(&stream.slack, |s| s.0).unwrap_or(defaults::SLACK),
        backfill: length(&stream.backfill, |l| l.0).unwrap_or(defaults::BACKFILL),
        encoder_timeout: length(&stream.encoder_timeout, |l| l.0)
            .unwrap_or(defaults::ENCODER_TIMEOUT),
        pace: check_pace(&section, report),
        degrade: check_degrade(&section, report),
        max_bytes: length(&stream.max_bytes, |b| b.0),
        hls,
        dash,
        at_exit: check_at_exit(&section, report),
        feeders: feeders::check(stream, report),
        // With what files hold, once those are read.
        access: Access::default(),
        source,
        renditions,
        audio,
        record,
    };
    Checked {
        plan,
        codecs,
        record_at: record_at.unwrap_or(at),
        source_at: source_at.unwrap_or(at),
        access: access::check(&section, report),
    }
}

/// Checks what a stream has beside a rendition that is copied: a source, and nothing that needs pictures.
fn check_copied(
    section: &Section<Stream>,
    renditions: &[RenditionPlan],
    at: Offset,
    report: &mut Report,
) {
    const OF_PICTURES: [&str; 6] = [
        "stale_after",
        "slack",
        "pace",
        "backfill",
        "encoder_timeout",
        "degrade",
    ];
    if !section.has("source") {
        let what = "a stream that is fed by producers can't be copied: it has nothing but pictures";
        let mend = "add source = \"...\", or name an encoder in codec";
        report.error(at, what, mend);
    }
    if renditions.len() > 1 {
        let what = format!("a copied rendition is one of {}", renditions.len());
        let mend = "copy it alone, and make another stream of the same source for what is encoded";
        report.error(at, what, mend);
    }
    if let Some(at) = section.place_of("framerate") {
        let what = "a copied stream can't have a framerate: its pictures have the source's times";
        report.error(at, what, "remove it, or name an encoder in codec");
    }
    for key in OF_PICTURES {
        if let Some(at) = section.place_of(key) {
            let what = format!("{key} has no effect on a copied stream");
            report.warning(at, what, "leave it out, or name an encoder in codec");
        }
    }
}

/// An entry's value, without its place.
fn length<T, U>(entry: &Entry<T>, value: impl Fn(&T) -> U) -> Option<U> {
    entry.as_ref().map(|entry| value(&entry.get_ref().0))
}

fn show(length: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(length)
}

/// The segment's and the part's length, each at least a tick, the part within the segment.
fn check_lengths(
    framerate: Option<Framerate>,
    mode: Mode,
    section: &Section<Stream>,
    report: &mut Report,
) -> (Duration, Duration) {
    let stream = &section.values;
    let default = match mode.is_recorded() {
        true => defaults::RECORDED_SEGMENT,
        false => defaults::SEGMENT,
    };
    let segment = length(&stream.segment, |l| l.0).unwrap_or(default);
    let tick = framerate.map(|rate| (rate, rate.duration_of(1)));
    if let (Some(entry), Some((rate, tick))) = (&stream.segment, tick)
        && segment < tick
    {
        let what = format!(
            "a segment of {} is shorter than one tick at framerate {rate}",
            show(segment)
        );
        let mend = format!("make it at least {}", whole_millis(tick));
        report.error(entry.span().start, what, mend);
    }
    let Some(entry) = &stream.part else {
        return (
            segment,
            framerate.map_or(segment, defaults::part).min(segment),
        );
    };
    let part = entry.get_ref().0.0;
    let at = entry.span().start;
    if let Some((rate, tick)) = tick
        && part < tick
    {
        let what = format!(
            "a part of {} is shorter than one tick at framerate {rate}",
            show(part)
        );
        let mend = format!("make it at least {}", whole_millis(tick));
        report.error(at, what, mend);
    }
    if part > segment {
        let what = format!(
            "a part of {} is longer than its segment of {}",
            show(part),
            show(segment)
        );
        report.error(at, what, format!("make it at most {}", show(segment)));
    }
    if let Some((rate, tick)) = tick
        && let ticks = rate.ticks_in(part).get()
        && let rounded = rate.duration_of(ticks.into())
        && ticks > 1
        // At 29.97 a second of 30 ticks is a little longer.
        && rounded > LONGEST_PART + LONGEST_PART / 100
    {
        let what = format!(
            "a part of {} is {ticks} ticks at framerate {rate}, which last {}: more than {}",
            show(part),
            whole_millis(rounded),
            show(LONGEST_PART)
        );
        let fewer = tick * (ticks - 1);
        report.error(at, what, format!("make it {}", whole_millis(fewer)));
    }
    (segment, part)
}

/// The ticks after which all renditions show a new picture: parts and segments are multiples of them.
fn check_steps(
    framerate: Option<Framerate>,
    segment: Duration,
    renditions: &[RenditionPlan],
    at: Offset,
    report: &mut Report,
) -> NonZeroU32 {
    let steps = renditions.iter().map(|rendition| rendition.every);
    let common = steps.fold(NonZeroU32::MIN, common_multiple);
    let Some(framerate) = framerate else {
        return NonZeroU32::MIN;
    };
    let longest = segment.min(LONGEST_PART);
    // One tick alone is judged with the segment's own length.
    if common > NonZeroU32::MIN && framerate.duration_of(common.get().into()) > longest {
        let what = format!(
            "the renditions' framerates have no new picture in common within {}",
            show(longest)
        );
        let mend = "choose framerates of which each is a whole fraction of the next, like 30, 15 and 5, or a longer segment";
        report.error(at, what, mend);
        return NonZeroU32::MIN;
    }
    common
}

/// A length that people can write, not shorter than `length`.
fn whole_millis(length: Duration) -> String {
    format!("{}ms", length.as_nanos().div_ceil(1_000_000))
}

fn check_window(segment: Duration, section: &Section<Stream>, report: &mut Report) -> Duration {
    let least = segment * MIN_SEGMENTS;
    let Some(entry) = &section.values.window else {
        return defaults::WINDOW.max(least);
    };
    let window = entry.get_ref().0.0;
    if window < least {
        let what = format!(
            "a window of {} holds fewer than {MIN_SEGMENTS} segments of {}",
            show(window),
            show(segment)
        );
        let mend = format!("make it at least {}, or segment shorter", show(least));
        report.error(entry.span().start, what, mend);
    }
    window
}

fn check_mode(section: &Section<Stream>, report: &mut Report) -> Mode {
    let choices = [
        ("live", Mode::Live),
        ("event", Mode::Event),
        ("vod", Mode::Vod),
    ];
    let mend = "write \"live\", \"event\" (a recording that can be watched while it grows) or \"vod\" (once it is whole)";
    choice(&section.values.mode, ("mode", choices), mend, report)
}

/// Tells of keys that are about a clock, which recordings have none of.
fn warn_of_live_keys(mode: Mode, section: &Section<Stream>, report: &mut Report) {
    const LIVE: [&str; 8] = [
        "window",
        "stale_after",
        "slack",
        "pace",
        "backfill",
        "degrade",
        "at_exit",
        "max_bytes",
    ];
    if !mode.is_recorded() {
        return;
    }
    for key in LIVE {
        if let Some(at) = section.place_of(key) {
            let what = format!("{key} has no effect on a recording");
            report.warning(at, what, "leave it out, or write mode = \"live\"");
        }
    }
}

fn check_formats(section: &Section<Stream>, report: &mut Report) -> (bool, bool) {
    let Some(formats) = &section.values.formats else {
        return (true, true);
    };
    let (mut hls, mut dash) = (false, false);
    for format in formats.get_ref() {
        let Read(Text(name)) = format.get_ref();
        let seen = match name.as_str() {
            "hls" => &mut hls,
            "dash" => &mut dash,
            _ => {
                let what = format!("there is no format {name:?}");
                report.error(format.span().start, what, "write \"hls\", \"dash\" or both");
                continue;
            }
        };
        if std::mem::replace(seen, true) {
            let what = format!("format {name:?} is listed twice");
            report.error(format.span().start, what, "list it once");
        }
    }
    if formats.get_ref().is_empty() {
        let mend = "write [\"hls\", \"dash\"], or one of them";
        report.error(formats.span().start, "formats is empty", mend);
    }
    (hls, dash)
}

/// What the word at `key` stands for among `choices`, the first of which is the default; `mend` names them all.
fn choice<T: Copy, const N: usize>(
    entry: &Entry<Text>,
    (key, choices): (&str, [(&str, T); N]),
    mend: &str,
    report: &mut Report,
) -> T {
    let default = choices[0].1;
    let Some(entry) = entry else { return default };
    let word = entry.get_ref().0.0.as_str();
    match choices.iter().find(|(name, _)| *name == word) {
        Some((_, chosen)) => *chosen,
        None => {
            let what = format!("{key} can't be {word:?}");
            report.error(entry.span().start, what, mend);
            default
        }
    }
}

fn check_pace(section: &Section<Stream>, report: &mut Report) -> Pace {
    let choices = [("tick", Pace::Tick), ("arrival", Pace::Arrival)];
    let mend = "write \"tick\" (a tick takes its frame at its deadline) or \"arrival\" (as soon as one arrives)";
    choice(&section.values.pace, ("pace", choices), mend, report)
}

fn check_degrade(section: &Section<Stream>, report: &mut Report) -> Degrade {
    let choices = [("skip", Degrade::Skip), ("off", Degrade::Off)];
    let mend = "write \"skip\" (an encoder that is too slow gets fewer pictures) or \"off\"";
    choice(&section.values.degrade, ("degrade", choices), mend, report)
}

fn check_at_exit(section: &Section<Stream>, report: &mut Report) -> AtExit {
    let choices = [("keep", AtExit::Keep), ("end", AtExit::End)];
    let mend = "write \"keep\" (a restart goes on from the window) or \"end\" (the stream ends)";
    choice(&section.values.at_exit, ("at_exit", choices), mend, report)
}
