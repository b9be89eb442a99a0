//! What a rendition hands to FFmpeg as it is, beside the encoder's options: `filter`, `output_args` and `device`.

use toml::Spanned;

use super::error::Report;
use super::hardware::Hardware;
use super::options;
use super::sections::{Rendition, TextList};
use super::table::Section;
use super::value::{Read, Text};

/// How many words `output_args` has at most.
const MAX_WORDS: usize = 64;
/// The longest filter, in bytes.
const MAX_FILTER: usize = 2048;

/// Filters that change how many pictures there are, or when they are shown, and why those can't be had.
const OF_TIME: [&str; 14] = [
    "fps",
    "framerate",
    "framestep",
    "select",
    "setpts",
    "settb",
    "decimate",
    "mpdecimate",
    "minterpolate",
    "trim",
    "tpad",
    "loop",
    "reverse",
    "concat",
];

/// Checks `filter`: one chain, from the stream's picture to another.
pub(super) fn check_filter(section: &Section<Rendition>, report: &mut Report) -> Option<String> {
    let entry = section.values.filter.as_ref()?;
    let (filter, at) = (entry.get_ref().0.0.trim(), entry.span().start);
    if filter.len() > MAX_FILTER || filter.chars().any(char::is_control) {
        let what = format!("filter has {} bytes, or a control character", filter.len());
        let mend = format!("write at most {MAX_FILTER} bytes of plain text");
        report.error(at, what, mend);
        return None;
    }
    if let Some(bad) = filter.chars().find(|c| matches!(c, '[' | ']' | ';')) {
        let what = format!("filter has {bad:?}: labels and several chains belong to Ringgear");
        report.error(at, what, "write one chain, like \"hflip,eq=gamma=1.2\"");
        return None;
    }
    // Splits within quotes, too: there no name of a filter follows.
    let names = filter.split(',').map(|one| {
        let name = one.split(['=', '@']).next().unwrap_or(one);
        name.trim()
    });
    let mut names = names.filter(|name| OF_TIME.contains(name));
    if let Some(bad) = names.next() {
        let what = format!(
            "filter can't have {bad:?}: each of the rendition's pictures has its place in time, which Ringgear sets"
        );
        let mend = format!("remove {bad} from it; framerate makes a rendition of fewer pictures");
        report.error(at, what, mend);
        return None;
    }
    if filter.is_empty() || filter.split(',').any(|one| one.trim().is_empty()) {
        report.error(
            at,
            "filter has an empty place",
            "write filters with commas between them",
        );
        return None;
    }
    Some(filter.to_owned())
}

/// Checks `output_args`: options and values in turn, as on FFmpeg's command line.
pub(super) fn check_output_args(list: Option<&TextList>, report: &mut Report) -> Vec<String> {
    let Some(list) = list else { return Vec::new() };
    let at = list.span().start;
    let words = list.get_ref();
    if words.len() > MAX_WORDS {
        let what = format!("output_args has {} words", words.len());
        report.error(at, what, format!("write at most {MAX_WORDS}"));
        return Vec::new();
    }
    for pair in words.chunks(2) {
        check_pair(pair, report);
    }
    words
        .iter()
        .map(|word| word.get_ref().0.0.clone())
        .collect()
}

fn check_pair(pair: &[Spanned<Read<Text>>], report: &mut Report) {
    let text = |word: &Spanned<Read<Text>>| word.get_ref().0.0.clone();
    let (option, at) = (text(&pair[0]), pair[0].span().start);
    let Some(name) = option
        .strip_prefix('-')
        .filter(|name| options::is_name(name))
    else {
        let what = format!("output_args has {option:?} where an option should stand");
        let mend = "write options and their values in turn, like [\"-profile:v\", \"main\"]";
        report.error(at, what, mend);
        return;
    };
    if let Some(why) = options::owned(name) {
        let what = format!("output_args can't set {option:?}: {why}");
        report.error(at, what, "remove it and its value");
        return;
    }
    if matches!(
        name.split(':').next(),
        Some("x265-params" | "svtav1-params" | "aom-params")
    ) {
        let what =
            format!("output_args can't set {option:?}: Ringgear has parameters of its own in it");
        report.error(at, what, "put it into options, which joins both");
        return;
    }
    let Some(value) = pair.get(1) else {
        let what = format!("output_args ends with {option:?}, which has no value");
        report.error(
            at,
            what,
            "write its value behind it; 1 and 0 for yes and no",
        );
        return;
    };
    let at = value.span().start;
    if let Some(fault) = options::value_fault(name, &text(value)) {
        report.error(at, format!("output_args: {}", fault.what), fault.mend);
    }
}

/// Checks `device`: where a hardware encoder is.
pub(super) fn check_device(
    codec: &str,
    section: &Section<Rendition>,
    report: &mut Report,
) -> Option<String> {
    let entry = section.values.device.as_ref()?;
    let (device, at) = (&entry.get_ref().0.0, entry.span().start);
    let Some(hardware) = Hardware::of(codec).filter(|hardware| hardware.names_devices()) else {
        let what = format!("codec {codec:?} takes no device");
        report.error(at, what, "remove it: FFmpeg finds the encoder by itself");
        return None;
    };
    if let Err(mend) = hardware.check_device(device) {
        report.error(at, format!("{codec} has no device {device:?}"), mend);
        return None;
    }
    Some(device.clone())
}
