//! Every URI that a manifest ever listed: fetched when it appears, asked for while it is listed and for as long as rule 2
//! says after, and expected to go in the end.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use super::Notes;
use super::origin::{Away, Origin};
use crate::harness::media;

/// How often a URI is asked for again.
const EVERY: Duration = Duration::from_millis(250);
/// What an origin may take, beyond what rule 2 says, until a URI goes.
const SLACK: Duration = Duration::from_secs(2);

/// One listed URI.
struct Known {
    rendition: String,
    map: Option<String>,
    number: u64,
    duration: Duration,
    target: Duration,
    /// The longest playlist that listed it.
    longest: Duration,
    last_listed: Instant,
    last_asked: Option<Instant>,
    first_body: Option<u64>,
    checked_again: bool,
    gone: bool,
}

pub(crate) struct Uris {
    stream: String,
    known: BTreeMap<String, Known>,
    inits: BTreeMap<String, media::Init>,
    /// Where each segment starts and ends, by rendition and number, and the timescale of that.
    spans: BTreeMap<(String, u64), (u64, u64, u64)>,
    expired: usize,
}

/// What a playlist says of a segment.
pub(crate) struct Sighting<'a> {
    pub(crate) rendition: &'a str,
    pub(crate) uri: &'a str,
    pub(crate) map: Option<&'a str>,
    pub(crate) number: u64,
    pub(crate) seconds: f64,
    pub(crate) target_seconds: u64,
    pub(crate) playlist_seconds: f64,
    /// When the playlist was asked for.
    pub(crate) at: Instant,
}

impl Uris {
    pub(crate) fn new(stream: &str) -> Self {
        Self {
            stream: stream.to_owned(),
            known: BTreeMap::new(),
            inits: BTreeMap::new(),
            spans: BTreeMap::new(),
            expired: 0,
        }
    }

    pub(crate) fn listed(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn expired(&self) -> usize {
        self.expired
    }

    /// Where the segment's media starts and ends in its timescale, once it was fetched.
    pub(crate) fn span(&self, rendition: &str, number: u64) -> Option<(u64, u64)> {
        let (start, end, _) = self.spans.get(&(rendition.to_owned(), number))?;
        Some((*start, *end))
    }

    /// The rendition's newest segments that were fetched: the number of each, where it starts, and the timescale of that.
    pub(crate) fn newest(&self, rendition: &str) -> Vec<(u64, u64, u64)> {
        let of_it = (rendition.to_owned(), 0)..=(rendition.to_owned(), u64::MAX);
        let newest = self.spans.range(of_it).rev().take(3);
        newest
            .map(|((_, number), (start, _, timescale))| (*number, *start, *timescale))
            .collect()
    }

    /// The timescale of the init segment `map`, once it was fetched.
    pub(crate) fn timescale(&self, rendition: &str, map: &str) -> Option<u64> {
        Some(self.inits.get(&self.path(rendition, map))?.timescale)
    }

    fn path(&self, rendition: &str, name: &str) -> String {
        format!("{}/{rendition}/{name}", self.stream)
    }

    /// Notes that a playlist lists a segment.
    pub(crate) fn sighted(&mut self, sighting: &Sighting<'_>, notes: &mut Notes) {
        let path = self.path(sighting.rendition, sighting.uri);
        let longest = Duration::from_secs_f64(sighting.playlist_seconds);
        let known = self.known.entry(path).or_insert_with(|| Known {
            rendition: sighting.rendition.to_owned(),
            map: sighting.map.map(str::to_owned),
            number: sighting.number,
            duration: Duration::from_secs_f64(sighting.seconds),
            target: Duration::from_secs(sighting.target_seconds),
            longest,
            last_listed: sighting.at,
            last_asked: None,
            first_body: None,
            checked_again: false,
            gone: false,
        });
        known.longest = known.longest.max(longest);
        known.last_listed = sighting.at;
        let number = known.number;
        notes.unless(number == sighting.number, 1, || {
            format!(
                "{} was number {number} and is now {}",
                sighting.uri, sighting.number
            )
        });
        let map = known.map.as_deref();
        notes.unless(map == sighting.map, 9, || {
            format!(
                "{} had EXT-X-MAP {map:?} and now has {:?}",
                sighting.uri, sighting.map
            )
        });
    }

    /// Fetches what is new and asks for what is due. If the origin is away, that stays due.
    pub(crate) fn ask(&mut self, origin: &mut impl Origin, notes: &mut Notes) -> Result<(), Away> {
        let paths: Vec<String> = self
            .known
            .iter()
            .filter(|(_, known)| !known.gone)
            .filter(|(_, known)| {
                known
                    .last_asked
                    .is_none_or(|asked| asked.elapsed() >= EVERY)
            })
            .map(|(path, _)| path.clone())
            .collect();
        for path in paths {
            self.ask_for(&path, origin, notes)?;
        }
        Ok(())
    }

    fn ask_for(
        &mut self,
        path: &str,
        origin: &mut impl Origin,
        notes: &mut Notes,
    ) -> Result<(), Away> {
        let known = &self.known[path];
        if known.first_body.is_none() {
            return self.fetch(path, origin, notes);
        }
        let life = known.duration + known.longest;
        let since = known.last_listed.elapsed();
        let compare = since > life * 3 / 4 && !known.checked_again && since < life;
        let (status, body) = if compare {
            let fetched = origin.get(path)?;
            (fetched.status, Some(digest(&fetched.body)))
        } else {
            (origin.head(path)?, None)
        };
        let target = known.target;
        let known = self
            .known
            .get_mut(path)
            .expect("it is known: it was found above");
        // Judged by the time after the answer where it is missing too early, before it where it is there too late.
        let after = known.last_listed.elapsed();
        known.last_asked = Some(Instant::now());
        match status {
            200 => {
                if let Some(body) = body {
                    known.checked_again = true;
                    let same = known.first_body == Some(body);
                    notes.unless(same, 6, || format!("{path} changed after it was published"));
                }
                let late = life + target * 2 + SLACK;
                notes.unless(since < late, 2, || {
                    format!("{path} still answers {since:.1?} after it left the playlist: its time was {life:.1?}")
                });
            }
            404 => {
                known.gone = true;
                self.expired += 1;
                notes.unless(after >= life, 2, || {
                    format!("{path} was gone {after:.1?} after it left the playlist: {life:.1?} are due to it")
                });
            }
            other => notes.broken(2, format!("{path} answers {other}")),
        }
        Ok(())
    }

    fn fetch(
        &mut self,
        path: &str,
        origin: &mut impl Origin,
        notes: &mut Notes,
    ) -> Result<(), Away> {
        let known = &self.known[path];
        let (rendition, number) = (known.rendition.clone(), known.number);
        let init = match &known.map {
            Some(map) => self.init(&self.path(&rendition, map), origin, notes)?,
            None => {
                notes.broken(9, format!("{path} has no EXT-X-MAP"));
                None
            }
        };
        let fetched = origin.get(path)?;
        let known = self
            .known
            .get_mut(path)
            .expect("it is known: it was found above");
        known.last_asked = Some(Instant::now());
        if fetched.status != 200 {
            // It may have left the playlist since; then the next look judges it.
            let listed = known.last_listed.elapsed() < known.duration;
            known.first_body = Some(0);
            notes.unless(!listed, 2, || {
                format!("{path} is listed and answers {}", fetched.status)
            });
            return Ok(());
        }
        known.first_body = Some(digest(&fetched.body));
        if fetched.has_headers() {
            let cache = fetched.header("cache-control").unwrap_or_default();
            notes.unless(
                cache.contains("immutable") && cache.contains("max-age="),
                7,
                || format!("{path} has cache-control '{cache}'"),
            );
            let cors = fetched.header("access-control-allow-origin");
            notes.unless(cors == Some("*"), 24, || {
                format!("{path} has no CORS header")
            });
        }
        let Some(init) = init else { return Ok(()) };
        match media::segment(&fetched.body, &init) {
            Err(error) => notes.broken(6, format!("{path} is not whole: {error}")),
            Ok(segment) => {
                notes.unless(segment.starts_with_idr, 23, || {
                    format!("{path} does not start with an IDR picture")
                });
                let span = (segment.start, segment.end, init.timescale);
                self.spans.insert((rendition, number), span);
            }
        }
        Ok(())
    }

    fn init(
        &mut self,
        path: &str,
        origin: &mut impl Origin,
        notes: &mut Notes,
    ) -> Result<Option<media::Init>, Away> {
        if let Some(init) = self.inits.get(path) {
            return Ok(Some(init.clone()));
        }
        let fetched = origin.get(path)?;
        match (fetched.status, media::init(&fetched.body)) {
            (200, Ok(init)) => {
                self.inits.insert(path.to_owned(), init.clone());
                Ok(Some(init))
            }
            (200, Err(error)) => {
                notes.broken(6, format!("{path}: {error}"));
                Ok(None)
            }
            (status, _) => {
                notes.broken(2, format!("{path} answers {status}"));
                Ok(None)
            }
        }
    }
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
