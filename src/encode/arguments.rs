//! FFmpeg's command line, from the plan. Pure.

use std::os::fd::RawFd;

use super::{EncodePlan, EncodeRendition, EncoderStart};
use crate::config::RateControl;
use crate::picture::{PictureFormat, Size};

/// The command line of a running encoder, whose rendition i writes NUT to the inherited descriptor `pipes[i]`.
pub(super) fn live(plan: &EncodePlan, start: &EncoderStart, pipes: &[RawFd]) -> Vec<String> {
    let mut line = Line::default();
    line.input(plan);
    line.graph(plan, &plan.renditions);
    for (index, (rendition, pipe)) in plan.renditions.iter().zip(pipes).enumerate() {
        line.encoder(plan, rendition, index);
        line.keyframes(plan, start, index);
        // An index would be kept in memory for ever.
        line.add(["-write_index", "0", "-f", "nut"]);
        line.0.push(format!("pipe:{pipe}"));
    }
    line.0
}

/// The command line that encodes what comes on stdin as `rendition` to fragmented MP4 on stdout.
pub(super) fn probe(plan: &EncodePlan, rendition: &EncodeRendition) -> Vec<String> {
    let mut line = Line::default();
    line.input(plan);
    line.graph(plan, std::slice::from_ref(rendition));
    line.encoder(plan, rendition, 0);
    line.pair("-force_key_frames", "expr:eq(n,0)");
    if is_hevc(&rendition.codec) {
        // Parameter sets out of band; NUT refuses the tag, so it stands only here.
        line.add(["-tag:v", "hvc1"]);
    }
    // The moov box waits for the first packets: some encoders have no headers before. No btrt box: its figures would be
    // those of the probe.
    line.add([
        "-movflags",
        "+frag_keyframe+empty_moov+delay_moov+default_base_moof",
    ]);
    line.add([
        "-write_btrt",
        "0",
        "-fflags",
        "+bitexact",
        "-f",
        "mp4",
        "pipe:1",
    ]);
    line.0
}

fn is_hevc(codec: &str) -> bool {
    codec == "libx265" || codec.starts_with("hevc")
}

/// A bitrate's share that the encoder is given. The rest is what a full decoder buffer of half a second adds over ten
/// seconds, so that these never hold more than was asked for.
const RATE_PERCENT: u64 = 95;

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn add<const N: usize>(&mut self, words: [&str; N]) {
        self.0.extend(words.map(str::to_owned));
    }

    fn pair(&mut self, option: &str, value: impl ToString) {
        self.0.push(option.to_owned());
        self.0.push(value.to_string());
    }

    fn input(&mut self, plan: &EncodePlan) {
        self.add([
            "-hide_banner",
            "-nostats",
            "-nostdin",
            "-loglevel",
            "level+warning",
            "-f",
            "rawvideo",
        ]);
        self.pair("-pix_fmt", plan.input_format.pix_fmt());
        self.pair("-s", plan.input_size);
        self.pair("-framerate", plan.grid.framerate);
        // Without it some rates (120000/1001) are guessed wrong.
        self.pair("-r", plan.grid.framerate);
        self.add(["-i", "pipe:0"]);
    }

    fn graph(&mut self, plan: &EncodePlan, renditions: &[EncodeRendition]) {
        let mut graph = String::from(
            "[0:v]setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709,setsar=1",
        );
        if renditions.len() > 1 {
            graph += &format!(",split={}", renditions.len());
        }
        for index in 0..renditions.len() {
            graph += &format!("[i{index}]");
        }
        for (index, rendition) in renditions.iter().enumerate() {
            graph += &format!(
                ";[i{index}]{}[o{index}]",
                scaling(plan.input_size, rendition.size)
            );
        }
        self.pair("-filter_complex", graph);
    }

    fn encoder(&mut self, plan: &EncodePlan, rendition: &EncodeRendition, index: usize) {
        self.pair("-map", format!("[o{index}]"));
        self.add(["-fps_mode", "passthrough"]);
        self.pair("-c:v", &rendition.codec);
        self.pair(
            "-pix_fmt",
            pixel_format(plan.input_format, &rendition.codec),
        );
        self.add(["-colorspace", "bt709", "-color_primaries", "bt709"]);
        self.add(["-color_trc", "bt709", "-color_range", "tv"]);
        // Keyframes are forced at segment edges; the encoder's own interval is kept out of the way.
        self.pair("-g", 2 * u64::from(plan.grid.ticks_per_segment.get()));
        let (own, joined) = codec_options(rendition);
        self.0.extend(own);
        let mut joined = joined.map(|(name, value)| (name, value.to_owned()));
        for (name, value) in &rendition.options {
            match &mut joined {
                // A list of the encoder's own options is one argument, so the user's join ours.
                Some((own, list)) if name == own => *list = format!("{list}:{value}"),
                _ => self.pair(&per_stream(name), value),
            }
        }
        if let Some((name, value)) = joined {
            self.pair(&per_stream(name), value);
        }
    }

    fn keyframes(&mut self, plan: &EncodePlan, start: &EncoderStart, index: usize) {
        let resumed = start.keyframes_at.get(index).copied().flatten();
        let expression = format!("expr:{}", start.cadence(plan.grid).keyframes(resumed));
        self.pair("-force_key_frames", expression);
    }
}

/// `-name:v`, unless the name says for itself which streams it is for.
fn per_stream(name: &str) -> String {
    if name.contains(':') {
        format!("-{name}")
    } else {
        format!("-{name}:v")
    }
}

/// libx264 takes NV12 as it is; every other encoder gets planes.
fn pixel_format(input: PictureFormat, codec: &str) -> &'static str {
    match codec {
        "libx264" => input.pix_fmt(),
        _ => PictureFormat::I420.pix_fmt(),
    }
}

/// What makes pictures of size `from` such of size `to`: scaled with their aspect kept, centred on black.
fn scaling(from: Size, to: Size) -> String {
    if from == to {
        return "null".into();
    }
    let fitted = fitted(from, to);
    // Matrix and range are named so that nothing is converted.
    let mut filter = format!(
        "scale={}:{}:flags=bicubic:in_color_matrix=bt709:out_color_matrix=bt709:in_range=tv:out_range=tv",
        fitted.width, fitted.height
    );
    if fitted != to {
        let even_half = |outer: u32, inner: u32| (outer - inner) / 4 * 2;
        filter += &format!(
            ",pad={}:{}:{}:{}",
            to.width,
            to.height,
            even_half(to.width, fitted.width),
            even_half(to.height, fitted.height)
        );
    }
    filter + ",setsar=1"
}

/// The largest even size of `from`'s aspect inside `to`.
fn fitted(from: Size, to: Size) -> Size {
    let side = |outer: u32, across: u32, along: u32, bound: u32| {
        let (n, d) = (
            u64::from(outer) * u64::from(across),
            u64::from(along).max(1),
        );
        let even = (n + d) / (2 * d) * 2;
        u32::try_from(even).unwrap_or(bound).clamp(2, bound)
    };
    let wider = u64::from(from.width) * u64::from(to.height)
        >= u64::from(to.width) * u64::from(from.height);
    if wider {
        Size::new(to.width, side(to.width, from.height, from.width, to.height))
    } else {
        Size::new(
            side(to.height, from.width, from.height, to.width),
            to.height,
        )
    }
}

/// An encoder's own options for live use, and its list of further ones.
type CodecOptions = (Vec<String>, Option<(&'static str, &'static str)>);

fn codec_options(rendition: &EncodeRendition) -> CodecOptions {
    let mut line = Line::default();
    let mut joined = None;
    let preset = rendition.preset.as_deref();
    match rendition.codec.as_str() {
        "libx264" => {
            line.add(["-tune", "zerolatency", "-bf", "0", "-sc_threshold", "0"]);
            line.add(["-forced-idr", "1", "-flags", "+cgop"]);
        }
        "libx265" => {
            line.add(["-tune", "zerolatency", "-bf", "0", "-forced-idr", "1"]);
            joined = Some((
                "x265-params",
                "log-level=warning:open-gop=0:scenecut=0:repeat-headers=0:lookahead-slices=0",
            ));
        }
        // This encoder takes forced keyframes only in its random-access structure with constant quality; its temporal units
        // come in presentation order all the same. Short groups and no lookahead keep its delay at a few pictures.
        "libsvtav1" => {
            joined = Some((
                "svtav1-params",
                "enable-force-key-frames=1:lookahead=0:hierarchical-levels=2:scd=0",
            ));
        }
        "libvpx-vp9" => {
            line.add(["-deadline", "realtime", "-lag-in-frames", "0"]);
            line.add(["-auto-alt-ref", "0", "-row-mt", "1"]);
        }
        "libaom-av1" => line.add(["-usage", "realtime", "-lag-in-frames", "0", "-row-mt", "1"]),
        _ => line.add(["-bf", "0"]),
    }
    match rendition.codec.as_str() {
        "libvpx-vp9" | "libaom-av1" => line.pair("-cpu-used", preset.unwrap_or("8")),
        _ => {
            if let Some(preset) = preset {
                line.pair("-preset", preset);
            }
        }
    }
    rate(rendition, &mut line);
    (line.0, joined)
}

fn rate(rendition: &EncodeRendition, line: &mut Line) {
    match (rendition.rate, rendition.codec.as_str()) {
        // Quality capped by the bitrate: see above.
        (RateControl::Bitrate(bits), "libsvtav1") => {
            line.add(["-crf", "30"]);
            line.pair("-maxrate", bits / 100 * RATE_PERCENT);
            line.pair("-bufsize", bits / 2);
        }
        (RateControl::Bitrate(bits), codec) => {
            let rate = bits / 100 * RATE_PERCENT;
            line.pair("-b:v", rate);
            line.pair("-maxrate", rate);
            line.pair("-bufsize", bits / 2);
            if codec == "libvpx-vp9" {
                // Three equal rates are its constant bitrate mode.
                line.pair("-minrate", rate);
            }
        }
        (RateControl::Crf(crf), codec) => {
            line.pair("-crf", crf);
            if codec == "libvpx-vp9" || codec == "libaom-av1" {
                line.add(["-b:v", "0"]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroUsize};
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::encode::find_ffmpeg;
    use crate::tick::{Framerate, Grid, Tick};
    use proptest::prelude::*;

    fn plan(sizes: &[Size]) -> EncodePlan {
        let rendition = |&size: &Size| EncodeRendition {
            name: "a".into(),
            size,
            codec: "libx264".into(),
            preset: Some("veryfast".into()),
            rate: RateControl::Bitrate(1_000_000),
            options: Vec::new(),
        };
        EncodePlan {
            ffmpeg: find_ffmpeg(Path::new("ffmpeg")).unwrap(),
            input_format: PictureFormat::I420,
            input_size: Size::new(1280, 720),
            grid: Grid::new(
                Framerate::new(30, 1).unwrap(),
                Duration::from_secs(2),
                Duration::from_millis(333),
            ),
            renditions: sizes.iter().map(rendition).collect(),
        }
    }

    fn text(plan: &EncodePlan) -> String {
        let start = EncoderStart {
            first_tick: Tick(67),
            keyframes_at: vec![Some(Tick(70)); plan.renditions.len()],
            step: NonZeroU32::MIN,
            queue: NonZeroUsize::MIN,
            large_pipe: true,
        };
        let pipes: Vec<RawFd> = (10..).take(plan.renditions.len()).collect();
        live(plan, &start, &pipes).join(" ")
    }

    #[test]
    fn one_rendition_of_the_source_size_is_not_scaled() {
        let text = text(&plan(&[Size::new(1280, 720)]));
        assert!(
            !text.contains("scale=") && !text.contains("split"),
            "{text}"
        );
        assert!(text.contains("-framerate 30 -r 30 -i pipe:0"), "{text}");
        assert!(text.ends_with("-write_index 0 -f nut pipe:10"), "{text}");
        assert!(
            text.contains("-b:v 950000 -maxrate 950000 -bufsize 500000"),
            "{text}"
        );
    }

    #[test]
    fn keyframes_are_forced_at_segment_edges_and_where_samples_are_resumed() {
        let text = text(&plan(&[Size::new(1280, 720)]));
        assert!(
            text.contains("expr:gte(n,53)*eq(mod(n-53,60),0)+eq(n,3) "),
            "{text}"
        );
    }

    #[test]
    fn a_ladder_is_split_and_each_size_scaled() {
        let text = text(&plan(&[Size::new(1280, 720), Size::new(640, 480)]));
        assert!(
            text.contains(",split=2[i0][i1];[i0]null[o0];[i1]scale=640:360:"),
            "{text}"
        );
        assert!(text.contains(",pad=640:480:0:60,setsar=1[o1]"), "{text}");
        assert!(
            text.contains("pipe:10 -map [o1]") && text.ends_with("pipe:11"),
            "{text}"
        );
    }

    #[test]
    fn the_users_options_come_last_and_join_lists() {
        let mut plan = plan(&[Size::new(1280, 720)]);
        plan.renditions[0].options = vec![("profile".into(), "baseline".into())];
        assert!(text(&plan).contains("-profile:v baseline -force_key_frames"));
        plan.renditions[0].codec = "libx265".into();
        plan.renditions[0].options = vec![("x265-params".into(), "aq-mode=1".into())];
        assert!(text(&plan).contains("lookahead-slices=0:aq-mode=1 "));
    }

    #[test]
    fn hevc_is_tagged_for_mp4_alone() {
        let mut plan = plan(&[Size::new(1280, 720)]);
        plan.renditions[0].codec = "libx265".into();
        assert!(!text(&plan).contains("hvc1"));
        assert!(probe(&plan, &plan.renditions[0]).contains(&"hvc1".to_owned()));
    }

    proptest! {
        #[test]
        fn a_fitted_size_is_even_and_inside(w in 1..4000_u32, h in 1..4000_u32, x in 1..2000_u32, y in 1..2000_u32) {
            let to = Size::new(2 * x, 2 * y);
            let fitted = fitted(Size::new(2 * w, 2 * h), to);
            prop_assert!(fitted.is_even() && fitted.width >= 2 && fitted.height >= 2);
            prop_assert!(fitted.width <= to.width && fitted.height <= to.height);
            prop_assert!(fitted.width == to.width || fitted.height == to.height);
        }
    }
}
