//! What FFmpeg says while it opens a source and reads it: what it has found, and its last complaints. Pure. It is FFmpeg's text for
//! people, so whatever is not understood is left out, and nothing depends on it being there.

use std::time::Duration;

use crate::encode::process::LastLines;
use crate::picture::Size;

/// What FFmpeg has found in a source.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Found {
    /// The container or protocol: `rtsp`, `matroska,webm`.
    pub(crate) container: String,
    /// The pictures' codec: `h264`.
    pub(crate) codec: String,
    /// How they are stored: `yuv420p`.
    pub(crate) pixels: String,
    /// The matrix that they are tagged with; none where they are not.
    pub(crate) matrix: Option<String>,
    /// Their size.
    pub(crate) size: Option<Size>,
    /// How many there are a second, to two digits, as far as FFmpeg can tell.
    pub(crate) framerate: Option<f64>,
    /// How long it is; none for what has no end.
    pub(crate) duration: Option<Duration>,
    /// The codec of its sound; none for what has none.
    pub(crate) sound: Option<String>,
    /// By how many degrees its pictures are to be turned, if they are: FFmpeg does so where it decodes them.
    pub(crate) turned: Option<i32>,
}

impl Found {
    /// Whether its pictures are BT.709 as they are. Without a word about it, large ones are, as players take it; JPEGs never are.
    pub(super) fn is_bt709(&self) -> bool {
        const FOUR_THREE: Size = Size::new(1024, 576);
        match self.matrix.as_deref() {
            // Pictures of red, green and blue have no matrix, and none is taken from them.
            Some("bt709" | "gbr") => true,
            Some(_) => false,
            None if self.pixels.starts_with("yuvj") => false,
            None if !self.pixels.starts_with(['y', 'n', 'p', 'u']) => true,
            None => self.size.is_none_or(|size| {
                size.width > FOUR_THREE.width || size.height > FOUR_THREE.height
            }),
        }
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.container, self.codec)?;
        if let Some(size) = self.size {
            write!(f, " {size}")?;
        }
        write!(f, " {}", self.pixels)?;
        if let Some(framerate) = self.framerate {
            write!(f, " at {framerate} fps")?;
        }
        if let Some(duration) = self.duration {
            write!(f, ", {:.1} s long", duration.as_secs_f64())?;
        }
        if let Some(sound) = &self.sound {
            write!(f, ", with {sound} sound")?;
        }
        if let Some(degrees) = self.turned {
            write!(f, ", turned by {degrees} degrees")?;
        }
        Ok(())
    }
}

/// What was heard of one FFmpeg.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Once it has told of its pictures.
    pub(super) found: Option<Found>,
    /// It has told all that it tells before the first picture.
    pub(super) opened: bool,
    /// The source's pictures have become of another size.
    pub(super) resized: bool,
    /// Its warnings and errors.
    pub(super) complaints: LastLines,
    container: String,
    duration: Option<Duration>,
    sound: Option<String>,
    /// The size of what comes out of the decoder.
    decoded: Option<(u32, u32)>,
}

impl Heard {
    /// Takes the next line of what FFmpeg says at the level `level+verbose`.
    pub(super) fn hear(&mut self, line: String) {
        let fact = ["[info] ", "[verbose] ", "[debug] "]
            .into_iter()
            .find(|level| line.contains(level));
        let Some(level) = fact else {
            self.complaints.push(line);
            return;
        };
        let text = line.replacen(level, "", 1);
        let text = text.trim_start();
        if let Some(input) = text.strip_prefix("Input #0, ") {
            let container = input.split(", from").next().unwrap_or(input);
            container.clone_into(&mut self.container);
        } else if let Some(rest) = text.strip_prefix("Duration: ") {
            self.duration = self.duration.or_else(|| duration(rest));
        } else if text.starts_with("Output #0, ") {
            self.opened = true;
        } else if let Some((before, video)) = text.split_once(": Video: ") {
            let ours = before.starts_with("Stream #0:") && !video.contains("(attached pic)");
            if ours && !self.opened && self.found.is_none() {
                self.found = Some(Found {
                    container: self.container.clone(),
                    duration: self.duration,
                    sound: self.sound.clone(),
                    ..pictures(video)
                });
            }
        } else if let Some(rest) = text.strip_prefix("displaymatrix: rotation of ") {
            let degrees = first_word(rest).parse::<f64>().unwrap_or(0.0);
            #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
            let degrees = degrees.round() as i32;
            if let Some(found) = self.found.as_mut().filter(|_| !self.opened) {
                found.turned = found.turned.or(Some(degrees).filter(|turned| *turned != 0));
            }
        } else if let Some((before, audio)) = text.split_once(": Audio: ") {
            if before.starts_with("Stream #0:") && !self.opened && self.sound.is_none() {
                self.sound = Some(first_word(audio));
                if let Some(found) = &mut self.found {
                    found.sound.clone_from(&self.sound);
                }
            }
        } else if let Some((graph, configured)) = text.split_once(" input from stream 0:")
            && graph.starts_with("[graph ")
        {
            self.note_size(configured);
        }
    }

    /// The filters were made ready for pictures of a size: at the start, and whenever it changes.
    fn note_size(&mut self, configured: &str) {
        let side = |name: &str| {
            let value = configured.split_once(name)?.1;
            value.split(' ').next()?.parse().ok()
        };
        if let Some(size) = side(" w:").zip(side(" h:")) {
            let before = self.decoded.replace(size);
            self.resized |= before.is_some_and(|before| before != size);
        }
    }
}

/// `h264 (High), 1 reference frame, yuv420p(tv, bt709, progressive), 1280x720 [SAR 1:1 DAR 16:9], 25 fps, 25 tbr, 90k tbn`
fn pictures(text: &str) -> Found {
    let fields = fields(text);
    let stored = fields
        .iter()
        .skip(1)
        .find(|field| !field.contains("reference frame"));
    let stored = stored.copied().unwrap_or_default();
    let inner = stored.split_once('(').map_or("", |(_, inner)| inner);
    // One name for matrix, primaries and transfer if they are alike, else all three.
    let matrix = inner
        .trim_end_matches(')')
        .split(", ")
        .filter_map(|tag| tag.split('/').next())
        .find(|tag| MATRICES.contains(tag));
    let size = fields
        .iter()
        .find_map(|field| field.split(' ').next()?.parse::<Size>().ok());
    let rate = |unit| {
        let mut found = fields.iter();
        found.find_map(|field| field.strip_suffix(unit)?.parse().ok())
    };
    let framerate = rate(" fps").or_else(|| rate(" tbr"));
    Found {
        codec: fields.first().copied().map(first_word).unwrap_or_default(),
        pixels: first_word(stored),
        matrix: matrix.map(str::to_owned),
        size,
        framerate,
        ..Found::default()
    }
}

/// What stands before the first space, bracket or comma.
fn first_word(text: &str) -> String {
    let end = text.find([' ', '(', ',']).unwrap_or(text.len());
    text[..end].to_owned()
}

/// FFmpeg's names of matrices.
const MATRICES: &[&str] = &[
    "gbr",
    "bt709",
    "fcc",
    "bt470bg",
    "smpte170m",
    "smpte240m",
    "ycgco",
    "bt2020nc",
    "bt2020c",
    "smpte2085",
    "chroma-derived-nc",
    "chroma-derived-c",
    "ictcp",
];

/// What stands between commas that are in no brackets.
fn fields(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut fields) = (0_u32, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                fields.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    fields.push(text[start..].trim());
    fields
}

/// `00:01:30.05, start: 0.000000`; none for `N/A`.
fn duration(text: &str) -> Option<Duration> {
    let clock = text.split(',').next()?;
    let seconds = clock.split(':').try_fold(0.0, |sum, part| {
        Some(sum * 60.0 + part.parse::<f64>().ok()?)
    })?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> Heard {
        let mut heard = Heard::default();
        for line in lines {
            heard.hear((*line).to_owned());
        }
        heard
    }

    #[test]
    fn a_camera_is_known_by_what_ffmpeg_says_of_it() {
        let heard = heard(&[
            "[info] Input #0, rtsp, from '***':",
            "[info]   Duration: N/A, start: 0.040000, bitrate: N/A",
            "[info]   Stream #0:0: Audio: aac (LC), 48000 Hz, stereo, fltp",
            "[info]   Stream #0:1: Video: h264 (High), 4 reference frames, yuv420p(tv, bt709/unknown/bt709, progressive, left), 1280x720 [SAR 1:1 DAR 16:9], 29.97 fps, 30 tbr, 90k tbn",
            "[info]   Stream #0:2: Video: mjpeg, yuvj420p(pc), 64x64, 1 fps",
            "[h264] [warning] something",
            "[info] Output #0, nut, to 'pipe:9':",
            "[info]   Stream #0:0: Video: rawvideo (I420 / 0x30323449), yuv420p, 1280x720, 29.97 fps",
        ]);
        let found = heard.found.unwrap();
        assert_eq!(
            found.to_string(),
            "rtsp h264 1280x720 yuv420p at 29.97 fps, with aac sound"
        );
        assert_eq!(found.matrix.as_deref(), Some("bt709"));
        assert!(heard.opened && !heard.resized);
        assert_eq!(heard.complaints.to_vec(), ["[h264] [warning] something"]);
    }

    #[test]
    fn a_phones_film_is_turned() {
        let heard = heard(&[
            "[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'film.mp4':",
            "[info]   Stream #0:0(und): Video: h264 (avc1 / 0x31637661), yuv420p, 320x180, 25 fps, 25 tbr, 12800 tbn (default)",
            "[info]     Side data:",
            "[info]       displaymatrix: rotation of -90.00 degrees",
        ]);
        let found = heard.found.unwrap();
        assert_eq!(found.turned, Some(-90));
        let said = found.to_string();
        assert!(said.ends_with(", turned by -90 degrees"), "{said}");
    }

    #[test]
    fn what_lavfi_draws_has_a_rate_too() {
        let heard = heard(&[
            "[info] Input #0, lavfi, from 'testsrc2':",
            "[info]   Stream #0:0: Video: rawvideo, 1 reference frame (I420 / 0x30323449), yuv420p, 320x180 [SAR 1:1 DAR 16:9], 25 tbr, 25 tbn",
        ]);
        let said = heard.found.unwrap().to_string();
        assert_eq!(said, "lavfi rawvideo 320x180 yuv420p at 25 fps");
    }

    #[test]
    fn a_file_has_a_length_and_its_cover_is_not_its_video() {
        let heard = heard(&[
            "[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'file:a.mp4':",
            "[info]   Duration: 00:01:30.05, start: 0.000000, bitrate: 205 kb/s",
            "[info]   Stream #0:1[0x0]: Video: png, rgba(pc), 600x600, 90k tbr (attached pic)",
            "[info]   Stream #0:0[0x1](und): Video: hevc (Main 10) (hvc1 / 0x31637668), yuv420p10le(tv, bt2020nc/bt2020/smpte2084), 3840x2160, 205 kb/s, 25 fps",
            "[info]   Stream #0:2[0x2](und): Audio: aac (LC), 48000 Hz, stereo, fltp, 128 kb/s (default)",
        ]);
        let found = heard.found.unwrap();
        assert_eq!(
            (found.codec.as_str(), found.pixels.as_str()),
            ("hevc", "yuv420p10le")
        );
        assert_eq!(found.matrix.as_deref(), Some("bt2020nc"));
        assert_eq!(
            found.sound.as_deref(),
            Some("aac"),
            "though it is told of after the pictures"
        );
        assert_eq!(found.duration, Some(Duration::from_millis(90_050)));
    }

    #[test]
    fn pictures_that_become_of_another_size_are_noticed() {
        let configured = |size: &str| {
            format!(
                "[graph 0 input from stream 0:0] [verbose] {size} pixfmt:yuv420p tb:1/25 fr:25/1 sar:1/1"
            )
        };
        let (small, large) = (configured("w:64 h:36"), configured("w:128 h:72"));
        assert!(!heard(&[&small, &small]).resized);
        assert!(heard(&[&small, &large]).resized);
    }

    #[test]
    fn untagged_pictures_are_taken_as_players_take_them() {
        let is_bt709 = |stored: &str, size: &str| {
            let text = format!("x, {stored}, {size}, 25 fps");
            pictures(&text).is_bt709()
        };
        assert!(is_bt709("yuv420p", "1280x720"));
        assert!(is_bt709("yuv420p(tv, bt709)", "320x180"));
        assert!(is_bt709("rgb24(pc, gbr/unknown/unknown)", "320x180"));
        assert!(is_bt709("bgr0", "320x180") && is_bt709("gray", "320x180"));
        assert!(!is_bt709("yuv420p(progressive)", "720x576"));
        assert!(!is_bt709("yuvj422p(pc)", "1920x1080"));
        assert!(!is_bt709("yuv420p(tv, smpte170m)", "1920x1080"));
    }

    #[test]
    fn whatever_is_said_is_survived() {
        for line in [
            "[info] Input #0",
            "[info] Input #0, ",
            "[info]   Duration: ",
            "[info]   Duration: 1e400:99:x,",
            "[info]   Stream #0:0: Video: ",
            "[info]   Stream #0:0: Video: ((((,[,",
            "[graph 0 input from stream 0:0] [verbose] w: h:",
            "[info] ",
        ] {
            heard(&[line]);
        }
    }
}
