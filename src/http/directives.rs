//! Delivery directives (draft rfc8216bis, 6.2.5): what a player asks of a media playlist in its query, and whether that is there, has to be waited
//! for, or can't be meant. Pure; rules 15 to 18.

use crate::manifest::hls::{Extent, advance_part_limit};
use crate::tick::SegmentNumber;
use crate::window::{Place, Snapshot};

/// How far past the last whole segment a player may ask.
const MAX_SEGMENTS_AHEAD: u64 = 2;

/// What a query asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Directives {
    /// The segment that has to be there, whole or up to this part.
    wanted: Option<(SegmentNumber, Option<u32>)>,
    pub(super) extent: Extent,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The playlist as it is.
    Now,
    /// The playlist once the track's next place is this or a later one; then it is asked again.
    Wait(Place),
    /// Nobody who has read the playlist asks for that.
    TooFar,
}

impl Directives {
    /// Reads a query; parameters that are not ours are ignored. An error says what is wrong.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, String> {
        let (mut segment, mut part, mut skip) = (None, None, None);
        for field in query.unwrap_or_default().split('&') {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let known = match name {
                "_HLS_msn" => &mut segment,
                "_HLS_part" => &mut part,
                "_HLS_skip" => &mut skip,
                _ => continue,
            };
            if known.replace(value).is_some() {
                return Err(format!("{name} is there twice"));
            }
        }
        let number = |name: &str, value: &str| {
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.then(|| value.parse::<u64>().ok()).flatten();
            number.ok_or_else(|| format!("{name} has to be a whole number"))
        };
        let segment = segment.map(|value| number("_HLS_msn", value)).transpose()?;
        let part = part.map(|value| number("_HLS_part", value)).transpose()?;
        let wanted = match (segment, part) {
            (None, Some(_)) => return Err("_HLS_part needs _HLS_msn".to_owned()),
            (None, None) => None,
            (Some(segment), part) => {
                let part = part.map(|part| u32::try_from(part).unwrap_or(u32::MAX));
                Some((SegmentNumber(segment), part))
            }
        };
        let extent = match skip {
            None => Extent::Full,
            Some("YES" | "v2") => Extent::Delta,
            Some(_) => return Err("_HLS_skip has to be YES or v2".to_owned()),
        };
        Ok(Self { wanted, extent })
    }

    /// What is to be done about it when the window is `snapshot`, in which the track has something listed.
    pub(super) fn judge(&self, snapshot: &Snapshot, track: usize) -> Verdict {
        let view = &snapshot.tracks[track];
        let (Some((segment, part)), Some(next)) = (self.wanted, view.next_place()) else {
            return Verdict::Now;
        };
        let last = view.listed.last().map_or(0, |last| last.number.0);
        if snapshot.ended || segment < next.segment && part.is_none() {
            return Verdict::Now;
        }
        if segment.0 > last.saturating_add(MAX_SEGMENTS_AHEAD) {
            return Verdict::TooFar;
        }
        let Some(part) = part else {
            let segment = segment.next();
            return Verdict::Wait(Place { segment, part: 0 });
        };
        let place = Place { segment, part };
        if view.has(place) {
            return Verdict::Now;
        }
        if segment < next.segment {
            // Past the end of a closed segment: the first part of the next one.
            return Verdict::Wait(Place { part: 1, ..next });
        }
        if view.parts_until(place) > advance_part_limit(snapshot, view.is_audio()) {
            return Verdict::TooFar;
        }
        Verdict::Wait(Place {
            segment,
            part: part.saturating_add(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_understood_or_refused() {
        let all = |wanted, extent| Ok(Directives { wanted, extent });
        let full = |wanted| all(wanted, Extent::Full);
        let segment = SegmentNumber(7);
        for (query, read) in [
            (None, full(None)),
            (Some(""), full(None)),
            (Some("token=a&_HLS_msnx=3"), full(None)),
            (Some("_HLS_msn=7"), full(Some((segment, None)))),
            (
                Some("_HLS_part=2&a=b&_HLS_msn=7"),
                full(Some((segment, Some(2)))),
            ),
            (Some("_HLS_skip=YES"), all(None, Extent::Delta)),
            (
                Some("_HLS_msn=7&_HLS_skip=v2"),
                all(Some((segment, None)), Extent::Delta),
            ),
            (
                Some("_HLS_msn=7&_HLS_part=99999999999"),
                full(Some((segment, Some(u32::MAX)))),
            ),
        ] {
            assert_eq!(Directives::parse(query), read, "{query:?}");
        }
        for query in [
            "_HLS_part=1",
            "_HLS_msn=",
            "_HLS_msn",
            "_HLS_msn=-1",
            "_HLS_msn=1.5",
            "_HLS_msn=a",
            "_HLS_msn=18446744073709551616",
            "_HLS_msn=1&_HLS_part=x",
            "_HLS_msn=1&_HLS_msn=1",
            "_HLS_skip=NO",
        ] {
            assert!(Directives::parse(Some(query)).is_err(), "{query}");
        }
    }
}
