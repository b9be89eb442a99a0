//! A stream's sound: an inlet that somebody fills, what it takes to keep that in step with the stream's clock, and an encoder, on a thread of its own. Its parts
//! go to the stream's owner, which places them beside the video's. Whatever happens to who fills it or to the encoder happens here: the video never
//! waits for it, and where there is no sound there is silence.

mod blocks;
mod downmix;
pub(crate) mod inlet;
mod lock;
mod reader;
mod recorded;
mod resample;
mod rests;
mod ring;
mod supply;
mod timeline;
mod work;

use std::num::NonZeroU32;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::encode::audio::AudioEvent;
pub(crate) use crate::encode::audio::Pcm;
use crate::package::Part;
use crate::sample::TrackDescription;
use crate::status::AudioStatus;
use crate::tick::{Grid, SAMPLE_RATE, Tick};
use inlet::Inlet;
pub(crate) use inlet::{Capture, Filler, Moment};
pub(crate) use reader::{SAMPLE, samples};
pub(crate) use recorded::Beside;
pub(crate) use ring::{SoundCounters, SoundSession};

pub(crate) use work::Work;

/// What the owner of a stream hears of its sound.
#[derive(Debug)]
pub(crate) enum AudioNews {
    /// What each rendition is encoded as: nothing can be published before.
    Described(Vec<TrackDescription>),
    /// The next part of a rendition, its place among those of audio. It belongs to the order of this generation.
    Part {
        generation: u64,
        track: usize,
        part: Part,
    },
    /// Of a recording: all that belongs to its pictures was told.
    Whole,
    /// How it is, now and then.
    Status(AudioStatus),
}

/// Where the sound goes on.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// What parts that follow it are told by from those before.
    pub(crate) generation: u64,
    /// Each rendition's grid, its next frame, and whether that is the first of a period.
    pub(crate) tracks: Vec<(Grid, Tick, bool)>,
}

/// What reaches the thread.
enum Event {
    Order(Order),
    /// The recording ends before this sample.
    End(u64),
    /// From here on the sound is this one's.
    Inlet(Inlet),
    /// There is none, for this reason.
    Without(String),
    Encoder {
        run: u64,
        event: AudioEvent,
    },
    Stop,
}

/// The owner's end. Dropping it ends the thread.
pub(crate) struct AudioDesk(Sender<Event>);

impl AudioDesk {
    /// The way in for sound.
    pub(crate) fn entrance(&self) -> Entrance {
        Entrance(self.0.clone())
    }

    /// Makes the sound of a recording end before sample `end`; [`AudioNews::Whole`] follows.
    pub(crate) fn finish(&self, end: u64) {
        let _ = self.0.send(Event::End(end));
    }

    /// Makes the sound go on as `order` says.
    pub(crate) fn order(&self, order: Order) {
        // A thread that has died is its keeper's business.
        let _ = self.0.send(Event::Order(order));
    }
}

impl Drop for AudioDesk {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Stop);
    }
}

/// Where sound comes in that is not read by an FFmpeg of its own: a producer's, or what a stream's source carries beside its pictures.
#[derive(Clone, Debug)]
pub(crate) struct Entrance(Sender<Event>);

impl Entrance {
    /// Begins a run of sound, in place of the one before: the stream has what the filler is given, and silence once that is dropped. Up to `most`
    /// samples wait in it.
    pub(crate) fn begin(&self, most: usize) -> Filler {
        self.begin_at(SAMPLE_RATE, most)
    }

    /// The same for sound of `rate` samples a second.
    pub(crate) fn begin_at(&self, rate: NonZeroU32, most: usize) -> Filler {
        let (filler, inlet) = inlet::inlet(rate, most);
        // A thread that has died takes nothing, and the filler says so.
        let _ = self.0.send(Event::Inlet(inlet));
        filler
    }

    /// Tells that there is no sound, and why, for people.
    pub(crate) fn without(&self, why: &str) {
        let _ = self.0.send(Event::Without(why.to_owned()));
    }
}

/// The thread's end.
pub(crate) struct AudioPost {
    events: Receiver<Event>,
    sender: Sender<Event>,
}

/// Both ends.
pub(crate) fn desk() -> (AudioDesk, AudioPost) {
    let (sender, events) = channel();
    let post = AudioPost {
        events,
        sender: sender.clone(),
    };
    (AudioDesk(sender), post)
}
