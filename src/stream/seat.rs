//! Who feeds a stream: one producer at a time, holding its seat until it closes, dies or is taken over.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringgear_producer::messages::{
    EndCode, FrameCounts, Open, Opened, PROTOCOL, RefusalCode, Refused,
};
use ringgear_ring::format::{FrameFormat, PixelFormat};
use ringgear_ring::layout::{Layout, MAX_MEMORY_BYTES, MAX_SLOTS, Policy};
use ringgear_ring::{Reader, RingMemory};
use tokio::sync::{oneshot, watch};

use super::chair::{Chair, Holder, client_name, may_have, next_session, refused};
use super::changes::{Changes, TooOften};
use crate::control::{Accounts, Granted, Peer, Seat};
use crate::ingest::{Command, NewSession, input_of};
use crate::picture::Size;
use crate::status::SessionStatus;
use crate::tick::{Framerate, UnixTime};

/// A ring's slots if the producer does not say: one being written, one being read, two waiting by the slack of one, and two to
/// spare for a producer or a daemon that is late.
const DEFAULT_SLOTS: u32 = 6;
const SLOTS: std::ops::RangeInclusive<u32> = 3..=MAX_SLOTS;

/// A stream's seat for a producer.
#[derive(Clone)]
pub(super) struct Bench {
    stream: String,
    framerate: Framerate,
    /// What a full ring does.
    policy: Policy,
    accounts: Arc<Accounts>,
    changes: Arc<Mutex<Changes>>,
    seat: Arc<Mutex<Place>>,
}

/// The seat itself.
struct Place {
    /// To the ingest of the stream's present life; between two lives, to the next one's.
    commands: Sender<Command>,
    chair: Chair<SessionStatus>,
    /// Whether it is a recording that takes no more frames.
    finishing: bool,
}

impl Bench {
    pub(super) fn new(
        stream: &str,
        (framerate, policy): (Framerate, Policy),
        commands: Sender<Command>,
        accounts: Arc<Accounts>,
    ) -> Self {
        Self {
            stream: stream.to_owned(),
            framerate,
            policy,
            accounts,
            changes: Arc::default(),
            seat: Arc::new(Mutex::new(Place {
                commands,
                chair: Chair::new(format!("stream '{stream}'")),
                finishing: false,
            })),
        }
    }

    /// Where ingest takes its commands.
    pub(super) fn commands(&self) -> Sender<Command> {
        self.place().commands.clone()
    }

    /// The stream does not run, because of `cause`; the ingest of its next life will obey `commands`. Who held the seat is told to
    /// come again, and nobody gets it before [`Self::reopen`].
    pub(super) fn close(&self, commands: Sender<Command>, cause: &str) {
        let mut place = self.place();
        place.commands = commands;
        place.chair.close(cause);
    }

    /// The recording takes no more frames. Whoever has just got the seat is told to come again, for the next one.
    pub(super) fn finish(&self) {
        let mut place = self.place();
        place.finishing = true;
        let message = format!(
            "the recording of stream '{}' has ended; connect again for the next one",
            self.stream
        );
        place.chair.clear(EndCode::StreamGone, message);
    }

    /// Whether the recording takes no more frames.
    pub(super) fn is_finishing(&self) -> bool {
        self.place().finishing
    }

    /// The stream runs.
    pub(super) fn reopen(&self) {
        let mut place = self.place();
        place.chair.reopen();
        place.finishing = false;
    }

    /// Who holds the seat, `committed` being what ingest has counted of its session.
    pub(super) fn session(&self, committed: u64) -> Option<SessionStatus> {
        let place = self.place();
        place.chair.status().map(|status| SessionStatus {
            committed,
            ..status.clone()
        })
    }

    /// Gives `peer` the seat, or says why not.
    pub(super) fn open(&self, open: &Open, peer: Peer, now: UnixTime) -> Result<Granted, Refused> {
        let (format, slots) = check_request(open, &self.accounts)?;
        self.busy(open, &self.place())?;
        // Making the memory takes milliseconds, so it is made before anybody else is kept waiting.
        let resources = |error: &dyn std::fmt::Display| {
            let message = format!("no memory for a ring of {slots} slots of {format}: {error}");
            refused(RefusalCode::OutOfResources, message)
        };
        may_have(open.memory, peer)?;
        self.changes(|changes| changes.look(input_of(&format), now), &format)?;
        let layout = Layout::new(&format, slots)
            .map_err(|error| refused(RefusalCode::BadSize, error.to_string()))?;
        let hold = self
            .accounts
            .session(peer.uid, layout.bytes() as u64)
            .map_err(|limit| refused(RefusalCode::OutOfResources, limit.to_string()))?;
        let memory = RingMemory::create_as(open.memory, self.policy, &format, slots)
            .map_err(|error| resources(&error))?;
        let name = memory.name().map(str::to_owned);
        let fd = match &name {
            None => Some(
                memory
                    .fd()
                    .try_clone_to_owned()
                    .map_err(|error| resources(&error))?,
            ),
            Some(_) => None,
        };
        let memory_bytes = memory.bytes() as u64;
        let (ended, said) = watch::channel(None);
        let mut place = self.place();
        // Somebody else may have been quicker.
        self.busy(open, &place)?;
        self.changes(|changes| changes.note(input_of(&format), now), &format)?;
        let session = next_session();
        let client = client_name(open.client.as_deref());
        let logged = self.accounts.may_log(peer.uid);
        if logged {
            tracing::info!(
                stream = %self.stream, session, pid = peer.pid, uid = peer.uid, gid = peer.gid, %format, slots,
                client = client.as_deref().unwrap_or_default(), "producer opened a session"
            );
            let (_, size) = input_of(&format);
            if size != Size::new(format.width(), format.height()) {
                tracing::info!(
                    stream = %self.stream, session, pictures = %size,
                    "frames of an odd size are padded to an even one: their last column or row is repeated"
                );
            }
        }
        let status = SessionStatus {
            id: session,
            pid: peer.pid,
            uid: peer.uid,
            client,
            format: format.pixels().name().to_owned(),
            width: format.width(),
            height: format.height(),
            opened: now.rfc3339(),
            committed: 0,
        };
        place.chair.give(Holder {
            session,
            peer,
            since: now,
            status,
            ended: ended.clone(),
        });
        let new = Box::new(NewSession {
            id: session,
            reader: Reader::new(memory),
            format,
            ended,
            hold,
        });
        // Ingest lives as long as the stream; when it has just stopped, the connection's end tells the producer.
        let _ = place.commands.send(Command::Begin(new));
        let (framerate_num, framerate_den) = self.framerate.parts();
        Ok(Granted {
            opened: Opened {
                protocol: PROTOCOL,
                session,
                memory_bytes,
                slots,
                name,
                framerate_num,
                framerate_den,
            },
            memory: fd,
            ended: said,
            logged,
            seat: Box::new(HeldSeat {
                bench: self.clone(),
                session,
                closed: false,
            }),
        })
    }

    /// Refuses a producer while the stream does not run, or that does not ask to take over from who holds the seat.
    fn busy(&self, open: &Open, place: &Place) -> Result<(), Refused> {
        if place.finishing {
            let message = format!(
                "stream '{}' is finishing a recording: open it again in a moment",
                self.stream
            );
            return Err(refused(RefusalCode::OutOfResources, message));
        }
        place.chair.check_free(open.take_over)
    }

    /// Refuses pictures of yet another size or storage.
    fn changes(
        &self,
        ask: impl FnOnce(&mut Changes) -> Result<(), TooOften>,
        format: &FrameFormat,
    ) -> Result<(), Refused> {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&mut changes).map_err(|error| {
            let message = format!("stream '{}' can't take {format} now: {error}", self.stream);
            refused(RefusalCode::OutOfResources, message)
        })
    }

    fn leave(&self, session: u64, done: Option<oneshot::Sender<FrameCounts>>) {
        let mut place = self.place();
        let left = place.chair.leave(session);
        // A recording ends with its producer's close.
        place.finishing |= self.policy == Policy::Lossless && left && done.is_some();
        let _ = place.commands.send(Command::Close { session, done });
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The seat in its holder's hands.
struct HeldSeat {
    bench: Bench,
    session: u64,
    closed: bool,
}

impl Seat for HeldSeat {
    fn close(mut self: Box<Self>) -> oneshot::Receiver<FrameCounts> {
        let (done, counts) = oneshot::channel();
        self.closed = true;
        self.bench.leave(self.session, Some(done));
        counts
    }
}

impl Drop for HeldSeat {
    fn drop(&mut self) {
        if !self.closed {
            self.bench.leave(self.session, None);
        }
    }
}

/// What `open` asks for, if it can be had at all: the frames' format, and how many slots.
pub(super) fn check_request(
    open: &Open,
    accounts: &Accounts,
) -> Result<(FrameFormat, u32), Refused> {
    let format = checked_format(open)?;
    let pixels = u64::from(format.width()) * u64::from(format.height());
    let most = accounts.limits().frame_pixels;
    if pixels > most.into() {
        let message = format!(
            "a frame of {format} has {pixels} pixels, beyond the limit of {most}: send smaller frames, or raise [limits] frame_pixels"
        );
        return Err(refused(RefusalCode::BadSize, message));
    }
    let slots = open.slots.unwrap_or(DEFAULT_SLOTS);
    let bytes = format.bytes() as u64 * u64::from(slots);
    if !SLOTS.contains(&slots) || bytes > MAX_MEMORY_BYTES as u64 {
        let (least, most) = (SLOTS.start(), SLOTS.end());
        let message = format!(
            "a ring of {slots} slots of {format} ({bytes} bytes) can't be had: {least} to {most} slots and at most \
             {MAX_MEMORY_BYTES} bytes are possible; leave 'slots' out for {DEFAULT_SLOTS}"
        );
        return Err(refused(RefusalCode::BadSize, message));
    }
    Ok((format, slots))
}

fn checked_format(open: &Open) -> Result<FrameFormat, Refused> {
    let Some(pixels) = PixelFormat::from_name(&open.format) else {
        let known = PixelFormat::ALL.map(PixelFormat::name).join(", ");
        let given = open.format.chars().take(40).collect::<String>();
        let message = format!(
            "no pixel format is called '{}': use one of {known}",
            given.escape_debug()
        );
        return Err(refused(RefusalCode::UnknownFormat, message));
    };
    let format = match &open.strides {
        None => FrameFormat::packed(pixels, open.width, open.height),
        Some(strides) => FrameFormat::with_strides(pixels, open.width, open.height, strides),
    };
    format.map_err(|error| refused(RefusalCode::BadSize, error.to_string()))
}
