//! How a stream's window is written down: for the origin, and plainly for the publish folder.

use crate::config::StreamPlan;
use crate::manifest::dash::{MpdOptions, UtcTiming};
use crate::manifest::hls::Extent;
use crate::manifest::{self, dash, hls};
use crate::window::{Mode, Snapshot};

/// The origin's texts: players learn the time from `time` beside the MPD, which is `/time` behind a prefix, too.
pub(super) struct OriginManifests;

/// Where players learn the time.
fn options() -> MpdOptions {
    MpdOptions {
        utc_timing: UtcTiming::HttpIso("time".to_owned()),
    }
}

impl crate::http::Manifests for OriginManifests {
    fn multivariant(&self, snapshot: &Snapshot) -> String {
        hls::multivariant(snapshot)
    }

    fn media(&self, snapshot: &Snapshot, track: usize, extent: Extent) -> String {
        match snapshot.has_parts() {
            true => hls::low_latency_media(snapshot, track, extent),
            false => hls::media(snapshot, track),
        }
    }

    fn mpd(&self, snapshot: &Snapshot) -> String {
        dash::mpd(snapshot, &options())
    }

    fn low_latency_mpd(&self, snapshot: &Snapshot) -> String {
        dash::mpd_low_latency(snapshot, &options())
    }
}

/// The publish folder's texts: any web server tells the time in the headers of the MPD itself.
pub(super) struct FolderManifests {
    hls: bool,
    dash: bool,
}

impl FolderManifests {
    /// Those of the formats that the config names.
    pub(super) fn of(plan: &StreamPlan) -> Self {
        Self {
            hls: plan.hls,
            dash: plan.dash,
        }
    }
}

impl crate::publish::Manifests for FolderManifests {
    fn files(&self, snapshot: &Snapshot) -> Vec<(String, String)> {
        let mut files = Vec::new();
        let whole = snapshot.mode != Mode::Vod || snapshot.ended;
        if !manifest::playable(snapshot) || !whole {
            return files;
        }
        if self.hls {
            let media = |(track, view): (usize, &crate::window::TrackView)| {
                (
                    format!("{}/media.m3u8", view.name),
                    hls::media(snapshot, track),
                )
            };
            files.extend(snapshot.tracks.iter().enumerate().map(media));
            files.push(("index.m3u8".to_owned(), hls::multivariant(snapshot)));
        }
        if self.dash {
            let utc_timing = UtcTiming::HttpHead("manifest.mpd".to_owned());
            files.push((
                "manifest.mpd".to_owned(),
                dash::mpd(snapshot, &MpdOptions { utc_timing }),
            ));
        }
        files
    }
}
