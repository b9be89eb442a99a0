//! FFmpeg's command line for a source. Pure.

use std::os::fd::RawFd;

use super::heard::Found;
use crate::config::{AudioCodec, AudioRenditionPlan, SourceInput, SourcePlan};
use crate::picture::Size;
use crate::tick::{Framerate, SAMPLE_RATE};

/// Protocols whose other end keeps the pace, be it a camera or a recording that it plays.
const PACED_BY_THEMSELVES: &[&str] = &[
    "rtsp", "rtsps", "rtp", "srtp", "udp", "udplite", "srt", "rist",
];

/// Who keeps a source's pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tempo {
    /// It does: a camera, a broadcast.
    Own,
    /// Nobody, so it has to be kept for it: a file.
    Kept,
    /// That shows once it is open: what has an end has no pace.
    Unknown,
}

impl Tempo {
    pub(super) fn of(plan: &SourcePlan) -> Self {
        let by_ffmpeg = plan.input_args.iter();
        if { by_ffmpeg }.any(|word| word == "-re" || word == "-readrate") {
            return Self::Own;
        }
        match &plan.input {
            SourceInput::File(_) => Self::Kept,
            // Its pictures are drawn as fast as they are taken.
            SourceInput::Device { format, .. } if format == "lavfi" => Self::Kept,
            SourceInput::Device { .. } => Self::Own,
            SourceInput::Url { scheme, .. } if PACED_BY_THEMSELVES.contains(&scheme.as_str()) => {
                Self::Own
            }
            SourceInput::Url { .. } => Self::Unknown,
        }
    }

    /// The same once FFmpeg has looked into it.
    pub(super) fn with(self, found: Option<&Found>) -> Self {
        match (self, found.and_then(|found| found.duration)) {
            (Self::Unknown, Some(_)) => Self::Kept,
            (Self::Unknown, None) => Self::Own,
            (known, _) => known,
        }
    }
}

/// What is done to a source's pictures before they come here. What FFmpeg finds decides it, and so it is learnt by opening the source once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    /// Their matrix is not BT.709: FFmpeg converts by what they are tagged with, or takes them for BT.601.
    pub(super) converted: bool,
    /// They all get this size, whatever comes later: what a file begins with.
    pub(super) fitted: Option<Size>,
    /// They are doubled or left out, so that there are so many a second.
    pub(super) framerate: Option<Framerate>,
    /// The sound comes with them.
    pub(super) sound: bool,
}

impl Filter {
    /// FFmpeg's filters: square pixels, even sides, BT.709 limited range, 4:2:0.
    fn graph(&self) -> String {
        let mut graph = String::new();
        if let Some(framerate) = self.framerate {
            graph += &format!("fps={framerate},");
        }
        graph += "scale=w=if(eq(sar\\,1)\\,iw\\,2*round(iw*sar/2)):h=ih:flags=bicubic:out_range=tv:out_color_matrix=bt709";
        if !self.converted {
            graph += ":in_color_matrix=bt709";
        }
        graph += ",format=yuv420p,pad=w=2*ceil(iw/2):h=2*ceil(ih/2)";
        if let Some(Size { width, height }) = self.fitted {
            graph += &format!(
                ",scale={width}:{height}:force_original_aspect_ratio=decrease:force_divisible_by=2,pad={width}:{height}:(ow-iw)/2:(oh-ih)/2"
            );
        }
        graph + ",setsar=1"
    }
}

/// The command line that opens the source, once, and writes its pictures as NUT to the inherited descriptor `pipe`, and to `sound`, if that is there,
/// its sound with the same times.
pub(super) fn line(
    plan: &SourcePlan,
    filter: &Filter,
    pipe: RawFd,
    sound: Option<RawFd>,
) -> Vec<String> {
    let mut line = opening(plan, true);
    let mut add = |words: &[&str]| line.extend(words.iter().map(|&word| word.to_owned()));
    // V leaves out the covers of records.
    add(&["-map", "0:V:0", "-vf", &filter.graph()]);
    // Each picture once, at its own time: the time base has to be finer than the framerate's for that.
    add(&["-fps_mode", "passthrough", "-enc_time_base", "1:90000"]);
    add(&["-c:v", "rawvideo", "-pix_fmt", "yuv420p"]);
    add(&["-write_index", "0", "-f", "nut", &format!("pipe:{pipe}")]);
    if let Some(sound) = sound {
        add(&["-map", "0:a:0", "-ac", "2", "-ar", "48000"]);
        add(&["-c:a", "pcm_f32le", "-flush_packets", "1"]);
        add(&["-write_index", "0", "-f", "nut", &format!("pipe:{sound}")]);
    }
    line
}

/// By so many seconds all times of a copied source are later: what its first picture needs, or its first sound, has none below 0.
pub(super) const LATER: u64 = 10;

/// The command line that opens the source and writes its samples as they are to the inherited descriptor `pipe`: each in a fragment of its own,
/// as soon as it is known how long it lasts. Its sound goes to a descriptor for each of `sounds`, copied or encoded. All times have one zero.
pub(super) fn copying<'a>(
    plan: &SourcePlan,
    pipe: RawFd,
    sounds: impl Iterator<Item = (&'a AudioRenditionPlan, RawFd)>,
) -> Vec<String> {
    let mut line = opening(plan, false);
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let mut add = |words: Vec<String>| line.extend(words);
    add(words(&["-map", "0:V:0", "-c:v", "copy"]));
    add(words(&["-video_track_timescale", "90000"]));
    add(as_samples("", pipe));
    for (sound, pipe) in sounds {
        add(words(&["-map", "0:a:0"]));
        add(sound.arguments());
        if sound.codec != AudioCodec::Copy {
            // Holes become silence, and what is a little off is stretched, by a hundredth at most.
            let resampled = format!("aresample={SAMPLE_RATE}:async=1:max_soft_comp=0.01");
            add(words(&["-ac", "2", "-af", &resampled]));
        } else if !plan.repeat {
            // In MP4 a frame has no header of its own. Where a file begins again, FFmpeg 5.1 gives this filter an end, and nothing after it.
            add(words(&["-bsf:a", "aac_adtstoasc"]));
        }
        // A frame of sound may have to tell first what it is.
        add(as_samples("+delay_moov", pipe));
    }
    line
}

/// An output's end: MP4 whose fragments are samples, with the times that they have.
fn as_samples(more: &str, pipe: RawFd) -> Vec<String> {
    let flags = format!("frag_every_frame+empty_moov+default_base_moof+frag_discont{more}");
    let words = [
        "-map_metadata -1 -write_btrt 0 -use_editlist 0 -avoid_negative_ts disabled",
        &format!("-output_ts_offset {LATER} -movflags {flags}"),
        &format!("-flush_packets 1 -f mp4 pipe:{pipe}"),
    ];
    let words = words.iter().flat_map(|words| words.split(' '));
    words.map(str::to_owned).collect()
}

/// What a command line begins with, up to the input; `decodes` if its pictures are wanted.
fn opening(plan: &SourcePlan, decodes: bool) -> Vec<String> {
    let mut line = Vec::new();
    let mut add = |words: &[&str]| line.extend(words.iter().map(|&word| word.to_owned()));
    // Verbose, because it is said there when pictures change their size.
    add(&[
        "-hide_banner",
        "-nostats",
        "-nostdin",
        "-loglevel",
        "level+verbose",
    ]);
    let has = |option: &str| plan.input_args.iter().any(|word| word == option);
    if decodes && Tempo::of(plan) == Tempo::Own && !has("-threads") && !has("-thread_type") {
        // A decoder with a thread for each picture holds as many of them back.
        add(&["-thread_type", "slice"]);
    }
    match &plan.input {
        SourceInput::Url { scheme, .. } if scheme == "rtsp" || scheme == "rtsps" => {
            if !has("-rtsp_transport") && !has("-rtsp_flags") {
                add(&["-rtsp_transport", "tcp"]);
            }
            if !has("-timeout") && !has("-rtsp_flags") {
                add(&["-timeout", &plan.timeout.as_micros().to_string()]);
            }
        }
        SourceInput::Device { format, .. } if !has("-f") => add(&["-f", format]),
        _ => {}
    }
    if plan.repeat && !matches!(plan.input, SourceInput::Device { .. }) {
        add(&["-stream_loop", "-1"]);
    }
    line.extend(plan.input_args.iter().cloned());
    line.push("-i".to_owned());
    line.push(match &plan.input {
        // So that no name is taken for a protocol or an option.
        SourceInput::File(path) => format!("file:{}", path.display()),
        SourceInput::Device { name, .. } => name.clone(),
        SourceInput::Url { url, .. } => url.clone(),
    });
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text(input: SourceInput, arguments: &[&str], repeat: bool) -> String {
        let plan = SourcePlan {
            input,
            input_args: arguments.iter().map(|&word| word.to_owned()).collect(),
            repeat,
            timeout: Duration::from_secs(7),
        };
        line(&plan, &Filter::default(), 9, None).join(" ")
    }

    fn url(url: &str) -> SourceInput {
        SourceInput::Url {
            scheme: url.split(':').next().unwrap().to_owned(),
            url: url.to_owned(),
        }
    }

    #[test]
    fn a_v4l2_device_is_opened_as_one_with_the_users_arguments() {
        let device = || SourceInput::Device {
            format: "v4l2".to_owned(),
            name: "/dev/video0".to_owned(),
        };
        let arguments = ["-input_format", "mjpeg", "-video_size", "1280x720"];
        let short = text(device(), &arguments, false);
        assert!(
            short.contains(
                "-thread_type slice -f v4l2 -input_format mjpeg -video_size 1280x720 -i /dev/video0 -map 0:V:0 "
            ),
            "{short}"
        );
        let arguments = ["-f", "v4l2", "-framerate", "30", "-threads", "4"];
        let long = text(device(), &arguments, true);
        assert!(
            long.contains("level+verbose -f v4l2 -framerate 30 -threads 4 -i /dev/video0 "),
            "{long}"
        );
        assert!(long.ends_with("-f nut pipe:9"), "{long}");
    }

    #[test]
    fn a_camera_is_asked_over_tcp_with_a_limit_unless_the_user_says_otherwise() {
        let plain = text(url("rtsp://cam/1"), &[], false);
        assert!(
            plain.contains("-rtsp_transport tcp -timeout 7000000 -i rtsp://cam/1 "),
            "{plain}"
        );
        let udp = text(
            url("rtsp://cam/1"),
            &["-rtsp_transport", "udp", "-timeout", "1"],
            false,
        );
        assert!(
            udp.contains("slice -rtsp_transport udp -timeout 1 -i"),
            "{udp}"
        );
    }

    #[test]
    fn a_file_is_named_so_that_nothing_else_can_be_meant() {
        let file = text(SourceInput::File("-x y:1.mp4".into()), &[], true);
        assert!(
            file.contains("-stream_loop -1 -i file:-x y:1.mp4 ") && !file.contains("slice"),
            "{file}"
        );
    }

    #[test]
    fn the_filter_says_what_was_learnt() {
        let plain = Filter::default().graph();
        assert!(
            plain.contains(":in_color_matrix=bt709,") && !plain.contains("fps="),
            "{plain}"
        );
        let learnt = Filter {
            converted: true,
            fitted: Some(Size::new(64, 36)),
            framerate: Some(Framerate::new(30_000, 1001).unwrap()),
            sound: true,
        };
        let learnt = learnt.graph();
        assert!(learnt.starts_with("fps=30000/1001,scale="), "{learnt}");
        assert!(!learnt.contains("in_color_matrix"), "{learnt}");
        assert!(learnt.contains(",pad=64:36:"), "{learnt}");
    }

    #[test]
    fn sound_has_a_pipe_of_its_own_behind_the_pictures() {
        let plan = SourcePlan {
            input: SourceInput::File("a.mp4".into()),
            input_args: Vec::new(),
            repeat: false,
            timeout: Duration::from_secs(7),
        };
        let line = line(&plan, &Filter::default(), 9, Some(11)).join(" ");
        let (pictures, sound) = line.split_once(" pipe:9 ").unwrap();
        assert!(pictures.contains("-map 0:V:0 ") && !pictures.contains("0:a"));
        assert!(
            sound.starts_with("-map 0:a:0 ") && sound.ends_with("-f nut pipe:11"),
            "{sound}"
        );
    }

    #[test]
    fn each_track_of_sound_is_copied_or_encoded_beside_copied_pictures() {
        let plan = SourcePlan {
            input: SourceInput::File("a.mp4".into()),
            input_args: Vec::new(),
            repeat: false,
            timeout: Duration::from_secs(7),
        };
        let sound = |codec| AudioRenditionPlan {
            name: "audio".to_owned(),
            codec,
            bitrate: 96_000,
        };
        let sounds = [sound(AudioCodec::Copy), sound(AudioCodec::Opus)];
        let line = copying(&plan, 9, sounds.iter().zip([11, 13])).join(" ");
        let outputs: Vec<&str> = line.split(" -map 0:").collect();
        assert!(outputs[1].starts_with("V:0 -c:v copy ") && outputs[1].ends_with(" pipe:9"));
        assert!(outputs[2].starts_with("a:0 -c:a copy -bsf:a aac_adtstoasc -map_metadata"));
        assert!(outputs[2].ends_with("+delay_moov -flush_packets 1 -f mp4 pipe:11"));
        assert!(outputs[3].starts_with("a:0 -c:a libopus -b:a 96000 "));
        assert!(
            outputs[3].contains(" -ac 2 -af aresample=48000:async=1:max_soft_comp=0.01 "),
            "{line}"
        );
        let shifted = outputs
            .iter()
            .filter(|one| one.contains(" -output_ts_offset 10 "));
        assert_eq!(shifted.count(), 3);
        let looped = SourcePlan {
            repeat: true,
            ..plan
        };
        let line = copying(&looped, 9, sounds.iter().zip([11, 13])).join(" ");
        assert!(!line.contains("-bsf:a"), "{line}");
    }

    #[test]
    fn who_keeps_the_pace_follows_from_what_it_is() {
        let tempo = |input, arguments: &[&str]| {
            Tempo::of(&SourcePlan {
                input,
                input_args: arguments.iter().map(|&word| word.to_owned()).collect(),
                repeat: false,
                timeout: Duration::from_secs(7),
            })
        };
        let device = |format: &str| SourceInput::Device {
            format: format.to_owned(),
            name: String::new(),
        };
        assert_eq!(tempo(SourceInput::File("a".into()), &[]), Tempo::Kept);
        assert_eq!(tempo(SourceInput::File("a".into()), &["-re"]), Tempo::Own);
        assert_eq!(tempo(device("lavfi"), &[]), Tempo::Kept);
        assert_eq!(tempo(device("v4l2"), &[]), Tempo::Own);
        assert_eq!(tempo(url("rtsp://cam/1"), &[]), Tempo::Own);
        let http = tempo(url("http://cam/1"), &[]);
        let found = |seconds: Option<u64>| Found {
            duration: seconds.map(Duration::from_secs),
            ..Found::default()
        };
        assert_eq!(http.with(Some(&found(Some(9)))), Tempo::Kept);
        assert_eq!(http.with(Some(&found(None))), Tempo::Own);
        assert_eq!(http.with(None), Tempo::Own);
    }
}
