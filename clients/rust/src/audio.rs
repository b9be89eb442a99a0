//! A producer of sound: PCM into a ring of its own, beside whoever feeds the stream's pictures.

use std::path::PathBuf;

use ringgear_ring::sound::SoundFormat;
use ringgear_ring::{Captured, MemoryKind, RingError};

use crate::error::ProducerError;
use crate::link::{Link, LinkEvent, Linked};
use crate::messages::{DEFAULT_SOCKET, EndCode, FrameCounts, OpenSound, Opened, PROTOCOL, Request};
use crate::session::Session;

/// What a session of sound is opened with.
#[derive(Clone, Debug)]
pub struct AudioProducerOptions {
    /// The daemon's control socket.
    pub socket: PathBuf,
    /// The stream whose sound to feed; its config has `source = "producer"` under `audio`.
    pub stream: String,
    /// The sound's format.
    pub format: SoundFormat,
    /// How many slots the ring shall have; none for the daemon's choice.
    pub slots: Option<u32>,
    /// How the ring's memory comes: a named segment may be asked for by processes of the daemon's own user.
    pub memory: MemoryKind,
    /// Whether to end the session of another producer of the stream's sound.
    pub take_over: bool,
    /// The client's name and version, for the daemon's logs and status.
    pub client: String,
}

impl AudioProducerOptions {
    /// Sound of `format` for `stream`, at the default socket, without force.
    pub fn new(stream: impl Into<String>, format: SoundFormat) -> Self {
        Self {
            socket: DEFAULT_SOCKET.into(),
            stream: stream.into(),
            format,
            slots: None,
            memory: MemoryKind::default(),
            take_over: false,
            client: concat!("ringgear-producer/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    fn request(&self) -> Request {
        Request::OpenSound(OpenSound {
            protocol: PROTOCOL,
            stream: self.stream.clone(),
            format: self.format.samples().name().to_owned(),
            rate: self.format.rate(),
            channels: self.format.channels(),
            slots: self.slots,
            memory: self.memory,
            take_over: self.take_over,
            client: Some(self.client.clone()),
        })
    }
}

impl Linked for Session<SoundFormat> {
    type Options = AudioProducerOptions;

    fn open(options: &AudioProducerOptions) -> Result<Self, ProducerError> {
        let request = options.request();
        Self::open(&options.socket, &request, options.memory, &options.format)
    }

    fn opened(&self) -> &Opened {
        self.opened()
    }

    fn check(&mut self) -> Result<(), ProducerError> {
        self.check()
    }

    fn has_room(&mut self) -> Result<bool, ProducerError> {
        self.has_room()
    }

    fn committed(&self) -> u64 {
        self.writer.committed()
    }

    fn superseded(&self) -> u64 {
        self.writer.superseded()
    }

    fn close(self) -> Result<FrameCounts, ProducerError> {
        self.close()
    }
}

/// Feeds a stream's sound. It waits for the daemon only where that records and is busy, and reconnects by itself when that comes back; what is
/// written meanwhile is dropped and counted, and in a live stream heard as silence. The first opening must succeed; later only what can't heal is an error, as for a
/// [`SteadyProducer`](crate::SteadyProducer).
///
/// A *sample* is one moment here: a value for each channel, one after the other.
///
/// ```no_run
/// use ringgear_producer::{AudioProducer, AudioProducerOptions, SampleFormat, SoundFormat};
///
/// # fn record(_: &mut [u8]) {}
/// # fn main() -> Result<(), ringgear_producer::ProducerError> {
/// let format = SoundFormat::new(SampleFormat::S16le, 48_000, 2)?;
/// let options = AudioProducerOptions::new("door", format);
/// let mut producer = AudioProducer::open(options, |event| eprintln!("{event:?}"))?;
/// let mut ten_milliseconds = vec![0; 480 * format.sample_bytes()];
/// loop {
///     record(&mut ten_milliseconds);
///     producer.write(&ten_milliseconds, None)?;
/// }
/// # }
/// ```
pub struct AudioProducer {
    link: Link<Session<SoundFormat>>,
    /// Counts every sample, dropped ones too, over all sessions.
    next_sample: u64,
}

impl AudioProducer {
    /// Opens the first session. `on_event` is called from the thread that writes.
    ///
    /// # Errors
    /// Everything that [`ProducerError`] lists but [`ProducerError::Ended`].
    pub fn open(
        options: AudioProducerOptions,
        on_event: impl FnMut(LinkEvent) + Send + 'static,
    ) -> Result<Self, ProducerError> {
        // Who took over once doesn't do so again when the daemon comes back: the stream may rightly be another's by then.
        let again = AudioProducerOptions {
            take_over: false,
            ..options.clone()
        };
        Ok(Self {
            link: Link::open(&options, again, on_event)?,
            next_sample: 0,
        })
    }

    /// Writes samples as they lie in memory, as many as there are; `captured` is when the first of them was heard, none for "they have just come". Ten
    /// milliseconds at a time are a good measure. False if they, or the last of them, were dropped because the daemon is away. The ring of a recording
    /// loses nothing: while it is full, the daemon is waited for.
    ///
    /// # Errors
    /// What can't heal, and [`RingError::BlockUneven`] for what is no whole number of samples.
    pub fn write(
        &mut self,
        samples: &[u8],
        captured: Option<Captured>,
    ) -> Result<bool, ProducerError> {
        let format = *self.format();
        let sample = format.sample_bytes();
        if !samples.len().is_multiple_of(sample) {
            let bytes = samples.len() as u64;
            return Err(RingError::BlockUneven { bytes, sample }.into());
        }
        let first = self.next_sample;
        let count = (samples.len() / sample) as u64;
        self.next_sample += count;
        let mut before = 0;
        for block in samples.chunks(format.block_samples() * sample) {
            let Some(session) = self.link.with_room()? else {
                self.link.drop_some(count - before);
                return Ok(false);
            };
            let slot = session.writer.begin()?;
            let after = before * 1_000_000_000 / u64::from(format.rate());
            let captured = captured.map(|captured| Captured(captured.0.saturating_add(after)));
            slot.commit_block(block, first + before, captured)?;
            before += (block.len() / sample) as u64;
        }
        Ok(true)
    }

    /// The sound's format.
    pub fn format(&self) -> &SoundFormat {
        &self.link.options().format
    }

    /// What the daemon said when the newest session began.
    pub fn opened(&self) -> &Opened {
        self.link.opened()
    }

    /// How many samples were written so far, dropped ones included.
    pub fn samples(&self) -> u64 {
        self.next_sample
    }

    /// How many of them were dropped because no daemon was there.
    pub fn dropped(&self) -> u64 {
        self.link.dropped()
    }

    /// How many blocks were committed, over all sessions.
    pub fn committed(&self) -> u64 {
        self.link.committed()
    }

    /// How many of the committed blocks gave way to newer ones because the ring was full, over all sessions.
    pub fn superseded(&self) -> u64 {
        self.link.superseded()
    }

    /// How many sessions were opened so far: more than one says that the producer has come back.
    pub fn sessions(&self) -> u64 {
        self.link.sessions()
    }

    /// Whether there is a session, as far as the last call noticed.
    pub fn is_connected(&self) -> bool {
        self.link.session().is_some()
    }

    /// Notices a session lost and a session found, as [`Self::write`] does. Waits for nothing.
    ///
    /// # Errors
    /// What can't heal.
    pub fn check(&mut self) -> Result<(), ProducerError> {
        self.link.check()
    }

    /// Ends the session in good order: what is committed is still heard. The counts are of blocks; none if the daemon is away, or the recording is over.
    ///
    /// # Errors
    /// [`ProducerError::Gone`], [`ProducerError::NoAnswer`] and the like; the session is over all the same.
    pub fn close(mut self) -> Result<Option<FrameCounts>, ProducerError> {
        if self.is_connected() {
            self.link.check()?;
        }
        match self.link.close() {
            Err(ProducerError::Ended(ended)) if ended.code == EndCode::StreamGone => Ok(None),
            closed => closed,
        }
    }
}

impl std::fmt::Debug for AudioProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AudioProducer")
            .field("stream", &self.link.options().stream)
            .field("up", &self.is_connected())
            .field("next_sample", &self.next_sample)
            .finish_non_exhaustive()
    }
}
