//! What each encoder is told beside size and pixel format: the rules of live streams, its rate, and its own list of further
//! parameters. Pure. Encoders in hardware are told what FFmpeg's documentation asks for; `docs/design/encoders.md` says what of it is tried.

use std::num::NonZeroU32;

use super::EncodeRendition;
use crate::config::{Hardware, RateControl};

/// libx264 counts each picture that it works on as larger than it will be: with more of them it stays a tenth below its bitrate, and further.
const MOST_AT_A_BITRATE: NonZeroU32 = NonZeroU32::new(4).unwrap();

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

/// The options of an encoder: pictures come back in their order and as soon as working on `at_once` of them allows, keyframes stand where they are asked
/// for and nowhere else, and headers are in the sample entry alone.
pub(super) fn options(rendition: &EncodeRendition, at_once: NonZeroU32) -> CodecOptions {
    let mut options = CodecOptions {
        words: Vec::new(),
        joined: None,
    };
    match Hardware::of(&rendition.codec) {
        Some(kind) => hardware(kind, rendition, &mut options),
        None => software(rendition, at_once, &mut options),
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

fn software(rendition: &EncodeRendition, at_once: NonZeroU32, options: &mut CodecOptions) {
    match rendition.codec.as_str() {
        "libx264" => {
            options.add(["-tune", "zerolatency", "-bf", "0", "-sc_threshold", "0"]);
            options.add(["-forced-idr", "1", "-flags", "+cgop"]);
            let at_once = match rendition.rate {
                RateControl::Bitrate(_) => at_once.min(MOST_AT_A_BITRATE),
                RateControl::Crf(_) => at_once,
            };
            // Those between its own pictures are kept as well.
            let at_once = at_once.get() / rendition.every;
            let at_once = NonZeroU32::new(at_once).unwrap_or(NonZeroU32::MIN);
            if at_once > NonZeroU32::MIN {
                // Each picture in a thread of its own, not in slices that wait for each other.
                options.add(["-thread_type", "frame"]);
                options.pair("-threads", at_once);
            }
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

/// How an encoder is held to a bitrate.
struct Bound {
    /// The bitrate's share that it is given, in percent. The rest is what a full decoder buffer adds over ten seconds, so that these never
    /// hold more than was asked for, and by how much it is known to go beyond.
    rate: u64,
    /// The decoder's buffer, in milliseconds of the bitrate.
    buffer: u64,
}

impl Bound {
    /// As measured on noise, on changes between grey and noise, and on moving pictures: `docs/design/encoders.md`.
    fn of(codec: &str) -> Self {
        let (rate, buffer) = match codec {
            "libsvtav1" => (70, 500),
            "libaom-av1" => (95, 250),
            "libvpx-vp9" => (97, 500),
            _ => (95, 500),
        };
        Self { rate, buffer }
    }
}

fn rate(rendition: &EncodeRendition, options: &mut CodecOptions) {
    match (rendition.rate, rendition.codec.as_str()) {
        (RateControl::Bitrate(bits), codec) => {
            let bound = Bound::of(codec);
            let rate = bits / 100 * bound.rate;
            match codec {
                // Quality capped by the bitrate: with forced keyframes this encoder takes nothing else.
                "libsvtav1" => options.add(["-crf", "30"]),
                _ => options.pair("-b:v", rate),
            }
            options.pair("-maxrate", rate);
            options.pair("-bufsize", bits * bound.buffer / 1000);
            match codec {
                // Three equal rates are its constant bitrate mode.
                "libvpx-vp9" => {
                    options.pair("-minrate", rate);
                    options.add(["-overshoot-pct", "0", "-undershoot-pct", "100"]);
                    options.add(["-max-intra-rate", "300"]);
                }
                // A decoder's buffer that is all but empty at the start keeps the first pictures small: else it would take a second until
                // it knows noise for what it is.
                "libaom-av1" => {
                    options.pair("-rc_init_occupancy", (bits / 200).max(1));
                    options.joined = Some(("aom-params", "max-intra-rate=300"));
                    // From a still scene at its finest step, too.
                    options.add(["-qmin", "16"]);
                }
                _ => {}
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::encode::find_ffmpeg;
    use crate::picture::Size;

    fn rendition(codec: &str) -> EncodeRendition {
        EncodeRendition {
            name: "a".into(),
            size: Size::new(640, 360),
            every: NonZeroU32::MIN,
            codec: codec.into(),
            device: None,
            preset: None,
            rate: RateControl::Bitrate(1_000_000),
            options: Vec::new(),
            filter: None,
            output_args: Vec::new(),
        }
    }

    #[test]
    fn the_nvidia_gpu_is_chosen_by_its_number() {
        let mut rendition = rendition("h264_nvenc");
        assert!(
            !options(&rendition, NonZeroU32::MIN)
                .words
                .contains(&"-gpu".to_owned())
        );
        rendition.device = Some("1".into());
        assert!(
            options(&rendition, NonZeroU32::MIN)
                .words
                .join(" ")
                .contains("-gpu 1 ")
        );
    }

    /// Without the hardware: FFmpeg tells what an encoder takes all the same.
    #[test]
    fn encoders_in_hardware_know_the_options_that_they_are_given() {
        let ffmpeg = find_ffmpeg(Path::new("ffmpeg")).unwrap();
        let mut tried = 0;
        for codec in [
            "h264_nvenc",
            "hevc_nvenc",
            "h264_vaapi",
            "hevc_vaapi",
            "vp9_vaapi",
            "h264_qsv",
            "hevc_qsv",
            "vp9_qsv",
            "h264_v4l2m2m",
        ] {
            if ffmpeg.require_encoder(codec).is_err() {
                continue;
            }
            tried += 1;
            let told = Command::new("ffmpeg")
                .args(["-hide_banner", "-h", &format!("encoder={codec}")])
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&told.stdout).into_owned();
            for word in options(&rendition(codec), NonZeroU32::MIN).words.chunks(2) {
                // Every encoder has these.
                if ["-bf", "-b:v", "-maxrate", "-bufsize"].contains(&word[0].as_str()) {
                    continue;
                }
                let known = told
                    .lines()
                    .any(|line| line.split_whitespace().next() == Some(&word[0]));
                assert!(known, "{codec} has no {}", word[0]);
            }
        }
        println!("{tried} encoders tried");
    }
}
