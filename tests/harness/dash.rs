//! MPDs, read by an XML library that knows nothing of how Ringgear writes them.

use roxmltree::{Document, Node};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mpd {
    pub(crate) dynamic: bool,
    pub(crate) availability_start_time: Option<String>,
    pub(crate) time_shift_buffer_depth: Option<f64>,
    pub(crate) suggested_presentation_delay: Option<f64>,
    /// Scheme and value.
    pub(crate) utc_timings: Vec<(String, String)>,
    pub(crate) periods: Vec<Period>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Period {
    pub(crate) id: Option<String>,
    pub(crate) start: Option<String>,
    pub(crate) sets: Vec<AdaptationSet>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AdaptationSet {
    pub(crate) id: Option<String>,
    pub(crate) representations: Vec<Representation>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Representation {
    pub(crate) id: String,
    /// `mimeType`, `codecs`, `width`, `height`, `frameRate`, or of audio `audioSamplingRate`: those of them that are missing.
    pub(crate) missing: Vec<&'static str>,
    pub(crate) initialization: String,
    pub(crate) timescale: u64,
    pub(crate) segments: Vec<Entry>,
}

/// One segment of a SegmentTimeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) uri: String,
    pub(crate) time: u64,
    pub(crate) duration: u64,
}

/// Reads an MPD.
pub(crate) fn read(text: &str) -> Result<Mpd, String> {
    let document = Document::parse(text).map_err(|error| error.to_string())?;
    let root = document.root_element();
    if root.tag_name().name() != "MPD" {
        return Err(format!("its root is {}", root.tag_name().name()));
    }
    let seconds = |name| root.attribute(name).map(duration).transpose();
    Ok(Mpd {
        dynamic: root.attribute("type") == Some("dynamic"),
        availability_start_time: root.attribute("availabilityStartTime").map(str::to_owned),
        time_shift_buffer_depth: seconds("timeShiftBufferDepth")?,
        suggested_presentation_delay: seconds("suggestedPresentationDelay")?,
        utc_timings: children(root, "UTCTiming")
            .map(|timing| (attribute(timing, "schemeIdUri"), attribute(timing, "value")))
            .collect(),
        periods: children(root, "Period")
            .map(period)
            .collect::<Result<_, _>>()?,
    })
}

fn period(node: Node<'_, '_>) -> Result<Period, String> {
    let sets = children(node, "AdaptationSet")
        .map(|set| {
            Ok(AdaptationSet {
                id: set.attribute("id").map(str::to_owned),
                representations: children(set, "Representation")
                    .map(|node| representation(set, node))
                    .collect::<Result<_, String>>()?,
            })
        })
        .collect::<Result<_, String>>()?;
    Ok(Period {
        id: node.attribute("id").map(str::to_owned),
        start: node.attribute("start").map(str::to_owned),
        sets,
    })
}

fn representation(set: Node<'_, '_>, node: Node<'_, '_>) -> Result<Representation, String> {
    let id = node.attribute("id").ok_or("a Representation without id")?;
    // A template on the AdaptationSet holds for its Representations.
    let templates: Vec<_> = children(node, "SegmentTemplate")
        .chain(children(set, "SegmentTemplate"))
        .collect();
    let template = |name: &str| templates.iter().find_map(|node| node.attribute(name));
    let number = |name: &str, default: u64| {
        template(name).map_or(Ok(default), |text| {
            text.parse().map_err(|_| format!("{name}={text}"))
        })
    };
    let media = template("media").ok_or("no SegmentTemplate@media")?;
    let initialization = template("initialization").ok_or("no SegmentTemplate@initialization")?;
    let timeline = templates
        .iter()
        .find_map(|node| children(*node, "SegmentTimeline").next())
        .ok_or("no SegmentTimeline")?;
    let mut segments = Vec::new();
    let mut at = 0;
    let mut next_number = number("startNumber", 1)?;
    for entry in children(timeline, "S") {
        let value = |name: &str| entry.attribute(name).map(str::parse::<u64>).transpose();
        at = value("t").map_err(|error| error.to_string())?.unwrap_or(at);
        let length = value("d").ok().flatten().ok_or("an S without d")?;
        let repeats = value("r").map_err(|error| error.to_string())?.unwrap_or(0);
        for _ in 0..=repeats {
            let uri = media
                .replace("$RepresentationID$", id)
                .replace("$Number$", &next_number.to_string())
                .replace("$Time$", &at.to_string());
            segments.push(Entry {
                number: next_number,
                uri,
                time: at,
                duration: length,
            });
            at += length;
            next_number += 1;
        }
    }
    let audio = set.attribute("contentType") == Some("audio");
    let wanted: &[&'static str] = match audio {
        true => &["mimeType", "codecs", "audioSamplingRate"],
        false => &["mimeType", "codecs", "width", "height", "frameRate"],
    };
    if audio && children(node, "AudioChannelConfiguration").next().is_none() {
        return Err(format!(
            "Representation {id} has no AudioChannelConfiguration"
        ));
    }
    Ok(Representation {
        id: id.to_owned(),
        missing: wanted
            .iter()
            .copied()
            .filter(|name| node.attribute(*name).is_none())
            .collect(),
        initialization: initialization.replace("$RepresentationID$", id),
        timescale: number("timescale", 1)?,
        segments,
    })
}

fn children<'a, 'input>(
    node: Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children()
        .filter(move |child| child.has_tag_name_any(name))
}

/// A name in whatever namespace: a reader of tests asks for the element, not for its prefix.
trait AnyNamespace {
    fn has_tag_name_any(&self, name: &str) -> bool;
}

impl AnyNamespace for Node<'_, '_> {
    fn has_tag_name_any(&self, name: &str) -> bool {
        self.is_element() && self.tag_name().name() == name
    }
}

fn attribute(node: Node<'_, '_>, name: &str) -> String {
    node.attribute(name).unwrap_or_default().to_owned()
}

/// An xs:duration of days or less, in seconds: `PT1H2M3.5S`, `P1DT2S`.
fn duration(text: &str) -> Result<f64, String> {
    let wrong = || format!("'{text}' is no duration");
    let rest = text.strip_prefix('P').ok_or_else(wrong)?;
    let mut seconds = 0.0;
    let mut digits = String::new();
    for letter in rest.chars() {
        let unit = match letter {
            'T' => continue,
            '0'..='9' | '.' => {
                digits.push(letter);
                continue;
            }
            'D' => 86_400.0,
            'H' => 3600.0,
            'M' => 60.0,
            'S' => 1.0,
            _ => return Err(wrong()),
        };
        seconds += std::mem::take(&mut digits)
            .parse::<f64>()
            .map_err(|_| wrong())?
            * unit;
    }
    Ok(seconds)
}
