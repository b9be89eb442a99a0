//! What each target answers.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, LOCATION, TRANSFER_ENCODING,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use super::assets::{self, Assets};
use super::body::Response;
use super::guard::Rights;
use super::reply::{self, Asked, Cache};
use super::route::{self, Item, Past, Target};
use super::serve::Client;
use super::text::{Document, Text};
use super::{
    Recordings, Site, StreamPort, Streams, clip, live, media, metrics, moment, past, stored, then,
};
use crate::manifest::hls::Extent;
use crate::status::{StreamState, StreamStatus, StreamsStatus};
use crate::tick::UnixTime;
use crate::window::{Mode, Snapshot, TrackView};

const HTML: &str = "text/html; charset=utf-8";
const HLS: &str = "application/vnd.apple.mpegurl";
const DASH: &str = "application/dash+xml";
pub(super) const MP4: &str = "video/mp4";
pub(super) const JPEG: &str = "image/jpeg";
const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const A_YEAR: Duration = Duration::from_secs(31_536_000);

/// Answers any request; a fault costs that answer alone.
pub(super) fn answer(
    site: Arc<Site>,
    client: Option<Client>,
    head: Parts,
) -> impl Future<Output = Response> + Send {
    let asked = Asked {
        method: head.method,
        version: head.version,
        headers: head.headers,
        counted: client.and_then(|client| client.counted),
        depth: head.uri.path().matches('/').count().saturating_sub(1),
    };
    let uri = head.uri;
    async move {
        let mut answering = pin!(answer_asked(&site, client, &uri, &asked));
        let caught = poll_fn(|context| {
            let polled = AssertUnwindSafe(|| answering.as_mut().poll(context));
            match catch_unwind(polled) {
                Ok(polled) => polled,
                Err(panic) => {
                    let path = route::without_pass(uri.path());
                    Poll::Ready(reply::panicked(&*panic, &path))
                }
            }
        });
        caught.await
    }
}

async fn answer_asked(site: &Site, client: Option<Client>, uri: &Uri, asked: &Asked) -> Response {
    let has_body = has_body(&asked.headers);
    let streams = Arc::clone(&site.streams.borrow());
    let parsed = route::parse(uri.path());
    let mut open = site.administrators.is_none();
    let mut response = match parsed {
        _ if ![Method::GET, Method::HEAD, Method::OPTIONS].contains(&asked.method) => {
            let refused = reply::method_not_allowed(&asked.method);
            match has_body {
                true => reply::closing(refused),
                false => refused,
            }
        }
        _ if has_body => reply::no_body_wanted(),
        _ if asked.method == Method::OPTIONS => reply::preflight(),
        None => reply::not_found("unknown_path", "nothing has this path"),
        Some((target, pass)) => {
            let place = (uri, &asked.headers);
            let rights = Rights::of(site, &streams, client, place, pass);
            open &= rights.open_to_all_origins(target);
            let mut response = match (rights.refusal(site, asked, target), target) {
                (Some(refusal), _) => refusal,
                (
                    None,
                    Target::Stream(_, Item::Player)
                    | Target::Recording(_, _, Item::Player)
                    | Target::Past(_, Past::Page),
                ) if pass.is_some() => rights.hand_over(client, target),
                _ => answer_target(site, &rights, asked, target, uri.query()).await,
            };
            rights.keep_private(target, &mut response);
            response
        }
    };
    let viewed = match parsed {
        Some((
            Target::Stream(stream, item)
            | Target::Recording(stream, _, item)
            | Target::Past(stream, Past::Reel(_, item)),
            _,
        )) => Some((stream, item)),
        _ => None,
    };
    if let (Some(client), Some((stream, item))) = (client, viewed)
        && counts_as_viewing(item)
        && !response.status().is_client_error()
        && !response.status().is_server_error()
        && let Some(port) = streams.get(stream)
    {
        port.viewers.note(client.address, site.anchor.monotonic());
    }
    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    if open {
        reply::open_to_all_origins(&mut response);
    }
    response
}

/// Whether `path` is what a load balancer asks, or a person, to see that the daemon lives: open to all, in cleartext too.
pub(super) fn tells_of_life(path: &str) -> bool {
    matches!(
        route::parse(path),
        Some((Target::Healthz | Target::Readyz, _))
    )
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get_all(CONTENT_LENGTH)
            .iter()
            .any(|length| length != "0")
}

fn counts_as_viewing(item: Item<'_>) -> bool {
    !matches!(item, Item::Player | Item::Snapshot | Item::Clip)
}

async fn answer_target(
    site: &Site,
    rights: &Rights<'_>,
    asked: &Asked,
    target: Target<'_>,
    query: Option<&str>,
) -> Response {
    let streams = rights.streams();
    match target {
        Target::Index => page(asked, &Assets::get().index),
        Target::Favicon => favicon(asked),
        Target::Asset(name) => asset(asked, name).await,
        Target::Healthz => {
            let text = Bytes::from_static(b"ok\n");
            reply::media(asked, TEXT, Cache::NoStore, [text])
        }
        Target::Readyz => ready(site, asked),
        Target::Time => {
            let now = Bytes::from(site.anchor.now().rfc3339());
            reply::media(asked, TEXT, Cache::NoStore, [now])
        }
        Target::Metrics => {
            let text = Bytes::from(metrics::text(&site.status()));
            reply::media(asked, metrics::MEDIA_TYPE, Cache::NoStore, [text])
        }
        Target::ApiStreams => reply::json(asked, &rights.redact(site.status())),
        Target::ApiStream(name) => match streams.get(name) {
            Some(port) => reply::json(asked, &rights.redact_stream(site.stream_status(port))),
            None => unknown_stream(name),
        },
        Target::Bare(name) => match streams.get(name) {
            Some(_) => to_the_slash(name),
            None => missing_page(asked),
        },
        Target::BareRecording(stream, name) => match recording(streams, stream, name).await {
            Some(_) => to_the_slash(name),
            None => missing_page(asked),
        },
        // What is asked for seldom stays out of what each answer holds while it waits.
        Target::Recording(stream, name, item) => {
            Box::pin(async move {
                match recording(streams, stream, name).await {
                    Some(port) => answer_item(site, asked, &port, item, query).await,
                    None if item == Item::Player => missing_page(asked),
                    None => {
                        let message = format!("stream '{stream}' has no recording '{name}'");
                        reply::not_found("unknown_recording", &message)
                    }
                }
            })
            .await
        }
        Target::Past(name, past) => match streams.get(name) {
            Some(port) => Box::pin(past::answer(site, asked, port, past, query)).await,
            None if past == Past::Page => missing_page(asked),
            None => unknown_stream(name),
        },
        Target::Stream(name, item) => match streams.get(name) {
            Some(port) => answer_item(site, asked, port, item, query).await,
            None if item == Item::Player => missing_page(asked),
            None => unknown_stream(name),
        },
    }
}

/// A recording, which may have to be looked up on the disk.
async fn recording(streams: &Streams, stream: &str, name: &str) -> Option<StreamPort> {
    let recordings = Arc::clone(streams.get(stream)?.recordings.as_ref()?);
    let name = name.to_owned();
    let found = tokio::task::spawn_blocking(move || recordings.find(&name));
    found.await.ok()?
}

/// A stream that records has nothing under its own name: its page is that of the newest recording.
fn answer_recorder(
    asked: &Asked,
    port: &StreamPort,
    recordings: &dyn Recordings,
    item: Item<'_>,
) -> Response {
    match (item, recordings.newest()) {
        (Item::Player, Some(newest)) => {
            let message = format!("the newest recording is at {newest}/");
            elsewhere(
                StatusCode::TEMPORARY_REDIRECT,
                &format!("{newest}/"),
                &message,
            )
        }
        (Item::Player, None) => page(asked, &Assets::get().player),
        (_, Some(newest)) => {
            let message = format!(
                "stream '{}' is recorded: its newest recording is at /{}/{newest}/, and /api/v1/streams/{} names all",
                port.name, port.name, port.name
            );
            reply::not_found("recorded", &message)
        }
        (_, None) => waiting(port),
    }
}

pub(super) async fn answer_item(
    site: &Site,
    asked: &Asked,
    port: &StreamPort,
    item: Item<'_>,
    query: Option<&str>,
) -> Response {
    if let Some(recordings) = &port.recordings
        && item != Item::Snapshot
    {
        return answer_recorder(asked, port, &**recordings, item);
    }
    // The Arc is taken out at once: a borrow of the channel would hold up the window's next change.
    let snapshot = Arc::clone(&port.window.borrow());
    let now = site.anchor.now();
    match item {
        Item::Player if snapshot.mode.is_recorded() => page(asked, &Assets::get().recording),
        Item::Player => page(asked, &Assets::get().player),
        Item::Snapshot => match moment::moment(query, "at", now) {
            Ok(None) => still(site, asked, port, query).await,
            Ok(Some(at)) => Box::pin(then::answer(site, asked, port, at, query)).await,
            Err(error) => clip::bad_moment(&error),
        },
        Item::Clip => clip::answer(site, asked, port, query).await,
        Item::Multivariant | Item::Media(_) if !port.hls => not_published("HLS", port),
        Item::Mpd | Item::LowLatencyMpd if !port.dash => not_published("DASH", port),
        Item::Multivariant | Item::Mpd | Item::LowLatencyMpd => {
            let wanted = match item {
                Item::Mpd => Document::Mpd,
                Item::LowLatencyMpd => Document::LowLatencyMpd,
                _ => Document::Multivariant,
            };
            if !snapshot.is_counted() && item == Item::LowLatencyMpd {
                let message =
                    "a recording or a copied stream has no low-latency manifest: take manifest.mpd";
                return reply::not_found("recorded", message);
            }
            match every_track_listed(&snapshot) && is_published(&snapshot) {
                true => document(asked, port, &snapshot, wanted),
                false => waiting(port),
            }
        }
        Item::Media(rendition) => match track(&snapshot, rendition) {
            Some(_) if !is_published(&snapshot) => waiting(port),
            Some((index, track)) if !snapshot.has_parts() && !track.listed.is_empty() => {
                document(asked, port, &snapshot, Document::Media(index, Extent::Full))
            }
            Some((index, track)) if !track.listed.is_empty() => {
                drop(snapshot);
                live::playlist(asked, port, index, query).await
            }
            None if !snapshot.tracks.is_empty() => unknown_rendition(port, rendition),
            _ => waiting(port),
        },
        Item::Init(rendition, _) | Item::Segment(rendition, _) | Item::Part(rendition, ..) => {
            let Some((index, track)) = track(&snapshot, rendition) else {
                return unknown_rendition(port, rendition);
            };
            if let (Item::Segment(_, number), Some(folder)) = (item, &port.folder)
                && let Some(segment) = track.segment(number).filter(|segment| segment.stored > 0)
            {
                return stored::answer(site, asked, folder, rendition, segment).await;
            }
            if let Some((slices, life)) = media_bytes(now, &snapshot, index, track, item) {
                return reply::media(asked, MP4, Cache::Immutable(life), slices);
            }
            match item {
                Item::Part(_, number, part) => {
                    live::coming_part(asked, port, &snapshot, index, (number, part)).await
                }
                Item::Segment(_, number) => {
                    Box::pin(live::open_segment(asked, port, &snapshot, index, number)).await
                }
                _ => no_such_media(),
            }
        }
    }
}

/// 404.
pub(super) fn no_such_media() -> Response {
    reply::not_found("no_such_media", "this is not in the window")
}

fn track<'a>(snapshot: &'a Snapshot, rendition: &str) -> Option<(usize, &'a TrackView)> {
    let mut tracks = snapshot.tracks.iter().enumerate();
    tracks.find(|(_, track)| track.name == rendition)
}

/// Whether it has playlists yet: a recording that is published once it is whole has none before.
fn is_published(snapshot: &Snapshot) -> bool {
    snapshot.mode != Mode::Vod || snapshot.ended
}

fn every_track_listed(snapshot: &Snapshot) -> bool {
    let listed = |track: &TrackView| !track.listed.is_empty();
    !snapshot.tracks.is_empty() && snapshot.tracks.iter().all(listed)
}

/// The bytes of `item` and how long they will be there.
fn media_bytes(
    now: UnixTime,
    snapshot: &Snapshot,
    index: usize,
    track: &TrackView,
    item: Item<'_>,
) -> Option<(Vec<Bytes>, Duration)> {
    match item {
        Item::Init(_, version) => {
            let life = media::init_life(snapshot, index, track, version, now)?;
            Some((vec![track.init(index, version)?], life))
        }
        Item::Segment(_, number) => {
            let segment = track.segment(number)?;
            let life = media::segment_life(snapshot, track, segment, now)?;
            let slices = segment.parts.iter().map(|part| part.bytes.clone());
            Some((slices.collect(), life))
        }
        Item::Part(_, number, part) => {
            let (part, segment) = track.part(number, part)?;
            let life = match segment {
                Some(segment) => media::segment_life(snapshot, track, segment, now)?,
                None => media::open_life(snapshot, track),
            };
            Some((vec![part.bytes.clone()], life))
        }
        Item::Player
        | Item::Snapshot
        | Item::Clip
        | Item::Multivariant
        | Item::Mpd
        | Item::LowLatencyMpd
        | Item::Media(_) => None,
    }
}

/// A playlist or manifest; half a target duration is as old as rule 7 lets it get.
pub(super) fn document(
    asked: &Asked,
    port: &StreamPort,
    snapshot: &Arc<Snapshot>,
    document: Document,
) -> Response {
    let text = port.texts.get(snapshot, document, || match document {
        Document::Multivariant => port.manifests.multivariant(snapshot),
        Document::Media(track, extent) => port.manifests.media(snapshot, track, extent),
        Document::Mpd => port.manifests.mpd(snapshot),
        Document::LowLatencyMpd => port.manifests.low_latency_mpd(snapshot),
    });
    let cache = Cache::For(Duration::from_secs(snapshot.target_duration / 2));
    let content_type = match document {
        Document::Multivariant | Document::Media(..) => HLS,
        Document::Mpd | Document::LowLatencyMpd => DASH,
    };
    reply::text(asked, content_type, cache, &text)
}

async fn still(site: &Site, asked: &Asked, port: &StreamPort, query: Option<&str>) -> Response {
    let width = query.and_then(|query| {
        let mut fields = query.split('&');
        fields.find_map(|field| field.strip_prefix("width=")?.parse().ok())
    });
    let Some(picture) = port.picture.borrow().clone() else {
        if port.window.borrow().is_copied() {
            let message = "a copied stream is not decoded: there is no picture of it";
            return reply::not_found("copied", message);
        }
        return waiting(port);
    };
    match port.stills.get(picture, width, &site.anchor).await {
        Ok(jpeg) => reply::media(asked, JPEG, Cache::NoStore, [jpeg]),
        Err(cause) => {
            tracing::warn!(stream = port.name, %cause, "no snapshot");
            let message = cause.to_string();
            reply::error(StatusCode::INTERNAL_SERVER_ERROR, "no_snapshot", &message)
        }
    }
}

pub(super) fn page(asked: &Asked, text: &Text) -> Response {
    let mut response = reply::text(asked, HTML, Cache::Revalidate, text);
    let policy = HeaderValue::from_static(assets::CONTENT_SECURITY_POLICY);
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, policy);
    response
}

/// The page of a stream that the request may not watch; its status is the caller's.
pub(super) fn closed_page(asked: &Asked) -> Response {
    let mut response = page(asked, Assets::get().closed.at(asked.depth));
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

pub(super) fn missing_page(asked: &Asked) -> Response {
    let mut response = page(asked, Assets::get().missing.at(asked.depth));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

/// Browsers ask for it on pages that aren't ours, such as a snapshot opened by itself.
fn favicon(asked: &Asked) -> Response {
    const ICON: &[u8] = include_bytes!("../../web/src/icon.svg");
    let icon = Text::new(ICON, super::text::Effort::Quick);
    reply::text(
        asked,
        "image/svg+xml",
        Cache::For(Duration::from_secs(86_400)),
        &icon,
    )
}

async fn asset(asked: &Asked, name: &str) -> Response {
    let Some(asset) = Assets::get().named(name) else {
        return reply::not_found("unknown_asset", "no asset has this name");
    };
    let asked = asked.clone();
    // The first request compresses hls.js, which takes longer than an async thread should be held.
    let answer = tokio::task::spawn_blocking(move || {
        reply::text(
            &asked,
            asset.content_type,
            Cache::Immutable(A_YEAR),
            &asset.text,
        )
    });
    answer.await.unwrap_or_else(|cause| {
        let message = format!("the asset could not be compressed: {cause}");
        reply::error(StatusCode::INTERNAL_SERVER_ERROR, "internal", &message)
    })
}

pub(super) fn to_the_slash(name: &str) -> Response {
    let message = format!("the player is at {name}/");
    elsewhere(
        StatusCode::PERMANENT_REDIRECT,
        &format!("{name}/"),
        &message,
    )
}

/// `location` is relative, so that it holds behind a proxy with a prefix too.
pub(super) fn elsewhere(status: StatusCode, location: &str, message: &str) -> Response {
    let mut response = reply::error(status, "moved", message);
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Ready: some stream can be watched or waits for its producer; not while all of them start or have failed.
fn ready(site: &Site, asked: &Asked) -> Response {
    let streams = Arc::clone(&site.streams.borrow());
    let held_up = |port: &StreamPort| {
        matches!(
            (port.status)().state,
            StreamState::Starting | StreamState::Failed
        )
    };
    if streams.is_empty() || !streams.values().all(held_up) {
        return reply::json(asked, &serde_json::json!({"ready": true}));
    }
    let message = "every stream is starting or has failed: /api/v1/streams says why";
    reply::error(StatusCode::SERVICE_UNAVAILABLE, "not_ready", message)
}

fn unknown_stream(name: &str) -> Response {
    reply::not_found("unknown_stream", &format!("no stream is named '{name}'"))
}

fn unknown_rendition(port: &StreamPort, rendition: &str) -> Response {
    let message = format!("stream '{}' has no rendition '{rendition}'", port.name);
    reply::not_found("unknown_rendition", &message)
}

fn not_published(format: &str, port: &StreamPort) -> Response {
    let message = format!("stream '{}' is not published as {format}", port.name);
    reply::not_found("not_published", &message)
}

/// There is nothing yet; says what is waited for.
fn waiting(port: &StreamPort) -> Response {
    let status = (port.status)();
    let name = &port.name;
    let detail = status.detail.unwrap_or_default();
    reply::not_yet(&match status.state {
        StreamState::Waiting => format!("stream '{name}' waits for its producer"),
        StreamState::Failed if !detail.is_empty() => format!("stream '{name}' failed: {detail}"),
        state => format!("stream '{name}' is {state}, but has nothing to show yet"),
    })
}

impl Site {
    fn stream_status(&self, port: &StreamPort) -> StreamStatus {
        let mut status = (port.status)();
        status.window.viewers = port.viewers.count(self.anchor.monotonic());
        status
    }

    /// What `/api/v1/streams` answers.
    pub fn status(&self) -> StreamsStatus {
        let streams = Arc::clone(&self.streams.borrow());
        let uptime = self.anchor.monotonic().saturating_since(self.started);
        StreamsStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: self.anchor.now().rfc3339(),
            uptime_seconds: uptime.as_secs_f64(),
            streams: streams
                .values()
                .map(|port| self.stream_status(port))
                .collect(),
        }
    }
}
