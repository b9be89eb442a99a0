//! What is answered only once it is there: playlists that a player blocks on, the part that was announced, and the segment that is
//! being written (rules 15 to 19 and 34). No part is waited for longer than three target durations.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::http::{StatusCode, Version};
use tokio::time::Instant;

use super::StreamPort;
use super::body::{Body, Response};
use super::directives::{Directives, Verdict};
use super::media::open_life;
use super::open_segment::{More, NoMore, OpenBody, Source};
use super::origin::{MP4, document, no_such_media};
use super::reply::{self, Asked, Cache};
use super::text::Document;
use super::waiting::Waited;
use crate::manifest::hls::Extent;
use crate::sample::TrackIndex;
use crate::tick::{PartNumber, SegmentNumber};
use crate::window::{Place, Snapshot};

/// In target durations: how long an answer may be waited for.
const PATIENCE: u32 = 3;
/// So many segments after the one that is being written are waited for: no segment is longer than a target duration.
const AHEAD: u64 = PATIENCE as u64;

fn patience(snapshot: &Snapshot) -> Duration {
    Duration::from_secs(snapshot.target_duration) * PATIENCE
}

/// A media playlist by its directives; the track has something listed.
pub(super) async fn playlist(
    asked: &Asked,
    port: &StreamPort,
    track: TrackIndex,
    query: Option<&str>,
) -> Response {
    let mut snapshot = Arc::clone(&port.window.borrow());
    if snapshot.ended {
        // Nothing more comes, so nothing can be asked for (rfc8216bis, 6.2.5.2).
        let whole = Document::Media(track, Extent::Full);
        return document(asked, port, &snapshot, whole);
    }
    let directives = match Directives::parse(query) {
        Ok(directives) => directives,
        Err(message) => {
            return reply::error(StatusCode::BAD_REQUEST, "bad_directive", &message);
        }
    };
    let mut deadline = None;
    loop {
        match directives.judge(&snapshot, track) {
            Verdict::Now => {
                let wanted = Document::Media(track, directives.extent);
                return document(asked, port, &snapshot, wanted);
            }
            Verdict::TooFar => {
                let message = "_HLS_msn or _HLS_part is too far ahead of the playlist";
                return reply::error(StatusCode::BAD_REQUEST, "too_far_ahead", message);
            }
            Verdict::Wait(place) => {
                let end = || Instant::now() + patience(&snapshot);
                let deadline = *deadline.get_or_insert_with(end);
                drop(snapshot);
                let waited = port.waiting.until(&port.window, track, place, deadline);
                snapshot = match waited.await {
                    Waited::Reached(snapshot) => snapshot,
                    Waited::TooLong | Waited::Over => return not_in_time(port),
                };
            }
        }
    }
}

/// The part that EXT-X-PRELOAD-HINT announces, once it is whole; 404 for any other.
pub(super) async fn coming_part(
    asked: &Asked,
    port: &StreamPort,
    snapshot: &Arc<Snapshot>,
    track: TrackIndex,
    part: (SegmentNumber, PartNumber),
) -> Response {
    let view = &snapshot.tracks[track];
    let Some(next) = view.next_place().filter(|_| !snapshot.ended) else {
        return no_such_media();
    };
    if view.next_part() != Some(part) {
        return no_such_media();
    }
    let (segment, before) = match part.0 == next.segment {
        true => (next.segment, next.part),
        // All parts of the segment that is being written are there.
        false => (part.0, 0),
    };
    let place = Place {
        segment,
        part: before + 1,
    };
    let deadline = Instant::now() + patience(snapshot);
    let waited = port.waiting.until(&port.window, track, place, deadline);
    match waited.await {
        Waited::Reached(snapshot) => {
            let view = &snapshot.tracks[track];
            match view.part(part.0, part.1) {
                Some((part, _)) => {
                    let cache = Cache::Immutable(open_life(&snapshot, view));
                    reply::media(asked, MP4, cache, [part.bytes.clone()])
                }
                None => no_such_media(),
            }
        }
        Waited::TooLong | Waited::Over => not_in_time(port),
    }
}

/// The segment that is being written, or one that soon will be: from its first part on; 404 for any other. Who speaks HTTP/1.0 gets it once it is whole, for
/// there a transfer that breaks off looks like one that has ended.
pub(super) async fn open_segment(
    asked: &Asked,
    port: &StreamPort,
    snapshot: &Arc<Snapshot>,
    track: TrackIndex,
    number: SegmentNumber,
) -> Response {
    let view = &snapshot.tracks[track];
    let Some(next) = view.next_place().filter(|_| !snapshot.ended) else {
        return no_such_media();
    };
    // A player that goes by the clock may be ahead of a stream that is late: what may come in time is waited for.
    if number < next.segment || number.0 > next.segment.0 + AHEAD {
        return no_such_media();
    }
    let cache = Cache::Immutable(open_life(snapshot, view));
    let source = Source::new(port, track, number, patience(snapshot));
    match source.more(0).await {
        // It is whole, but not listed yet.
        Ok(all) if all.done => reply::media(asked, MP4, cache, all.parts),
        Ok(first) if asked.version < Version::HTTP_11 => match whole(&source, first).await {
            Ok(parts) => reply::media(asked, MP4, cache, parts),
            Err(NoMore::Gone) => no_such_media(),
            Err(NoMore::TooLong) => not_in_time(port),
        },
        Ok(first) => reply::growing(MP4, cache, Body::coming(OpenBody::new(source, first))),
        Err(NoMore::Gone) => no_such_media(),
        Err(NoMore::TooLong) => not_in_time(port),
    }
}

/// All parts of the segment that begins with `first`.
async fn whole(source: &Source, first: More) -> Result<VecDeque<Bytes>, NoMore> {
    let mut here = first;
    while !here.done {
        let more = source.more(here.parts.len()).await?;
        here.parts.extend(more.parts);
        here.done = more.done;
    }
    Ok(here.parts)
}

/// 503: the encoder does not run, or the stream is going.
fn not_in_time(port: &StreamPort) -> Response {
    let message = format!(
        "stream '{}' has not got that far in time: ask again",
        port.name
    );
    reply::not_yet(&message)
}
