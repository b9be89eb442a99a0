//! Trying an encoder before it is needed: two pictures through it into fragmented MP4 prove that it works, and yield the
//! sample entry as FFmpeg's own muxer makes it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc::sync_channel;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::process::{self, LastLines, Left, Output};
use super::{EncodeError, EncodePlan, EncodeRendition, FfmpegInfo, arguments, description};
use crate::sample::TrackDescription;
use crate::threads;

const DEADLINE: Duration = Duration::from_secs(10);
/// How long a killed process is waited for.
const GRACE: Duration = Duration::from_secs(3);
const PICTURES: usize = 2;
/// One decoded picture of 16 megapixels; two encoded ones of a flat grey, whatever their size, and an encoder list take far less.
const MAX_OUTPUT: u64 = 32 << 20;
const MAX_CACHED: usize = 256;

/// What probes found, by FFmpeg's path and version and the encoder's arguments. Kept in memory; bounded.
#[derive(Debug, Default)]
pub struct ProbeCache {
    known: Mutex<Known>,
    /// Something was tried.
    tried: Condvar,
}

#[derive(Debug, Default)]
struct Known {
    found: HashMap<Key, TrackDescription>,
    /// Which trial of each is under way, the newest if there are several.
    under_way: HashMap<Key, u64>,
    trials: u64,
}

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

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found for `arguments`, or what `find` finds, which is kept. Of streams that ask for the same at once, one finds it for all.
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
        let known = self.known();
        // Where that one comes to nothing, all who have waited for it try it themselves, at once: none waits for more than one.
        let awaited = known.under_way.get(&key).copied();
        let mut known = self
            .tried
            .wait_while(known, |known| {
                awaited.is_some()
                    && known.under_way.get(&key).copied() == awaited
                    && !known.found.contains_key(&key)
            })
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(description) = known.found.get(&key) {
            return Ok(description.clone());
        }
        known.trials += 1;
        let number = known.trials;
        known.under_way.insert(key.clone(), number);
        drop(known);
        let trial = Trial {
            cache: self,
            key,
            number,
        };
        let found = find();
        if let Ok(description) = &found {
            trial.keep(description.clone());
        }
        found
    }
}

/// A try that is under way until it is dropped.
struct Trial<'a> {
    cache: &'a ProbeCache,
    key: Key,
    number: u64,
}

impl Trial<'_> {
    fn keep(&self, description: TrackDescription) {
        let mut known = self.cache.known();
        if known.found.len() >= MAX_CACHED {
            known.found.clear();
        }
        known.found.insert(self.key.clone(), description);
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let mut known = self.cache.known();
        if known.under_way.get(&self.key) == Some(&self.number) {
            known.under_way.remove(&self.key);
        }
        drop(known);
        self.cache.tried.notify_all();
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
            threads::spawn_scoped(scope, "ffmpeg-probe", move || {
                probe_one(plan, rendition, cache)
            })
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
    let line = arguments::probe(plan, rendition);
    cache.get_or(&plan.ffmpeg, &line, || try_one(plan, rendition, &line))
}

fn try_one(
    plan: &EncodePlan,
    rendition: &EncodeRendition,
    line: &[String],
) -> Result<TrackDescription, EncodeError> {
    let bytes = plan.input_format.bytes(plan.input_size);
    let mut picture = Vec::new();
    picture
        .try_reserve_exact(bytes)
        .map_err(|error| EncodeError::Start {
            what: "take memory for a picture to try it with",
            source: error.into(),
        })?;
    picture.resize(bytes, 128_u8);
    let finished = run(&plan.ffmpeg.path, line, picture, PICTURES, DEADLINE)?.ok_or_else(|| {
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
    Ok(TrackDescription {
        codecs: description::codecs(&sample_entry).map_err(unfit)?,
        sample_entry,
        size: rendition.size,
        framerate: plan.rate_of(rendition),
        audio: None,
    })
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
    let spawned = threads::spawn("ffmpeg-in", move || {
        for _ in 0..times {
            if stdin.write_all(&input).is_err() {
                return;
            }
        }
    })
    .and_then(|_| {
        threads::spawn("ffmpeg-log", move || {
            let _ = said.send(LastLines::read_to_end(stderr));
        })
    })
    .and_then(|_| {
        threads::spawn("ffmpeg-out", move || {
            let mut output = Vec::new();
            // A cut or failed output shows as such when it is read.
            let _ = stdout.take(MAX_OUTPUT).read_to_end(&mut output);
            let _ = ended.send(output);
        })
    });
    let output = match &spawned {
        Ok(_) => end.recv_timeout(deadline).ok(),
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
        Ok(_) => words
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
            let _ = threads::spawn("ffmpeg-wait", move || {
                let _ = (child.wait(), words.recv(), end.recv());
                drop(left);
            });
            None
        }
    };
    spawned.map_err(start("a thread"))?;
    Ok(finished)
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
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::picture::Size;
    use crate::tick::Framerate;

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

    /// What a probe of `arguments` finds, for each of those that ask at once, and how often it was tried.
    fn asked_at_once(
        found: impl Fn() -> Result<TrackDescription, EncodeError> + Sync,
    ) -> (usize, usize) {
        const ASKING: usize = 8;
        let cache = ProbeCache::new();
        let tried = AtomicUsize::new(0);
        let (ffmpeg, together) = (
            FfmpegInfo {
                path: PathBuf::new(),
                version: String::new(),
                encoders: std::sync::Arc::default(),
            },
            Barrier::new(ASKING),
        );
        let good = thread::scope(|scope| {
            let ask = || {
                together.wait();
                let find = || {
                    tried.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(300));
                    found()
                };
                cache.get_or(&ffmpeg, &["-f".to_owned()], find).is_ok()
            };
            let asking: Vec<_> = (0..ASKING).map(|_| scope.spawn(ask)).collect();
            let answers = asking.into_iter().map(|one| one.join().unwrap());
            answers.filter(|good| *good).count()
        });
        (good, tried.into_inner())
    }

    #[test]
    fn one_tries_for_all_who_ask_at_once_and_each_for_itself_where_that_fails() {
        assert_eq!(
            asked_at_once(|| Ok(TrackDescription {
                sample_entry: Bytes::new(),
                codecs: String::new(),
                size: Size::new(16, 16),
                framerate: Framerate::new(25, 1).unwrap(),
                audio: None,
            })),
            (8, 1)
        );
        let refused = || {
            Err(EncodeError::ProbeOutput {
                rendition: String::new(),
                codec: String::new(),
                why: String::new(),
            })
        };
        assert_eq!(asked_at_once(refused), (0, 8));
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
