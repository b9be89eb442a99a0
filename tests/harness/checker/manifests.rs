//! The playlists and the MPD, held against what they said before and against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Notes;
use super::counted_mpd::CountedMpds;
use super::origin::{Away, Fetched, Origin};
use super::parts::Parts;
use super::uris::{Sighting, Uris};
use crate::harness::dash::{self, Mpd};
use crate::harness::held::ProcessorTime;
use crate::harness::hls::{self, Listed, MediaPlaylist, Variant};

/// What polling and a busy machine may add to the time in which a segment has to appear.
const POLL_SLACK: Duration = Duration::from_millis(500);
/// With less than this share of the processors' time idle, an encoder may be kept waiting for them.
const SPARE: f64 = 0.1;
/// But not for longer than this.
const STARVED: Duration = Duration::from_secs(10);

pub(crate) struct Manifests {
    stream: String,
    variants: Vec<Variant>,
    /// The audio renditions, by name.
    audio: BTreeSet<String>,
    media: BTreeMap<String, Seen>,
    mpd: Option<Mpd>,
    mpd_expected: bool,
    counted: CountedMpds,
    pub(super) parts: Parts,
    /// What one rendition said of a segment, for the others of video to agree with, and later ones of it itself: PROGRAM-DATE-TIME, seconds, discontinuity.
    agreed: BTreeMap<(u64, String), Said>,
}

type Said = (Option<u64>, f64, bool);

/// A rendition's playlist as it was.
struct Seen {
    playlist: MediaPlaylist,
    longest_seconds: f64,
    /// When its newest segment appeared; none after an outage.
    grew: Option<Grew>,
}

/// When something appeared, and what the processors had done until then.
#[derive(Clone, Copy)]
struct Grew {
    at: Instant,
    machine: ProcessorTime,
}

impl Grew {
    fn now() -> Self {
        Self {
            at: Instant::now(),
            machine: ProcessorTime::now(),
        }
    }
}

impl Manifests {
    pub(crate) fn new(stream: &str) -> Self {
        Self {
            stream: stream.to_owned(),
            variants: Vec::new(),
            audio: BTreeSet::new(),
            media: BTreeMap::new(),
            mpd: None,
            mpd_expected: false,
            counted: CountedMpds::default(),
            parts: Parts::new(stream),
            agreed: BTreeMap::new(),
        }
    }

    /// After an outage the time in which a segment has to appear counts anew.
    pub(crate) fn forget_pace(&mut self) {
        for seen in self.media.values_mut() {
            seen.grew = None;
        }
    }

    /// Reads every manifest once.
    pub(crate) fn read_all(
        &mut self,
        origin: &mut impl Origin,
        uris: &mut Uris,
        notes: &mut Notes,
    ) -> Result<(), Away> {
        let path = format!("{}/index.m3u8", self.stream);
        let Some(text) = readable(origin.get(&path)?, &path, !self.variants.is_empty(), notes)
        else {
            return Ok(());
        };
        match hls::multivariant(&text) {
            Ok(variants) => self.check_variants(variants, notes),
            Err(error) => notes.broken(6, format!("{path}: {error}")),
        }
        match hls::audio(&text) {
            Ok(uris) => self.check_audio(&uris, notes),
            Err(error) => notes.broken(22, format!("{path}: {error}")),
        }
        let video = self.variants.iter().map(|variant| variant.uri.clone());
        let audio = self.audio.iter().map(|name| format!("{name}/media.m3u8"));
        // With several groups of audio, each picture has several variants.
        let uris_listed: BTreeSet<String> = video.chain(audio).collect();
        for uri in &uris_listed {
            let path = format!("{}/{uri}", self.stream);
            let at = Instant::now();
            let fetched = origin.get(&path)?;
            let cache = fetched.header("cache-control").map(str::to_owned);
            let judged = fetched.has_headers();
            let Some(text) = readable(fetched, &path, true, notes) else {
                continue;
            };
            match hls::media(&text) {
                Ok(playlist) => {
                    if judged {
                        check_playlist_cache(
                            cache.as_deref(),
                            playlist.target_duration,
                            &path,
                            notes,
                        );
                    }
                    let rendition = uri.split('/').next().unwrap_or_default().to_owned();
                    let others = uris_listed.len() - 1;
                    self.parts
                        .listed(&rendition, &playlist, judged, others, notes);
                    self.check_media(&rendition, playlist, at, uris, notes);
                }
                Err(error) => notes.broken(6, format!("{path}: {error}")),
            }
        }
        let path = format!("{}/manifest.mpd", self.stream);
        let fetched = origin.get(&path)?;
        let from_folder = !fetched.has_headers();
        if fetched.status == 404 && !self.mpd_expected {
            return Ok(());
        }
        self.mpd_expected = true;
        if let Some(text) = readable(fetched, &path, true, notes) {
            match dash::read(&text) {
                Ok(mpd) => self.check_mpd(mpd, from_folder, uris, notes),
                Err(error) => notes.broken(6, format!("{path}: {error}")),
            }
        }
        self.counted.read(&self.stream, origin, uris, notes)
    }

    fn check_variants(&mut self, variants: Vec<Variant>, notes: &mut Notes) {
        for variant in &variants {
            let uri = &variant.uri;
            let whole = variant.bandwidth > 0
                && variant.average_bandwidth.is_some_and(|average| average > 0)
                && variant.codecs.is_some()
                && variant.resolution.is_some()
                && variant.frame_rate.is_some();
            notes.unless(whole, 22, || {
                format!("{uri}: an attribute is missing: {variant:?}")
            });
            let average = variant.average_bandwidth.unwrap_or(0);
            notes.unless(average <= variant.bandwidth, 22, || {
                format!("{uri}: AVERAGE-BANDWIDTH is above BANDWIDTH: {variant:?}")
            });
        }
        let names = |variants: &[Variant]| -> Vec<String> {
            variants.iter().map(|variant| variant.uri.clone()).collect()
        };
        if !self.variants.is_empty() {
            let (before, now) = (names(&self.variants), names(&variants));
            notes.unless(before == now, 26, || {
                format!("variants were {before:?}, are {now:?}")
            });
        }
        self.variants = variants;
    }

    /// Rule 26 for audio, too.
    fn check_audio(&mut self, uris: &[String], notes: &mut Notes) {
        let name = |uri: &String| uri.split('/').next().unwrap_or_default().to_owned();
        let now: BTreeSet<String> = uris.iter().map(name).collect();
        if !self.audio.is_empty() {
            let before = &self.audio;
            notes.unless(*before == now, 26, || {
                format!("audio renditions were {before:?}, are {now:?}")
            });
        }
        self.audio = now;
    }

    fn check_media(
        &mut self,
        rendition: &str,
        playlist: MediaPlaylist,
        at: Instant,
        uris: &mut Uris,
        notes: &mut Notes,
    ) {
        let target = playlist.target_duration;
        notes.unless(!playlist.has_playlist_type, 6, || {
            format!("{rendition} has a PLAYLIST-TYPE")
        });
        for other in self.media.values() {
            let theirs = other.playlist.target_duration;
            notes.unless(theirs == target, 4, || {
                format!("{rendition} has TARGETDURATION {target}, another rendition {theirs}")
            });
        }
        let seconds = playlist.seconds();
        for segment in &playlist.segments {
            self.check_segment(rendition, segment, target, notes);
            if !segment.gap {
                uris.sighted(
                    &Sighting {
                        rendition,
                        uri: &segment.uri,
                        map: segment.map.as_deref(),
                        number: segment.number,
                        seconds: segment.seconds,
                        target_seconds: target,
                        playlist_seconds: seconds,
                        at,
                    },
                    notes,
                );
            }
        }
        check_media_times(rendition, &playlist, uris, notes);
        let grew = match self.media.get(rendition) {
            Some(seen) => check_against_before(rendition, seen, &playlist, at, notes),
            None => Some(Grew::now()),
        };
        let before = self
            .media
            .get(rendition)
            .map_or(0.0, |seen| seen.longest_seconds);
        self.media.insert(
            rendition.to_owned(),
            Seen {
                playlist,
                longest_seconds: before.max(seconds),
                grew,
            },
        );
    }

    fn check_segment(&mut self, rendition: &str, segment: &Listed, target: u64, notes: &mut Notes) {
        let Listed {
            number, seconds, ..
        } = *segment;
        let rounded = (segment.seconds + 0.5).floor();
        notes.unless(rounded <= seconds_of(target), 4, || {
            format!("{rendition} segment {number}: EXTINF {seconds} rounds to more than TARGETDURATION {target}")
        });
        notes.unless(segment.program_date_time.is_some(), 21, || {
            format!("{rendition} segment {number} has no PROGRAM-DATE-TIME")
        });
        let said = (
            segment.program_date_time,
            segment.seconds,
            segment.discontinuity,
        );
        let is_audio = self.audio.contains(rendition);
        // Frames of different codecs are not of one length.
        let of = if is_audio { rendition } else { "" };
        let agreed = *self.agreed.entry((number, of.to_owned())).or_insert(said);
        if is_audio && let Some(video) = self.agreed.get(&(number, String::new())) {
            check_beside_video(rendition, number, *video, said, notes);
        }
        notes.unless(agreed == said, 21, || {
            format!("{rendition} segment {number}: {said:?} here, {agreed:?} before or elsewhere")
        });
    }

    fn check_mpd(&mut self, mpd: Mpd, from_folder: bool, uris: &Uris, notes: &mut Notes) {
        notes.unless(mpd.dynamic, 25, || "the MPD is not dynamic".to_owned());
        let mends_clock = mpd.utc_timings.iter().any(|(scheme, value)| {
            if from_folder {
                scheme == "urn:mpeg:dash:utc:http-head:2014"
            } else {
                scheme.starts_with("urn:mpeg:dash:utc:http-") && value == "time"
            }
        });
        notes.unless(mends_clock, 27, || {
            format!("UTCTiming: {:?}", mpd.utc_timings)
        });
        let (delay, depth) = (
            mpd.suggested_presentation_delay,
            mpd.time_shift_buffer_depth,
        );
        let sound = matches!((delay, depth), (Some(delay), Some(depth)) if delay < depth);
        notes.unless(sound, 29, || {
            format!("suggestedPresentationDelay {delay:?}, timeShiftBufferDepth {depth:?}")
        });
        for period in &mpd.periods {
            let id = &period.id;
            notes.unless(id.is_some() && period.start.is_some(), 25, || {
                format!("a Period without id or start: {id:?}")
            });
            for set in &period.sets {
                notes.unless(set.id.is_some(), 26, || {
                    "an AdaptationSet without id".to_owned()
                });
                for representation in &set.representations {
                    check_representation(representation, uris, notes);
                }
            }
        }
        if let Some(before) = &self.mpd {
            check_mpd_against_before(before, &mpd, notes);
        }
        self.mpd = Some(mpd);
    }
}

/// Rule 21 for audio: within one frame of the video, of which none is longer than 1024 samples of 48 kHz.
fn check_beside_video(rendition: &str, number: u64, video: Said, audio: Said, notes: &mut Notes) {
    const FRAME_SECONDS: f64 = 1024.0 / 48_000.0;
    let (Some(picture), Some(sound)) = (video.0, audio.0) else {
        return;
    };
    // To the millisecond that the playlists round to.
    let close = u128::from(picture.abs_diff(sound)) <= 22;
    let as_long = (video.1 - audio.1).abs() < FRAME_SECONDS + 0.001;
    notes.unless(close && as_long && video.2 == audio.2, 21, || {
        format!("{rendition} segment {number}: {audio:?} here, {video:?} in the video")
    });
}

/// The body of a manifest that has to be there once it was.
pub(super) fn readable(
    fetched: Fetched,
    path: &str,
    expected: bool,
    notes: &mut Notes,
) -> Option<String> {
    if fetched.status != 200 {
        notes.unless(!expected, 6, || {
            format!("{path} answers {}", fetched.status)
        });
        if fetched.has_headers() {
            let cache = fetched.header("cache-control").unwrap_or_default();
            notes.unless(cache.contains("no-store"), 7, || {
                format!(
                    "{path}: the error {} has cache-control '{cache}'",
                    fetched.status
                )
            });
        }
        return None;
    }
    String::from_utf8(fetched.body)
        .map_err(|_| notes.broken(6, format!("{path} is not UTF-8")))
        .ok()
}

fn check_playlist_cache(cache: Option<&str>, target: u64, path: &str, notes: &mut Notes) {
    let cache = cache.unwrap_or_default();
    let max_age = cache
        .split(',')
        .find_map(|directive| directive.trim().strip_prefix("max-age="))
        .and_then(|age| age.parse::<u64>().ok());
    let short = cache.contains("no-cache")
        || cache.contains("no-store")
        || max_age.is_some_and(|age| age * 2 <= target);
    notes.unless(short, 7, || {
        format!("{path} has cache-control '{cache}', TARGETDURATION is {target}")
    });
}

/// Rule 23, and PROGRAM-DATE-TIME by the grid, with the media that was fetched.
fn check_media_times(rendition: &str, playlist: &MediaPlaylist, uris: &Uris, notes: &mut Notes) {
    let mut before: Option<(u64, u64)> = None;
    let mut drift = 0.0;
    for segment in &playlist.segments {
        let number = segment.number;
        let map = segment.map.as_deref().unwrap_or_default();
        let span = uris.span(rendition, number).filter(|_| !segment.gap);
        let (Some((start, end)), Some(timescale)) = (span, uris.timescale(rendition, map)) else {
            before = None;
            continue;
        };
        if let Some((last, expected)) = before.filter(|_| !segment.discontinuity) {
            notes.unless(expected == start, 23, || {
                format!("{rendition} segment {number} starts at {start}, {last} ends at {expected}")
            });
        }
        before = Some((number, end));
        let actual = seconds_of(end - start) / seconds_of(timescale);
        drift += segment.seconds - actual;
        // No framerate is above 240.
        notes.unless(drift.abs() < 1.0 / 240.0, 23, || {
            format!("{rendition} segment {number}: the sum of EXTINF is off by {drift} s")
        });
        let starts_ms = u128::from(start) * 1000 / u128::from(timescale);
        let said = segment.program_date_time.map(u128::from);
        let exact = said.is_none_or(|said| said.abs_diff(starts_ms) <= 1);
        notes.unless(exact, 21, || {
            format!("{rendition} segment {number}: PROGRAM-DATE-TIME {said:?}, decode time {starts_ms} ms")
        });
    }
}

/// Rules 1, 3, 4, 5 and 10, of a playlist that was asked for at `asked`. Returns when the newest segment appeared.
fn check_against_before(
    rendition: &str,
    seen: &Seen,
    now: &MediaPlaylist,
    asked: Instant,
    notes: &mut Notes,
) -> Option<Grew> {
    let before = &seen.playlist;
    let target = now.target_duration;
    let (was, is) = (before.target_duration, target);
    notes.unless(was == is, 4, || {
        format!("{rendition}: TARGETDURATION was {was}, is {is}")
    });
    let (was, is) = (before.media_sequence, now.media_sequence);
    notes.unless(was <= is, 1, || {
        format!("{rendition}: MEDIA-SEQUENCE was {was}, is {is}")
    });
    let (was, is) = (before.discontinuity_sequence, now.discontinuity_sequence);
    notes.unless(was <= is, 10, || {
        format!("{rendition}: DISCONTINUITY-SEQUENCE was {was}, is {is}")
    });
    for segment in &before.segments {
        let at = now
            .segments
            .iter()
            .find(|other| other.number == segment.number);
        let kept = at.is_none_or(|other| other.uri == segment.uri);
        notes.unless(kept, 1, || {
            format!(
                "{rendition}: number {} was {}, is {at:?}",
                segment.number, segment.uri
            )
        });
    }
    let last = |playlist: &MediaPlaylist| playlist.segments.last().map(|segment| segment.number);
    let (was, is) = (last(before), last(now));
    notes.unless(was <= is, 6, || {
        format!("{rendition}: the last segment was {was:?}, is {is:?}")
    });
    // A playlist may be short only as long as the stream is young.
    let shortened = now.media_sequence > before.media_sequence;
    let (seconds, count) = (now.seconds(), now.segments.len());
    let long = seconds >= 3.0 * seconds_of(target) - 0.001;
    notes.unless(!shortened || long, 3, || {
        format!("{rendition} was shortened to {seconds:.3} s, TARGETDURATION is {target}")
    });
    notes.unless(!shortened || count >= 6, 3, || {
        format!("{rendition} was shortened to {count} segments")
    });
    if was != is {
        return Some(Grew::now());
    }
    let bound = Duration::from_secs(target) * 3 / 2 + POLL_SLACK;
    // The playlist was read no earlier than it was asked for; how long the answer was on its way to us says nothing of it.
    let in_time = now.ended
        || seen.grew.is_none_or(|grew| {
            let waited = asked.saturating_duration_since(grew.at);
            // What is late where all processors were taken the whole time, by browsers that start, is late by them.
            let excused = waited <= STARVED && grew.machine.idle_share() < SPARE;
            waited <= bound || excused
        });
    notes.unless(in_time, 5, || {
        format!("{rendition}: no new segment after {is:?} within {bound:?}")
    });
    seen.grew.or_else(|| Some(Grew::now()))
}

/// Rules 30 and 32, and that DASH and HLS speak of the same segments.
fn check_representation(representation: &dash::Representation, uris: &Uris, notes: &mut Notes) {
    let dash::Representation {
        id,
        missing,
        segments,
        ..
    } = representation;
    notes.unless(missing.is_empty(), 32, || {
        format!("Representation {id} lacks {missing:?}")
    });
    notes.unless(!segments.is_empty(), 30, || {
        format!("Representation {id} has an empty timeline")
    });
    for pair in segments.windows(2) {
        let (first, second) = (&pair[0], &pair[1]);
        notes.unless(first.time + first.duration == second.time, 30, || {
            format!("Representation {id}: {first:?} does not end where {second:?} starts")
        });
    }
    for entry in segments {
        let (rendition, name) = entry.uri.split_once('/').unwrap_or((id, &entry.uri));
        let named = name == format!("{}.m4s", entry.number);
        notes.unless(named, 30, || {
            format!("Representation {id}: number and name differ: {entry:?}")
        });
        if let Some(span) = uris.span(rendition, entry.number) {
            let said = (entry.time, entry.time + entry.duration);
            notes.unless(span == said, 30, || {
                format!(
                    "{rendition} segment {}: the MPD says {said:?}, the media {span:?}",
                    entry.number
                )
            });
        }
    }
}

/// Rules 25, 26 and 28.
fn check_mpd_against_before(before: &Mpd, now: &Mpd, notes: &mut Notes) {
    let (was, is) = (
        &before.availability_start_time,
        &now.availability_start_time,
    );
    notes.unless(was == is && is.is_some(), 25, || {
        format!("availabilityStartTime was {was:?}, is {is:?}")
    });
    for period in &before.periods {
        let Some(kept) = now.periods.iter().find(|other| other.id == period.id) else {
            continue;
        };
        let (was, is) = (&period.start, &kept.start);
        notes.unless(was == is, 25, || {
            format!("Period {:?} started at {was:?}, now at {is:?}", period.id)
        });
        let names = |period: &dash::Period| -> Vec<(Option<String>, Vec<String>)> {
            let ids = |set: &dash::AdaptationSet| {
                set.representations
                    .iter()
                    .map(|representation| representation.id.clone())
                    .collect()
            };
            period
                .sets
                .iter()
                .map(|set| (set.id.clone(), ids(set)))
                .collect()
        };
        let (was, is) = (names(period), names(kept));
        notes.unless(was == is, 26, || {
            format!("AdaptationSets were {was:?}, are {is:?}")
        });
        let last = now.periods.last().is_some_and(|last| last.id == period.id);
        let old = period.sets.iter().flat_map(|set| &set.representations);
        let new = kept.sets.iter().flat_map(|set| &set.representations);
        for (old, new) in old.zip(new) {
            check_timeline(old, new, last, now.time_shift_buffer_depth, notes);
        }
    }
}

/// Rule 28: a timeline loses only its oldest, once expired, and grows only in the last Period.
fn check_timeline(
    old: &dash::Representation,
    new: &dash::Representation,
    in_last_period: bool,
    depth: Option<f64>,
    notes: &mut Notes,
) {
    let id = &old.id;
    let (Some(old_end), Some(new_end)) = (old.segments.last(), new.segments.last()) else {
        return;
    };
    let grew = new_end.time > old_end.time;
    notes.unless(in_last_period || !grew, 28, || {
        format!("{id} grew in a Period that is not the last")
    });
    notes.unless(new_end.time >= old_end.time, 28, || {
        format!("{id} lost its newest segment {}", old_end.number)
    });
    let end = seconds_of(new_end.time + new_end.duration);
    for entry in &old.segments {
        let kept = new.segments.iter().find(|other| other.time == entry.time);
        if let Some(kept) = kept {
            notes.unless(kept == entry, 28, || {
                format!("{id}: {entry:?} became {kept:?}")
            });
            continue;
        }
        let age = (end - seconds_of(entry.time + entry.duration)) / seconds_of(new.timescale);
        let expired = depth.is_some_and(|depth| age >= depth - 0.001);
        notes.unless(expired, 28, || {
            format!("{id}: segment {} left {age:.2} s before the newest end, timeShiftBufferDepth is {depth:?}", entry.number)
        });
    }
}

/// A count as a float: exact far beyond anything that is counted here.
#[allow(clippy::cast_precision_loss)]
pub(super) fn seconds_of(count: u64) -> f64 {
    count as f64
}
