//! Playlists, read by a library that knows nothing of how Ringgear writes them.

use std::collections::BTreeMap;

use quick_m3u8::tag::KnownTag;
use quick_m3u8::tag::hls::Tag;
use quick_m3u8::{HlsLine, Reader, config::ParsingOptions};

/// A variant of the multivariant playlist.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Variant {
    pub(crate) uri: String,
    pub(crate) bandwidth: u64,
    pub(crate) average_bandwidth: Option<u64>,
    pub(crate) codecs: Option<String>,
    pub(crate) resolution: Option<(u64, u64)>,
    pub(crate) frame_rate: Option<f64>,
}

/// A segment as a media playlist lists it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Listed {
    pub(crate) number: u64,
    pub(crate) uri: String,
    pub(crate) seconds: f64,
    pub(crate) map: Option<String>,
    /// Milliseconds since the epoch, where the playlist says it.
    pub(crate) program_date_time: Option<u64>,
    pub(crate) gap: bool,
    pub(crate) discontinuity: bool,
}

/// A media playlist.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MediaPlaylist {
    pub(crate) target_duration: u64,
    pub(crate) media_sequence: u64,
    pub(crate) discontinuity_sequence: u64,
    pub(crate) has_playlist_type: bool,
    pub(crate) low_latency: LowLatency,
    pub(crate) ended: bool,
    pub(crate) segments: Vec<Listed>,
}

/// What a media playlist says to players that fetch parts. All of it is missing in a plain one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LowLatency {
    pub(crate) part_target: Option<f64>,
    pub(crate) can_block_reload: bool,
    pub(crate) can_skip_until: f64,
    pub(crate) hold_back: f64,
    pub(crate) part_hold_back: f64,
    pub(crate) parts: Vec<ListedPart>,
    /// The URIs of its EXT-X-PRELOAD-HINTs.
    pub(crate) hints: Vec<String>,
    /// The URIs of its EXT-X-RENDITION-REPORTs.
    pub(crate) reports: Vec<String>,
}

/// A part as a media playlist lists it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListedPart {
    /// The number of its segment, and its own in that.
    pub(crate) place: (u64, u64),
    pub(crate) seconds: f64,
    pub(crate) independent: bool,
    pub(crate) gap: bool,
}

impl MediaPlaylist {
    /// What it lists, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.segments.iter().map(|segment| segment.seconds).sum()
    }
}

/// The media playlists of a multivariant playlist's EXT-X-MEDIA renditions, whose groups have to be those that its variants name.
pub(crate) fn audio(text: &str) -> Result<Vec<String>, String> {
    let attribute = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}=\""))?;
        Some(rest.split('"').next()?.to_owned())
    };
    let mut groups = BTreeMap::new();
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("#EXT-X-MEDIA:") {
            let group = attribute(line, "GROUP-ID").ok_or("no GROUP-ID")?;
            let uri = attribute(line, "URI").ok_or("no URI")?;
            groups.insert(group, uri);
        }
    }
    for line in text
        .lines()
        .filter(|line| line.starts_with("#EXT-X-STREAM-INF:"))
    {
        match attribute(line, "AUDIO") {
            Some(group) if !groups.contains_key(&group) => {
                return Err(format!("a variant names the group {group}, of {groups:?}"));
            }
            None if !groups.is_empty() => return Err(format!("{line} names no group")),
            _ => {}
        }
    }
    Ok(groups.into_values().collect())
}

/// Reads a multivariant playlist.
pub(crate) fn multivariant(text: &str) -> Result<Vec<Variant>, String> {
    let mut variants = Vec::new();
    let mut pending = None;
    for_each_line(text, |line| {
        match line {
            HlsLine::KnownTag(KnownTag::Hls(Tag::StreamInf(tag))) => {
                pending = Some(Variant {
                    uri: String::new(),
                    bandwidth: tag.bandwidth(),
                    average_bandwidth: tag.average_bandwidth(),
                    codecs: tag.codecs().map(str::to_owned),
                    resolution: tag.resolution().map(|size| (size.width, size.height)),
                    frame_rate: tag.frame_rate(),
                });
            }
            HlsLine::Uri(uri) => {
                let mut variant: Variant =
                    pending.take().ok_or("a URI without EXT-X-STREAM-INF")?;
                variant.uri = uri.into_owned();
                variants.push(variant);
            }
            _ => {}
        }
        Ok(())
    })?;
    if variants.is_empty() {
        return Err("it has no variant".to_owned());
    }
    Ok(variants)
}

/// Reads a media playlist.
pub(crate) fn media(text: &str) -> Result<MediaPlaylist, String> {
    let mut playlist = MediaPlaylist::default();
    let mut map = None;
    let mut next = Pending::default();
    for_each_line(text, |line| {
        match line {
            HlsLine::KnownTag(KnownTag::Hls(tag)) => match tag {
                Tag::Targetduration(tag) => playlist.target_duration = tag.target_duration(),
                Tag::MediaSequence(tag) => playlist.media_sequence = tag.media_sequence(),
                Tag::DiscontinuitySequence(tag) => {
                    playlist.discontinuity_sequence = tag.discontinuity_sequence();
                }
                Tag::PlaylistType(_) => playlist.has_playlist_type = true,
                Tag::Endlist(_) => playlist.ended = true,
                Tag::PartInf(tag) => playlist.low_latency.part_target = Some(tag.part_target()),
                Tag::ServerControl(tag) => {
                    let low_latency = &mut playlist.low_latency;
                    low_latency.can_block_reload = tag.can_block_reload();
                    low_latency.can_skip_until = tag.can_skip_until().unwrap_or_default();
                    low_latency.hold_back = tag.hold_back().unwrap_or_default();
                    low_latency.part_hold_back = tag.part_hold_back().unwrap_or_default();
                }
                Tag::Part(tag) => {
                    let before = u64::try_from(playlist.segments.len()).unwrap();
                    let segment = playlist.media_sequence + before;
                    playlist.low_latency.parts.push(ListedPart {
                        place: (segment, part_number(segment, tag.uri())?),
                        seconds: tag.duration(),
                        independent: tag.independent(),
                        gap: tag.gap(),
                    });
                }
                Tag::PreloadHint(tag) => playlist.low_latency.hints.push(tag.uri().to_owned()),
                Tag::RenditionReport(tag) => {
                    playlist.low_latency.reports.push(tag.uri().to_owned());
                }
                Tag::Map(tag) => map = Some(tag.uri().to_owned()),
                Tag::Inf(tag) => next.seconds = Some(tag.duration()),
                Tag::Gap(_) => next.gap = true,
                Tag::Discontinuity(_) => next.discontinuity = true,
                Tag::ProgramDateTime(tag) => {
                    next.program_date_time = Some(millis(&tag.program_date_time().to_string())?);
                }
                _ => {}
            },
            HlsLine::Uri(uri) => {
                let done = std::mem::take(&mut next);
                let at = u64::try_from(playlist.segments.len()).unwrap();
                playlist.segments.push(Listed {
                    number: playlist.media_sequence + at,
                    uri: uri.into_owned(),
                    seconds: done.seconds.ok_or("a URI without EXTINF")?,
                    map: map.clone(),
                    program_date_time: done.program_date_time,
                    gap: done.gap,
                    discontinuity: done.discontinuity,
                });
            }
            _ => {}
        }
        Ok(())
    })?;
    if playlist.target_duration == 0 {
        return Err("no EXT-X-TARGETDURATION".to_owned());
    }
    Ok(playlist)
}

/// What stands before a segment's URI.
#[derive(Default)]
struct Pending {
    seconds: Option<f64>,
    program_date_time: Option<u64>,
    gap: bool,
    discontinuity: bool,
}

/// The number of the part of `segment` that has this URI.
fn part_number(segment: u64, uri: &str) -> Result<u64, String> {
    let name = uri.strip_suffix(".m4s");
    let number = name.and_then(|name| name.strip_prefix(&format!("{segment}."))?.parse().ok());
    number.ok_or(format!("{uri} is no part of segment {segment}"))
}

fn for_each_line(
    text: &str,
    mut each: impl FnMut(HlsLine<'_>) -> Result<(), String>,
) -> Result<(), String> {
    if !text.starts_with("#EXTM3U\n") || !text.ends_with('\n') {
        return Err(
            "no whole playlist: it has to start with #EXTM3U and end with a newline".to_owned(),
        );
    }
    let mut reader = Reader::from_str(text, ParsingOptions::default());
    loop {
        match reader.read_line() {
            Ok(Some(line)) => each(line)?,
            Ok(None) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn millis(rfc3339: &str) -> Result<u64, String> {
    let time = humantime::parse_rfc3339(rfc3339).map_err(|error| format!("{rfc3339}: {error}"))?;
    let since = time
        .duration_since(std::time::UNIX_EPOCH)
        .map_err(|error| error.to_string())?;
    u64::try_from(since.as_millis()).map_err(|error| error.to_string())
}
