//! The parts that a media playlist of an origin lists: rules 2, 12 to 14, 19, 20, 34 and 35.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Notes;
use super::manifests::seconds_of;
use super::origin::{Away, Origin};
use crate::harness::hls::{ListedPart, LowLatency, MediaPlaylist};

/// Rounding to the microseconds that playlists are written in.
const ROUNDING: f64 = 1e-5;

/// A listed part.
struct Known {
    target: Duration,
    last_listed: Instant,
    bytes: Option<Vec<u8>>,
    asked_again: bool,
}

pub(crate) struct Parts {
    stream: String,
    /// By rendition, then by segment and the part's number in it.
    known: BTreeMap<(String, (u64, u64)), Known>,
    /// Segments that are whole, with the parts that they are to be compared with; none once they were.
    to_compare: BTreeMap<(String, u64), Vec<u64>>,
    /// The renditions' newest parts.
    newest: BTreeMap<String, (u64, u64)>,
    /// Whether the origin has parts.
    expected: bool,
    whole: u64,
}

impl Parts {
    pub(crate) fn new(stream: &str) -> Self {
        Self {
            stream: stream.to_owned(),
            known: BTreeMap::new(),
            to_compare: BTreeMap::new(),
            newest: BTreeMap::new(),
            expected: false,
            whole: 0,
        }
    }

    /// How many segments have been compared with their parts.
    pub(crate) fn whole(&self) -> u64 {
        self.whole
    }

    /// After an outage parts that had not reached the disk may be other ones.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
        self.to_compare.clear();
        self.newest.clear();
    }

    /// Notes what the playlist of a rendition says of parts. Only one that was served may, and there are so many other renditions.
    pub(crate) fn listed(
        &mut self,
        rendition: &str,
        playlist: &MediaPlaylist,
        served: bool,
        others: usize,
        notes: &mut Notes,
    ) {
        let low_latency = &playlist.low_latency;
        self.expected |= served && low_latency.part_target.is_some();
        if !self.expected {
            notes.unless(*low_latency == LowLatency::default(), 35, || {
                format!("{rendition}: a plain playlist has {low_latency:?}")
            });
            return;
        }
        check_times(rendition, playlist, notes);
        if playlist.ended {
            return;
        }
        let reports = low_latency.reports.len();
        notes.unless(reports == others, 20, || {
            format!("{rendition}: {reports} reports of {others} other renditions")
        });
        self.check_newest(rendition, low_latency, notes);
        let target = Duration::from_secs(playlist.target_duration);
        for part in low_latency.parts.iter().filter(|part| !part.gap) {
            let at = (rendition.to_owned(), part.place);
            let known = self.known.entry(at).or_insert_with(|| Known {
                target,
                last_listed: Instant::now(),
                bytes: None,
                asked_again: false,
            });
            known.last_listed = Instant::now();
        }
        for segment in &playlist.segments {
            let of_it = |part: &&ListedPart| part.place.0 == segment.number;
            let parts = low_latency.parts.iter().filter(of_it);
            let parts: Vec<u64> = parts.map(|part| part.place.1).collect();
            let at = (rendition.to_owned(), segment.number);
            if !parts.is_empty() && !segment.gap {
                self.to_compare.entry(at).or_insert(parts);
            }
        }
    }

    /// Rule 19: the hint is the part after the newest, which never steps back.
    fn check_newest(&mut self, rendition: &str, low_latency: &LowLatency, notes: &mut Notes) {
        let Some(newest) = low_latency.parts.last().map(|part| part.place) else {
            return;
        };
        let before = self.newest.insert(rendition.to_owned(), newest);
        notes.unless(before.is_none_or(|before| before <= newest), 6, || {
            format!("{rendition}: the newest part was {before:?}, is {newest:?}")
        });
        let (segment, number) = newest;
        let next = [
            format!("{segment}.{}.m4s", number + 1),
            format!("{}.0.m4s", segment + 1),
        ];
        let hints = &low_latency.hints;
        let one = matches!(&hints[..], [hint] if next.contains(hint));
        notes.unless(one, 19, || {
            format!("{rendition}: the newest part is {newest:?}, the hints are {hints:?}")
        });
    }

    /// Fetches the parts that are new, compares those of segments that are whole, and asks again for those that have left.
    pub(crate) fn ask(&mut self, origin: &mut impl Origin, notes: &mut Notes) -> Result<(), Away> {
        for ((rendition, (segment, number)), known) in &mut self.known {
            let path = format!("{}/{rendition}/{segment}.{number}.m4s", self.stream);
            let since = known.last_listed.elapsed();
            if known.bytes.is_none() {
                let fetched = origin.get(&path)?;
                // Judged by the time after the answer.
                let due = known.last_listed.elapsed() < known.target * 3;
                notes.unless(fetched.status == 200 || !due, 2, || {
                    format!("{path} is listed and answers {}", fetched.status)
                });
                known.bytes = Some(fetched.body);
            } else if since > known.target * 5 / 2 && !known.asked_again {
                known.asked_again = true;
                let status = origin.head(&path)?;
                let due = known.last_listed.elapsed() < known.target * 3;
                notes.unless(status == 200 || !due, 2, || {
                    format!("{path} answers {status} {since:.1?} after its tag was gone")
                });
            }
        }
        self.compare(origin, notes)?;
        // Those of segments that are to be compared are younger.
        self.known
            .retain(|_, known| known.last_listed.elapsed() < known.target * 4);
        Ok(())
    }

    /// Rule 34: the parts are the segment.
    fn compare(&mut self, origin: &mut impl Origin, notes: &mut Notes) -> Result<(), Away> {
        for ((rendition, segment), numbers) in &mut self.to_compare {
            let part = |number: &u64| {
                let known = self.known.get(&(rendition.clone(), (*segment, *number)))?;
                known.bytes.as_deref()
            };
            let parts: Option<Vec<&[u8]>> = numbers.iter().map(part).collect();
            if let Some(parts) = parts.filter(|parts| !parts.is_empty()) {
                let path = format!("{}/{rendition}/{segment}.m4s", self.stream);
                let fetched = origin.get(&path)?;
                let same = fetched.status == 200 && fetched.body == parts.concat();
                notes.unless(same, 34, || {
                    format!(
                        "{path} answers {}, and is not its parts {numbers:?}",
                        fetched.status
                    )
                });
                self.whole += 1;
            }
            numbers.clear();
        }
        Ok(())
    }
}

/// Rules 12 to 14.
fn check_times(rendition: &str, playlist: &MediaPlaylist, notes: &mut Notes) {
    let low_latency = &playlist.low_latency;
    let Some(part_target) = low_latency.part_target else {
        return notes.broken(12, format!("{rendition} has no EXT-X-PART-INF any more"));
    };
    let target = seconds_of(playlist.target_duration);
    let held = low_latency.can_block_reload
        && low_latency.can_skip_until >= 6.0 * target
        && low_latency.hold_back >= 3.0 * target
        && low_latency.part_hold_back >= 3.0 * part_target - ROUNDING;
    notes.unless(held, 13, || {
        format!("{rendition}: EXT-X-SERVER-CONTROL is {low_latency:?}")
    });
    let parts = &low_latency.parts;
    for (index, part) in parts.iter().enumerate() {
        let segment = |part: &ListedPart| part.place.0;
        let begins = index == 0 || segment(&parts[index - 1]) != segment(part);
        let next = parts.get(index + 1);
        let ends = next.is_none_or(|next| segment(next) != segment(part));
        let whole = part.seconds >= 0.85 * part_target - ROUNDING;
        let right = whole || ends || part.independent || part.gap;
        notes.unless(right && part.seconds <= part_target + ROUNDING, 12, || {
            format!("{rendition}: {part:?}, PART-TARGET is {part_target}")
        });
        notes.unless(!begins || part.independent || part.gap, 12, || {
            format!("{rendition}: a segment begins with {part:?}")
        });
        let follows = ends || next.is_some_and(|next| next.place.1 == part.place.1 + 1);
        notes.unless(follows, 12, || {
            format!("{rendition}: after {part:?} comes {next:?}")
        });
    }
    let listed: f64 = parts.iter().map(|part| part.seconds).sum();
    notes.unless(listed <= 3.0 * target + ROUNDING, 14, || {
        format!("{rendition} lists {listed:.3} s of parts, TARGETDURATION is {target}")
    });
}
