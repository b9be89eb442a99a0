//! A reel: the folder of the segments that began within one hour of the day, in UTC, and its index.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::index::{Column, Index, Line};
use crate::publish::{Folder, PeriodState, PublishError, init_name, segment_name};
use crate::tick::UnixTime;
use crate::window::{Segment, TrackInit};

const INDEX: &str = "index.jsonl";
/// An index of a segment each half second with all tracks that there can be is shorter.
const MAX_INDEX_BYTES: u64 = 64 << 20;

type Result<T> = std::result::Result<T, PublishError>;

/// A reel that is written to.
#[derive(Debug)]
pub(super) struct Reel {
    pub(super) name: String,
    pub(super) index: Index,
    folder: Folder,
    path: PathBuf,
    file: std::fs::File,
}

/// What the index of the reel at `path` says; none if it is not there, or is no index.
pub(super) fn read_index(path: &Path) -> Result<Option<Index>> {
    let Some(folder) = Folder::open(path)? else {
        return Ok(None);
    };
    let text = folder.read(INDEX, MAX_INDEX_BYTES)?;
    Ok(text.and_then(|text| Index::read(&text)))
}

impl Reel {
    /// Begins a reel of these tracks in `dir`.
    pub(super) fn begin(dir: &Path, name: &str, tracks: &[String]) -> Result<Self> {
        let path = dir.join(name);
        let folder = Folder::make(&path)?;
        let mut reel = Self {
            name: name.to_owned(),
            index: Index::of(tracks.to_vec()),
            file: folder.append_to(INDEX)?,
            folder,
            path,
        };
        if reel.folder.len(INDEX)? != Some(0) {
            // An attempt before was cut off.
            reel.write(b"\n")?;
        }
        reel.append(&Line::Tracks(tracks.to_vec()))?;
        reel.folder.sync()?;
        Ok(reel)
    }

    /// Opens the reel `name` in `dir`; none if it is no reel.
    pub(super) fn open(dir: &Path, name: &str) -> Result<Option<Self>> {
        let path = dir.join(name);
        let Some(folder) = Folder::open(&path)? else {
            return Ok(None);
        };
        let Some(text) = folder.read(INDEX, MAX_INDEX_BYTES)? else {
            return Ok(None);
        };
        let Some(index) = Index::read(&text) else {
            return Ok(None);
        };
        let mut reel = Self {
            name: name.to_owned(),
            index,
            file: folder.append_to(INDEX)?,
            folder,
            path,
        };
        if text.last() != Some(&b'\n') {
            // A crash has cut the last line: the next begins after it.
            reel.write(b"\n")?;
        }
        Ok(Some(reel))
    }

    /// Marks what a crash of the machine took of what the index names.
    pub(super) fn look(&mut self) -> Result<()> {
        let mut lost = Vec::new();
        for (track, name) in self.index.tracks.iter().enumerate() {
            let folder = self.folder.child(name)?;
            for column in self.index.columns.iter().filter(|column| !column.lost) {
                let (file, bytes) = (segment_name(column.number), column.cells[track].bytes);
                let found = match &folder {
                    Some(folder) => folder.len(&file)?,
                    None => None,
                };
                if bytes > 0 && found != Some(bytes) {
                    lost.push(column.starts);
                }
            }
        }
        lost.sort_unstable();
        lost.dedup();
        for starts in lost {
            self.append(&Line::Lost(starts))?;
            self.index.take(Line::Lost(starts));
        }
        Ok(())
    }

    /// How many bytes its file system has for this user.
    pub(super) fn free(&self) -> Result<u64> {
        self.folder.free()
    }

    /// Makes `encoding`, whose init segments are `inits`, that of the columns to come.
    pub(super) fn begin_encoding(
        &mut self,
        encoding: PeriodState,
        inits: &[TrackInit],
    ) -> Result<()> {
        let known = self.index.encodings.last();
        if known.is_some_and(|known| known.grid == encoding.grid && known.inits == encoding.inits) {
            return Ok(());
        }
        let line = Line::Encoding(encoding);
        self.append(&line)?;
        for (name, init) in self.index.tracks.iter().zip(inits) {
            let folder = self.folder.make_child(name)?;
            let file = init_name(&init.version);
            if folder.len(&file)? != Some(init.init.len() as u64) {
                folder.write(&file, [init.init.as_ref()], true)?;
                folder.sync()?;
            }
        }
        self.index.take(line);
        Ok(())
    }

    /// Keeps `segments`, one for each track, as `column`.
    pub(super) fn keep(&mut self, column: Column, segments: &[Option<&Segment>]) -> Result<()> {
        let line = Line::Column(column);
        self.append(&line)?;
        for (name, segment) in self.index.tracks.iter().zip(segments) {
            let Some(segment) = segment.filter(|segment| !segment.gap) else {
                continue;
            };
            let folder = self.folder.make_child(name)?;
            let parts = segment.parts.iter().map(|part| part.bytes.as_ref());
            folder.write(&segment_name(segment.number), parts, true)?;
        }
        self.index.take(line);
        Ok(())
    }

    /// Removes what begins before `until`, and forgets it once it is gone.
    pub(super) fn remove_before(&mut self, until: UnixTime) -> Result<()> {
        let columns = &self.index.columns;
        let gone = &columns[..columns.partition_point(|column| column.starts < until)];
        if gone.is_empty() {
            return Ok(());
        }
        for (track, name) in self.index.tracks.iter().enumerate() {
            let Some(folder) = self.folder.child(name)? else {
                continue;
            };
            for column in gone.iter().filter(|column| column.cells[track].bytes > 0) {
                folder.remove(&segment_name(column.number))?;
            }
        }
        self.append(&Line::Gone(until))?;
        self.index.take(Line::Gone(until));
        Ok(())
    }

    /// Removes what is left of it once it has no segments. What is not ours stays, and its folder with it.
    pub(super) fn remove(self) -> Result<()> {
        for (track, name) in self.index.tracks.iter().enumerate() {
            let Some(folder) = self.folder.child(name)? else {
                continue;
            };
            for encoding in &self.index.encodings {
                folder.remove(&init_name(&encoding.inits[track].version))?;
            }
            folder.discard_temporary();
            self.folder.remove_child_if_empty(name);
        }
        self.folder.remove(INDEX)?;
        // Should somebody have put something there, it stays.
        let _ = std::fs::remove_dir(&self.path);
        Ok(())
    }

    fn append(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_vec(line).map_err(|error| self.failed(error.into()))?;
        text.push(b'\n');
        self.write(&text)
    }

    /// Writes to the index, and waits until it is on the disk: it names what is written next.
    fn write(&mut self, text: &[u8]) -> Result<()> {
        let written = self.file.write_all(text);
        written
            .and_then(|()| self.file.sync_data())
            .map_err(|error| self.failed(error))
    }

    fn failed(&self, source: std::io::Error) -> PublishError {
        PublishError::Io {
            action: "write",
            path: self.path.join(INDEX),
            source,
        }
    }
}
