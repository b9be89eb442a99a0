//! `manifest-ll.mpd`, whose segments are counted by time and not listed: rules 25, 26, 33 and 34.

use roxmltree::{Document, Node};

use super::Notes;
use super::manifests::{readable, seconds_of};
use super::origin::{Away, Origin};
use super::uris::Uris;

/// One Representation of a Period.
#[derive(Clone, Debug, PartialEq)]
struct Counted {
    id: String,
    is_video: bool,
    timescale: u64,
    duration: u64,
    presentation_time_offset: u64,
    start_number: u64,
    /// `availabilityTimeOffset`, where `availabilityTimeComplete` is false.
    ahead: Option<f64>,
}

/// A Period: its id, its start, and what it has.
type Period = (String, String, Vec<Counted>);

/// The low-latency MPD as it was read last, if there is one.
#[derive(Default)]
pub(crate) struct CountedMpds {
    before: Option<Vec<Period>>,
}

impl CountedMpds {
    /// Reads it once. Where it was once, it has to stay; in a folder there is none.
    pub(crate) fn read(
        &mut self,
        stream: &str,
        origin: &mut impl Origin,
        uris: &Uris,
        notes: &mut Notes,
    ) -> Result<(), Away> {
        let path = format!("{stream}/manifest-ll.mpd");
        let fetched = origin.get(&path)?;
        if fetched.status == 404 && self.before.is_none() {
            return Ok(());
        }
        notes.unless(fetched.has_headers(), 35, || {
            format!("the folder has {path}")
        });
        let Some(text) = readable(fetched, &path, true, notes) else {
            return Ok(());
        };
        match periods(&text, notes) {
            Err(error) => notes.broken(6, format!("{path}: {error}")),
            // One that has ended lists its segments.
            Ok(periods) if periods.is_empty() => {}
            Ok(periods) => {
                for counted in periods.last().into_iter().flat_map(|(_, _, all)| all) {
                    check_count(counted, uris, notes);
                }
                if let Some(before) = &self.before {
                    check_against_before(before, &periods, notes);
                }
                self.before = Some(periods);
            }
        }
        Ok(())
    }
}

/// Reads it, and checks what it has besides its Periods.
fn periods(text: &str, notes: &mut Notes) -> Result<Vec<Period>, String> {
    let document = Document::parse(text).map_err(|error| error.to_string())?;
    let root = document.root_element();
    if root.attribute("type") == Some("static") {
        return Ok(Vec::new());
    }
    let epoch = root.attribute("availabilityStartTime") == Some("1970-01-01T00:00:00Z");
    notes.unless(
        root.attribute("type") == Some("dynamic") && epoch,
        25,
        || format!("manifest-ll.mpd is {root:?}"),
    );
    let latency = named(root, "Latency").any(|one| one.attribute("target").is_some());
    let clock = named(root, "UTCTiming").any(|timing| {
        let scheme = timing.attribute("schemeIdUri").unwrap_or_default();
        let value = timing.attribute("value").unwrap_or_default();
        scheme.starts_with("urn:mpeg:dash:utc:http-") && value == "time"
    });
    notes.unless(latency && clock, 33, || {
        "manifest-ll.mpd has no Latency@target, or no UTCTiming at time".to_owned()
    });
    let all: Vec<_> = named(root, "Period").collect();
    let mut periods = Vec::new();
    for (index, period) in all.iter().enumerate() {
        let attribute = |name| period.attribute(name).map(str::to_owned);
        let id = attribute("id").ok_or("a Period without id")?;
        let start = attribute("start").ok_or("a Period without start")?;
        let open = attribute("duration").is_none();
        notes.unless(open == (index + 1 == all.len()), 34, || {
            format!(
                "Period {id}, the {index}th of {}: only the last is open",
                all.len()
            )
        });
        let captured = named(*period, "ProducerReferenceTime").next().is_some();
        notes.unless(captured, 33, || {
            format!("Period {id} has no ProducerReferenceTime")
        });
        let counted = named(*period, "Representation").map(counted);
        periods.push((id, start, counted.collect::<Result<_, _>>()?));
    }
    if periods.is_empty() {
        return Err("it has no Period".to_owned());
    }
    Ok(periods)
}

fn counted(node: Node<'_, '_>) -> Result<Counted, String> {
    let id = node.attribute("id").ok_or("a Representation without id")?;
    let template = named(node, "SegmentTemplate").next();
    let template = template.ok_or("a Representation without SegmentTemplate")?;
    let number = |name: &str| {
        let text = template
            .attribute(name)
            .ok_or(format!("{id} has no {name}"))?;
        text.parse::<u64>()
            .map_err(|_| format!("{id}: {name}={text}"))
    };
    let incomplete = template.attribute("availabilityTimeComplete") == Some("false");
    let ahead = template.attribute("availabilityTimeOffset");
    Ok(Counted {
        id: id.to_owned(),
        is_video: node.attribute("width").is_some(),
        timescale: number("timescale")?,
        duration: number("duration")?,
        presentation_time_offset: number("presentationTimeOffset")?,
        start_number: number("startNumber")?,
        ahead: ahead
            .filter(|_| incomplete)
            .and_then(|ahead| ahead.parse().ok()),
    })
}

/// Rules 33 and 34, and that what is counted is where the media is.
fn check_count(counted: &Counted, uris: &Uris, notes: &mut Notes) {
    let id = &counted.id;
    let segment = seconds_of(counted.duration) / seconds_of(counted.timescale);
    let within = counted
        .ahead
        .is_some_and(|ahead| ahead >= 0.0 && ahead < segment);
    notes.unless(within, 33, || {
        format!("{counted:?}: an offset within the segment's {segment} s is due")
    });
    // Of sound, segments begin within a frame of where they are counted.
    for (number, starts, timescale) in uris.newest(id).into_iter().filter(|_| counted.is_video) {
        let Some(nth) = number.checked_sub(counted.start_number) else {
            continue;
        };
        let said = counted.presentation_time_offset + nth * counted.duration;
        let exact = (said, counted.timescale) == (starts, timescale);
        notes.unless(exact, 34, || {
            format!(
                "segment {number} starts at {starts}/{timescale}, and is counted by {counted:?}"
            )
        });
    }
}

/// Rules 25 and 26.
fn check_against_before(before: &[Period], now: &[Period], notes: &mut Notes) {
    for (id, was, counted) in before {
        let Some((_, is, kept)) = now.iter().find(|(other, ..)| other == id) else {
            continue;
        };
        notes.unless(was == is, 25, || {
            format!("Period {id} of manifest-ll.mpd started at {was}, now at {is}")
        });
        notes.unless(counted == kept, 26, || {
            format!("Period {id} of manifest-ll.mpd had {counted:?}, has {kept:?}")
        });
    }
}

fn named<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    node.descendants()
        .filter(move |node| node.is_element() && node.tag_name().name() == name)
}
