//! The origin: playlists, media, pages and the JSON API over the windows, from memory. Nothing in a URL ever reaches
//! the file system: a path is parsed into a [`route::Target`] or is unknown, and only what the window holds is served.

mod assets;
mod body;
mod clip;
mod crowd;
mod cut;
mod directives;
#[cfg(test)]
pub(crate) mod fixtures;
mod guard;
mod head_timer;
mod jpeg;
mod live;
#[cfg(test)]
mod live_tests;
mod media;
mod metrics;
mod moment;
mod open_segment;
mod origin;
mod past;
mod place;
mod range;
mod reply;
mod route;
mod serve;
mod shares;
#[cfg(test)]
mod site_tests;
mod socket;
mod stalled;
mod stills;
mod stored;
#[cfg(test)]
mod tests;
mod text;
mod then;
mod threads;
mod tls;
mod viewers;
mod waiting;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use crate::access::Access;
use crate::archive::Archive;
use crate::clock::{Anchor, MonotonicTime};
use crate::descriptors;
use crate::manifest::hls::Extent;
use crate::picture::Picture;
use crate::status::StreamStatus;
use crate::window::Snapshot;

pub(crate) use route::is_recording;
pub use serve::serve;
use shares::Shares;
pub(crate) use text::Rendered;
pub use tls::{Tls, TlsError};
pub use viewers::Viewers;

/// A snapshot of the window as text. Each is asked for at most once per snapshot, when the first viewer wants it; what
/// it says follows from the snapshot alone.
pub trait Manifests: Send + Sync {
    /// `index.m3u8`: the multivariant playlist. Every track has a listed segment.
    fn multivariant(&self, snapshot: &Snapshot) -> String;
    /// `{rendition}/media.m3u8` of the track at `track`, which has a listed segment: all of it, or a delta update.
    fn media(&self, snapshot: &Snapshot, track: usize, extent: Extent) -> String;
    /// `manifest.mpd`. Every track has a listed segment.
    fn mpd(&self, snapshot: &Snapshot) -> String;
    /// `manifest-ll.mpd`. Every track has a listed segment.
    fn low_latency_mpd(&self, snapshot: &Snapshot) -> String;
}

/// What a stream has recorded.
pub trait Recordings: Send + Sync {
    /// The newest recording's name, if there is any.
    fn newest(&self) -> Option<String>;
    /// The recording of this name, as a stream of its own. May read the disk.
    fn find(&self, name: &str) -> Option<StreamPort>;
}

/// One stream as the origin sees it. Clones share their caches and the count of viewers.
#[derive(Clone)]
pub struct StreamPort {
    /// Its name.
    pub name: String,
    /// Whether HLS playlists are served.
    pub hls: bool,
    /// Whether the DASH manifest is served.
    pub dash: bool,
    /// The window.
    pub window: watch::Receiver<Arc<Snapshot>>,
    /// The newest picture.
    pub picture: watch::Receiver<Option<Picture>>,
    /// What the API says of it; `window.viewers` is filled in by the origin.
    pub status: Arc<dyn Fn() -> StreamStatus + Send + Sync>,
    /// How the window is written down.
    pub manifests: Arc<dyn Manifests>,
    /// Who may watch.
    pub access: Arc<Access>,
    /// Who fetched media or a playlist lately.
    pub viewers: Arc<Viewers>,
    /// Of a recording: its folder, which has the segments that the window has not.
    pub folder: Option<Arc<Path>>,
    /// Of a stream that records: what it has recorded.
    pub recordings: Option<Arc<dyn Recordings>>,
    /// What is kept of a live stream's past, if anything is.
    pub(crate) archive: Option<Archive>,
    /// The FFmpeg that decodes pictures of the past, where there is a past.
    pub(crate) ffmpeg: Option<Arc<Path>>,
    waiting: Arc<waiting::Waiting>,
    texts: Arc<Rendered>,
    stills: Arc<stills::Stills>,
}

impl StreamPort {
    /// A stream that nobody has asked for anything yet; it serves HLS and DASH.
    pub fn new(
        name: String,
        window: watch::Receiver<Arc<Snapshot>>,
        picture: watch::Receiver<Option<Picture>>,
        status: Arc<dyn Fn() -> StreamStatus + Send + Sync>,
        manifests: Arc<dyn Manifests>,
    ) -> Self {
        Self {
            name,
            hls: true,
            dash: true,
            window,
            picture,
            status,
            manifests,
            access: Arc::default(),
            viewers: Arc::default(),
            folder: None,
            recordings: None,
            archive: None,
            ffmpeg: None,
            waiting: Arc::default(),
            texts: Arc::default(),
            stills: Arc::default(),
        }
    }
}

/// The streams by name.
pub type Streams = BTreeMap<String, StreamPort>;

/// Everything that is served.
pub struct Site {
    /// The daemon's time.
    pub anchor: Anchor,
    /// The streams of the config now in force.
    pub streams: watch::Receiver<Arc<Streams>>,
    /// When the daemon started.
    pub started: MonotonicTime,
    /// Of the administrators' own address: who is one.
    administrators: Option<watch::Receiver<Arc<Access>>>,
    /// Whether there is such an address.
    has_administrators: bool,
    /// The clips that may be sent at once.
    clips: Arc<Shares>,
    /// The pictures of the past that may be decoded at once.
    decoders: Arc<Shares>,
    /// The files of recordings that may be sent at once.
    files: Arc<Shares>,
}

// A clip has a descriptor, a decoder so many until it runs.
const _: () = assert!(clip::MOST_AT_ONCE + 8 * then::MOST_AT_ONCE == descriptors::PAST);

impl Site {
    /// A site for viewers, whose uptime counts from now. As long as no stream is guarded, those of this machine may see everything.
    pub fn new(anchor: Anchor, streams: watch::Receiver<Arc<Streams>>) -> Self {
        let started = anchor.monotonic();
        Self {
            anchor,
            streams,
            started,
            administrators: None,
            has_administrators: false,
            clips: Shares::new(clip::MOST_AT_ONCE, clip::MOST_OF_ONE),
            decoders: Shares::new(then::MOST_AT_ONCE, then::MOST_OF_ONE),
            files: Shares::new(64, 16),
        }
    }

    /// This site, which may send `files` of recordings at once, a quarter of them to one address.
    pub fn sending(self, files: usize) -> Self {
        let files = Shares::new(files, files.div_ceil(4));
        Self { files, ..self }
    }

    /// This site, of which viewers see only what is theirs, and the same for administrators.
    pub fn divided(self, administrators: watch::Receiver<Arc<Access>>) -> (Self, Self) {
        let viewers = Self {
            has_administrators: true,
            ..self
        };
        let theirs = Self {
            anchor: viewers.anchor.clone(),
            streams: viewers.streams.clone(),
            administrators: Some(administrators),
            clips: Arc::clone(&viewers.clips),
            decoders: Arc::clone(&viewers.decoders),
            files: Arc::clone(&viewers.files),
            ..viewers
        };
        (viewers, theirs)
    }
}
