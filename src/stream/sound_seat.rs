//! Who feeds a stream's sound, where that is a producer: one at a time, beside whoever feeds its pictures.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringgear_producer::messages::{FrameCounts, OpenSound, Opened, PROTOCOL, RefusalCode, Refused};
use ringgear_ring::layout::{Layout, MAX_SLOTS, Policy};
use ringgear_ring::sound::{SampleFormat, SoundFormat};
use ringgear_ring::{Reader, RingMemory};
use tokio::sync::{oneshot, watch};

use super::chair::{Chair, Holder, client_name, may_have, next_session, refused};
use crate::audio::{Entrance, SoundCounters, SoundSession};
use crate::clock::Anchor;
use crate::config::StreamPlan;
use crate::control::{Accounts, Granted, Peer, Seat};
use crate::status::SoundSessionStatus;
use crate::threads;
use crate::tick::Framerate;

/// A ring's slots if the producer does not say: a third of a second of short blocks, or four of long ones.
const DEFAULT_SLOTS: u32 = 32;
const SLOTS: std::ops::RangeInclusive<u32> = 3..=MAX_SLOTS;

/// A stream's seat for a producer of sound.
#[derive(Clone)]
pub(super) struct SoundBench {
    stream: String,
    /// Whether it records.
    recorded: bool,
    framerate: Framerate,
    anchor: Anchor,
    accounts: Arc<Accounts>,
    place: Arc<Mutex<Place>>,
}

struct Place {
    chair: Chair<Held>,
    /// The way into the sound of the stream's present life; none between two.
    entrance: Option<Entrance>,
}

/// What status tells of the holder.
struct Held {
    status: SoundSessionStatus,
    counters: Arc<SoundCounters>,
}

impl SoundBench {
    pub(super) fn new(plan: &StreamPlan, anchor: Anchor, accounts: Arc<Accounts>) -> Self {
        let chair = Chair::new(format!("the sound of stream '{}'", plan.name));
        let place = Place {
            chair,
            entrance: None,
        };
        Self {
            stream: plan.name.clone(),
            recorded: plan.mode.is_recorded(),
            framerate: plan.grid.framerate,
            anchor,
            accounts,
            place: Arc::new(Mutex::new(place)),
        }
    }

    /// The stream does not run, because of `cause`: as with pictures.
    pub(super) fn close(&self, cause: &str) {
        let mut place = self.place();
        place.entrance = None;
        place.chair.close(cause);
    }

    /// The stream runs, and its sound comes in at `entrance`.
    pub(super) fn reopen(&self, entrance: Entrance) {
        let mut place = self.place();
        place.entrance = Some(entrance);
        place.chair.reopen();
    }

    /// Who holds the seat.
    pub(super) fn session(&self) -> Option<SoundSessionStatus> {
        let place = self.place();
        place.chair.status().map(|held| SoundSessionStatus {
            committed: held.counters.committed.get(),
            superseded: held.counters.superseded.get(),
            disbelieved: held.counters.disbelieved.get(),
            ..held.status.clone()
        })
    }

    /// Gives `peer` the seat, or says why not.
    pub(super) fn open(&self, open: &OpenSound, peer: Peer) -> Result<Granted, Refused> {
        let (format, slots) = check_request(open)?;
        self.place().chair.check_free(open.take_over)?;
        may_have(open.memory, peer)?;
        let resources = |error: &dyn std::fmt::Display| {
            let message = format!("no memory for a ring of {slots} slots of {format}: {error}");
            refused(RefusalCode::OutOfResources, message)
        };
        let layout = Layout::new(&format, slots)
            .map_err(|error| refused(RefusalCode::BadSize, error.to_string()))?;
        let hold = self
            .accounts
            .session(peer.uid, layout.bytes() as u64)
            .map_err(|limit| refused(RefusalCode::OutOfResources, limit.to_string()))?;
        let policy = match self.recorded {
            false => Policy::Latest,
            true => Policy::Lossless,
        };
        let memory = RingMemory::create_as(open.memory, policy, &format, slots)
            .map_err(|error| resources(&error))?;
        let name = memory.name().map(str::to_owned);
        let fd = match &name {
            None => Some(memory.fd().try_clone_to_owned()).transpose(),
            Some(_) => Ok(None),
        };
        let fd = fd.map_err(|error| resources(&error))?;
        let memory_bytes = memory.bytes() as u64;
        let (ended, said) = watch::channel(None);
        let (closing, closed) = channel();
        let counters = Arc::<SoundCounters>::default();
        let mut place = self.place();
        // Somebody else may have been quicker.
        place.chair.check_free(open.take_over)?;
        let Some(entrance) = place.entrance.clone() else {
            let message = format!("stream '{}' does not run yet: try again", self.stream);
            return Err(refused(RefusalCode::OutOfResources, message));
        };
        let session = SoundSession {
            reader: Reader::new(memory),
            recorded: self.recorded,
            entrance,
            anchor: self.anchor.clone(),
            counters: Arc::clone(&counters),
            ended: ended.clone(),
            closing: closed,
            hold,
        };
        threads::spawn("sound-in", move || session.run()).map_err(|error| {
            let message = format!("no thread for a session: {error}");
            refused(RefusalCode::OutOfResources, message)
        })?;
        let (session, since) = (next_session(), self.anchor.now());
        let client = client_name(open.client.as_deref());
        let logged = self.accounts.may_log(peer.uid);
        if logged {
            tracing::info!(
                stream = %self.stream, session, pid = peer.pid, uid = peer.uid, gid = peer.gid, %format, slots,
                client = client.as_deref().unwrap_or_default(), "producer opened a session of sound"
            );
        }
        let status = SoundSessionStatus {
            id: session,
            pid: peer.pid,
            uid: peer.uid,
            client,
            format: format.samples().name().to_owned(),
            rate: format.rate(),
            channels: format.channels(),
            opened: since.rfc3339(),
            committed: 0,
            superseded: 0,
            disbelieved: 0,
        };
        place.chair.give(Holder {
            session,
            peer,
            since,
            status: Held { status, counters },
            ended,
        });
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
                closing,
            }),
        })
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The seat in its holder's hands. Dropping it ends the session's thread.
struct HeldSeat {
    bench: SoundBench,
    session: u64,
    closing: Sender<oneshot::Sender<FrameCounts>>,
}

impl Seat for HeldSeat {
    fn close(self: Box<Self>) -> oneshot::Receiver<FrameCounts> {
        let (done, counts) = oneshot::channel();
        // A thread that has ended says nothing, which the receiver sees.
        let _ = self.closing.send(done);
        counts
    }
}

impl Drop for HeldSeat {
    fn drop(&mut self) {
        self.bench.place().chair.leave(self.session);
    }
}

/// What `open` asks for, if it can be had at all: the sound's format, and how many slots.
fn check_request(open: &OpenSound) -> Result<(SoundFormat, u32), Refused> {
    let Some(samples) = SampleFormat::from_name(&open.format) else {
        let known = SampleFormat::ALL.map(SampleFormat::name).join(", ");
        let given = open.format.chars().take(40).collect::<String>();
        let message = format!(
            "no sound format is called '{}': use one of {known}",
            given.escape_debug()
        );
        return Err(refused(RefusalCode::UnknownFormat, message));
    };
    let format = SoundFormat::new(samples, open.rate, open.channels)
        .map_err(|error| refused(RefusalCode::BadSize, error.to_string()))?;
    let slots = open.slots.unwrap_or(DEFAULT_SLOTS);
    if !SLOTS.contains(&slots) {
        let (least, most) = (SLOTS.start(), SLOTS.end());
        let message = format!(
            "a ring of {slots} slots of {format} can't be had: {least} to {most} are possible; leave 'slots' out for {DEFAULT_SLOTS}"
        );
        return Err(refused(RefusalCode::BadSize, message));
    }
    Ok((format, slots))
}
