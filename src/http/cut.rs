//! Which segments a clip is made of, and where each of their fragments is in it. Pure.

use std::path::Path;
use std::sync::Arc;

use crate::package::{MoviePlace, Reference};
use crate::sample::TrackDescription;
use crate::tick::{Grid, SegmentNumber, Tick, UnixTime};
use crate::window::{OpenSegment, Period, Segment, Snapshot, TrackView};

/// A window, or a recording as one, oldest first; the folder is that of a recording.
pub(super) type Stock = (Arc<Snapshot>, Option<Arc<Path>>);

/// Why there is no clip. The text is for who asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CutError {
    #[error("there is nothing of stream '{0}' yet")]
    Nothing(String),
    #[error(
        "there is nothing between {from} and {to}: the oldest is of {oldest}, the newest of {newest}"
    )]
    Outside {
        from: UnixTime,
        to: UnixTime,
        oldest: UnixTime,
        newest: UnixTime,
    },
    #[error("nothing was published or kept between {from} and {to}: there is a hole")]
    Hole { from: UnixTime, to: UnixTime },
    #[error("there is no rendition '{0}' of that time")]
    UnknownRendition(String),
    #[error(
        "the encoding changes at {0}: ask for a clip that ends there, and another that begins there"
    )]
    EncodingChanges(UnixTime),
    #[error("that has more than {0} segments: ask for it in pieces")]
    TooMany(usize),
}

/// A segment's bytes in a clip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The rendition's name.
    pub(super) rendition: Arc<str>,
    /// The segment.
    pub(super) number: SegmentNumber,
    /// When it begins.
    pub(super) starts: UnixTime,
    /// So many bytes of it, from its beginning.
    pub(super) bytes: u64,
    /// The recording's folder that has it; none while only the window does.
    pub(super) folder: Option<Arc<Path>>,
    /// Where its fragments are in the movie; they are numbered as they are sent.
    pub(super) place: MoviePlace,
}

/// A clip.
#[derive(Debug)]
pub(super) struct Cut {
    /// What it shows: whole segments, so a little more than was asked for.
    pub(super) from: UnixTime,
    pub(super) to: UnixTime,
    /// The tracks' encodings: the video's, and the sound's if there is any.
    pub(super) tracks: Vec<TrackDescription>,
    pub(super) references: Vec<Reference>,
    /// In the order of the file.
    pub(super) pieces: Vec<Piece>,
}

/// No clip has more segments: `sidx` counts them in 16 bits.
const MOST_SEGMENTS: usize = 20_000;

/// One track's segment, be it whole or still being written.
#[derive(Clone)]
pub(super) struct Taken<'a> {
    pub(super) number: SegmentNumber,
    pub(super) period: &'a Arc<Period>,
    pub(super) first_tick: Tick,
    pub(super) ticks: u64,
    bytes: u64,
    pub(super) starts: UnixTime,
    pub(super) ends: UnixTime,
}

impl<'a> Taken<'a> {
    fn whole(segment: &'a Segment) -> Self {
        #[cfg(test)]
        tests::TAKEN.set(tests::TAKEN.get() + 1);
        Self {
            number: segment.number,
            period: &segment.period,
            first_tick: segment.first_tick,
            ticks: u64::from(segment.ticks),
            bytes: segment.len(),
            starts: segment.period.grid.time_of(segment.first_tick),
            ends: segment.period.grid.time_of(segment.end_tick()),
        }
    }

    fn open(open: &'a OpenSegment) -> Self {
        Self {
            number: open.number,
            period: &open.period,
            first_tick: open.first_tick,
            ticks: open.end_tick().since(open.first_tick),
            bytes: open.parts.iter().map(|part| part.bytes.len() as u64).sum(),
            starts: open.period.grid.time_of(open.first_tick),
            ends: open.period.grid.time_of(open.end_tick()),
        }
    }

    /// Its bytes in a clip at `place`, of the rendition called `rendition`, in `folder` if it is a recording's.
    pub(super) fn piece(
        &self,
        rendition: &str,
        folder: Option<&Arc<Path>>,
        place: MoviePlace,
    ) -> Piece {
        Piece {
            rendition: Arc::from(rendition),
            number: self.number,
            starts: self.starts,
            bytes: self.bytes,
            folder: folder.cloned(),
            place,
        }
    }
}

/// What there is of a track, oldest first.
pub(super) fn taken(view: &TrackView) -> impl Iterator<Item = Taken<'_>> {
    let whole = view
        .retained
        .iter()
        .chain(&view.listed)
        .filter(|segment| !segment.gap);
    let open = view.open.iter().map(Taken::open);
    let whole = whole.map(|segment| Taken::whole(segment));
    whole.chain(open)
}

/// Segment `number` of a track, if it is there: looked up, for a clip asks for thousands.
fn taken_of(view: &TrackView, number: SegmentNumber) -> Option<Taken<'_>> {
    let open = view.open.as_ref().filter(|open| open.number == number);
    let whole = view.segment(number).map(|segment| Taken::whole(segment));
    whole.or_else(|| open.map(Taken::open))
}

/// The place of the video track called `name`, or of the best there is in `snapshot`.
pub(super) fn video_track(snapshot: &Snapshot, name: Option<&str>) -> Option<usize> {
    let pixels = |track: usize| {
        let view = &snapshot.tracks[track];
        let one = taken(view).last()?;
        let size = one.period.tracks.get(track)?.description.size;
        Some(u64::from(size.width) * u64::from(size.height))
    };
    let videos = (0..snapshot.tracks.len()).filter(|track| !snapshot.tracks[*track].is_audio());
    match name {
        Some(name) => { videos }.find(|track| snapshot.tracks[*track].name == name),
        // The first of equals.
        None => videos.rev().max_by_key(|track| pixels(*track)),
    }
}

/// Cuts what is between `from` and `to` out of `stocks`, of `rendition` or of the best.
pub(super) fn cut(
    stream: &str,
    stocks: &[Stock],
    (from, to): (UnixTime, UnixTime),
    rendition: Option<&str>,
) -> Result<Cut, CutError> {
    let mut maker = Maker::default();
    let mut reached = UnixTime::default();
    let mut bounds: Option<(UnixTime, UnixTime)> = None;
    let mut known = rendition.is_none();
    for (snapshot, folder) in stocks {
        let name = maker.video.as_deref().or(rendition);
        let Some(video) = video_track(snapshot, name) else {
            if maker.video.is_some()
                && let Some(next) = snapshot.tracks.first().and_then(|view| taken(view).next())
                && next.starts < to
            {
                return Err(CutError::EncodingChanges(next.starts));
            }
            continue;
        };
        known = true;
        let audio = snapshot.tracks.iter().position(TrackView::is_audio);
        for one in taken(&snapshot.tracks[video]) {
            let bounds = bounds.get_or_insert((one.starts, one.ends));
            bounds.1 = bounds.1.max(one.ends);
            // What is kept already is not taken from the window too.
            if one.ends <= from || one.starts >= to || one.starts < reached {
                continue;
            }
            reached = one.ends;
            let sound = audio.and_then(|audio| {
                let beside = taken_of(&snapshot.tracks[audio], one.number)?;
                Some((audio, beside))
            });
            maker.add(snapshot, (video, &one), sound, folder.as_ref())?;
        }
    }
    if !known {
        return Err(CutError::UnknownRendition(
            rendition.unwrap_or_default().to_owned(),
        ));
    }
    let Some((oldest, newest)) = bounds else {
        return Err(CutError::Nothing(stream.to_owned()));
    };
    let Some(span) = maker.span else {
        return Err(match from < newest && to > oldest {
            true => CutError::Hole { from, to },
            false => CutError::Outside {
                from,
                to,
                oldest,
                newest,
            },
        });
    };
    Ok(Cut {
        from: span.0,
        to: span.1,
        tracks: maker.tracks,
        references: maker.references,
        pieces: maker.pieces,
    })
}

/// A clip that is being made.
#[derive(Default)]
struct Maker {
    span: Option<(UnixTime, UnixTime)>,
    video: Option<Arc<str>>,
    /// The init segments' versions, by which encodings are told apart.
    versions: Vec<String>,
    tracks: Vec<TrackDescription>,
    references: Vec<Reference>,
    pieces: Vec<Piece>,
    /// Where the video goes on, on its grid and in the movie.
    end: Option<(Grid, Tick, u64)>,
    /// The decode time at which the stretch of pictures began, and where that is in the movie; then that of its sound, once there is any.
    pictures: (u64, u64),
    sound: Option<(u64, u64)>,
}

impl Maker {
    fn add(
        &mut self,
        snapshot: &Snapshot,
        (video, one): (usize, &Taken<'_>),
        sound: Option<(usize, Taken<'_>)>,
        folder: Option<&Arc<Path>>,
    ) -> Result<(), CutError> {
        if self.references.len() >= MOST_SEGMENTS {
            return Err(CutError::TooMany(MOST_SEGMENTS));
        }
        // Sound that begins after the pictures do has no track.
        let sound = sound.filter(|_| self.references.is_empty() || self.versions.len() > 1);
        let audio = sound.as_ref().map(|(audio, _)| *audio);
        self.check_encoding(&one.period.tracks, (video, audio), one.starts)?;
        let grid = one.period.grid;
        let base = match self.end {
            Some((before, tick, end)) if before == grid && tick == one.first_tick => end,
            ended => {
                // Holes are left out.
                let base = ended.map_or(0, |(.., end)| end);
                self.pictures = (grid.decode_time(one.first_tick), base);
                self.sound = None;
                base
            }
        };
        let duration = one.ticks * u64::from(grid.tick_duration());
        self.end = Some((grid, one.first_tick.plus(one.ticks), base + duration));
        let mut bytes = self.put(snapshot, (video, one), (1, self.pictures), folder);
        if let Some((audio, beside)) = &sound {
            let offset = *self
                .sound
                .get_or_insert(beside_pictures(self.pictures, &grid, beside));
            bytes += self.put(snapshot, (*audio, beside), (2, offset), folder);
        }
        self.references.push(Reference {
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            duration: u32::try_from(duration).unwrap_or(u32::MAX),
        });
        let begins = self.span.map_or(one.starts, |span| span.0);
        self.span = Some((begins, one.ends));
        self.video
            .get_or_insert_with(|| Arc::from(snapshot.tracks[video].name.as_str()));
        Ok(())
    }

    /// One file has one encoding of each track.
    fn check_encoding(
        &mut self,
        inits: &[crate::window::TrackInit],
        (video, audio): (usize, Option<usize>),
        starts: UnixTime,
    ) -> Result<(), CutError> {
        let places = std::iter::once(video).chain(audio);
        for (at, init) in places.filter_map(|track| inits.get(track)).enumerate() {
            match self.versions.get(at) {
                Some(version) if *version == init.version => {}
                Some(_) => return Err(CutError::EncodingChanges(starts)),
                None => {
                    self.versions.push(init.version.clone());
                    self.tracks.push(init.description.clone());
                }
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        snapshot: &Snapshot,
        (track, one): (usize, &Taken<'_>),
        (id, (from, to)): (u32, (u64, u64)),
        folder: Option<&Arc<Path>>,
    ) -> u64 {
        let place = MoviePlace {
            track: id,
            from,
            to,
            sequence: 0,
        };
        let name = &snapshot.tracks[track].name;
        self.pieces.push(one.piece(name, folder, place));
        one.bytes
    }
}

/// Where sound belongs in the movie beside the pictures of `grid` that begin at `pictures`, in the sound's own timescale.
fn beside_pictures(pictures: (u64, u64), grid: &Grid, sound: &Taken<'_>) -> (u64, u64) {
    let own = &sound.period.grid;
    let (scale, units) = (u128::from(own.timescale()), u128::from(grid.timescale()));
    let scaled = |time: u64| {
        let time = (u128::from(time) * scale + units / 2) / units;
        u64::try_from(time).unwrap_or(u64::MAX)
    };
    // The first frame may begin a moment before its picture.
    let from = scaled(pictures.0).min(own.decode_time(sound.first_tick));
    (from, scaled(pictures.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;
    use std::time::Duration;

    use bytes::Bytes;

    use crate::http::fixtures::snapshot;
    use crate::sample::AudioFormat;
    use crate::tick::Framerate;
    use crate::window::{Mode, TrackInit};

    thread_local! {
        /// How many segments this thread has looked at.
        pub(super) static TAKEN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    // Segments 4 to 12 of two seconds, and the first of two parts of 13, at 30 ticks a second.
    fn window() -> Arc<Snapshot> {
        snapshot("door", 7, 3, 6)
    }

    /// Milliseconds since the epoch, which is where the fixture's ticks are counted from.
    fn at(millis: u64) -> UnixTime {
        UnixTime::from_nanos(millis * 1_000_000)
    }

    fn cut_of(stocks: &[Stock], from: u64, to: u64) -> Result<Cut, CutError> {
        cut("door", stocks, (at(from), at(to)), None)
    }

    fn numbers(cut: &Cut) -> Vec<u64> {
        cut.pieces.iter().map(|piece| piece.number.0).collect()
    }

    #[test]
    fn whole_segments_are_cut_and_the_open_one_as_far_as_it_is_there() {
        let stocks = [(window(), None)];
        for (from, to, segments) in [
            (8000, 10_000, vec![4]),
            (9999, 10_001, vec![4, 5]),
            (0, 8001, vec![4]),
            (24_500, 30_000, vec![12, 13]),
        ] {
            let cut = cut_of(&stocks, from, to).unwrap();
            assert_eq!(numbers(&cut), segments, "{from} to {to}");
            assert_eq!(cut.from.as_millis(), segments[0] * 2000);
        }
        let all = cut_of(&stocks, 0, 30_000).unwrap();
        assert_eq!(all.to.as_millis(), 27_000);
        let durations = all.references.iter().map(|one| one.duration);
        assert_eq!(durations.sum::<u32>(), 9 * 60 + 30);
        assert!(
            all.pieces
                .iter()
                .all(|piece| (piece.place.from, piece.place.to) == (240, 0))
        );
    }

    #[test]
    fn what_is_kept_is_not_taken_from_the_window_too() {
        let folder: Arc<Path> = Arc::from(Path::new("/recordings"));
        let stocks = [(snapshot("door", 4, 0, 5), Some(folder)), (window(), None)];
        // The open segment of the first is not there in a recording, but it is the same one.
        let cut = cut_of(&stocks, 0, 30_000).unwrap();
        assert_eq!(numbers(&cut), Vec::from_iter(4..=13));
        let kept = cut.pieces.iter().filter(|piece| piece.folder.is_some());
        assert_eq!(kept.count(), 6);
    }

    #[test]
    fn a_hole_is_left_out_and_what_is_not_there_told() {
        let stocks = [
            (snapshot("door", 4, 0, 2), None),
            (snapshot("door", 9, 0, 2), None),
        ];
        let cut = cut_of(&stocks, 0, 60_000).unwrap();
        assert_eq!(numbers(&cut), [4, 5, 6, 9, 10, 11]);
        // The first stretch ends with the one part of 6.
        let places: Vec<_> = cut
            .pieces
            .iter()
            .map(|piece| (piece.place.from, piece.place.to))
            .collect();
        assert_eq!(places[2..4], [(240, 0), (540, 150)]);
        assert!(matches!(
            cut_of(&stocks, 15_000, 17_000),
            Err(CutError::Hole { .. })
        ));
        assert!(matches!(
            cut_of(&stocks, 0, 8000),
            Err(CutError::Outside { .. })
        ));
        assert!(matches!(
            cut_of(&stocks, 23_000, 40_000),
            Err(CutError::Outside { .. })
        ));
        assert_eq!(
            cut_of(&[], 0, 1).err(),
            Some(CutError::Nothing("door".to_owned()))
        );
        let unknown = super::cut("door", &stocks, (at(0), at(9000)), Some("other")).err();
        assert_eq!(
            unknown,
            Some(CutError::UnknownRendition("other".to_owned()))
        );
    }

    #[test]
    fn one_file_has_one_encoding() {
        let mut other = Arc::into_inner(snapshot("door", 9, 0, 2)).unwrap();
        let track = &mut other.tracks[0];
        track.open = None;
        let period = {
            let before = &track.listed[0].period;
            let mut inits = before.tracks.clone();
            inits[0].version = "another".to_owned();
            Arc::new(Period::new(Tick(540), before.grid, true, inits))
        };
        for segment in &mut track.listed {
            let part = segment.parts[0].clone();
            *segment = Arc::new(Segment {
                number: segment.number,
                period: Arc::clone(&period),
                first_tick: segment.first_tick,
                ticks: segment.ticks,
                parts: vec![part],
                stored: 0,
                captured: None,
                remains: Vec::new(),
                gap: false,
                expires: None,
            });
        }
        let stocks = [(snapshot("door", 4, 0, 4), None), (Arc::new(other), None)];
        assert_eq!(
            cut_of(&stocks, 0, 30_000).err(),
            Some(CutError::EncodingChanges(at(18_000)))
        );
        assert!(cut_of(&stocks, 18_000, 30_000).is_ok());
        assert!(cut_of(&stocks, 0, 18_000).is_ok());
    }

    /// A recording of pictures and sound, of so many segments of a second.
    fn recording(segments: u64) -> Arc<Snapshot> {
        let second = Duration::from_secs(1);
        let grid = Grid::new(Framerate::new(30, 1).unwrap(), second, second);
        let init = |audio: Option<AudioFormat>| TrackInit {
            description: TrackDescription {
                sample_entry: Bytes::new(),
                codecs: "x".to_owned(),
                size: crate::picture::Size::new(640, 360),
                framerate: grid.framerate,
                audio,
            },
            version: "5eed".to_owned(),
            init: Bytes::new(),
        };
        let sound = AudioFormat {
            channels: 2,
            frame: NonZeroU32::new(1024).unwrap(),
            copied_rate: None,
        };
        let inits = vec![init(None), init(Some(sound))];
        let period = Arc::new(Period::new(Tick(0), grid, false, inits));
        let track = |track: usize, name: &str| {
            let period = period.of(track);
            let begins = |number: u64| period.grid.first_beside(Tick(30 * number));
            let segment = |number: u64| {
                Arc::new(Segment {
                    number: SegmentNumber(number),
                    period: Arc::clone(period),
                    first_tick: begins(number),
                    ticks: u32::try_from(begins(number + 1).since(begins(number))).unwrap(),
                    parts: Vec::new(),
                    stored: 1000 * (1 + track as u64) + number,
                    captured: None,
                    remains: Vec::new(),
                    gap: false,
                    expires: None,
                })
            };
            let listed = (0..segments).map(segment).collect();
            TrackView::new(name.to_owned(), listed, Vec::new(), None, second)
        };
        Arc::new(Snapshot {
            stream: "door".to_owned(),
            mode: Mode::Kept,
            target_duration: 1,
            longest_playlist: Duration::ZERO,
            media_sequence: SegmentNumber(0),
            discontinuity_sequence: 0,
            window_ticks: 0,
            tracks: vec![track(0, "360p"), track(1, "sound")],
            ended: true,
            updated: UnixTime::default(),
        })
    }

    #[test]
    fn an_hour_with_sound_is_cut_in_one_pass() {
        let stocks = [(recording(3600), None)];
        TAKEN.set(0);
        let cut = cut_of(&stocks, 0, 3_600_000).unwrap();
        // The best track is looked for in one, the pictures are gone through in another, and each finds its sound.
        assert_eq!(TAKEN.get(), 3 * 3600);
        assert_eq!(cut.references.len(), 3600);
        let pieces = cut.pieces.iter();
        let pieces = pieces.map(|piece| (&*piece.rendition, piece.number.0, piece.bytes));
        let expected = (0..3600_u64).flat_map(|number| {
            [
                ("360p", number, 1000 + number),
                ("sound", number, 2000 + number),
            ]
        });
        assert!(pieces.eq(expected));
    }
}
