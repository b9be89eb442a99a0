//! A rendition's `options`: what goes to the encoder as it is, and what may not because Ringgear decides it.

use toml::de::{DeTable, DeValue};

use super::error::Report;
use super::table;

/// How many options a rendition has at most.
const MAX_OPTIONS: usize = 64;

/// The longest value of an option, in bytes.
const MAX_VALUE: usize = 1024;

const KEYFRAMES: &str = "keyframes stand at segment edges, which Ringgear sets";
const ORDER: &str = "live streams never reorder pictures, so Ringgear sets it";
const OUTPUT: &str = "Ringgear takes the encoder's output by itself";
const INPUT: &str = "pictures and their times come from the stream";
const PICTURE: &str = "Ringgear scales and tags the pictures";
const KEY: &str = "the rendition has a key of its own for it";
const DEVICE: &str = "the rendition's device says where its encoder is";

/// FFmpeg options that Ringgear has to own, without their stream specifier, and why.
const OWNED: &[(&[&str], &str)] = &[
    (
        &[
            "g",
            "keyint_min",
            "force_key_frames",
            "sc_threshold",
            "forced-idr",
            "forced_idr",
            "no-scenecut",
            "intra-refresh",
        ],
        KEYFRAMES,
    ),
    (
        &[
            "bf",
            "max_b_frames",
            "b-pyramid",
            "tune",
            "lag-in-frames",
            "usage",
            "auto-alt-ref",
        ],
        ORDER,
    ),
    (
        &[
            "f",
            "map",
            "write_index",
            "y",
            "n",
            "an",
            "sn",
            "dn",
            "vn",
            "flush_packets",
            "bsf",
            "movflags",
            "fs",
            "pass",
            "passlogfile",
            "shortest",
            "loglevel",
            "v",
            "report",
            "progress",
            "stats",
            "metadata",
            "tag",
            "vtag",
            "bitexact",
            "flags",
            "attach",
            "dump_attachment",
            "vstats",
            "vstats_file",
            "streamid",
            "target",
        ],
        OUTPUT,
    ),
    (
        &[
            "i",
            "r",
            "framerate",
            "fps_mode",
            "vsync",
            "re",
            "ss",
            "t",
            "to",
            "frames",
            "vframes",
            "copyts",
            "output_ts_offset",
            "enc_time_base",
            "itsoffset",
            "itsscale",
            "stream_loop",
            "fpsmax",
        ],
        INPUT,
    ),
    (
        &[
            "s",
            "pix_fmt",
            "vf",
            "filter",
            "filter_complex",
            "filter_script",
            "lavfi",
            "aspect",
            "colorspace",
            "color_primaries",
            "color_trc",
            "color_range",
        ],
        PICTURE,
    ),
    (
        &[
            "init_hw_device",
            "filter_hw_device",
            "hwaccel",
            "hwaccel_device",
            "hwaccel_output_format",
            "vaapi_device",
            "qsv_device",
            "gpu",
        ],
        DEVICE,
    ),
    (
        &[
            "c", "codec", "vcodec", "preset", "crf", "b", "maxrate", "bufsize",
        ],
        KEY,
    ),
];

/// What an encoder's own list of parameters may not set, for it is Ringgear's or has a key of its own, by the list's names; in
/// them `_` is `-`, and `no-` before a name is the same parameter.
const OWNED_WITHIN: &[(&[&str], &[&str])] = &[
    (
        &["x264-params", "x264opts"],
        &[
            "keyint",
            "min-keyint",
            "keyint-min",
            "scenecut",
            "intra-refresh",
            "bframes",
            "b-pyramid",
            "open-gop",
            "annexb",
            "stitchable",
            "fps",
            "force-cfr",
            "timebase",
            "colorprim",
            "transfer",
            "colormatrix",
            "fullrange",
            "range",
            "filler",
            "nal-hrd",
            "bitrate",
            "vbv-maxrate",
            "vbv-bufsize",
            "crf",
            "pass",
            "stats",
        ],
    ),
    (
        &["x265-params"],
        &[
            "keyint",
            "min-keyint",
            "scenecut",
            "intra-refresh",
            "bframes",
            "open-gop",
            "radl",
            "gop-lookahead",
            "repeat-headers",
            "annexb",
            "fps",
            "input",
            "input-res",
            "input-csp",
            "input-depth",
            "output",
            "output-depth",
            "colorprim",
            "transfer",
            "colormatrix",
            "range",
            "hrd",
            "strict-cbr",
            "bitrate",
            "vbv-maxrate",
            "vbv-bufsize",
            "crf",
            "pass",
            "stats",
            "csv",
            "recon",
        ],
    ),
    (
        &["aom-params"],
        &[
            "usage",
            "passes",
            "pass",
            "fpf",
            "profile",
            "bit-depth",
            "input-bit-depth",
            "width",
            "height",
            "timebase",
            "fps",
            "lag-in-frames",
            "end-usage",
            "target-bitrate",
            "buf-sz",
            "buf-initial-sz",
            "cq-level",
            "drop-frame",
            "resize-mode",
            "kf-min-dist",
            "kf-max-dist",
            "disable-kf",
            "fwd-kf-enabled",
            "sframe-dist",
            "large-scale-tile",
            "annexb",
            "color-primaries",
            "transfer-characteristics",
            "matrix-coefficients",
        ],
    ),
    (
        &["svtav1-params"],
        &[
            "keyint",
            "irefresh-type",
            "enable-force-key-frames",
            "pred-struct",
            "rc",
            "tbr",
            "mbr",
            "crf",
            "qp",
            "fps",
            "fps-num",
            "fps-denom",
            "width",
            "height",
            "input-depth",
            "color-primaries",
            "transfer-characteristics",
            "matrix-coefficients",
            "color-range",
            "pass",
            "stats",
        ],
    ),
];

/// Checks the table `options`. They come in alphabetical order: none overrides another.
pub(super) fn check(table: DeTable<'_>, report: &mut Report) -> Vec<(String, String)> {
    let mut options = Vec::new();
    for (key, value) in table {
        let (name, at) = (key.get_ref().as_ref(), key.span().start);
        if options.len() >= MAX_OPTIONS {
            let what = format!("a rendition has more than {MAX_OPTIONS} options");
            report.error(at, what, "remove some");
            break;
        }
        if !is_name(name) {
            let what = format!("{name:?} is no option of an encoder");
            report.error(at, what, "write FFmpeg's name of it, without a leading -");
            continue;
        }
        if let Some(why) = owned(name) {
            report.error(
                at,
                format!("option {name:?} can't be set: {why}"),
                "remove it",
            );
            continue;
        }
        let value_at = value.span().start;
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(_) | DeValue::Float(_) => match number(value.get_ref()) {
                Some(text) => text,
                None => {
                    report.error(
                        value_at,
                        format!("option {name:?} is no plain number"),
                        "write it in quotes",
                    );
                    continue;
                }
            },
            other => {
                let what = format!("option {name:?} can't be {}", table::kind(other));
                report.error(
                    value_at,
                    what,
                    "write text in quotes or a number; 1 and 0 for yes and no",
                );
                continue;
            }
        };
        if let Some(fault) = value_fault(name, &text) {
            report.error(value_at, fault.what, fault.mend);
            continue;
        }
        options.push((name.to_owned(), text));
    }
    options
}

/// Whether it can be the name of one of FFmpeg's options.
pub(super) fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '.');
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(good)
}

/// Why Ringgear owns option `name`, if it does.
pub(super) fn owned(name: &str) -> Option<&'static str> {
    let plain = name.split(':').next().unwrap_or(name);
    OWNED
        .iter()
        .find(|(names, _)| names.contains(&plain))
        .map(|&(_, why)| why)
}

/// What is wrong with a value, and how to mend it.
pub(super) struct Fault {
    pub(super) what: String,
    pub(super) mend: String,
}

/// What is wrong with `value` for the option `name`.
pub(super) fn value_fault(name: &str, value: &str) -> Option<Fault> {
    if value.is_empty() || value.len() > MAX_VALUE || value.chars().any(char::is_control) {
        let bytes = value.len();
        return Some(Fault {
            what: format!("option {name:?} has {bytes} bytes, or a control character"),
            mend: format!("write 1 to {MAX_VALUE} bytes of plain text"),
        });
    }
    owned_within(name, value).map(|bad| Fault {
        what: format!("option {name:?} can't set {bad}: Ringgear sets it"),
        mend: format!("remove {bad} from it"),
    })
}

/// The first parameter within an encoder's own list that Ringgear owns.
fn owned_within<'a>(name: &str, value: &'a str) -> Option<&'a str> {
    let plain = name.split(':').next().unwrap_or(name);
    let (_, owned) = OWNED_WITHIN
        .iter()
        .find(|(lists, _)| lists.contains(&plain))?;
    value
        .split(':')
        .map(|pair| pair.split('=').next().unwrap_or(pair).trim())
        .find(|key| {
            let key = key.replace('_', "-").to_lowercase();
            owned.contains(&key.strip_prefix("no-").unwrap_or(&key))
        })
}

/// A number as FFmpeg reads it: decimal.
fn number(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(|number| number.to_string()),
        DeValue::Float(number) => {
            let number: f64 = number.as_str().parse().ok()?;
            number.is_finite().then(|| number.to_string())
        }
        _ => None,
    }
}
