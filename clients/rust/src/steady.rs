//! A producer that outlives its daemon: while there is none, frames are dropped and the link reconnects by itself, so that the camera's loop
//! never waits.

use ringgear_ring::Captured;
use ringgear_ring::format::FrameFormat;

use crate::error::ProducerError;
use crate::link::{Link, LinkEvent, Linked};
use crate::messages::{FrameCounts, Opened};
use crate::producer::{Frame, ParkedFrame, Producer, ProducerOptions};

impl Linked for Producer {
    type Options = ProducerOptions;

    fn open(options: &ProducerOptions) -> Result<Self, ProducerError> {
        Self::open(options)
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
        self.committed()
    }

    fn superseded(&self) -> u64 {
        self.superseded()
    }

    fn close(self) -> Result<FrameCounts, ProducerError> {
        self.close()
    }
}

/// A [`Producer`] that reconnects by itself. The first opening must succeed; later only what can't heal is an error: a takeover by another
/// producer, or a daemon that no longer has the stream.
pub struct SteadyProducer {
    link: Link<Producer>,
    /// Counts every frame of the camera, dropped ones too, over all sessions.
    next_frame: u64,
}

impl SteadyProducer {
    /// Opens the first session. `on_event` is called from the thread that writes frames.
    ///
    /// # Errors
    /// As [`Producer::open`].
    pub fn open(
        options: ProducerOptions,
        on_event: impl FnMut(LinkEvent) + Send + 'static,
    ) -> Result<Self, ProducerError> {
        // Who took over once doesn't do so again when the daemon comes back: the stream may rightly be another's by then.
        let again = ProducerOptions {
            take_over: false,
            ..options.clone()
        };
        Ok(Self {
            link: Link::open(&options, again, on_event)?,
            next_frame: 0,
        })
    }

    /// What the daemon said when the newest session began.
    pub fn opened(&self) -> &Opened {
        self.link.opened()
    }

    /// The frames' format.
    pub fn format(&self) -> &FrameFormat {
        &self.link.options().format
    }

    /// The number that the next frame has.
    pub fn next_frame_number(&self) -> u64 {
        self.next_frame
    }

    /// How many frames were dropped because no daemon was there.
    pub fn dropped(&self) -> u64 {
        self.link.dropped()
    }

    /// How many frames were committed, over all sessions.
    pub fn committed(&self) -> u64 {
        self.link.committed()
    }

    /// How many of the committed frames gave way to newer ones because the ring was full, over all sessions.
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

    /// Room for the next frame; none while the daemon is away, and then the frame counts as dropped. Waits for nothing but a lossless ring's free slot.
    ///
    /// # Errors
    /// What can't heal; every later call fails too.
    pub fn begin(&mut self) -> Result<Option<Frame<'_>>, ProducerError> {
        // In two steps, for what is returned borrows the link.
        if self.link.with_room()?.is_none() {
            self.next_frame += 1;
            self.link.drop_some(1);
        }
        let Some(producer) = self.link.session_mut() else {
            return Ok(None);
        };
        producer.set_next_frame_number(self.next_frame);
        self.next_frame += 1;
        producer.begin_unchecked().map(Some)
    }

    /// The frame that was parked, to go on with; none if its session is over, and then the frame counts as dropped.
    pub fn resume(&mut self, parked: ParkedFrame) -> Option<Frame<'_>> {
        // In two steps, for what is returned borrows the link.
        let known = self.link.session().is_some_and(|one| one.knows(&parked));
        if !known {
            self.link.drop_some(1);
            return None;
        }
        self.link.session_mut()?.resume(parked)
    }

    /// Writes a whole frame, given plane after plane without padding, captured at `captured`, or now. False if it was dropped.
    ///
    /// # Errors
    /// What can't heal, and [`ringgear_ring::RingError::FrameBytes`].
    pub fn write(
        &mut self,
        frame: &[u8],
        captured: Option<Captured>,
    ) -> Result<bool, ProducerError> {
        let Some(mut next) = self.begin()? else {
            return Ok(false);
        };
        next.fill(frame)?;
        next.commit(captured);
        Ok(true)
    }

    /// Notices a session lost and a session found. [`Self::begin`] does so too; call this where frames are rare. Waits for nothing.
    ///
    /// # Errors
    /// What can't heal.
    pub fn check(&mut self) -> Result<(), ProducerError> {
        self.link.check()
    }

    /// Ends the session in good order. None if the daemon is away.
    ///
    /// # Errors
    /// As [`Producer::close`].
    pub fn close(self) -> Result<Option<FrameCounts>, ProducerError> {
        self.link.close()
    }
}

impl std::fmt::Debug for SteadyProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SteadyProducer")
            .field("stream", &self.link.options().stream)
            .field("up", &self.is_connected())
            .field("next_frame", &self.next_frame)
            .finish_non_exhaustive()
    }
}
