//! The copy of one window in one folder, and the order in which a pass brings it to a snapshot: whole segments and inits, then
//! `state.json`, then playlists and MPDs, then removals. So a playlist never lists what is not whole on the disk, and the state
//! is never older than a playlist: the media sequence can't fall after a crash. Whatever is written is named by the state before
//! it is there (by its name, or by its number as claimed), so that a crash leaves nothing that nobody removes.
//!
//! A crash of the daemon costs nothing of what was renamed. For a crash of the machine, segments, inits and, once per segment,
//! the state are synced before anything names them: two syncs a segment and rendition, two for the state. Parts,
//! playlists and MPDs are not: the next second replaces them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::tick::UnixTime;
use crate::window::Snapshot;

use super::folder::{Folder, PublishError};
use super::restore::Ledger;
use super::state::{RememberedSource, STATE_COPY, STATE_FILE, State, init_name, number_of};
use super::wanted::{self, DiskLimits, Wanted, listed, wanted};

/// How many numbers ahead the state claims, so that it seldom has to be written before a part is.
const CLAIM: u64 = 4;
/// What a pass may write beside media: the state, playlists and MPDs, each once more under its temporary name.
const TEXTS: u64 = 256 << 10;

/// What gives the text of the playlists and MPDs.
pub trait Manifests: Send + 'static {
    /// Name (relative to the stream's folder) and content of each file for `snapshot`, in the order in which they are written: media
    /// playlists before the multivariant one. Only asked when every track lists something.
    fn files(&self, snapshot: &Snapshot) -> Vec<(String, String)>;
}

impl<F> Manifests for F
where
    F: Fn(&Snapshot) -> Vec<(String, String)> + Send + 'static,
{
    fn files(&self, snapshot: &Snapshot) -> Vec<(String, String)> {
        self(snapshot)
    }
}

/// The copy of one window in one folder.
pub(super) struct Copy<M> {
    dir: PathBuf,
    manifests: M,
    limits: DiskLimits,
    /// Whether too little is free: then more has to come free before it goes on, so that it does not begin and end with each part.
    below_floor: bool,
    /// Whole files of ours, with their length.
    files: BTreeMap<String, u64>,
    /// Files of ours to be removed, and when.
    leftovers: BTreeMap<String, UnixTime>,
    /// Playlists and MPDs as they are in the folder.
    texts: BTreeMap<String, String>,
    /// The state as it is in the folder.
    state: Option<State>,
    /// The files that the playlists in the folder may list.
    listed: BTreeSet<String>,
    /// The folders as they were in the last pass.
    identities: BTreeMap<String, (u64, u64)>,
    /// Renditions with files whose names are not yet safe from a crash of the machine.
    unsynced: BTreeSet<String>,
    /// Whether the files have to be looked at: at first, after a failure, and with each new segment.
    verify: bool,
    pub(super) bytes_written: u64,
}

struct Folders {
    stream: Folder,
    renditions: BTreeMap<String, Folder>,
}

impl Folders {
    /// The folder that holds `path`, and the name in it; none if it is not there.
    fn locate<'p>(&self, path: &'p str) -> Option<(&Folder, &'p str)> {
        match path.split_once('/') {
            Some((rendition, name)) => Some((self.renditions.get(rendition)?, name)),
            None => Some((&self.stream, path)),
        }
    }

    fn write<'a>(
        &self,
        path: &str,
        content: impl IntoIterator<Item = &'a [u8]>,
        durable: bool,
    ) -> Result<(), PublishError> {
        match self.locate(path) {
            Some((folder, name)) => folder.write(name, content, durable),
            None => Ok(()),
        }
    }
}

impl<M: Manifests> Copy<M> {
    pub(super) fn new(dir: PathBuf, ledger: Ledger, manifests: M, limits: DiskLimits) -> Self {
        let listed = ledger.files.keys().cloned().collect();
        Self {
            dir,
            manifests,
            limits,
            below_floor: false,
            files: ledger.files,
            leftovers: ledger.leftovers,
            texts: BTreeMap::new(),
            state: ledger.state,
            listed,
            identities: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            verify: true,
            bytes_written: 0,
        }
    }

    /// One pass: the folder is at `snapshot` afterwards.
    pub(super) fn bring(
        &mut self,
        snapshot: &Snapshot,
        source: Option<RememberedSource>,
    ) -> Result<(), PublishError> {
        let (fitted, beyond) = self.fitted(snapshot);
        let snapshot = fitted.as_ref().unwrap_or(snapshot);
        let wanted = wanted(snapshot);
        let result = match beyond {
            None => self.bring_in_order(snapshot, &wanted, source),
            Some(error) => Err(error),
        };
        if let Err(error) = &result {
            self.verify = true;
            if error.is_full() {
                self.make_room(&wanted, snapshot.updated);
            }
        }
        result
    }

    /// What of `snapshot` fits into the stream's budget, if not all of it does, and what to say if too little does.
    fn fitted(&self, snapshot: &Snapshot) -> (Option<Snapshot>, Option<PublishError>) {
        let Some(limit) = self.limits.max_bytes else {
            return (None, None);
        };
        let wanted = wanted(snapshot);
        // What the folder's playlists list stays until others replace them.
        let staying = |path: &String| self.listed.contains(path) && !wanted.contains_key(path);
        let staying = self.files.iter().filter(|(path, _)| staying(path));
        let staying = staying.map(|(_, len)| len).sum();
        match wanted::fit(snapshot, staying, limit, &self.listed) {
            Ok(fitted) => (fitted, None),
            Err(needed) => {
                let path = self.dir.clone();
                let beyond = PublishError::Budget {
                    path,
                    needed,
                    limit,
                };
                (None, Some(beyond))
            }
        }
    }

    /// Refuses to write `needed` bytes where too few would be left.
    fn check_floor(&mut self, folders: &Folders, needed: u64) -> Result<(), PublishError> {
        let keep = self.limits.keep_free;
        if keep == 0 || needed == 0 {
            return Ok(());
        }
        let floor = if self.below_floor {
            keep + keep / 8
        } else {
            keep
        };
        let free = folders.stream.free()?;
        let needed = needed + TEXTS;
        self.below_floor = free < floor.saturating_add(needed);
        if self.below_floor {
            return Err(PublishError::Floor {
                path: self.dir.clone(),
                free,
                needed,
                floor,
            });
        }
        Ok(())
    }

    fn bring_in_order(
        &mut self,
        snapshot: &Snapshot,
        wanted: &BTreeMap<String, Wanted<'_>>,
        source: Option<RememberedSource>,
    ) -> Result<(), PublishError> {
        let folders = self.open(snapshot)?;
        if self.verify {
            self.look(&folders)?;
        }
        let missing: Vec<_> = wanted
            .iter()
            .filter(|(path, wanted)| {
                wanted.stored == 0 && self.files.get(*path) != Some(&wanted.len())
            })
            .collect();
        let needed = missing.iter().map(|(_, wanted)| wanted.len()).sum();
        self.check_floor(&folders, needed)?;
        if let Some(limit) = self.limits.max_bytes
            && self.files.values().sum::<u64>().saturating_add(needed) > limit
        {
            self.make_room(wanted, snapshot.updated);
        }
        self.claim(
            &folders,
            snapshot,
            missing.iter().map(|(path, _)| path.as_str()),
        )?;
        for (path, wanted) in missing {
            // From here until it is renamed, nobody knows what the name holds.
            self.files.remove(path);
            folders.write(path, wanted.content.iter().copied(), wanted.durable)?;
            self.files.insert(path.clone(), wanted.len());
            self.leftovers.remove(path);
            self.bytes_written += wanted.len();
            if wanted.durable {
                let rendition = path.split_once('/').map(|(rendition, _)| rendition);
                self.unsynced.extend(rendition.map(str::to_owned));
            }
        }
        let new_segment = !self.unsynced.is_empty();
        while let Some(rendition) = self.unsynced.first() {
            if let Some(folder) = folders.renditions.get(rendition) {
                folder.sync()?;
            }
            self.unsynced.pop_first();
        }
        self.condemn(wanted, snapshot.updated);
        let texts = if snapshot.tracks.iter().any(|view| view.listed.is_empty()) {
            None
        } else {
            Some(self.manifests.files(snapshot))
        };
        self.write_state(&folders, snapshot, texts.as_deref(), source, new_segment)?;
        if let Some(texts) = texts {
            self.write_texts(&folders, snapshot, texts)?;
        }
        let removed = self.remove_leftovers(&folders, snapshot.updated, |_| true)?;
        self.verify = new_segment;
        if removed {
            self.remove_empty_renditions(&folders, snapshot);
        }
        Ok(())
    }

    /// Opens the folders, making what is missing. What was in a folder that is another one now is forgotten.
    fn open(&mut self, snapshot: &Snapshot) -> Result<Folders, PublishError> {
        let stream = Folder::make(&self.dir)?;
        let mut renditions = BTreeMap::new();
        for view in &snapshot.tracks {
            renditions.insert(view.name.clone(), stream.make_child(&view.name)?);
        }
        // Folders of renditions that are no more: only to remove from.
        let others: BTreeSet<_> = self
            .leftovers
            .keys()
            .filter_map(|path| path.split_once('/'))
            .map(|(rendition, _)| rendition.to_owned())
            .filter(|rendition| !renditions.contains_key(rendition))
            .collect();
        for rendition in others {
            if let Some(folder) = stream.child(&rendition)? {
                renditions.insert(rendition, folder);
            }
        }
        let mut identities = BTreeMap::from([(String::new(), stream.identity()?)]);
        for (name, folder) in &renditions {
            identities.insert(name.clone(), folder.identity()?);
        }
        for (name, identity) in &identities {
            if self
                .identities
                .get(name)
                .is_some_and(|before| before != identity)
            {
                let within = |path: &String| {
                    path.split_once('/').map_or("", |(rendition, _)| rendition) == name
                };
                self.files.retain(|path, _| !within(path));
                self.texts.retain(|path, _| !within(path));
                self.verify = true;
                if name.is_empty() {
                    self.state = None;
                }
            }
        }
        self.identities = identities;
        Ok(Folders { stream, renditions })
    }

    /// Forgets what is not in the folder any more as it was written.
    fn look(&mut self, folders: &Folders) -> Result<(), PublishError> {
        let mut gone = Vec::new();
        let texts = self
            .texts
            .iter()
            .map(|(path, text)| (path, text.len() as u64));
        let files = self.files.iter().map(|(path, len)| (path, *len));
        for (path, len) in files.chain(texts) {
            let found = match folders.locate(path) {
                Some((folder, name)) => folder.len(name)?,
                None => None,
            };
            if found != Some(len) {
                gone.push(path.clone());
            }
        }
        for path in gone {
            self.files.remove(&path);
            self.texts.remove(&path);
        }
        if folders.stream.len(STATE_FILE)?.is_none() {
            self.state = None;
        }
        Ok(())
    }

    /// Makes the state on the disk name `paths` before they are written, if it does not yet.
    fn claim<'p>(
        &mut self,
        folders: &Folders,
        snapshot: &Snapshot,
        paths: impl Iterator<Item = &'p str>,
    ) -> Result<(), PublishError> {
        let fresh = || {
            let mut state = State::of(snapshot);
            // Nothing of it is there yet.
            state.tracks.iter_mut().for_each(|track| {
                track.listed.clear();
                track.retained.clear();
                track.open = None;
            });
            state.periods.clear();
            state
        };
        let had = self.state.is_some();
        let mut state = self.state.clone().unwrap_or_else(fresh);
        let before = state.clone();
        for path in paths {
            match number_of(path.rsplit('/').next().unwrap_or(path)) {
                Some(number) => {
                    if state.claimed.0 == state.claimed.1 {
                        state.claimed = (number, number);
                    }
                    state.claimed.0 = state.claimed.0.min(number);
                    if state.claimed.1 <= number {
                        state.claimed.1 = number.plus(CLAIM);
                    }
                }
                None if self.state_names(path) => {}
                None => {
                    state.claimed_files.insert(path.to_owned());
                }
            }
        }
        if had && state == before {
            return Ok(());
        }
        // A rendition that the state does not know has claims only once it is named there.
        for view in &snapshot.tracks {
            if state.tracks.iter().all(|track| track.name != view.name) {
                state.tracks.clear();
                state.tracks = fresh().tracks;
            }
        }
        state.leftovers.extend(self.leftovers.clone());
        self.put_state(folders, state, true)
    }

    fn state_names(&self, path: &str) -> bool {
        self.state.as_ref().is_some_and(|state| {
            state.claimed_files.contains(path)
                || state.periods.iter().any(|period| {
                    let inits = state.tracks.iter().zip(&period.inits);
                    inits.into_iter().any(|(track, init)| {
                        format!("{}/{}", track.name, init_name(&init.version)) == path
                    })
                })
        })
    }

    fn put_state(
        &mut self,
        folders: &Folders,
        state: State,
        durable: bool,
    ) -> Result<(), PublishError> {
        let text = serde_json::to_vec(&state).map_err(|error| PublishError::Io {
            action: "write",
            path: self.dir.join(STATE_FILE),
            source: error.into(),
        })?;
        folders
            .stream
            .write(STATE_FILE, [text.as_slice()], durable)?;
        // A machine that fails between the two leaves one of them whole, so the copy is never synced by itself.
        folders.stream.write(STATE_COPY, [text.as_slice()], false)?;
        if durable {
            folders.stream.sync()?;
        }
        self.bytes_written += 2 * text.len() as u64;
        self.state = Some(state);
        Ok(())
    }

    /// Puts down for removal what is there and not wanted any more.
    fn condemn(&mut self, wanted: &BTreeMap<String, Wanted<'_>>, now: UnixTime) {
        for path in self.files.keys() {
            if !wanted.contains_key(path) {
                self.leftovers.entry(path.clone()).or_insert(now);
            }
        }
        self.leftovers.retain(|path, _| !wanted.contains_key(path));
    }

    fn write_state(
        &mut self,
        folders: &Folders,
        snapshot: &Snapshot,
        texts: Option<&[(String, String)]>,
        source: Option<RememberedSource>,
        durable: bool,
    ) -> Result<(), PublishError> {
        let mut state = State::of(snapshot);
        state.source = source;
        state.claimed.1 = state.claimed.0.plus(CLAIM);
        let before = self.state.as_ref();
        let known: BTreeSet<String> =
            before.map_or_else(BTreeSet::new, |state| state.manifests.clone());
        match texts {
            Some(texts) => {
                state.manifests = texts.iter().map(|(name, _)| name.clone()).collect();
                for stale in known.difference(&state.manifests) {
                    self.leftovers.insert(stale.clone(), snapshot.updated);
                }
                self.leftovers
                    .retain(|path, _| !state.manifests.contains(path));
            }
            None => state.manifests = known,
        }
        state.leftovers = self.leftovers.clone();
        if let Some(before) = before {
            // Only a moment has passed: not worth a write.
            let mut same = before.clone();
            same.written.clone_from(&state.written);
            if same == state {
                return Ok(());
            }
        }
        self.put_state(folders, state, durable)
    }

    fn write_texts(
        &mut self,
        folders: &Folders,
        snapshot: &Snapshot,
        texts: Vec<(String, String)>,
    ) -> Result<(), PublishError> {
        for (path, text) in texts {
            if self.texts.get(&path) != Some(&text) {
                self.texts.remove(&path);
                folders.write(&path, [text.as_bytes()], false)?;
                self.bytes_written += text.len() as u64;
                self.texts.insert(path, text);
            }
        }
        self.listed = snapshot.tracks.iter().flat_map(listed).collect();
        Ok(())
    }

    /// Removes what is due at `now` and `may` be removed: whether there was anything.
    fn remove_leftovers(
        &mut self,
        folders: &Folders,
        now: UnixTime,
        may: impl Fn(&str) -> bool,
    ) -> Result<bool, PublishError> {
        let due: Vec<String> = self
            .leftovers
            .iter()
            .filter(|(path, when)| **when <= now && may(path))
            .map(|(path, _)| path.clone())
            .collect();
        for path in &due {
            if let Some((folder, name)) = folders.locate(path) {
                folder.remove(name)?;
            }
            self.files.remove(path);
            self.texts.remove(path);
            self.leftovers.remove(path);
        }
        Ok(!due.is_empty())
    }

    fn remove_manifests(&mut self, stream: &Folder, paths: &[String]) -> Result<(), PublishError> {
        for path in paths {
            match path.split_once('/') {
                Some((rendition, name)) => {
                    if let Some(folder) = stream.child(rendition)? {
                        folder.remove(name)?;
                    }
                }
                None => stream.remove(path)?,
            }
            self.texts.remove(path);
        }
        Ok(())
    }

    fn remove_empty_renditions(&self, folders: &Folders, snapshot: &Snapshot) {
        for name in folders.renditions.keys() {
            if snapshot.tracks.iter().all(|view| view.name != *name) {
                folders.stream.remove_child_if_empty(name);
            }
        }
    }

    /// Where space is short: removes what has expired before anything new is there, but nothing that a playlist in the folder lists.
    /// Only a playlist that lists nothing any more that is still in the window is of no use to anybody, and goes with all that it lists:
    /// it would take the place of its successor's segments for ever.
    fn make_room(&mut self, wanted: &BTreeMap<String, Wanted<'_>>, now: UnixTime) {
        let mut listed = std::mem::take(&mut self.listed);
        self.condemn(wanted, now);
        if !wanted.is_empty() && listed.iter().all(|path| !wanted.contains_key(path)) {
            let manifests = self.state.iter().flat_map(|state| &state.manifests);
            let manifests: Vec<_> = manifests.chain(self.texts.keys()).cloned().collect();
            if let Ok(Some(stream)) = Folder::open(&self.dir) {
                // Before the segments, so that at no moment a playlist lists what is not there.
                let _ = self.remove_manifests(&stream, &manifests);
            }
            listed.clear();
        }
        if let Ok(Some(stream)) = Folder::open(&self.dir) {
            let mut renditions = BTreeMap::new();
            for name in self.identities.keys().filter(|name| !name.is_empty()) {
                if let Ok(Some(folder)) = stream.child(name) {
                    renditions.insert(name.clone(), folder);
                }
            }
            let folders = Folders { stream, renditions };
            folders.stream.discard_temporary();
            for folder in folders.renditions.values() {
                folder.discard_temporary();
            }
            // It fails like the pass did, which is reported already.
            let _ = self.remove_leftovers(&folders, now, |path| !listed.contains(path));
        }
        self.listed = listed;
    }
}
