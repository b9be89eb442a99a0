//! Frames from a byte stream: YUV4MPEG2 (as FFmpeg and mjpegtools write it) or raw ones of a known format.

use std::io::{self, Read};

use ringgear_producer::{FormatError, FrameFormat, PixelFormat};

use crate::tick::Framerate;

const MAGIC: &[u8] = b"YUV4MPEG2";
/// The longest header line.
const MAX_HEADER: usize = 4096;
/// The longest line before a frame.
const MAX_FRAME_LINE: usize = 256;

/// Why an input can't be pushed.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    /// Nothing came.
    #[error("the input is empty: did the program before the pipe fail?")]
    Empty,
    /// The input does not begin like YUV4MPEG2.
    #[error(
        "the input is not YUV4MPEG2: write it with `ffmpeg -i INPUT -pix_fmt yuv420p -f yuv4mpegpipe -`, or give --size and --format for raw frames"
    )]
    NotY4m,
    /// The header line has a field that can't be understood.
    #[error("the YUV4MPEG2 header's field '{field}' can't be understood")]
    Field {
        /// The field.
        field: String,
    },
    /// The header says neither width nor height, or only one.
    #[error("the YUV4MPEG2 header has no size")]
    NoSize,
    /// The header line doesn't end.
    #[error("the YUV4MPEG2 header is longer than {MAX_HEADER} bytes")]
    LongHeader,
    /// Interlaced video.
    #[error("the input is interlaced (I{0}): deinterlace it first, with FFmpeg by `-vf bwdif`")]
    Interlaced(String),
    /// A colour space that no ring carries.
    #[error("the input's colour space is C{0}: convert it, with FFmpeg by `-pix_fmt yuv420p`")]
    ColourSpace(String),
    /// Full range YUV.
    #[error(
        "the input is full range, but {0} is taken as limited: convert it, with FFmpeg by `-vf scale=out_range=tv -pix_fmt {0}`"
    )]
    FullRange(PixelFormat),
    /// A size that no ring carries.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Something else than a frame where one should begin.
    #[error("frame {frame}, at byte {byte} of the input, does not begin with FRAME")]
    NoFrame {
        /// Which frame, from 0.
        frame: u64,
        /// Where it should begin.
        byte: u64,
    },
    /// The input ends within a frame.
    #[error(
        "the input ends within frame {frame}, at byte {byte}: {got} of the frame's {expected} bytes came"
    )]
    Truncated {
        /// Which frame, from 0.
        frame: u64,
        /// How long the input is.
        byte: u64,
        /// How much of the frame came.
        got: usize,
        /// How long a frame is.
        expected: usize,
    },
    /// Reading failed.
    #[error("reading the input failed at byte {byte}: {error}")]
    Read {
        /// How far reading came.
        byte: u64,
        /// The kernel's reason.
        error: io::Error,
    },
}

/// Frames, one after the other.
#[derive(Debug)]
pub(super) struct Frames<R> {
    input: Counted<R>,
    format: FrameFormat,
    framerate: Option<Framerate>,
    has_lines: bool,
    next: u64,
}

impl<R: Read> Frames<R> {
    /// Raw frames of `format`.
    pub(super) fn raw(input: R, format: FrameFormat) -> Self {
        let input = Counted { input, bytes: 0 };
        Self {
            input,
            format,
            framerate: None,
            has_lines: false,
            next: 0,
        }
    }

    /// YUV4MPEG2, whose header is read at once. `input` should be buffered.
    ///
    /// # Errors
    /// What in the header is wrong, and how to mend it.
    pub(super) fn self_describing(input: R) -> Result<Self, InputError> {
        let mut input = Counted { input, bytes: 0 };
        let mut start = [0; MAGIC.len()];
        match input.fill(&mut start)? {
            0 => return Err(InputError::Empty),
            _ if start != MAGIC => return Err(InputError::NotY4m),
            _ => {}
        }
        let line = input.line(MAX_HEADER)?.ok_or(InputError::LongHeader)?;
        let header = Header::parse(&line)?;
        Ok(Self {
            input,
            format: header.format,
            framerate: header.framerate,
            has_lines: true,
            next: 0,
        })
    }

    /// The frames' format; packed.
    pub(super) fn format(&self) -> &FrameFormat {
        &self.format
    }

    /// The framerate, if the input says one that a stream can have.
    pub(super) fn framerate(&self) -> Option<Framerate> {
        self.framerate
    }

    /// Reads the next frame into `frame`, which has to be of the format's bytes. False at the end.
    ///
    /// # Errors
    /// An input that ends or breaks within a frame.
    pub(super) fn next_into(&mut self, frame: &mut [u8]) -> Result<bool, InputError> {
        let began = self.input.bytes;
        let number = self.next;
        if self.has_lines {
            let no_frame = InputError::NoFrame {
                frame: number,
                byte: began,
            };
            let Some(line) = self.input.line(MAX_FRAME_LINE)? else {
                return Err(no_frame);
            };
            if line.is_empty() && self.input.bytes == began {
                return Ok(false);
            }
            if line != b"FRAME" && !line.starts_with(b"FRAME ") {
                return Err(no_frame);
            }
        }
        let got = self.input.fill(frame)?;
        if got == 0 && !self.has_lines {
            return Ok(false);
        }
        if got < frame.len() {
            return Err(InputError::Truncated {
                frame: number,
                byte: self.input.bytes,
                got,
                expected: frame.len(),
            });
        }
        self.next += 1;
        Ok(true)
    }
}

/// What the header line says.
struct Header {
    format: FrameFormat,
    framerate: Option<Framerate>,
}

impl Header {
    /// Parses what follows the magic word.
    fn parse(line: &[u8]) -> Result<Self, InputError> {
        let text = String::from_utf8_lossy(line);
        let (mut width, mut height, mut framerate) = (None, None, None);
        let (mut colour, mut full_range) = ("420jpeg", false);
        for field in text.split(' ').filter(|field| !field.is_empty()) {
            let wrong = || InputError::Field {
                field: field.chars().take(40).collect(),
            };
            let mut rest = field.chars();
            let tag = rest.next();
            let value = rest.as_str();
            match tag {
                Some('W') => width = Some(value.parse().map_err(|_| wrong())?),
                Some('H') => height = Some(value.parse().map_err(|_| wrong())?),
                Some('F') => {
                    let (num, den) = value.split_once(':').ok_or_else(wrong)?;
                    let num = num.parse().map_err(|_| wrong())?;
                    let den = den.parse().map_err(|_| wrong())?;
                    // 0:0 means unknown; what no stream can have is not paced by either.
                    framerate = Framerate::new(num, den).ok();
                }
                Some('I') if !matches!(value, "p" | "?") => {
                    return Err(InputError::Interlaced(value.chars().take(40).collect()));
                }
                Some('C') => colour = value,
                Some('X') if value == "COLORRANGE=FULL" => full_range = true,
                _ => {}
            }
        }
        let pixels = match colour {
            "420jpeg" | "420mpeg2" | "420paldv" | "420" => PixelFormat::Yuv420p,
            "422" => PixelFormat::Yuv422p,
            "444" => PixelFormat::Yuv444p,
            "420p10" => PixelFormat::Yuv420p10le,
            "422p10" => PixelFormat::Yuv422p10le,
            "444p10" => PixelFormat::Yuv444p10le,
            "mono" => PixelFormat::Gray,
            "mono16" => PixelFormat::Gray16le,
            other => return Err(InputError::ColourSpace(other.chars().take(40).collect())),
        };
        let is_gray = matches!(pixels, PixelFormat::Gray | PixelFormat::Gray16le);
        if full_range && !is_gray {
            return Err(InputError::FullRange(pixels));
        }
        let (Some(width), Some(height)) = (width, height) else {
            return Err(InputError::NoSize);
        };
        let format = FrameFormat::packed(pixels, width, height)?;
        Ok(Self { format, framerate })
    }
}

/// A reader that knows how far it is.
#[derive(Debug)]
struct Counted<R> {
    input: R,
    bytes: u64,
}

impl<R: Read> Counted<R> {
    /// Reads until `target` is full or the input ends; how many bytes came.
    fn fill(&mut self, target: &mut [u8]) -> Result<usize, InputError> {
        let mut filled = 0;
        while filled < target.len() {
            match self.input.read(&mut target[filled..]) {
                Ok(0) => break,
                Ok(bytes) => {
                    filled += bytes;
                    self.bytes += bytes as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let byte = self.bytes;
                    return Err(InputError::Read { byte, error });
                }
            }
        }
        Ok(filled)
    }

    /// Reads a line and drops its newline; at the input's end what there is. None if it is longer than `limit`.
    fn line(&mut self, limit: usize) -> Result<Option<Vec<u8>>, InputError> {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.fill(&mut byte)? > 0 && byte != *b"\n" {
            if line.len() == limit {
                return Ok(None);
            }
            line.push(byte[0]);
        }
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(input: &[u8]) -> String {
        match Frames::self_describing(input) {
            Err(error) => error.to_string(),
            Ok(frames) => panic!("taken as {}", frames.format()),
        }
    }

    #[test]
    fn headers_of_ffmpeg_and_others_are_read() {
        for (header, pixels, rate) in [
            (
                "YUV4MPEG2 W64 H48 F30:1 Ip A1:1 C420jpeg XYSCSS=420JPEG XCOLORRANGE=LIMITED\n",
                PixelFormat::Yuv420p,
                Some((30, 1)),
            ),
            (
                "YUV4MPEG2 W64 H48 F30000:1001 I? A0:0 C420mpeg2\n",
                PixelFormat::Yuv420p,
                Some((30000, 1001)),
            ),
            ("YUV4MPEG2 H48 W64\n", PixelFormat::Yuv420p, None),
            (
                "YUV4MPEG2 W64 H48 F0:0 Cmono XCOLORRANGE=FULL\n",
                PixelFormat::Gray,
                None,
            ),
            (
                "YUV4MPEG2 W64 H48 F25:1 Ip C422p10 XYSCSS=422P10\n",
                PixelFormat::Yuv422p10le,
                Some((25, 1)),
            ),
            (
                "YUV4MPEG2 W64 H48 F1000:1 C420paldv\n",
                PixelFormat::Yuv420p,
                None,
            ),
        ] {
            let frames = Frames::self_describing(header.as_bytes()).unwrap();
            assert_eq!(
                frames.format(),
                &FrameFormat::packed(pixels, 64, 48).unwrap()
            );
            assert_eq!(frames.framerate().map(<(u32, u32)>::from), rate, "{header}");
        }
    }

    #[test]
    fn what_can_not_be_taken_is_refused_with_the_mend() {
        assert!(refusal(b"").contains("empty"));
        assert!(refusal(b"RIFF....AVI LIST").contains("yuv4mpegpipe"));
        assert!(refusal(b"YUV4").contains("not YUV4MPEG2"));
        assert!(refusal(b"YUV4MPEG2 W64 H48 C411\n").contains("-pix_fmt yuv420p"));
        assert!(refusal(b"YUV4MPEG2 W64 H48 C420p12\n").contains("C420p12"));
        assert!(refusal(b"YUV4MPEG2 W64 H48 It\n").contains("bwdif"));
        assert!(refusal(b"YUV4MPEG2 W64 H48 C420jpeg XCOLORRANGE=FULL\n").contains("out_range"));
        assert!(refusal(b"YUV4MPEG2 W64\n").contains("no size"));
        assert!(refusal(b"YUV4MPEG2 Wide H48\n").contains("'Wide'"));
        assert!(refusal(b"YUV4MPEG2 W99999 H48\n").contains("out of range"));
        assert!(refusal(&[b"YUV4MPEG2 ".as_slice(), &[b'X'; 9000]].concat()).contains("longer"));
    }

    #[test]
    fn frames_follow_each_other_until_the_end() {
        let mut input = b"YUV4MPEG2 W4 H2 F25:1\n".to_vec();
        input.extend_from_slice(b"FRAME\nabcdefghijkl");
        input.extend_from_slice(b"FRAME Ip\nmnopqrstuvwx");
        let mut frames = Frames::self_describing(input.as_slice()).unwrap();
        let mut frame = [0; 12];
        assert!(frames.next_into(&mut frame).unwrap());
        assert_eq!(&frame, b"abcdefghijkl");
        assert!(frames.next_into(&mut frame).unwrap());
        assert_eq!(&frame, b"mnopqrstuvwx");
        assert!(!frames.next_into(&mut frame).unwrap());
    }

    #[test]
    fn a_cut_input_names_the_frame_and_the_byte() {
        let whole = b"YUV4MPEG2 W4 H2\nFRAME\nabcdefghijklFRAME\nmnop";
        let mut frames = Frames::self_describing(whole.as_slice()).unwrap();
        let mut frame = [0; 12];
        assert!(frames.next_into(&mut frame).unwrap());
        let error = frames.next_into(&mut frame).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the input ends within frame 1, at byte 44: 4 of the frame's 12 bytes came"
        );
        let mut frames = Frames::self_describing(b"YUV4MPEG2 W4 H2\nFRAMES\n".as_slice()).unwrap();
        let error = frames.next_into(&mut frame).unwrap_err();
        assert!(matches!(error, InputError::NoFrame { frame: 0, byte: 16 }));
        let format = FrameFormat::packed(PixelFormat::Gray, 4, 3).unwrap();
        let mut frames = Frames::raw(b"abcdefghijklmno".as_slice(), format);
        assert!(frames.next_into(&mut frame).unwrap());
        let error = frames.next_into(&mut frame).unwrap_err();
        assert!(matches!(
            error,
            InputError::Truncated {
                frame: 1,
                byte: 15,
                got: 3,
                ..
            }
        ));
    }
}
