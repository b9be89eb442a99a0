//! A stream's renditions, checked.

use std::num::NonZeroU32;

use toml::Spanned;
use toml::de::DeValue;

use super::error::{Offset, Report};
use super::sections::Rendition;
use super::table::{self, Section};
use super::{Hardware, RateControl, RenditionPlan, defaults, extras, options, stream};
use crate::tick::Framerate;

/// How many renditions a stream has at most.
const MAX_RENDITIONS: usize = 16;

/// The presets of x264 and x265.
const PRESETS: [&str; 10] = [
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
];

/// Encoders in software that are tried with Ringgear; for others see [`codec_family`].
const CODECS: [&str; 5] = [
    "libx264",
    "libx265",
    "libsvtav1",
    "libaom-av1",
    "libvpx-vp9",
];

/// Checks the array `renditions` of the stream that stands at `stream_at`, whose framerate is not known where it was refused. Returns the
/// encoders that have to be there too, and where they stand.
pub(super) fn check_all(
    renditions: Option<Spanned<DeValue<'_>>>,
    framerate: Option<Framerate>,
    stream_at: Offset,
    report: &mut Report,
) -> (Vec<RenditionPlan>, Vec<(String, Offset)>) {
    let Some(renditions) = renditions else {
        return (vec![source()], vec![(defaults::CODEC.into(), stream_at)]);
    };
    let at = renditions.span().start;
    let array = match renditions.into_inner() {
        DeValue::Array(array) => array,
        other => {
            let what = format!(
                "renditions is a list of tables, not {}",
                table::kind(&other)
            );
            let mend = "write [[streams.NAME.renditions]] with two brackets, once for each";
            report.error(at, what, mend);
            return (vec![source()], vec![(defaults::CODEC.into(), at)]);
        }
    };
    if array.is_empty() {
        let mend = "leave it out for one rendition at the source's size";
        report.error(at, "renditions is empty", mend);
    }
    let mut plans: Vec<RenditionPlan> = Vec::new();
    let mut codecs = Vec::new();
    for item in array {
        let at = item.span().start;
        if plans.len() >= MAX_RENDITIONS {
            let what = format!("the stream has more than {MAX_RENDITIONS} renditions");
            report.error(at, what, "remove some");
            break;
        }
        if !matches!(item.get_ref(), DeValue::Table(_)) {
            table::as_table("a rendition", item, report);
            continue;
        }
        let (plan, codec) = check(item, framerate, &plans, report);
        check_upload(&plan, &plans, at, report);
        plans.push(plan);
        codecs.extend(codec);
    }
    (plans, codecs)
}

/// The rendition of a stream that names none.
fn source() -> RenditionPlan {
    RenditionPlan {
        name: defaults::RENDITION.into(),
        size: None,
        every: NonZeroU32::MIN,
        codec: defaults::CODEC.into(),
        device: None,
        fallback: None,
        preset: defaults::preset(defaults::CODEC).map(Into::into),
        rate: RateControl::Crf(defaults::crf(defaults::CODEC).unwrap_or_default()),
        options: Vec::new(),
        filter: None,
        output_args: Vec::new(),
    }
}

fn check(
    item: Spanned<DeValue<'_>>,
    framerate: Option<Framerate>,
    before: &[RenditionPlan],
    report: &mut Report,
) -> (RenditionPlan, Option<(String, Offset)>) {
    let (mut table, at) = table::as_table("a rendition", item, report);
    let extra = table.remove("options");
    let section = table::read::<Rendition>("a rendition", table, at, report);
    let name = check_rendition_name(&section, before, report);
    let (codec, codec_at) = check_codec(&section, report);
    if codec == defaults::COPY {
        check_copy(&section, extra.map(|extra| extra.span().start), report);
        let plan = RenditionPlan {
            name,
            codec,
            preset: None,
            rate: RateControl::Crf(0),
            ..source()
        };
        return (plan, None);
    }
    let preset = check_preset(&codec, &section, report);
    let rate = check_rate(&codec, &section, report);
    let fallback = check_fallback(&codec, rate, &section, report);
    // A codec that has a fallback may be missing.
    let required = fallback.clone().unwrap_or((codec.clone(), codec_at));
    let options = match extra {
        None => Vec::new(),
        Some(value) => {
            let (table, _) = table::as_table("options", value, report);
            options::check(table, report)
        }
    };
    let plan = RenditionPlan {
        name,
        every: check_framerate(framerate, &section, report),
        device: extras::check_device(&codec, &section, report),
        filter: extras::check_filter(&section, report),
        output_args: extras::check_output_args(section.values.output_args.as_ref(), report),
        size: section.values.size.map(|size| size.into_inner().0),
        codec,
        fallback: fallback.map(|(fallback, _)| fallback),
        preset,
        rate,
        options,
    };
    (plan, Some(required))
}

/// What is copied has nothing that an encoder could be told.
fn check_copy(section: &Section<Rendition>, options: Option<Offset>, report: &mut Report) {
    const OF_ENCODERS: [&str; 9] = [
        "size",
        "framerate",
        "bitrate",
        "crf",
        "device",
        "fallback",
        "preset",
        "filter",
        "output_args",
    ];
    let keys = OF_ENCODERS.map(|key| (key, section.place_of(key)));
    for (key, at) in keys.into_iter().chain([("options", options)]) {
        if let Some(at) = at {
            let what = format!("codec \"copy\" can't have {key}: nothing is encoded");
            report.error(at, what, "remove it, or name an encoder in codec");
        }
    }
}

fn check_rendition_name(
    section: &Section<Rendition>,
    before: &[RenditionPlan],
    report: &mut Report,
) -> String {
    let Some(entry) = &section.values.name else {
        if !section.has("name") {
            let mend = "add name = \"720p\", or the like: it is the folder's name";
            report.error(section.at, "a rendition has no name", mend);
        }
        return String::new();
    };
    let (name, at) = (&entry.get_ref().0.0, entry.span().start);
    stream::check_name("rendition", name, at, report);
    // Without regard to case, as some file systems compare names.
    if before
        .iter()
        .any(|other| other.name.eq_ignore_ascii_case(name))
    {
        let what = format!("the stream has two renditions named {name:?}");
        report.error(at, what, "rename one of them");
    }
    name.clone()
}

/// How many of the stream's ticks each of the rendition's pictures lasts.
fn check_framerate(
    stream: Option<Framerate>,
    section: &Section<Rendition>,
    report: &mut Report,
) -> NonZeroU32 {
    let (Some(stream), Some(entry)) = (stream, &section.values.framerate) else {
        return NonZeroU32::MIN;
    };
    let asked = entry.get_ref().0;
    if let Some(every) = stream.ticks_of(asked) {
        return every;
    }
    let what = format!("a rendition's framerate of {asked} is no whole fraction of {stream}");
    let mend = match nearest_fraction(stream, asked) {
        Some((every, near)) => format!("write \"{near}\", each picture of {every}, or the like"),
        None => "leave it out for the stream's framerate".to_owned(),
    };
    report.error(entry.span().start, what, mend);
    NonZeroU32::MIN
}

/// The whole fraction of `stream`'s framerate that is nearest to `asked`, and how many ticks its pictures last; none if that is all of them.
fn nearest_fraction(stream: Framerate, asked: Framerate) -> Option<(u32, Framerate)> {
    let own = u64::from(stream.num()) * u64::from(asked.den());
    let other = u64::from(asked.num()) * u64::from(stream.den());
    let every = u32::try_from((own + other / 2) / other).ok()?;
    let near = Framerate::new(stream.num(), stream.den().checked_mul(every)?).ok()?;
    (every > 1).then_some((every, near))
}

/// One FFmpeg encodes all of a stream's renditions, and pictures are uploaded by one device.
fn check_upload(plan: &RenditionPlan, before: &[RenditionPlan], at: Offset, report: &mut Report) {
    let uploads = |codec: &str, device: Option<&String>| {
        let kind = Hardware::of(codec).filter(|kind| kind.uploads())?;
        Some((kind, device.cloned()))
    };
    // A fallback has no device of its own.
    let devices_of = |plan: &RenditionPlan| {
        let fallback = plan.fallback.as_ref();
        let own = uploads(&plan.codec, plan.device.as_ref());
        [own, fallback.and_then(|codec| uploads(codec, None))]
    };
    let devices = devices_of(plan);
    let own = || devices.iter().flatten();
    let clashing = before.iter().find(|other| {
        let theirs = devices_of(other);
        let theirs: Vec<_> = theirs.iter().flatten().collect();
        own().any(|device| theirs.iter().any(|other| *other != device))
    });
    if let Some(other) = clashing {
        let what = format!(
            "renditions {:?} and {:?} need two devices in one stream",
            other.name, plan.name
        );
        let mend = "give both the same kind of hardware encoder and the same device, or make two streams of them";
        report.error(at, what, mend);
    }
}

/// Which format an encoder yields, if it is one that can be packaged.
fn codec_family(codec: &str) -> Option<&'static str> {
    match codec {
        "libx264" | "libopenh264" => Some("h264"),
        "libx265" => Some("hevc"),
        "libsvtav1" | "libaom-av1" | "librav1e" => Some("av1"),
        "libvpx-vp9" => Some("vp9"),
        _ => {
            let (family, device) = codec.split_once('_')?;
            let good = |c: char| c.is_ascii_alphanumeric();
            if device.is_empty() || !device.chars().all(good) {
                return None;
            }
            ["h264", "hevc", "av1", "vp9"]
                .into_iter()
                .find(|known| *known == family)
        }
    }
}

fn check_codec(section: &Section<Rendition>, report: &mut Report) -> (String, Offset) {
    let Some(entry) = &section.values.codec else {
        return (defaults::CODEC.into(), section.at);
    };
    let (codec, at) = (&entry.get_ref().0.0, entry.span().start);
    if codec_family(codec).is_none() && codec != defaults::COPY {
        let what = format!("codec {codec:?} is no encoder of H.264, HEVC, AV1 or VP9");
        let mend = match table::nearest(codec, &CODECS) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!(
                "write FFmpeg's name of one: {}, or a device's like h264_nvenc",
                CODECS.join(", ")
            ),
        };
        report.error(at, what, mend);
        return (defaults::CODEC.into(), at);
    }
    (codec.clone(), at)
}

fn check_fallback(
    codec: &str,
    rate: RateControl,
    section: &Section<Rendition>,
    report: &mut Report,
) -> Option<(String, Offset)> {
    let entry = section.values.fallback.as_ref()?;
    let (fallback, at) = (&entry.get_ref().0.0, entry.span().start);
    if codec_family(fallback).is_none() {
        let what = format!("fallback {fallback:?} is no encoder of H.264, HEVC, AV1 or VP9");
        let mend = match table::nearest(fallback, &CODECS) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("write one of {}", CODECS.join(", ")),
        };
        report.error(at, what, mend);
        return None;
    }
    if fallback == codec {
        let what = format!("fallback {fallback:?} is the codec itself");
        report.error(at, what, "remove it, or name another encoder");
        return None;
    }
    if matches!(rate, RateControl::Crf(_)) && defaults::crf(fallback).is_none() {
        let what = format!("fallback {fallback:?} has no crf, as its rendition asks for");
        report.error(at, what, "give the rendition a bitrate instead");
        return None;
    }
    Some((fallback.clone(), at))
}

fn check_preset(codec: &str, section: &Section<Rendition>, report: &mut Report) -> Option<String> {
    let Some(entry) = &section.values.preset else {
        return defaults::preset(codec).map(Into::into);
    };
    let (preset, at) = (&entry.get_ref().0.0, entry.span().start);
    let wrong = format!("{codec} has no preset {preset:?}");
    match codec {
        "libx264" | "libx265" if !PRESETS.contains(&preset.as_str()) => {
            let mend = match table::nearest(preset, &PRESETS) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("write one of {}", PRESETS.join(", ")),
            };
            report.error(at, wrong, mend);
        }
        "libsvtav1" if !preset.parse().is_ok_and(|p: u8| p <= 13) => {
            report.error(at, wrong, "write \"0\" (slowest) to \"13\" (fastest)");
        }
        "libaom-av1" | "libvpx-vp9" => {
            let mend = "remove it, and write options = { cpu-used = 8 }";
            report.error(at, format!("{codec} has no presets"), mend);
        }
        _ if !preset.chars().all(|c| c.is_ascii_alphanumeric()) => {
            report.error(at, wrong, "write the encoder's own name of a preset");
        }
        _ => {}
    }
    Some(preset.clone())
}

fn check_rate(codec: &str, section: &Section<Rendition>, report: &mut Report) -> RateControl {
    let Rendition { bitrate, crf, .. } = &section.values;
    let asked = bitrate.as_ref().map(|bits| bits.get_ref().0.0);
    match (asked, crf) {
        (Some(_), Some(entry)) => {
            let mend = "keep bitrate for a fixed line, or crf for fixed quality";
            report.error(entry.span().start, "both bitrate and crf are set", mend);
        }
        (Some(bits), None) => return RateControl::Bitrate(bits),
        (None, Some(entry)) => {
            let (crf, at) = (entry.get_ref().0.0, entry.span().start);
            let most = match codec {
                "libx264" | "libx265" => 51,
                _ => 63,
            };
            if defaults::crf(codec).is_none() {
                let what = format!("{codec} has no crf");
                report.error(at, what, "give it a bitrate instead");
            } else if crf > most {
                let what = format!("crf can't be {crf} with {codec}");
                report.error(at, what, format!("write 0 (best) to {most} (worst)"));
            }
            return RateControl::Crf(u8::try_from(crf).unwrap_or(u8::MAX));
        }
        (None, None) => {
            if let Some(crf) = defaults::crf(codec) {
                return RateControl::Crf(crf);
            }
            if !section.has("bitrate") && !section.has("crf") {
                let what = format!("a rendition with {codec} has no bitrate");
                report.error(section.at, what, "add bitrate = \"2500k\", or the like");
            }
        }
    }
    RateControl::Crf(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoders_of_formats_that_can_be_packaged_are_known_by_name() {
        for (codec, family) in [
            ("libx264", Some("h264")),
            ("h264_vaapi", Some("h264")),
            ("hevc_nvenc", Some("hevc")),
            ("av1_qsv", Some("av1")),
            ("h264_", None),
            ("mjpeg", None),
            ("copy", None),
            ("-i", None),
            ("h264_a b", None),
        ] {
            assert_eq!(codec_family(codec), family, "{codec}");
        }
    }

    #[test]
    fn the_default_rendition_is_a_possible_one() {
        let source = source();
        assert_eq!(source.rate, RateControl::Crf(23));
        assert_eq!(source.preset.as_deref(), Some("veryfast"));
    }
}
