//! One session: open, frames, close. Nothing here reconnects; see [`crate::SteadyProducer`].

use std::path::PathBuf;

use ringgear_ring::format::FrameFormat;
use ringgear_ring::{Captured, MemoryKind, ParkedSlot, Slot, SlotMemory};

use crate::error::ProducerError;
use crate::messages::{DEFAULT_SOCKET, FrameCounts, Open, Opened, PROTOCOL, Request};
use crate::session::Session;

/// What a session is opened with.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// The daemon's control socket.
    pub socket: PathBuf,
    /// The stream to feed.
    pub stream: String,
    /// The frames' format, with any padding of rows.
    pub format: FrameFormat,
    /// How many slots the ring shall have; none for the daemon's choice.
    pub slots: Option<u32>,
    /// How the ring's memory comes: a named segment may be asked for by processes of the daemon's own user.
    pub memory: MemoryKind,
    /// Whether to end the session of another producer that holds the stream.
    pub take_over: bool,
    /// The client's name and version, for the daemon's logs and status.
    pub client: String,
}

impl ProducerOptions {
    /// Frames of `format` for `stream`, at the default socket, without force.
    pub fn new(stream: impl Into<String>, format: FrameFormat) -> Self {
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
        let strides: Vec<usize> = self.format.planes().iter().map(|p| p.stride).collect();
        let packed = self.format.planes().iter().all(|p| p.stride == p.row_bytes);
        Request::Open(Open {
            protocol: PROTOCOL,
            stream: self.stream.clone(),
            format: self.format.pixels().name().to_owned(),
            width: self.format.width(),
            height: self.format.height(),
            strides: (!packed).then_some(strides),
            slots: self.slots,
            memory: self.memory,
            take_over: self.take_over,
            client: Some(self.client.clone()),
        })
    }
}

/// A session: one producer's hold on one stream. Dropping it ends the session without a word, as a crash would.
#[derive(Debug)]
pub struct Producer {
    session: Session<FrameFormat>,
    next_frame: u64,
}

impl Producer {
    /// Opens a session. Waits for the daemon's answer: at most 5 seconds each for the connection, the request's way out and the answer.
    ///
    /// # Errors
    /// Everything that [`ProducerError`] lists but [`ProducerError::Ended`].
    pub fn open(options: &ProducerOptions) -> Result<Self, ProducerError> {
        let session = Session::open(
            &options.socket,
            &options.request(),
            options.memory,
            &options.format,
        )?;
        Ok(Self {
            session,
            next_frame: 0,
        })
    }

    /// What the daemon said at the session's opening: its number, the stream's framerate.
    pub fn opened(&self) -> &Opened {
        self.session.opened()
    }

    /// The frames' format.
    pub fn format(&self) -> &FrameFormat {
        self.session.writer.format()
    }

    /// The number that the next frame gets: 0 at first.
    pub fn next_frame_number(&self) -> u64 {
        self.next_frame
    }

    /// Sets the number of the next frame, so that a new session goes on counting where the last one was. Numbers only rise.
    pub fn set_next_frame_number(&mut self, number: u64) {
        self.next_frame = number;
    }

    /// Whether the session still lasts. Waits for nothing; [`Self::begin`] asks it too.
    ///
    /// # Errors
    /// [`ProducerError::Ended`] with the daemon's reason, [`ProducerError::Gone`] without one.
    pub fn check(&mut self) -> Result<(), ProducerError> {
        self.session.check()
    }

    /// Room for the next frame. In a full ring the oldest frame that waits gives way, without a wait; a lossless one, which recordings have, is
    /// waited for until the daemon frees a slot.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn begin(&mut self) -> Result<Frame<'_>, ProducerError> {
        self.check()?;
        while !self.has_room()? {
            self.check()?;
        }
        self.begin_unchecked()
    }

    /// Whether [`Self::begin_unchecked`] finds a slot: at once in a live stream, else after a short wait for the daemon at most.
    pub(crate) fn has_room(&mut self) -> Result<bool, ProducerError> {
        self.session.has_room()
    }

    /// [`Self::begin`] for who has just called [`Self::check`] and [`Self::has_room`].
    pub(crate) fn begin_unchecked(&mut self) -> Result<Frame<'_>, ProducerError> {
        Ok(Frame {
            slot: self.session.writer.begin()?,
            next_frame: &mut self.next_frame,
        })
    }

    /// Whether the parked frame is this session's.
    pub(crate) fn knows(&self, parked: &ParkedFrame) -> bool {
        self.session.writer.knows(&parked.slot)
    }

    /// The frame that was parked, to go on with; none if it is another session's, which is over then.
    pub fn resume(&mut self, parked: ParkedFrame) -> Option<Frame<'_>> {
        let slot = self.session.writer.resume(parked.slot)?;
        self.next_frame = parked.number;
        Some(Frame {
            slot,
            next_frame: &mut self.next_frame,
        })
    }

    /// Writes a whole frame, given plane after plane without padding, captured at `captured`, or now.
    ///
    /// # Errors
    /// As [`Self::check`], and [`ringgear_ring::RingError::FrameBytes`].
    pub fn write(&mut self, frame: &[u8], captured: Option<Captured>) -> Result<(), ProducerError> {
        let mut next = self.begin()?;
        next.fill(frame)?;
        next.commit(captured);
        Ok(())
    }

    /// How many frames this session has committed.
    pub fn committed(&self) -> u64 {
        self.session.writer.committed()
    }

    /// How many of them gave way to newer ones because the ring was full.
    pub fn superseded(&self) -> u64 {
        self.session.writer.superseded()
    }

    /// Ends the session in good order: the daemon takes what it still wants and says what became of every frame. A recording's end is waited
    /// for as long as the daemon is there: until its last frame is encoded and published.
    ///
    /// # Errors
    /// [`ProducerError::Gone`], [`ProducerError::NoAnswer`] and the like; the session is over all the same.
    pub fn close(self) -> Result<FrameCounts, ProducerError> {
        self.session.close()
    }
}

/// A frame being written. Dropped without [`Self::commit`], it never was.
#[derive(Debug)]
pub struct Frame<'a> {
    slot: Slot<'a>,
    next_frame: &'a mut u64,
}

impl Frame<'_> {
    /// The number that the frame will have.
    pub fn number(&self) -> u64 {
        *self.next_frame
    }

    /// The frame's format: where its planes lie in [`Self::bytes_mut`].
    pub fn format(&self) -> &FrameFormat {
        self.slot.format()
    }

    /// The frame's bytes in shared memory, padding of rows included. They hold some older frame.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.slot.bytes_mut()
    }

    /// Writes the whole frame, given plane after plane without padding.
    ///
    /// # Errors
    /// [`ringgear_ring::RingError::FrameBytes`] if it has another length.
    pub fn fill(&mut self, frame: &[u8]) -> Result<(), ProducerError> {
        Ok(self.slot.fill(frame)?)
    }

    /// Lays the frame aside, for code of another language to fill by its address; [`SteadyProducer::resume`](crate::SteadyProducer::resume) goes on with it.
    pub fn park(self) -> ParkedFrame {
        ParkedFrame {
            number: *self.next_frame,
            slot: self.slot.park(),
        }
    }

    /// Hands the frame to the daemon: captured at `captured`, or now.
    pub fn commit(self, captured: Option<Captured>) {
        let captured = captured.unwrap_or_else(now);
        self.slot.commit(*self.next_frame, Some(captured));
        *self.next_frame += 1;
    }
}

/// A frame being written by somebody who does not borrow its producer. It has to be resumed, to be committed or dropped.
#[derive(Debug)]
#[must_use = "a frame that is never resumed keeps its slot until the session's end"]
pub struct ParkedFrame {
    number: u64,
    slot: ParkedSlot,
}

impl ParkedFrame {
    /// The number that the frame will have.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where its bytes are.
    pub fn memory(&self) -> &SlotMemory {
        self.slot.memory()
    }
}

/// CLOCK_MONOTONIC now.
pub fn now() -> Captured {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Captured(now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs())
}
