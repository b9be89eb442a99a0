//! What each encoder is told beside size and pixel format: the rules of live streams, its rate, and its own list of further
//! parameters. Pure. Encoders in hardware are told what FFmpeg's documentation asks for; `docs/design/encoders.md` says what of it is tried.

use super::EncodeRendition;
use crate::config::{Hardware, RateControl};

/// An encoder's own options.
pub(super) struct CodecOptions {
    /// Options and their values in turn.
    pub(super) words: Vec<String>,
    /// The option that takes a list of the encoder's own parameters, and ours in it: the user's join them.
    pub(super) joined: Option<(&'static str, &'static str)>,
}

impl CodecOptions {
    fn add<const N: usize>(&mut self, words: [&str; N]) {
        self.words.extend(words.map(str::to_owned));
    }

    fn pair(&mut self, option: &str, value: impl ToString) {
        self.words.extend([option.to_owned(), value.to_string()]);
    }
}

/// The options of a live stream's encoder: pictures come back in their order and at once, keyframes stand where they are asked for and
/// nowhere else, and headers are in the sample entry alone.
pub(super) fn live(rendition: &EncodeRendition) -> CodecOptions {
    let mut options = CodecOptions {
        words: Vec::new(),
        joined: None,
    };
    match Hardware::of(&rendition.codec) {
        Some(kind) => hardware(kind, rendition, &mut options),
        None => software(rendition, &mut options),
    }
    match rendition.codec.as_str() {
        "libvpx-vp9" | "libaom-av1" => {
            options.pair("-cpu-used", rendition.preset.as_deref().unwrap_or("8"));
        }
        _ => {
            if let Some(preset) = &rendition.preset {
                options.pair("-preset", preset);
            }
        }
    }
    rate(rendition, &mut options);
    options
}

fn software(rendition: &EncodeRendition, options: &mut CodecOptions) {
    match rendition.codec.as_str() {
        "libx264" => {
            options.add(["-tune", "zerolatency", "-bf", "0", "-sc_threshold", "0"]);
            options.add(["-forced-idr", "1", "-flags", "+cgop"]);
        }
        "libx265" => {
            options.add(["-tune", "zerolatency", "-bf", "0", "-forced-idr", "1"]);
            options.joined = Some((
                "x265-params",
                "log-level=warning:open-gop=0:scenecut=0:repeat-headers=0:lookahead-slices=0",
            ));
        }
        // This encoder takes forced keyframes only in its random-access structure with constant quality; its temporal units
        // come in presentation order all the same. Short groups and no lookahead keep its delay at a few pictures.
        "libsvtav1" => {
            options.joined = Some((
                "svtav1-params",
                "enable-force-key-frames=1:lookahead=0:hierarchical-levels=2:scd=0",
            ));
        }
        "libvpx-vp9" => {
            options.add(["-deadline", "realtime", "-lag-in-frames", "0"]);
            options.add(["-auto-alt-ref", "0", "-row-mt", "1"]);
        }
        "libaom-av1" => options.add(["-usage", "realtime", "-lag-in-frames", "0", "-row-mt", "1"]),
        _ => options.add(["-bf", "0"]),
    }
}

fn hardware(kind: Hardware, rendition: &EncodeRendition, options: &mut CodecOptions) {
    options.add(["-bf", "0"]);
    match kind {
        Hardware::Nvenc => {
            options.add(["-tune", "ull", "-zerolatency", "1", "-delay", "0"]);
            options.add(["-rc-lookahead", "0", "-forced-idr", "1"]);
            options.add(["-no-scenecut", "1", "-rc", "cbr"]);
            if let Some(gpu) = &rendition.device {
                options.pair("-gpu", gpu);
            }
        }
        // Every keyframe is an IDR picture there.
        Hardware::Vaapi => options.add(["-idr_interval", "0", "-async_depth", "1"]),
        Hardware::Qsv => options.add(["-forced_idr", "1", "-async_depth", "1"]),
        Hardware::V4l2m2m => {}
    }
}

/// A bitrate's share that the encoder is given, in percent. The rest is what a full decoder buffer adds over ten seconds, so that these never
/// hold more than was asked for.
const RATE_PERCENT: u64 = 95;

fn rate(rendition: &EncodeRendition, options: &mut CodecOptions) {
    match (rendition.rate, rendition.codec.as_str()) {
        // Quality capped by the bitrate: see above.
        (RateControl::Bitrate(bits), "libsvtav1") => {
            options.add(["-crf", "30"]);
            options.pair("-maxrate", bits / 100 * RATE_PERCENT);
            options.pair("-bufsize", bits / 2);
        }
        (RateControl::Bitrate(bits), codec) => {
            let rate = bits / 100 * RATE_PERCENT;
            options.pair("-b:v", rate);
            options.pair("-maxrate", rate);
            options.pair("-bufsize", bits / 2);
            if codec == "libvpx-vp9" {
                // Three equal rates are its constant bitrate mode.
                options.pair("-minrate", rate);
            }
        }
        (RateControl::Crf(crf), codec) => {
            options.pair("-crf", crf);
            if codec == "libvpx-vp9" || codec == "libaom-av1" {
                options.add(["-b:v", "0"]);
            }
        }
    }
}
