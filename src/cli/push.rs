//! `ringgear push`: a producer for anything that writes frames to a pipe, YUV4MPEG2 or raw, or samples of sound.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use ringgear_producer::{FrameFormat, PixelFormat, SampleFormat};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::feed::{self, Pacer, Stop};
use super::y4m::{self, InputError};
use super::{CliError, parse_format, push_audio};
use crate::clock::{Clock, SystemClock};
use crate::picture::Size;
use crate::tick::Framerate;

/// How long a silent input is waited for between two looks at the signals. The session is looked at with the next frame.
const LOOK_UP: Duration = Duration::from_millis(200);

/// Feeds a stream with the frames on standard input: YUV4MPEG2, which says what it is, or raw frames of --size and --format. With --audio, feeds its
/// sound with samples.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PushArgs {
    /// The stream to feed.
    pub stream: String,
    /// The size of raw frames.
    #[arg(long, value_name = "WxH", requires = "format")]
    pub size: Option<Size>,
    /// The pixel format of raw frames, whose rows have no padding, or the format of sound (s16le, f32le), by FFmpeg's name.
    #[arg(long, value_name = "FMT", value_parser = parse_either)]
    pub format: Option<InputFormat>,
    /// Feed the stream's sound: samples one after the other, and in each a value for every channel; s16le by default.
    #[arg(long, conflicts_with_all = ["size", "framerate"])]
    pub audio: bool,
    /// Samples a second of the sound.
    #[arg(long, value_name = "R", requires = "audio", default_value_t = 48_000)]
    pub rate: u32,
    /// How many channels the sound has.
    #[arg(long, value_name = "N", requires = "audio", default_value_t = 2)]
    pub channels: u32,
    /// Frames per second to pace by; by default what the input says, else the stream's.
    #[arg(long, value_name = "R", conflicts_with = "unpaced")]
    pub framerate: Option<Framerate>,
    /// Take frames, or samples, as fast as they come, for inputs that are live themselves.
    #[arg(long)]
    pub unpaced: bool,
    /// End the session of another producer that holds the stream.
    #[arg(long)]
    pub take_over: bool,
}

/// What one frame or one sample is.
#[derive(Clone, Copy, Debug)]
pub(super) enum InputFormat {
    Pixels(PixelFormat),
    Samples(SampleFormat),
}

fn parse_either(name: &str) -> Result<InputFormat, String> {
    if let Some(samples) = SampleFormat::from_name(name) {
        return Ok(InputFormat::Samples(samples));
    }
    let pixels =
        parse_format(name).map_err(|error| format!("{error}; or, with --audio, s16le or f32le"));
    pixels.map(InputFormat::Pixels)
}

/// Runs the subcommand until the input ends or a signal asks for the end.
///
/// # Errors
/// Input that is not what it should be, and whatever keeps the session from beginning or going on.
pub(super) fn run(args: PushArgs, socket: &Path) -> Result<(), CliError> {
    let stop = Stop::on_signals()?;
    let input = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| CliError::Failed(format!("can't use standard input: {error}")))?;
    let input = Stoppable {
        file: File::from(input),
        stop: stop.clone(),
    };
    let is_file = rustix::fs::fstat(&input.file).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
    });
    let input = BufReader::with_capacity(64 * 1024, input);
    match args.audio {
        true => push_sound(&args, is_file, socket, input, &stop),
        false => push(args, socket, input, &stop),
    }
}

/// Pushes the samples that come from `input`.
pub(super) fn push_sound(
    args: &PushArgs,
    is_file: bool,
    socket: &Path,
    input: impl Read,
    stop: &Stop,
) -> Result<(), CliError> {
    let samples = match args.format {
        None => SampleFormat::S16le,
        Some(InputFormat::Samples(samples)) => samples,
        Some(InputFormat::Pixels(pixels)) => {
            let message = format!(
                "{pixels} is a format of frames: with --audio, say --format s16le or f32le"
            );
            return Err(CliError::Usage(message));
        }
    };
    let given = push_audio::AudioInput {
        samples,
        rate: args.rate,
        channels: args.channels,
        is_file,
        unpaced: args.unpaced,
    };
    push_audio::push((&args.stream, args.take_over), given, socket, input, stop)
}

/// Pushes the frames that come from `input`.
pub(super) fn push(
    args: PushArgs,
    socket: &Path,
    input: impl Read,
    stop: &Stop,
) -> Result<(), CliError> {
    let failed = |error: InputError| CliError::Failed(error.to_string());
    let mut frames = match (args.size, args.format) {
        (_, Some(InputFormat::Samples(samples))) => {
            let message = format!("{samples} is a format of sound: say --audio");
            return Err(CliError::Usage(message));
        }
        (None, Some(InputFormat::Pixels(_))) => {
            let message = "--format is for raw frames: say --size too".to_owned();
            return Err(CliError::Usage(message));
        }
        (Some(size), Some(InputFormat::Pixels(format))) => {
            let format = FrameFormat::packed(format, size.width, size.height)
                .map_err(|error| CliError::Usage(error.to_string()))?;
            y4m::Frames::raw(input, format)
        }
        (_, None) => match y4m::Frames::self_describing(input) {
            Err(_) if stop.is_set() => return Ok(()),
            frames => frames.map_err(failed)?,
        },
    };
    let format = frames.format().clone();
    let mut spare = vec![0; format.bytes()];
    let mut producer = feed::open(
        socket,
        &args.stream,
        format,
        args.take_over,
        "ringgear-push",
    )?;
    let framerate = match args.framerate.or(frames.framerate()) {
        Some(framerate) => framerate,
        None => feed::stream_framerate(&producer)?,
    };
    let mut pacer: Option<Pacer> = None;
    let result = loop {
        // While the daemon is away frames are read all the same: a camera behind the pipe must not feel it.
        let more = match producer.begin()? {
            Some(mut frame) => match frames.next_into(frame.bytes_mut()) {
                Ok(true) if !stop.is_set() => {
                    if !args.unpaced {
                        pacer_of(&mut pacer, framerate).wait();
                    }
                    frame.commit(None);
                    Ok(true)
                }
                other => other,
            },
            None => {
                let more = frames.next_into(&mut spare);
                if !args.unpaced && matches!(more, Ok(true)) {
                    pacer_of(&mut pacer, framerate).wait();
                }
                more
            }
        };
        match more {
            _ if stop.is_set() => break Ok(()),
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(failed(error)),
        }
    };
    feed::close(producer);
    result
}

/// The pacer, whose first deadline is when the first frame is there.
fn pacer_of(pacer: &mut Option<Pacer>, framerate: Framerate) -> &mut Pacer {
    pacer.get_or_insert_with(|| Pacer::new(framerate, SystemClock.monotonic()))
}

/// A file whose reading ends, as if the input did, when a signal asks for it.
struct Stoppable {
    file: File,
    stop: Stop,
}

impl Stoppable {
    fn is_readable(fd: BorrowedFd<'_>) -> io::Result<bool> {
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(LOOK_UP.subsec_nanos()),
        };
        match poll(
            &mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)],
            Some(&timeout),
        ) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Read for Stoppable {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stop.is_set() {
                return Ok(0);
            }
            if Self::is_readable(self.file.as_fd())? {
                return self.file.read(target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_silent_input_ends_when_a_signal_asks_for_it() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&ours).write_all(b"abc").unwrap();
        let stop = Stop::default();
        let mut input = Stoppable {
            file: File::from(OwnedFd::from(theirs)),
            stop: stop.clone(),
        };
        let mut bytes = [0; 8];
        assert_eq!(input.read(&mut bytes).unwrap(), 3);
        let reading = std::thread::spawn(move || input.read(&mut bytes).unwrap());
        stop.set();
        assert_eq!(reading.join().unwrap(), 0);
        drop(ours);
    }
}
