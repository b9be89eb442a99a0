//! Which ticks an encoder is given a picture for: each of them, or every second or fourth one when it is too slow for all.
//! A picture that stands for more ticks than its own becomes one longer sample, which never crosses an edge of the grid, so that parts
//! and segments begin and end where they always do. Pure.

use std::num::NonZeroU32;

use crate::tick::{Grid, Tick};

/// The ticks that an encoder is fed, from its first one on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cadence {
    grid: Grid,
    first: Tick,
    step: NonZeroU32,
    /// Ticks after the first that are fed although they are off the step, in order.
    extra: Vec<Tick>,
}

impl Cadence {
    /// Every `step`th tick of each part from `first` on, and `extra`: where tracks resume that have returned more than others.
    pub fn new(
        grid: Grid,
        first: Tick,
        step: NonZeroU32,
        extra: impl IntoIterator<Item = Tick>,
    ) -> Self {
        let mut extra: Vec<Tick> = extra.into_iter().filter(|tick| *tick > first).collect();
        extra.sort_unstable();
        extra.dedup();
        Self {
            grid,
            first,
            step,
            extra,
        }
    }

    /// Whether a picture is fed for `tick`; for the others the one before stands.
    pub fn feeds(&self, tick: Tick) -> bool {
        tick == self.first
            || self.ticks_into_part(tick).is_multiple_of(self.step.get())
            || self.extra.binary_search(&tick).is_ok()
    }

    /// The tick that is fed after `tick`: up to there its sample lasts.
    #[must_use]
    pub fn after(&self, tick: Tick) -> Tick {
        let into_part = self.ticks_into_part(tick);
        let step = self.step.get() - into_part % self.step.get();
        let part_left = self.grid.ticks_per_part.get() - into_part;
        let segment_left = self.grid.ticks_per_segment.get() - self.grid.ticks_into_segment(tick);
        let regular = tick.plus(u64::from(step.min(part_left).min(segment_left)));
        let extra = self.extra.iter().find(|extra| **extra > tick);
        extra.map_or(regular, |extra| regular.min(*extra))
    }

    /// How many pictures a segment takes, and how many ticks it has.
    pub fn pictures_per_segment(&self) -> (u32, u32) {
        let (segment, part) = (
            self.grid.ticks_per_segment.get(),
            self.grid.ticks_per_part.get(),
        );
        let step = self.step.get();
        let whole = segment / part * part.div_ceil(step);
        (whole + (segment % part).div_ceil(step), segment)
    }

    /// FFmpeg's expression that is true for each picture `n` that has to be a keyframe: at segment edges, and at `resumed`.
    pub fn keyframes(&self, resumed: Option<Tick>) -> String {
        let settled = self.extra.last().copied().unwrap_or(self.first);
        let mut single = Vec::new();
        let (mut tick, mut index) = (self.first, 0_u64);
        // Until the extra ticks are behind, keyframes are named one by one; then they come once in so many pictures.
        while tick < settled || !self.grid.starts_segment(tick) {
            if self.grid.starts_segment(tick) || resumed == Some(tick) {
                single.push(index);
            }
            tick = self.after(tick);
            index += 1;
        }
        let (pictures, _) = self.pictures_per_segment();
        let mut expression = format!("gte(n,{index})*eq(mod(n-{index},{pictures}),0)");
        for index in single {
            expression += &format!("+eq(n,{index})");
        }
        expression
    }

    /// FFmpeg's expression that is true for each picture `n` of these that `track` shows, too; none if it shows all of them. `track` has the
    /// same first tick, and a multiple of this step.
    pub fn picks(&self, track: &Self) -> Option<String> {
        if self == track {
            return None;
        }
        let last = |cadence: &Self| cadence.extra.last().copied().unwrap_or(cadence.first);
        let settled = last(self).max(last(track));
        let mut single = Vec::new();
        let (mut tick, mut index) = (self.first, 0_u64);
        // Until the extra ticks are behind, pictures are named one by one; then they come at the same places of each part.
        while tick <= settled || !self.ticks_into_part(tick).is_multiple_of(self.step.get()) {
            if track.feeds(tick) {
                single.push(index);
            }
            tick = self.after(tick);
            index += 1;
        }
        let part = self.grid.ticks_per_part.get();
        let (per_segment, _) = self.pictures_per_segment();
        let per_part = part.div_ceil(self.step.get());
        let place = self.grid.ticks_into_segment(tick) / part * per_part
            + self.ticks_into_part(tick) / self.step.get();
        let ratio = track.step.get() / self.step.get();
        let mut expression = format!(
            "gte(n,{index})*not(mod(mod(mod(n-{index}+{place},{per_segment}),{per_part}),{ratio}))"
        );
        for index in single {
            expression += &format!("+eq(n,{index})");
        }
        Some(expression)
    }

    fn ticks_into_part(&self, tick: Tick) -> u32 {
        self.grid.ticks_into_segment(tick) % self.grid.ticks_per_part.get()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tick::Framerate;

    fn grid(segment: u32, part: u32) -> Grid {
        Grid {
            framerate: Framerate::new(30, 1).unwrap(),
            ticks_per_segment: NonZeroU32::new(segment).unwrap(),
            ticks_per_part: NonZeroU32::new(part).unwrap(),
            number_offset: 0,
            audio: None,
            cut: None,
        }
    }

    fn cadence(segment: u32, part: u32, first: u64, step: u32, extra: &[u64]) -> Cadence {
        let extra = extra.iter().copied().map(Tick);
        let step = NonZeroU32::new(step).unwrap();
        Cadence::new(grid(segment, part), Tick(first), step, extra)
    }

    fn fed(cadence: &Cadence, count: usize) -> Vec<u64> {
        let ticks = std::iter::successors(Some(cadence.first), |tick| Some(cadence.after(*tick)));
        ticks.map(|tick| tick.0).take(count).collect()
    }

    #[test]
    fn the_last_picture_of_a_part_may_stand_for_fewer_ticks() {
        let half = cadence(12, 5, 0, 2, &[]);
        assert_eq!(fed(&half, 9), [0, 2, 4, 5, 7, 9, 10, 12, 14]);
        assert_eq!(half.pictures_per_segment(), (7, 12));
        assert_eq!(cadence(60, 10, 0, 4, &[]).pictures_per_segment(), (18, 60));
    }

    #[test]
    fn the_first_tick_and_those_where_tracks_resume_are_fed_wherever_they_are() {
        let half = cadence(60, 10, 33, 2, &[35, 33]);
        assert_eq!(fed(&half, 5), [33, 34, 35, 36, 38]);
        assert!(half.feeds(Tick(33)) && half.feeds(Tick(35)) && !half.feeds(Tick(37)));
    }

    #[test]
    fn keyframes_are_named_by_the_pictures_that_stand_at_edges() {
        let every = cadence(60, 10, 67, 1, &[70]);
        assert_eq!(
            every.keyframes(Some(Tick(70))),
            "gte(n,53)*eq(mod(n-53,60),0)+eq(n,3)"
        );
        assert_eq!(every.keyframes(None), "gte(n,53)*eq(mod(n-53,60),0)");
        let aligned = cadence(60, 10, 120, 2, &[]);
        assert_eq!(aligned.keyframes(None), "gte(n,0)*eq(mod(n-0,30),0)");
        // Two segments begin before the other track resumes.
        let late = cadence(4, 2, 3, 1, &[9]);
        assert_eq!(
            late.keyframes(Some(Tick(9))),
            "gte(n,9)*eq(mod(n-9,4),0)+eq(n,1)+eq(n,5)+eq(n,6)"
        );
        let at_an_edge = cadence(4, 2, 3, 1, &[8]);
        assert_eq!(
            at_an_edge.keyframes(Some(Tick(8))),
            "gte(n,5)*eq(mod(n-5,4),0)+eq(n,1)"
        );
    }

    /// What FFmpeg makes of an expression of [`Cadence::picks`].
    fn picked(expression: &str, n: u64) -> bool {
        let (rule, single) = expression
            .split_once(")+eq")
            .map_or((expression, ""), |(rule, rest)| (rule, rest));
        let digits = |text: &str| -> Vec<u64> {
            let numbers = text.split(|c: char| !c.is_ascii_digit());
            numbers.filter_map(|number| number.parse().ok()).collect()
        };
        let single = digits(single);
        let &[from, again, place, per_segment, per_part, ratio] = &digits(rule)[..] else {
            panic!("{expression}")
        };
        assert_eq!(from, again);
        let regular =
            n >= from && ((n - from + place) % per_segment % per_part).is_multiple_of(ratio);
        regular || single.contains(&n)
    }

    #[test]
    fn every_second_picture_is_picked_by_its_place_and_where_a_track_resumes() {
        let all = cadence(60, 10, 67, 1, &[71]);
        let half = cadence(60, 10, 67, 2, &[71]);
        assert_eq!(
            all.picks(&half).as_deref(),
            Some("gte(n,5)*not(mod(mod(mod(n-5+12,60),10),2))+eq(n,0)+eq(n,1)+eq(n,3)+eq(n,4)")
        );
        assert_eq!(all.picks(&all), None);
    }

    proptest! {
        #[test]
        fn pictures_stand_for_every_tick_once_and_cross_no_edge(
            segment in 1..40_u32, part in 1..40_u32, first in 0..100_u64, step in 1..5_u32, extra in 0..60_u64
        ) {
            let part = part.min(segment);
            let cadence = cadence(segment, part, first, step, &[first + extra]);
            let mut tick = Tick(first);
            for _ in 0..200 {
                let after = cadence.after(tick);
                prop_assert!(after > tick && after.since(tick) <= u64::from(step));
                prop_assert!(cadence.feeds(tick));
                for between in tick.0 + 1..after.0 {
                    prop_assert!(!cadence.feeds(Tick(between)));
                    prop_assert!(!cadence.grid.ends_part(Tick(between - 1)), "{tick} {after}");
                }
                tick = after;
            }
        }

        #[test]
        fn a_rendition_of_fewer_pictures_picks_its_own_of_those_that_are_fed(
            segment in 1..40_u32, part in 1..40_u32, first in 0..100_u64, step in 1..5_u32, every in 2..4_u32,
            extra in 0..60_u64, own in 0..60_u64
        ) {
            let part = part.min(segment);
            let fed_cadence = cadence(segment, part, first, step, &[first + extra, first + own]);
            let track = cadence(segment, part, first, step * every, &[first + own]);
            let expression = fed_cadence.picks(&track).unwrap_or_else(|| "gte(n,0)*not(mod(mod(mod(n-0+0,1),1),1))".into());
            for (n, tick) in (0..).zip(fed(&fed_cadence, 300)) {
                prop_assert_eq!(picked(&expression, n), track.feeds(Tick(tick)), "{} {} {}", n, tick, expression);
            }
            // What it picks is what its reader expects.
            let shown = fed(&track, 40);
            let picked = fed(&fed_cadence, 300).into_iter().filter(|tick| track.feeds(Tick(*tick)));
            prop_assert_eq!(picked.take(40.min(shown.len())).collect::<Vec<_>>(), shown.into_iter().take(40).collect::<Vec<_>>());
        }

        #[test]
        fn a_settled_segment_has_as_many_pictures_as_is_said(
            segment in 1..60_u32, part in 1..60_u32, step in 1..5_u32
        ) {
            let cadence = cadence(segment, part.min(segment), 0, step, &[]);
            let (pictures, ticks) = cadence.pictures_per_segment();
            let at = fed(&cadence, pictures as usize + 1);
            prop_assert_eq!(at.last().copied(), Some(u64::from(ticks)));
        }
    }
}
