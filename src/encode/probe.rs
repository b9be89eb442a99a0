//! Trying an encoder before it is needed: two pictures through it into fragmented MP4 prove that it works, and yield the
//! sample entry as FFmpeg's own muxer makes it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::process::{self, LastLines, Left, Output};
use super::{EncodeError, EncodePlan, EncodeRendition, FfmpegInfo, arguments, description};
use crate::sample::TrackDescription;

const DEADLINE: Duration = Duration::from_secs(10);
/// How long a killed process is waited for.
const GRACE: Duration = Duration::from_secs(3);
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

    /// What was found for `arguments`, or what `find` finds, which is kept.
    pub(super) fn get_or(
        &self,
        ffmpeg: &FfmpegInfo,
        arguments: &[String],
        find: impl FnOnce() -> Result<TrackDescription, EncodeError>,
    ) -> Result<TrackDescription, EncodeError> {
        let key = Key {
            path: ffmpeg.path.clone(),
            version: ffmpeg.version.clone(),
            arguments: arguments.to_vec(),
        };
        if let Some(description) = self.get(&key) {
            return Ok(description);
        }
        let description = find()?;
        self.put(key, description.clone());
        Ok(description)
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
        run(&key.path, &key.arguments, picture, PICTURES, DEADLINE)?.ok_or_else(|| {
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
        framerate: plan.rate_of(rendition),
        audio: None,
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

/// Runs `program` to its end with `input` written `times` times to its stdin; none if it has not ended by the deadline: then it is
/// killed, and if even that does not end it, or something that it has started holds its pipes, left alone.
pub(super) fn run(
    program: &Path,
    arguments: &[String],
    input: Vec<u8>,
    times: usize,
    deadline: Duration,
) -> Result<Option<Finished>, EncodeError> {
    let until = Instant::now() + deadline;
    let start = |what| move |source| EncodeError::Start { what, source };
    let mut child = process::spawn(program, arguments, &Output::Piped, Vec::new())
        .map_err(start("its program"))?;
    let group = process::group_of(&child);
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
        unreachable!("all three were asked for")
    };
    let (ended, end) = sync_channel(1);
    let (said, words) = sync_channel(1);
    // Each ends with the process, or with the last that holds its pipe: nobody may have to wait for that.
    let spawned = spawn("ffmpeg-in", move || {
        for _ in 0..times {
            if stdin.write_all(&input).is_err() {
                return;
            }
        }
    })
    .and_then(|()| {
        spawn("ffmpeg-log", move || {
            let _ = said.send(LastLines::read_to_end(stderr));
        })
    })
    .and_then(|()| {
        spawn("ffmpeg-out", move || {
            let mut output = Vec::new();
            // A cut or failed output shows as such when it is read.
            let _ = stdout.take(MAX_OUTPUT).read_to_end(&mut output);
            let _ = ended.send(output);
        })
    });
    let output = match &spawned {
        Ok(()) => end.recv_timeout(deadline).ok(),
        Err(_) => None,
    };
    let output = output.filter(|_| ends_before(group, until));
    if let Some(group) = group {
        // Also what it has started itself.
        process::kill_group(group);
    }
    let until = Instant::now() + GRACE;
    let gone = ends_before(group, until);
    let lines = match &spawned {
        Ok(()) => words
            .recv_timeout(until.saturating_duration_since(Instant::now()))
            .ok(),
        // It was killed before it could say anything.
        Err(_) => Some(Vec::new()),
    };
    let finished = match lines.filter(|_| gone) {
        Some(lines) => {
            let status = child.wait().map_err(start("waiting for it"))?;
            output.map(|output| Finished {
                status,
                output,
                lines,
            })
        }
        None => {
            let left = Left::behind(child.id());
            // Without a thread it is not reaped, which is the least of that machine's troubles.
            let _ = spawn("ffmpeg-wait", move || {
                let _ = (child.wait(), words.recv(), end.recv());
                drop(left);
            });
            None
        }
    };
    spawned.map_err(start("a thread"))?;
    Ok(finished)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map(|_| ())
}

/// Whether the process ends by then; it is not reaped, so that its number is still its own.
pub(crate) fn ends_before(process: Option<Pid>, deadline: Instant) -> bool {
    let Some(process) = process else { return true };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    loop {
        match waitid(WaitId::Pid(process), options) {
            Ok(Some(_)) => return true,
            Ok(None) | Err(Errno::INTR) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(2));
            }
            Ok(None) | Err(Errno::INTR) => return false,
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);
    /// For what does not end.
    const SHORT: Duration = Duration::from_secs(2);

    fn run_script(
        body: &str,
        deadline: Duration,
    ) -> (Result<Option<Finished>, EncodeError>, Duration) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ffmpeg");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let begun = Instant::now();
        let finished = run(&path, &[], b"in\n".to_vec(), 2, deadline);
        (finished, begun.elapsed())
    }

    #[test]
    fn what_it_said_and_wrote_is_had_once_it_has_ended() {
        let (finished, _) = run_script("cat; echo why >&2; exit 3", LONG);
        let finished = finished.unwrap().unwrap();
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!(
            (finished.output.as_slice(), finished.lines),
            (&b"in\nin\n"[..], vec!["why".to_owned()])
        );
    }

    #[test]
    fn a_wrapper_whose_child_lives_on_has_ended_and_the_child_is_killed() {
        let (finished, took) = run_script("sleep 60 >/dev/null & echo out; exit 0", LONG);
        assert_eq!(finished.unwrap().unwrap().output, b"out\n");
        assert!(took < LONG, "{took:?}");
    }

    #[test]
    fn one_that_does_not_end_in_time_is_killed() {
        let (finished, took) = run_script("cat; sleep 60", SHORT);
        assert!(finished.unwrap().is_none());
        assert!(took < LONG, "{took:?}");
    }

    /// As one that hangs in the kernel: no kill reaches what holds its pipes.
    #[test]
    fn one_whose_pipes_stay_open_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let note = folder.path().join("pid");
        let body = format!(
            "setsid sh -c 'echo $$ >{}; exec sleep 60' & sleep 60",
            note.display()
        );
        let (finished, took) = run_script(&body, SHORT);
        assert!(finished.unwrap().is_none());
        assert!(took < LONG, "{took:?}");
        assert_eq!(process::left(), 1);
        // And no longer counted once it is gone.
        let pid: i32 = std::fs::read_to_string(&note)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        while process::left() > 0 {
            thread::sleep(Duration::from_millis(20));
        }
    }
}
