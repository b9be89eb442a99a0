//! What a folder has to hold for a snapshot, and what of it fits where space is short.

use std::collections::{BTreeMap, BTreeSet};

use crate::window::{Snapshot, TrackView};

use super::state::{init_name, part_name, segment_name};

/// How much of a disk one stream may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskLimits {
    /// What stays free on the file system, in bytes; 0 for all that there is.
    pub keep_free: u64,
    /// The stream's media files together, in bytes; none for what its window needs.
    pub max_bytes: Option<u64>,
}

/// A file that the snapshot wants in the folder.
pub(super) struct Wanted<'a> {
    pub(super) content: Vec<&'a [u8]>,
    pub(super) durable: bool,
    /// The bytes of a file that is there already, and nowhere else.
    pub(super) stored: u64,
}

impl Wanted<'_> {
    pub(super) fn len(&self) -> u64 {
        let content = self.content.iter().map(|chunk| chunk.len() as u64);
        content.sum::<u64>() + self.stored
    }
}

/// The files of `view` that a playlist made from it lists.
pub(super) fn listed(view: &TrackView) -> Vec<String> {
    let media = view.listed.iter().filter(|segment| !segment.gap);
    let segments = media.map(|segment| format!("{}/{}", view.name, segment_name(segment.number)));
    segments.collect()
}

/// Every media file that the folder has to hold for `snapshot`.
pub(super) fn wanted(snapshot: &Snapshot) -> BTreeMap<String, Wanted<'_>> {
    let mut files = BTreeMap::new();
    for view in &snapshot.tracks {
        let name = &view.name;
        let segments = || view.retained.iter().chain(&view.listed);
        for segment in segments().filter(|segment| !segment.gap) {
            let content = segment
                .parts
                .iter()
                .map(|part| part.bytes.as_ref())
                .collect();
            let path = format!("{name}/{}", segment_name(segment.number));
            files.insert(
                path,
                Wanted {
                    content,
                    durable: true,
                    stored: segment.stored,
                },
            );
        }
        for part in view.open.iter().flat_map(|open| &open.parts) {
            let path = format!("{name}/{}", part_name(part.segment, part.number));
            let content = vec![part.bytes.as_ref()];
            files.insert(
                path,
                Wanted {
                    content,
                    durable: false,
                    stored: 0,
                },
            );
        }
    }
    // The state describes a period's encoding in every track, so every track keeps its init.
    let periods = snapshot.tracks.iter().flat_map(|view| {
        let segments = view.retained.iter().chain(&view.listed);
        let open = view.open.iter().map(|open| &open.period);
        segments.map(|segment| &segment.period).chain(open)
    });
    for period in periods {
        for (view, init) in snapshot.tracks.iter().zip(&period.tracks) {
            let path = format!("{}/{}", view.name, init_name(&init.version));
            files.entry(path).or_insert_with(|| Wanted {
                content: vec![init.init.as_ref()],
                durable: true,
                stored: 0,
            });
        }
    }
    files
}

/// The bytes of all files that are wanted.
pub(super) fn bytes(wanted: &BTreeMap<String, Wanted<'_>>) -> u64 {
    wanted.values().map(Wanted::len).sum()
}

/// `snapshot` with as few of its oldest retained segments left out as makes its files, with the `others` that have to stay, fit into
/// `limit` bytes. None of those in `listed` is left out, for a playlist in the folder lists it.
///
/// # Errors
/// How many bytes are needed, when they do not fit without any retained segment either.
pub(super) fn fit(
    snapshot: &Snapshot,
    others: u64,
    limit: u64,
    listed: &BTreeSet<String>,
) -> Result<Option<Snapshot>, u64> {
    let mut needed = bytes(&wanted(snapshot)).saturating_add(others);
    if needed <= limit {
        return Ok(None);
    }
    let mut tracks = snapshot.tracks.clone();
    while needed > limit {
        let oldest = tracks.iter_mut().filter_map(|view| {
            let name = &view.name;
            let may_go = view.retained.iter().position(|segment| {
                !segment.gap
                    && !listed.contains(&format!("{name}/{}", segment_name(segment.number)))
            })?;
            Some((view.retained[may_go].number, may_go, view))
        });
        let Some((_, at, view)) = oldest.min_by_key(|(number, ..)| *number) else {
            return Err(needed);
        };
        needed = needed.saturating_sub(view.retained.remove(at).len());
    }
    Ok(Some(Snapshot {
        stream: snapshot.stream.clone(),
        tracks,
        ..*snapshot
    }))
}
