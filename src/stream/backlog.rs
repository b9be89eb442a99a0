//! The pictures that the encoder has not returned as samples yet. When it dies, a new one starts at the first of them, so
//! that no tick is lost. Bounded in memory: what is beyond the bound becomes the picture before it, shown again.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::budget::{Account, Budget};
use crate::clock::MonotonicTime;
use crate::picture::{Picture, PictureFormat, Size};
use crate::tick::Tick;

/// What an encoder process is made for; other pictures need another process.
pub(super) type Input = (PictureFormat, Size);

struct Entry {
    picture: Picture,
    /// Whether it is shown for the first time here.
    fresh: bool,
    /// Whether it stands for one that there was no room for.
    stands_in: bool,
    fed: Option<MonotonicTime>,
}

/// The ticks from the first unreturned one to the newest, without holes.
pub(super) struct Backlog {
    first: Tick,
    entries: VecDeque<Entry>,
    /// How many of the first entries the running encoder has been given.
    fed: usize,
    max_pictures: usize,
    max_bytes: u64,
    /// How many different pictures are held.
    distinct: usize,
    /// Their bytes, in the books of all streams.
    memory: Account,
    /// Whether the newest picture was replaced because all streams together may hold no more.
    short: bool,
    replaced: u64,
}

impl Backlog {
    /// An empty backlog whose first tick will be `first`; it holds at most `max_pictures` different pictures of at most `max_bytes`
    /// together, within its share of `budget`, but always two.
    pub(super) fn new(
        first: Tick,
        (max_pictures, max_bytes): (usize, u64),
        budget: &Arc<Budget>,
    ) -> Self {
        let max_pictures = max_pictures.max(2);
        Self {
            first,
            entries: VecDeque::new(),
            fed: 0,
            max_pictures,
            max_bytes,
            distinct: 0,
            memory: Account::open(budget, 0),
            short: false,
            replaced: 0,
        }
    }

    /// Holds so much from now on.
    pub(super) fn allow(&mut self, (max_pictures, max_bytes): (usize, u64)) {
        self.max_pictures = max_pictures.max(2);
        self.max_bytes = max_bytes;
    }

    /// The tick that has to be pushed next.
    pub(super) fn next(&self) -> Tick {
        self.first.plus(self.entries.len() as u64)
    }

    /// The first tick that the encoder has not returned.
    pub(super) fn first(&self) -> Tick {
        self.first
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many pictures the running encoder has and has not returned.
    pub(super) fn pending(&self) -> usize {
        self.fed
    }

    /// How many pictures were replaced by the one before them because of the bound.
    pub(super) fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Whether the newest picture was replaced because the pictures of all streams have no more room.
    pub(super) fn is_short(&self) -> bool {
        self.short
    }

    /// Adds the picture of tick [`Self::next`], which is `fresh` unless it is shown again.
    pub(super) fn push(&mut self, picture: Picture, mut fresh: bool) {
        let bytes = bytes_of(&picture);
        let no_room = !self.memory.has_room(bytes);
        let too_much = self.memory.own().saturating_add(bytes) > self.max_bytes;
        let full =
            self.distinct >= self.max_pictures || self.distinct >= 2 && (too_much || no_room);
        self.short = full && no_room;
        let mut stands_in = false;
        let picture = match self.entries.back() {
            Some(last) if last.picture.shares_pixels(&picture) => picture,
            Some(last) if full && last.picture.input() == picture.input() => {
                self.replaced += 1;
                (fresh, stands_in) = (false, true);
                last.picture.clone()
            }
            last => {
                if full && last.is_some() {
                    // A source that changes again and again must not get past the bound.
                    self.unify(&picture);
                }
                let last = self.entries.back();
                let shared = last.is_some_and(|last| last.picture.shares_pixels(&picture));
                if !shared {
                    self.distinct += 1;
                    self.memory.note(bytes);
                }
                picture
            }
        };
        self.entries.push_back(Entry {
            picture,
            fresh,
            stands_in,
            fed: None,
        });
    }

    /// When the picture of `tick` was captured, as long as it is here, and unless it is shown again.
    pub(super) fn captured(&self, tick: Tick) -> Option<MonotonicTime> {
        let place = usize::try_from(tick.0.checked_sub(self.first.0)?).ok()?;
        let entry = self.entries.get(place).filter(|entry| entry.fresh)?;
        Some(entry.picture.captured)
    }

    /// The picture to be given to the encoder next.
    pub(super) fn next_unfed(&self) -> Option<(Tick, &Picture)> {
        let entry = self.entries.get(self.fed)?;
        Some((self.first.plus(self.fed as u64), &entry.picture))
    }

    /// The encoder has been given what [`Self::next_unfed`] said.
    pub(super) fn mark_fed(&mut self, now: MonotonicTime) {
        if let Some(entry) = self.entries.get_mut(self.fed) {
            entry.fed = Some(now);
            self.fed += 1;
        }
    }

    /// Every track has returned the ticks before `tick`: they are let go. Says when the last of them was fed.
    pub(super) fn release_before(&mut self, tick: Tick) -> Option<MonotonicTime> {
        let mut fed = None;
        while self.first < tick {
            let Some(entry) = self.entries.pop_front() else {
                self.first = tick;
                break;
            };
            let shared = self
                .entries
                .front()
                .is_some_and(|next| next.picture.shares_pixels(&entry.picture));
            if !shared {
                self.distinct = self.distinct.saturating_sub(1);
                self.memory.give(bytes_of(&entry.picture));
            }
            self.first = self.first.next();
            self.fed = self.fed.saturating_sub(1);
            fed = entry.fed;
        }
        fed
    }

    /// What lies before `tick` will not be shown. Where it begins with pictures that stood for others, those are from before: the next one that is its own
    /// stands for them, or `newest`.
    pub(super) fn begin_at(&mut self, tick: Tick, newest: &Picture) {
        self.release_before(tick);
        let own = self.entries.iter().position(|entry| !entry.stands_in);
        let own = own.unwrap_or(self.entries.len());
        let next = self.entries.get(own).map(|entry| entry.picture.clone());
        let next = next.unwrap_or_else(|| newest.clone());
        for entry in self.entries.iter_mut().take(own) {
            entry.picture = next.clone();
        }
        self.count_distinct();
    }

    /// The encoder is gone: a new one will be given everything again. Pictures of another input than the newest's can't be
    /// shown by it; they are replaced by the next that can.
    pub(super) fn rewind(&mut self) {
        self.fed = 0;
        for entry in &mut self.entries {
            entry.fed = None;
        }
        if let Some(newest) = self.entries.back().map(|entry| entry.picture.clone()) {
            self.unify(&newest);
        }
    }

    /// Replaces every picture of another input than `newest`'s by the next one of its input, which is `newest` at the end.
    fn unify(&mut self, newest: &Picture) {
        let mut next = newest.clone();
        for entry in self.entries.iter_mut().rev() {
            if entry.picture.input() == next.input() {
                next = entry.picture.clone();
            } else {
                self.replaced += 1;
                entry.picture = next.clone();
            }
        }
        self.count_distinct();
    }

    /// Counts the pictures anew.
    fn count_distinct(&mut self) {
        let mut before: Option<&Picture> = None;
        let mut bytes = 0;
        self.distinct = 0;
        for entry in &self.entries {
            let shared = before.is_some_and(|before| before.shares_pixels(&entry.picture));
            if !shared {
                self.distinct += 1;
                bytes += bytes_of(&entry.picture);
            }
            before = Some(&entry.picture);
        }
        self.memory.hold(bytes);
    }

    /// What the first picture needs of an encoder.
    pub(super) fn input(&self) -> Option<Input> {
        self.entries.front().map(|entry| entry.picture.input())
    }
}

fn bytes_of(picture: &Picture) -> u64 {
    picture.pixels().len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::PixelBuffer;

    fn picture(side: u32) -> Picture {
        let size = Size::new(side, side);
        let pixels = vec![0; PictureFormat::I420.bytes(size)];
        Picture::new(
            PictureFormat::I420,
            size,
            MonotonicTime(0),
            PixelBuffer::unpooled(pixels),
        )
    }

    #[test]
    fn unreturned_pictures_are_fed_again_from_the_first() {
        let mut backlog = Backlog::new(Tick(100), (8, u64::MAX), &Budget::new(u64::MAX));
        for _ in 0..5 {
            backlog.push(picture(4), true);
        }
        for at in 0..4 {
            assert_eq!(backlog.next_unfed().unwrap().0, Tick(100 + at));
            backlog.mark_fed(MonotonicTime(at));
        }
        assert_eq!(backlog.release_before(Tick(102)), Some(MonotonicTime(1)));
        assert_eq!(
            (backlog.first(), backlog.pending(), backlog.entries.len()),
            (Tick(102), 2, 3)
        );
        backlog.rewind();
        assert_eq!(backlog.next_unfed().unwrap().0, Tick(102));
        assert_eq!(backlog.next(), Tick(105));
    }

    #[test]
    fn beyond_the_bound_the_picture_before_is_repeated() {
        let mut backlog = Backlog::new(Tick(0), (2, u64::MAX), &Budget::new(u64::MAX));
        for _ in 0..10 {
            backlog.push(picture(4), true);
        }
        assert_eq!((backlog.entries.len(), backlog.replaced()), (10, 8));
        backlog.release_before(Tick(9));
        assert_eq!(backlog.distinct, 1);
        backlog.push(picture(4), true);
        assert_eq!(backlog.replaced(), 8, "there is room again");
        backlog.release_before(Tick(11));
        assert_eq!(backlog.distinct, 0);
    }

    #[test]
    fn what_begins_anew_shows_nothing_from_before() {
        let mut backlog = Backlog::new(Tick(0), (2, u64::MAX), &Budget::new(u64::MAX));
        for _ in 0..10 {
            backlog.push(picture(4), true);
        }
        let newest = picture(4);
        backlog.begin_at(Tick(6), &newest);
        let shows = |backlog: &Backlog, at: usize, picture: &Picture| {
            backlog.entries[at].picture.shares_pixels(picture)
        };
        assert_eq!((backlog.first(), backlog.distinct), (Tick(6), 1));
        assert!((0..4).all(|at| shows(&backlog, at, &newest)));
        let own = picture(4);
        backlog.push(own.clone(), true);
        backlog.begin_at(Tick(8), &newest);
        assert!(shows(&backlog, 2, &own) && shows(&backlog, 0, &own));
        backlog.begin_at(Tick(20), &newest);
        assert_eq!((backlog.next(), backlog.distinct), (Tick(20), 0));
    }

    #[test]
    fn beyond_the_memory_the_picture_before_is_repeated() {
        let side = |side| PictureFormat::I420.bytes(Size::new(side, side)) as u64;
        let mut backlog = Backlog::new(Tick(0), (100, 3 * side(8)), &Budget::new(u64::MAX));
        for _ in 0..6 {
            backlog.push(picture(8), true);
        }
        assert_eq!((backlog.distinct, backlog.memory.own()), (3, 3 * side(8)));
        assert_eq!(backlog.replaced(), 3);
        backlog.push(picture(16), true);
        assert_eq!((backlog.distinct, backlog.memory.own()), (1, side(16)));
        backlog.release_before(Tick(7));
        assert_eq!((backlog.distinct, backlog.memory.own()), (0, 0));
        for _ in 0..3 {
            backlog.push(picture(64), true);
        }
        assert_eq!(backlog.distinct, 2, "two always");
    }

    #[test]
    fn a_stream_gives_way_to_others_beyond_its_share_of_all_pictures() {
        let one = PictureFormat::I420.bytes(Size::new(8, 8)) as u64;
        let budget = Budget::new(8 * one);
        let mut stalled = Backlog::new(Tick(0), (100, u64::MAX), &budget);
        let mut other = Backlog::new(Tick(0), (100, u64::MAX), &budget);
        for _ in 0..10 {
            stalled.push(picture(8), true);
        }
        assert_eq!((stalled.distinct, stalled.replaced()), (8, 2));
        assert!(stalled.is_short());
        for _ in 0..4 {
            other.push(picture(8), true);
        }
        assert_eq!((other.distinct, other.replaced()), (4, 0), "its share");
        stalled.release_before(Tick(7));
        stalled.push(picture(8), true);
        assert!(!stalled.is_short() && stalled.replaced() == 2);
        drop((stalled, other));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn pictures_that_the_new_encoder_cant_take_become_the_next_that_it_can() {
        let mut backlog = Backlog::new(Tick(0), (8, u64::MAX), &Budget::new(u64::MAX));
        backlog.push(picture(4), true);
        backlog.push(picture(8), true);
        backlog.push(picture(8), true);
        backlog.rewind();
        assert_eq!(backlog.input().unwrap().1, Size::new(8, 8));
        assert_eq!((backlog.entries.len(), backlog.replaced()), (3, 1));
        assert_eq!(backlog.distinct, 2, "the first two share their pixels now");
        backlog.release_before(Tick(3));
        assert_eq!(backlog.distinct, 0, "or the bound would shrink for ever");
    }

    #[test]
    fn a_source_that_changes_at_every_tick_stays_within_the_bound() {
        let mut backlog = Backlog::new(Tick(0), (4, u64::MAX), &Budget::new(u64::MAX));
        for tick in 0..100 {
            backlog.push(picture(if tick % 2 == 0 { 4 } else { 8 }), true);
            assert!(backlog.distinct <= 5, "{} at tick {tick}", backlog.distinct);
        }
        assert_eq!(backlog.entries.len(), 100);
        backlog.release_before(Tick(100));
        assert_eq!(backlog.distinct, 0);
    }
}
