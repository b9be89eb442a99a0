//! Sound in, audio frames out: one FFmpeg encodes all audio renditions of a stream. It is given samples from a known one on, and each frame that
//! it returns is known by its place on the grid, so that another process can go on where one has died.

use std::io::{PipeReader, Read, Write};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::{Child, ChildStdin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::Pid;

use super::nut::{self, NutEvent};
use super::probe::{self, ProbeCache};
use super::process::{self, LastLines, Left, Output, Reaped};
use super::{EncodeError, FfmpegInfo, Vitals, description};
use crate::config::{AudioCodec, AudioRenditionPlan};
use crate::picture::Size;
use crate::sample::{AudioFormat, TrackDescription};
use crate::threads;
use crate::tick::{Framerate, SAMPLE_RATE, Tick};

/// Every audio track is stereo.
pub const CHANNELS: u16 = 2;
/// How much sound an encoder is tried with: a few frames of silence.
const TRIAL: usize = 16 * 1024;
const TRIAL_DEADLINE: Duration = Duration::from_secs(10);
/// The most bytes of one audio frame.
const MAX_PACKET: usize = 64 << 10;
/// How many blocks of sound may wait for the encoder's pipe.
const BLOCKS: usize = 64;
/// Packets are moved by so many seconds, for NUT has no times before 0, which priming has.
const OFFSET_SECONDS: u64 = 1;

/// What one block of sound is made of: left and right in single precision.
pub type Pcm = [f32; 2];

/// What an audio encoder says. Frames of one track come in order.
#[derive(Debug)]
pub enum AudioEvent {
    /// A track's next frame.
    Frame {
        /// Its place among the audio renditions.
        track: usize,
        /// Its place in time.
        frame: Tick,
        /// Its bytes.
        data: Bytes,
    },
    /// A track's output can't be used: kill the process.
    Failed(EncodeError),
    /// The process has ended; always the last event. How, with its last words.
    Exited(String),
}

/// One running FFmpeg. Dropping it kills the process.
#[derive(Debug)]
pub struct AudioEncoder {
    blocks: Option<SyncSender<Vec<u8>>>,
    shared: Arc<Shared>,
    pid: u32,
}

#[derive(Debug)]
struct Shared {
    /// The process group while it can be killed: none once the process is about to be reaped, since its number may then become another's.
    group: Mutex<Option<Pid>>,
    /// Set once nobody waits for its end any more; it counts until its threads are gone.
    left: Mutex<Option<Left>>,
    /// Bytes that its pipe has taken. A statistic: nothing else is read by it.
    taken: AtomicU64,
}

impl AudioRenditionPlan {
    /// What its track has beside its codec.
    pub fn format(&self) -> AudioFormat {
        let samples = match self.codec {
            AudioCodec::Aac | AudioCodec::Copy => 1024,
            AudioCodec::Opus => 960,
        };
        AudioFormat {
            channels: CHANNELS,
            frame: NonZeroU32::new(samples).expect("no frame is empty"),
            copied_rate: None,
        }
    }

    /// FFmpeg's arguments that say so.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut line = vec!["-c:a".to_owned(), self.codec.encoder().to_owned()];
        if self.codec == AudioCodec::Copy {
            return line;
        }
        line.extend(["-b:a".to_owned(), self.bitrate.to_string()]);
        if self.codec == AudioCodec::Opus {
            line.extend(["-frame_duration", "20"].map(str::to_owned));
        }
        line
    }
}

/// A frame of silence: of AAC a pair of channels without a spectrum (ISO/IEC 14496-3, 4.4.2.1), of Opus 20 ms of stereo (RFC 6716, 3.1); none of
/// what is copied.
pub fn silent_frame(codec: AudioCodec) -> Option<&'static [u8]> {
    match codec {
        AudioCodec::Aac => Some(&[0x21, 0x10, 0x04, 0x60, 0x8C, 0x1C]),
        AudioCodec::Opus => Some(&[0xFC, 0xFF, 0xFE]),
        AudioCodec::Copy => None,
    }
}

fn input() -> Vec<String> {
    // Else it reads a second of sound before it believes what it is told.
    let words = "-hide_banner -nostats -nostdin -loglevel level+warning -probesize 32 -analyzeduration 0 \
                 -f f32le -ar 48000 -ac 2 -i pipe:0";
    words.split_ascii_whitespace().map(str::to_owned).collect()
}

fn trial(plan: &AudioRenditionPlan) -> Vec<String> {
    let mut line = input();
    line.extend(plan.arguments());
    let words = "-movflags +frag_keyframe+empty_moov+delay_moov+default_base_moof -write_btrt 0 -fflags +bitexact -f mp4 pipe:1";
    line.extend(words.split(' ').map(str::to_owned));
    line
}

fn live(plans: &[AudioRenditionPlan], skips: &[u32], pipes: &[RawFd]) -> Vec<String> {
    let mut line = input();
    for ((plan, skip), pipe) in plans.iter().zip(skips).zip(pipes) {
        line.extend(["-map", "0:a"].map(str::to_owned));
        if *skip > 0 {
            let filter = format!("atrim=start_sample={skip},asetpts=PTS-STARTPTS");
            line.extend(["-af".to_owned(), filter]);
        }
        line.extend(plan.arguments());
        // An index would be kept in memory for ever.
        line.extend(["-write_index", "0", "-flush_packets", "1"].map(str::to_owned));
        line.extend(["-output_ts_offset".to_owned(), OFFSET_SECONDS.to_string()]);
        line.extend(["-f".to_owned(), "nut".to_owned(), format!("pipe:{pipe}")]);
    }
    line
}

/// Tries the encoder of each rendition. Blocks; what is in `cache` already takes no time.
///
/// # Errors
/// The first rendition's whose encoder is missing, refuses its options or yields nothing that can be published.
pub fn probe_audio(
    ffmpeg: &FfmpegInfo,
    plans: &[AudioRenditionPlan],
    cache: &ProbeCache,
) -> Result<Vec<TrackDescription>, EncodeError> {
    let described = plans.iter().map(|plan| {
        ffmpeg.require_encoder(plan.codec.encoder())?;
        let line = trial(plan);
        cache.get_or(ffmpeg, &line, || describe(ffmpeg, plan, &line))
    });
    described.collect()
}

fn describe(
    ffmpeg: &FfmpegInfo,
    plan: &AudioRenditionPlan,
    line: &[String],
) -> Result<TrackDescription, EncodeError> {
    let (rendition, codec) = (plan.name.clone(), plan.codec.encoder().to_owned());
    let silence = vec![0; TRIAL * size_of::<Pcm>()];
    let finished = probe::run(&ffmpeg.path, line, silence, 1, TRIAL_DEADLINE)?;
    let Some(finished) = finished else {
        let deadline = TRIAL_DEADLINE;
        return Err(EncodeError::ProbeTimeout {
            rendition,
            codec,
            deadline,
        });
    };
    if !finished.status.success() {
        return Err(EncodeError::Refused {
            rendition,
            codec,
            last_words: process::last_words(&finished.lines),
        });
    }
    let described = description::sample_entry(&finished.output)
        .and_then(|entry| Ok((description::audio_codecs(&entry)?, entry)));
    let (codecs, sample_entry) = described.map_err(|why| EncodeError::ProbeOutput {
        rendition,
        codec,
        why: why.to_owned(),
    })?;
    let format = plan.format();
    let framerate = Framerate::new(SAMPLE_RATE.get(), format.frame.get());
    Ok(TrackDescription {
        sample_entry,
        codecs,
        size: Size::new(0, 0),
        framerate: framerate.expect("both codecs have between 1 and 240 frames a second"),
        audio: Some(format),
    })
}

/// From which sample an encoder has to be given sound so that each track gets its frame at the same place of `next` whole: two frames early, where
/// all tracks' frames begin together.
pub fn start_sample(formats: &[AudioFormat], next: &[Tick]) -> u64 {
    const FRAMES_EARLY: u64 = 2;
    let together = formats.iter().fold(1, |all, format| {
        let frame = u64::from(format.frame.get());
        all / gcd(all, frame) * frame
    });
    let starts = formats.iter().zip(next).map(|(format, next)| {
        let frame = u64::from(format.frame.get());
        next.0.saturating_sub(FRAMES_EARLY).saturating_mul(frame)
    });
    let first = starts.min().unwrap_or(0);
    first / together * together
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl AudioEncoder {
    /// Starts FFmpeg for `plans`, whose probe yielded `descriptions`; it is given sound from sample `first` on, where all tracks' frames begin.
    ///
    /// # Errors
    /// When the system gives no process, pipe or thread.
    pub fn start<F>(
        ffmpeg: &FfmpegInfo,
        plans: &[AudioRenditionPlan],
        descriptions: &[TrackDescription],
        first: u64,
        events: F,
    ) -> Result<Self, EncodeError>
    where
        F: Fn(AudioEvent) + Send + Clone + 'static,
    {
        let failed = |what| move |source| EncodeError::Start { what, source };
        let mut writers: Vec<OwnedFd> = Vec::new();
        let mut readers = Vec::new();
        let mut skips = Vec::new();
        for (track, (plan, description)) in plans.iter().zip(descriptions).enumerate() {
            let (reader, writer) = std::io::pipe().map_err(failed("make a pipe"))?;
            writers.push(writer.into());
            // Its first packet begins that much before what it is given.
            let skip = description::opus_pre_skip(&description.sample_entry).unwrap_or(0);
            skips.push(u32::from(skip));
            let frame = u64::from(plan.format().frame.get());
            readers.push((
                reader,
                FrameReader {
                    track,
                    rendition: plan.name.clone(),
                    sample_entry: description.sample_entry.clone(),
                    frame,
                    zero: first + u64::from(skip),
                    time_base: (1, u64::from(SAMPLE_RATE.get())),
                    next: None,
                    nut: nut::Reader::new(MAX_PACKET),
                },
            ));
        }
        let pipes: Vec<RawFd> = writers.iter().map(AsRawFd::as_raw_fd).collect();
        let line = live(plans, &skips, &pipes);
        tracing::debug!("{} {}", ffmpeg.path.display(), line.join(" "));
        let child = process::spawn(&ffmpeg.path, &line, &Output::Discarded, writers)
            .map_err(failed("start its program"))?;
        let (blocks, waiting) = sync_channel(BLOCKS);
        let encoder = Self {
            pid: child.id(),
            shared: Arc::new(Shared {
                group: Mutex::new(process::group_of(&child)),
                left: Mutex::default(),
                taken: AtomicU64::new(0),
            }),
            blocks: Some(blocks),
        };
        encoder.start_threads(child, waiting, readers, events)?;
        Ok(encoder)
    }

    fn start_threads<F>(
        &self,
        child: Child,
        waiting: Receiver<Vec<u8>>,
        readers: Vec<(PipeReader, FrameReader)>,
        events: F,
    ) -> Result<(), EncodeError>
    where
        F: Fn(AudioEvent) + Send + Clone + 'static,
    {
        let failed = |source| EncodeError::Start {
            what: "make a thread",
            source,
        };
        let mut child = Reaped(child);
        let (Some(stdin), Some(stderr)) = (child.0.stdin.take(), child.0.stderr.take()) else {
            unreachable!("both were asked for")
        };
        let shared = Arc::clone(&self.shared);
        let (threads, ready) = sync_channel::<Vec<thread::JoinHandle<()>>>(1);
        let last = events.clone();
        // The thread that waits is made first, so that the process is reaped whatever happens next.
        threads::spawn("audio-wait", move || {
            let words = LastLines::read_to_end(stderr);
            let pid = process::group_of(&child.0);
            wait_without_reaping(pid);
            // From here on its number may become another's.
            if let Some(group) = lock(&shared.group).take() {
                process::kill_group(group);
            }
            let status = child.0.wait();
            for thread in ready.recv().unwrap_or_default() {
                // One that has panicked has said all that it had to say.
                let _ = thread.join();
            }
            let status = status.map_or_else(|error| error.to_string(), |s| s.to_string());
            let words = process::last_words(&words);
            last(AudioEvent::Exited(format!("{status}: {words}")));
        })
        .map_err(failed)?;
        let mut running = Vec::new();
        let shared = Arc::clone(&self.shared);
        let feed = threads::spawn("audio-feed", move || {
            write_blocks(stdin, &waiting, &shared.taken);
        });
        running.push(feed.map_err(failed)?);
        for (pipe, reader) in readers {
            let events = events.clone();
            let read = threads::spawn("audio-out", move || reader.run(pipe, events));
            running.push(read.map_err(failed)?);
        }
        // The receiver lives until it has received.
        let _ = threads.send(running);
        Ok(())
    }

    /// Gives it the samples that come next; false if it has no room for them now, or has ended.
    pub fn feed(&self, samples: impl Iterator<Item = Pcm>) -> bool {
        let Some(blocks) = &self.blocks else {
            return false;
        };
        let bytes: Vec<u8> = samples
            .flat_map(|[left, right]| [left.to_le_bytes(), right.to_le_bytes()])
            .flatten()
            .collect();
        match blocks.try_send(bytes) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Looks whether its processes do anything; none if they are gone or can't be looked at.
    pub fn vitals(&self) -> Option<Vitals> {
        let group = (*lock(&self.shared.group))?;
        let vitals = Vitals::of(group)?;
        Some(Vitals {
            bytes_taken: self.shared.taken.load(Ordering::Relaxed),
            ..vitals
        })
    }

    /// No more sound: FFmpeg encodes what it was given and ends.
    pub fn finish(&mut self) {
        self.blocks = None;
    }

    /// Kills the process at once; [`AudioEvent::Exited`] follows.
    pub fn kill(&mut self) {
        self.blocks = None;
        if let Some(group) = *lock(&self.shared.group) {
            process::kill_group(group);
        }
    }

    /// It was killed and has not ended: nobody waits for that any more.
    pub fn leave_behind(&self) {
        lock(&self.shared.left).get_or_insert_with(|| Left::behind(self.pid));
    }
}

impl Drop for AudioEncoder {
    fn drop(&mut self) {
        self.kill();
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the end of `pid`, whose number stays its own until it is reaped.
fn wait_without_reaping(pid: Option<Pid>) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    if let Some(pid) = pid {
        while matches!(
            waitid(WaitId::Pid(pid), options),
            Err(rustix::io::Errno::INTR)
        ) {}
    }
}

fn write_blocks(mut stdin: ChildStdin, waiting: &Receiver<Vec<u8>>, taken: &AtomicU64) {
    while let Ok(block) = waiting.recv() {
        if stdin.write_all(&block).is_err() {
            return;
        }
        taken.fetch_add(block.len() as u64, Ordering::Relaxed);
    }
}

/// Reads one track's frames and says which they are.
struct FrameReader {
    track: usize,
    rendition: String,
    sample_entry: Bytes,
    /// Samples in a frame.
    frame: u64,
    /// The sample that the encoder takes for its first.
    zero: u64,
    time_base: (u64, u64),
    next: Option<Tick>,
    nut: nut::Reader,
}

impl FrameReader {
    /// Until the pipe's end; after an error the rest is read and forgotten, so that other tracks don't stand still.
    fn run(mut self, mut pipe: PipeReader, events: impl Fn(AudioEvent)) {
        let mut buffer = vec![0; 16 * 1024];
        let mut failed = false;
        loop {
            let count = match pipe.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            if !failed && let Err(error) = self.take(&buffer[..count], &events) {
                failed = true;
                events(AudioEvent::Failed(error));
            }
        }
    }

    fn take(&mut self, bytes: &[u8], events: &impl Fn(AudioEvent)) -> Result<(), EncodeError> {
        self.nut.push(bytes);
        loop {
            let event = self.nut.next().map_err(|source| EncodeError::Nut {
                rendition: self.rendition.clone(),
                source,
            })?;
            match event {
                None => return Ok(()),
                Some(NutEvent::Track(track)) => {
                    self.time_base = track.time_base;
                    if !description::has_codec_data(&self.sample_entry, &track.codec_data) {
                        return Err(EncodeError::Bitstream {
                            rendition: self.rendition.clone(),
                            source: super::BitstreamError::Headers { codec: "audio" },
                        });
                    }
                }
                Some(NutEvent::Packet(packet)) => {
                    if self.is_before_all(packet.pts) {
                        continue;
                    }
                    let frame = self.place(packet.pts)?;
                    events(AudioEvent::Frame {
                        track: self.track,
                        frame,
                        data: packet.data,
                    });
                }
            }
        }
    }

    /// Whether a packet of time `pts` is what an encoder puts before the very first sample of a recording.
    fn is_before_all(&self, pts: u64) -> bool {
        let (num, den) = self.time_base;
        let rate = u128::from(SAMPLE_RATE.get());
        let samples = u128::from(pts) * u128::from(num) * rate;
        let moved = samples + u128::from(self.zero) * u128::from(den);
        moved < u128::from(OFFSET_SECONDS) * rate * u128::from(den)
    }

    /// The frame whose packet has the time `pts`: each has to follow the one before it.
    fn place(&mut self, pts: u64) -> Result<Tick, EncodeError> {
        let (num, den) = self.time_base;
        let rate = u128::from(SAMPLE_RATE.get());
        let samples = u128::from(pts) * u128::from(num) * rate;
        let moved = samples + u128::from(self.zero) * u128::from(den);
        let before = u128::from(OFFSET_SECONDS) * rate * u128::from(den);
        let unit = u128::from(self.frame) * u128::from(den);
        let place = moved
            .checked_sub(before)
            .filter(|place| place.is_multiple_of(unit))
            .and_then(|place| u64::try_from(place / unit).ok())
            .map(Tick);
        match place {
            Some(place) if self.next.is_none_or(|next| next == place) => {
                self.next = Some(place.next());
                Ok(place)
            }
            _ => Err(EncodeError::OffGrid {
                rendition: self.rendition.clone(),
                pts,
                num,
                den,
                expected: self.next.unwrap_or(Tick(self.zero / self.frame)),
            }),
        }
    }
}

#[cfg(test)]
#[path = "audio_tests.rs"]
mod tests;
