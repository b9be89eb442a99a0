//! Trying an encoder before it is needed: two pictures through it into fragmented MP4 prove that it works, and yield the
//! sample entry as FFmpeg's own muxer makes it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::process::{self, LastLines, Output};
use super::{EncodeError, EncodePlan, EncodeRendition, arguments, description};
use crate::sample::TrackDescription;

const DEADLINE: Duration = Duration::from_secs(10);
const PICTURES: usize = 2;
/// Two pictures of a flat grey, whatever their size, and an encoder list, take far less.
const MAX_OUTPUT: u64 = 8 << 20;
const MAX_CACHED: usize = 256;

/// What probes found, by FFmpeg's path and version and the encoder's arguments. Kept in memory; bounded.
#[derive(Debug, Default)]
pub struct ProbeCache(Mutex<HashMap<Key, TrackDescription>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    path: PathBuf,
    version: String,
    arguments: Vec<String>,
}

impl ProbeCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    fn get(&self, key: &Key) -> Option<TrackDescription> {
        let cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cached.get(key).cloned()
    }

    fn put(&self, key: Key, description: TrackDescription) {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.len() >= MAX_CACHED {
            cached.clear();
        }
        cached.insert(key, description);
    }
}

/// Tries the encoder of each rendition, side by side, for at most ten seconds each. The descriptions are in the
/// renditions' order. Blocks; what is in `cache` already takes no time.
///
/// # Errors
/// The first rendition's whose encoder is missing, refuses its options or yields nothing that can be published.
pub fn probe(plan: &EncodePlan, cache: &ProbeCache) -> Result<Vec<TrackDescription>, EncodeError> {
    probe_each(plan, cache).into_iter().collect()
}

/// The same, with each rendition's own result.
pub fn probe_each(
    plan: &EncodePlan,
    cache: &ProbeCache,
) -> Vec<Result<TrackDescription, EncodeError>> {
    thread::scope(|scope| {
        let probes = plan.renditions.iter().map(|rendition| {
            thread::Builder::new()
                .name("ffmpeg-probe".into())
                .spawn_scoped(scope, move || probe_one(plan, rendition, cache))
        });
        let probes: Vec<_> = probes.collect();
        let results = probes.into_iter().map(|probe| {
            let probe = probe.map_err(|source| EncodeError::Start {
                what: "a thread",
                source,
            })?;
            probe
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        results.collect()
    })
}

fn probe_one(
    plan: &EncodePlan,
    rendition: &EncodeRendition,
    cache: &ProbeCache,
) -> Result<TrackDescription, EncodeError> {
    plan.ffmpeg.require_encoder(&rendition.codec)?;
    let key = Key {
        path: plan.ffmpeg.path.clone(),
        version: plan.ffmpeg.version.clone(),
        arguments: arguments::probe(plan, rendition),
    };
    if let Some(description) = cache.get(&key) {
        return Ok(description);
    }
    let bytes = plan.input_format.bytes(plan.input_size);
    let mut picture = Vec::new();
    picture
        .try_reserve_exact(bytes)
        .map_err(|error| EncodeError::Start {
            what: "take memory for a picture to try it with",
            source: error.into(),
        })?;
    picture.resize(bytes, 128_u8);
    let finished =
        run(&key.path, &key.arguments, &picture, PICTURES, DEADLINE)?.ok_or_else(|| {
            EncodeError::ProbeTimeout {
                rendition: rendition.name.clone(),
                codec: rendition.codec.clone(),
                deadline: DEADLINE,
            }
        })?;
    if !finished.status.success() {
        return Err(EncodeError::Refused {
            rendition: rendition.name.clone(),
            codec: rendition.codec.clone(),
            last_words: process::last_words(&finished.lines),
        });
    }
    let unfit = |why: &str| EncodeError::ProbeOutput {
        rendition: rendition.name.clone(),
        codec: rendition.codec.clone(),
        why: why.to_owned(),
    };
    let sample_entry = description::sample_entry(&finished.output).map_err(unfit)?;
    description::sample_entry_configuration(&sample_entry).map_err(unfit)?;
    let description = TrackDescription {
        codecs: description::codecs(&sample_entry).map_err(unfit)?,
        sample_entry,
        size: rendition.size,
        framerate: plan.grid.framerate,
    };
    cache.put(key, description.clone());
    Ok(description)
}

/// A process that has ended.
pub(super) struct Finished {
    pub(super) status: ExitStatus,
    pub(super) output: Vec<u8>,
    pub(super) lines: Vec<String>,
}

/// Runs `program` to its end with `input` written `times` times to its stdin; none if it has not ended by the deadline, and
/// then it is killed.
pub(super) fn run(
    program: &Path,
    arguments: &[String],
    input: &[u8],
    times: usize,
    deadline: Duration,
) -> Result<Option<Finished>, EncodeError> {
    let begin = Instant::now();
    let start = |what| move |source| EncodeError::Start { what, source };
    let mut child = process::spawn(program, arguments, &Output::Piped, Vec::new())
        .map_err(start("its program"))?;
    let group = process::group_of(&child);
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
        unreachable!("all three were asked for")
    };
    let (ended, end) = sync_channel(1);
    thread::scope(|scope| {
        // Each ends with the process: its pipes break or reach their end.
        scope.spawn(move || {
            for _ in 0..times {
                if stdin.write_all(input).is_err() {
                    return;
                }
            }
        });
        let lines = scope.spawn(|| LastLines::read_to_end(stderr));
        let output = scope.spawn(move || {
            let mut output = Vec::new();
            // A cut or failed output shows as such when it is read.
            let _ = stdout.take(MAX_OUTPUT).read_to_end(&mut output);
            let _ = ended.send(());
            output
        });
        let in_time = match end.recv_timeout(deadline) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                exits_before(&mut child, begin + deadline)
            }
            Err(RecvTimeoutError::Timeout) => false,
        };
        if !in_time && let Some(group) = group {
            process::kill_group(group);
        }
        let status = child.wait().map_err(start("waiting for it"))?;
        let output = output.join().unwrap_or_default();
        let lines = lines.join().unwrap_or_default();
        Ok(in_time.then_some(Finished {
            status,
            output,
            lines,
        }))
    })
}

/// Whether the child, which has closed its output, also ends.
fn exits_before(child: &mut std::process::Child, deadline: Instant) -> bool {
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
            Ok(None) => return false,
            _ => return true,
        }
    }
}
