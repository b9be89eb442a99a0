//! A stream's sound: an inlet that somebody fills, what it takes to keep that in step with the stream's clock, and an encoder, on a thread of its own. Its parts
//! go to the stream's owner, which places them beside the video's. Whatever happens to who fills it or to the encoder happens here: the video never
//! waits for it, and where there is no sound there is silence.

mod allowance;
mod blocks;
mod downmix;
pub(crate) mod inlet;
mod lock;
mod post;
mod reader;
mod recorded;
mod resample;
mod rests;
mod ring;
mod supply;
mod timeline;
mod work;

use std::num::NonZeroU32;

pub(crate) use crate::encode::audio::Pcm;
use crate::package::Part;
use crate::sample::TrackDescription;
use crate::status::AudioStatus;
use crate::tick::{Grid, SAMPLE_RATE, Tick};
pub(crate) use inlet::{Capture, Filler, Moment};
pub(crate) use post::AudioPost;
use post::Slot;
pub(crate) use reader::{SAMPLE, samples};
pub(crate) use recorded::Beside;
pub(crate) use ring::{SoundCounters, SoundSession};

pub(crate) use work::Work;

/// What the owner of a stream hears of its sound.
#[derive(Debug)]
pub(crate) enum AudioNews {
    /// What each rendition is encoded as: nothing can be published before.
    Described(Vec<TrackDescription>),
    /// That can't be known yet, for this reason, for people.
    Undescribed(String),
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

/// The owner's end. Dropping it ends the thread.
pub(crate) struct AudioDesk(Slot);

impl AudioDesk {
    /// The way in for sound.
    pub(crate) fn entrance(&self) -> Entrance {
        Entrance(self.0.clone())
    }

    /// Makes the sound of a recording end before sample `end`; [`AudioNews::Whole`] follows.
    pub(crate) fn finish(&self, end: u64) {
        self.0.end(end);
    }

    /// Makes the sound go on as `order` says.
    pub(crate) fn order(&self, order: Order) {
        // A thread that has died is its keeper's business.
        self.0.order(order);
    }
}

impl Drop for AudioDesk {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Where sound comes in that is not read by an FFmpeg of its own: a producer's, or what a stream's source carries beside its pictures.
#[derive(Clone, Debug)]
pub(crate) struct Entrance(Slot);

impl Entrance {
    /// Begins a run of sound, in place of the one before or after it: the stream has what the filler is given, and silence once that is dropped. Up to `most`
    /// samples wait in it.
    pub(crate) fn begin(&self, most: usize) -> Filler {
        self.begin_at(SAMPLE_RATE, most)
    }

    /// The same for sound of `rate` samples a second.
    pub(crate) fn begin_at(&self, rate: NonZeroU32, most: usize) -> Filler {
        let (filler, inlet) = inlet::inlet(rate, most);
        // A thread that has died takes nothing, and the filler says so.
        self.0.inlet(inlet);
        filler
    }

    /// Tells that there is no sound, and why, for people.
    pub(crate) fn without(&self, why: &str) {
        self.0.without(why.to_owned());
    }
}

/// Both ends. `in_order` says whether what comes in is heard one after the other, as producers' sound is in recordings.
pub(crate) fn desk(in_order: bool) -> (AudioDesk, AudioPost) {
    let (slot, post) = post::post(in_order);
    (AudioDesk(slot), post)
}
