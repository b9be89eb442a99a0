//! FFmpeg's command line, from the plan. Pure.

use std::os::fd::RawFd;

use super::codec::{self, CodecOptions};
use super::graph::{graph, uploads};
use super::{EncodePlan, EncodeRendition, EncoderStart, hardware};
use crate::config::Hardware;
use crate::picture::PictureFormat;

/// The command line of a running encoder, whose rendition i writes NUT to the inherited descriptor `pipes[i]`.
pub(super) fn live(plan: &EncodePlan, start: &EncoderStart, pipes: &[RawFd]) -> Vec<String> {
    let mut line = Line::default();
    line.input(plan);
    let picks: Vec<_> = (0..plan.renditions.len())
        .map(|index| start.picks(plan, index))
        .collect();
    line.pair("-filter_complex", graph(plan, &plan.renditions, &picks));
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
    let alone = graph(plan, std::slice::from_ref(rendition), &[]);
    line.pair("-filter_complex", alone);
    line.encoder(plan, rendition, 0);
    line.pair("-force_key_frames", "expr:eq(n,0)");
    if Hardware::of(&rendition.codec) == Some(Hardware::V4l2m2m) {
        // It tells its headers in its packets alone.
        line.add(["-bsf:v", "extract_extradata"]);
    }
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
        ]);
        let uploads = plan.renditions.iter().find(|rendition| uploads(rendition));
        if let Some(rendition) = uploads
            && let Some(kind) = Hardware::of(&rendition.codec)
        {
            let device = rendition.device.as_deref();
            self.0.extend(hardware::device_options(kind, device));
        }
        self.add(["-f", "rawvideo"]);
        self.pair("-pix_fmt", plan.input_format.pix_fmt());
        self.pair("-s", plan.input_size);
        self.pair("-framerate", plan.grid.framerate);
        // Without it some rates (120000/1001) are guessed wrong.
        self.pair("-r", plan.grid.framerate);
        self.add(["-i", "pipe:0"]);
    }

    fn encoder(&mut self, plan: &EncodePlan, rendition: &EncodeRendition, index: usize) {
        self.pair("-map", format!("[o{index}]"));
        match plan.rate_of(rendition) {
            rate if rate == plan.grid.framerate => self.add(["-fps_mode", "passthrough"]),
            // The filters number its pictures at this very rate, so none is doubled or dropped; the encoder has to be told of it.
            rate => {
                self.add(["-fps_mode", "cfr"]);
                self.pair("-r", rate);
            }
        }
        self.pair("-c:v", &rendition.codec);
        if !uploads(rendition) {
            self.pair("-pix_fmt", pixel_format(plan.input_format, rendition));
        }
        self.add(["-colorspace", "bt709", "-color_primaries", "bt709"]);
        self.add(["-color_trc", "bt709", "-color_range", "tv"]);
        // Keyframes are forced at segment edges; the encoder's own interval is kept out of the way.
        self.pair("-g", 2 * u64::from(plan.grid.ticks_per_segment.get()));
        let CodecOptions { words, joined } = codec::options(rendition, plan.at_once);
        self.0.extend(words);
        let mut joined = joined.map(|(name, value)| (name, value.to_owned()));
        for (name, value) in &rendition.options {
            match &mut joined {
                // A list of the encoder's own options is one argument, so the user's join ours.
                Some((own, list)) if name.split(':').next() == Some(own) => {
                    *list = format!("{list}:{value}");
                }
                _ => self.pair(&per_stream(name), value),
            }
        }
        if let Some((name, value)) = joined {
            self.pair(&per_stream(name), value);
        }
        self.0.extend(rendition.output_args.iter().cloned());
    }

    fn keyframes(&mut self, plan: &EncodePlan, start: &EncoderStart, index: usize) {
        let resumed = start.keyframes_at.get(index).copied().flatten();
        let cadence = start.track_cadence(plan, index);
        self.pair(
            "-force_key_frames",
            format!("expr:{}", cadence.keyframes(resumed)),
        );
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

/// libx264 and encoders in hardware take NV12 as it is; every other encoder gets planes.
fn pixel_format(input: PictureFormat, rendition: &EncodeRendition) -> &'static str {
    let codec = rendition.codec.as_str();
    let takes_both = codec == "libx264" || Hardware::of(codec).is_some();
    match rendition.filter {
        None if takes_both => input.pix_fmt(),
        _ => PictureFormat::I420.pix_fmt(),
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroUsize};
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::config::RateControl;
    use crate::encode::find_ffmpeg;
    use crate::picture::Size;
    use crate::tick::{Framerate, Grid, Tick};

    fn plan(sizes: &[Size]) -> EncodePlan {
        let rendition = |&size: &Size| EncodeRendition {
            name: "a".into(),
            size,
            codec: "libx264".into(),
            preset: Some("veryfast".into()),
            rate: RateControl::Bitrate(1_000_000),
            options: Vec::new(),
            every: NonZeroU32::MIN,
            device: None,
            filter: None,
            output_args: Vec::new(),
        };
        EncodePlan {
            ffmpeg: find_ffmpeg(Path::new("ffmpeg")).unwrap(),
            input_format: PictureFormat::I420,
            input_size: Size::new(1280, 720),
            at_once: NonZeroU32::MIN,
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

    #[test]
    fn a_rendition_of_fewer_pictures_picks_them_and_is_encoded_at_its_own_rate() {
        let mut plan = plan(&[Size::new(1280, 720), Size::new(640, 360)]);
        plan.renditions[1].every = NonZeroU32::new(2).unwrap();
        let text = text(&plan);
        assert!(
            text.contains(";[i1]select='gte(n,4)*not(mod(mod(mod(n-4+11,60),10),2))+eq(n,0)+eq(n,1)+eq(n,3)',setpts=N*2,scale=640:360:"),
            "{text}"
        );
        assert!(
            text.contains("-map [o0] -fps_mode passthrough")
                && text.contains("-map [o1] -fps_mode cfr -r 30/2"),
            "{text}"
        );
    }

    #[test]
    fn filters_and_further_arguments_of_the_user_have_their_places() {
        let mut plan = plan(&[Size::new(640, 360)]);
        plan.renditions[0].filter = Some("hflip".into());
        plan.renditions[0].output_args = ["-level", "5.1"].map(String::from).to_vec();
        let text = text(&plan);
        assert!(
            text.contains("[i0]hflip,scale=640:360:force_original_aspect_ratio=decrease:"),
            "{text}"
        );
        assert!(
            text.contains("-bufsize 500000 -level 5.1 -force_key_frames"),
            "{text}"
        );
    }

    #[test]
    fn pictures_go_to_the_device_that_encodes_them() {
        let mut plan = plan(&[Size::new(1280, 720), Size::new(640, 360)]);
        for rendition in &mut plan.renditions {
            rendition.codec = "h264_vaapi".into();
            rendition.device = Some("/dev/dri/renderD129".into());
        }
        let text = text(&plan);
        assert!(
            text.contains(
                "-init_hw_device vaapi=hw:/dev/dri/renderD129 -filter_hw_device hw -f rawvideo"
            ),
            "{text}"
        );
        assert!(text.contains("[i0]null,format=nv12,hwupload[o0]"), "{text}");
        assert!(
            text.contains(",setsar=1,format=nv12,hwupload[o1]"),
            "{text}"
        );
        assert!(!text.contains("-c:v h264_vaapi -pix_fmt"), "{text}");
        let words = probe(&plan, &plan.renditions[0]).join(" ");
        assert!(words.contains("-init_hw_device vaapi=hw:/dev/dri/renderD129"));
        plan.renditions.truncate(1);
        plan.renditions[0].codec = "h264_v4l2m2m".into();
        let words = probe(&plan, &plan.renditions[0]).join(" ");
        assert!(!words.contains("hw_device") && words.contains("-bsf:v extract_extradata"));
    }
}
