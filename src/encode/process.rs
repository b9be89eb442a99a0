//! FFmpeg as a process: started in a group of its own, at low priority, with a clean environment; its stderr read line by
//! line within bounds.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use command_fds::CommandFdExt;
use ffmpeg_sidecar::command::FfmpegCommand;
use rustix::process::{
    Pid, Signal, getpid, getpriority_process, kill_process_group, setpriority_process,
};

/// FFmpeg yields to the daemon's threads, which keep the ticks' deadlines: it is so much nicer. With 10 it would get a tenth of a processor that
/// another program keeps busy, and be too slow where this leaves it a quarter.
const NICER: i32 = 5;
/// What a raw picture's pipe is enlarged to: with the system's 64 KiB, feeding is four times slower.
const PIPE_BYTES: usize = 1 << 20;
/// How much sooner than the daemon an encoder is killed when the machine runs out of memory, in thousandths of that memory: its
/// death costs no frame, the daemon's all streams.
const SOONER_KILLED: i32 = 500;
/// So many killed processes may be left behind that don't end: then none is started beside them.
const MOST_LEFT: usize = 16;
const MAX_LINE: usize = 1024;
const MAX_LINES: usize = 20;

/// How many there are of [`Left`].
static LEFT: AtomicUsize = AtomicUsize::new(0);

/// A process that was killed and does not end, as one that waits for a broken device: counted until this is dropped, so that a
/// daemon that starts others in its place for months does not fill the machine.
#[derive(Debug)]
pub(crate) struct Left(());

impl Left {
    /// The process `pid` is waited for no more.
    pub(crate) fn behind(pid: u32) -> Self {
        let left = LEFT.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::error!(
            pid,
            left,
            "killed FFmpeg does not end and is left alone: look for a device or disk that hangs, or for a wrapper whose children live on"
        );
        Self(())
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        LEFT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many killed processes have not ended.
pub(crate) fn left() -> usize {
    LEFT.load(Ordering::Relaxed)
}

/// FFmpeg's standard output.
pub(crate) enum Output {
    Discarded,
    Piped,
}

/// Starts `program` with piped stdin and stderr; the child inherits `pipes` under the numbers that they have here, so that
/// they can't take the place of a descriptor that the start itself needs.
pub(crate) fn spawn(
    program: &Path,
    arguments: &[String],
    output: &Output,
    pipes: Vec<OwnedFd>,
) -> io::Result<Child> {
    may_start()?;
    let mut command = FfmpegCommand::new_with_path(program);
    let command = command.as_inner_mut();
    // The wrapper asks for the log level first; ours comes after it and holds.
    command.args(arguments);
    command.stdout(match output {
        Output::Discarded => Stdio::null(),
        Output::Piped => Stdio::piped(),
    });
    prepare(command, pipes);
    // On Linux niceness belongs to threads and is inherited: a child of a nice thread is nice from its first instruction on,
    // and so is every thread that it makes.
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("ffmpeg-start".into())
            .spawn_scoped(scope, || {
                be_nice()?;
                command.spawn()
            })?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the starting thread panicked")))
    })
    .inspect(offer_to_the_oom_killer)
}

/// Starts `program`, which gets nothing on stdin and whose stdout is nobody's, with piped stderr and `pipes` as [`spawn`] does; the calling
/// thread becomes as nice as it is to be. Where the system has `setpriv`, the child dies with that thread, and so with the daemon,
/// however that ends.
pub(crate) fn spawn_bound(
    program: &Path,
    arguments: &[String],
    pipes: Vec<OwnedFd>,
) -> io::Result<Child> {
    may_start()?;
    let mut command = match setpriv() {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    prepare(&mut command, pipes);
    be_nice()?;
    command.spawn().inspect(offer_to_the_oom_killer)
}

/// util-linux's setpriv, if it is there and new enough to bind a child to its parent's life.
fn setpriv() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let path = PathBuf::from("setpriv");
        let mut command = Command::new(&path);
        command.args(["--pdeathsig", "KILL", "--", "true"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success()).then_some(path)
    };
    FOUND.get_or_init(find).as_deref()
}

/// Refuses a start beside too many that don't end.
fn may_start() -> io::Result<()> {
    let left = left();
    if left < MOST_LEFT {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{left} killed FFmpeg processes have not ended, and no more are started beside them: look for a device or disk that hangs"
    )))
}

/// What a program keeps of the memory that it frees. The C library gives the end of its heap back whenever it is larger than 128 KiB, which with raw pictures is
/// after each of them: then the next one's pages are made anew. So much is kept by a heap, and what is larger than that is mapped.
const KEPT_BY_HEAPS: &str = "33554432";

/// A group of its own, a clean environment, and the pipes.
fn prepare(command: &mut Command, pipes: Vec<OwnedFd>) {
    command.process_group(0);
    command.env("AV_LOG_FORCE_NOCOLOR", "1");
    for bound in ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"] {
        command.env(bound, KEPT_BY_HEAPS);
    }
    // SVT-AV1 talks past FFmpeg's log level.
    command.env("SVT_LOG", "1");
    for surprise in ["AV_LOG_FORCE_COLOR", "AV_LOG_FORCE_256COLOR", "FFREPORT"] {
        command.env_remove(surprise);
    }
    command.preserved_fds(pipes);
}

/// Makes the calling thread, and what it starts, yield to those that keep deadlines.
fn be_nice() -> io::Result<()> {
    // Beyond 19 the system makes it 19.
    let nice = getpriority_process(Some(getpid()))? + NICER;
    if getpriority_process(None)? < nice {
        setpriority_process(None, nice)?;
    }
    Ok(())
}

/// Makes the kernel kill this child before the daemon where memory runs out. A child that has ended already needs nothing.
fn offer_to_the_oom_killer(child: &Child) {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj");
    let own: i32 = own
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    let wanted = (own + SOONER_KILLED).min(1000);
    let path = format!("/proc/{}/oom_score_adj", child.id());
    if let Err(error) = std::fs::write(&path, wanted.to_string()) {
        tracing::debug!(%error, path, "an encoder's place in the order of the OOM killer stays the daemon's");
    }
}

/// A process that is killed and reaped by whoever drops it without having waited for it: as when there is no thread to wait.
#[derive(Debug)]
pub(crate) struct Reaped(pub(crate) Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Neither does anything to one that was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A child's process group, which it leads.
pub(crate) fn group_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Kills a group at once. One that is gone already is fine.
pub(crate) fn kill_group(group: Pid) {
    if let Err(error) = kill_process_group(group, Signal::KILL)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(
            "FFmpeg's process group {} can't be killed: {error}",
            group.as_raw_nonzero()
        );
    }
}

/// Enlarges a pipe for raw pictures; where 1 MiB is refused, to the largest size that is granted, with a warning.
pub(crate) fn enlarge_pipe(pipe: impl AsFd) {
    use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};
    let mut wanted = PIPE_BYTES;
    while let Err(error) = fcntl_setpipe_size(pipe.as_fd(), wanted) {
        wanted /= 2;
        let now = fcntl_getpipe_size(pipe.as_fd()).unwrap_or(0);
        if wanted <= now {
            warn_small_pipe(now, error);
            return;
        }
    }
    if wanted < PIPE_BYTES {
        warn_small_pipe(wanted, rustix::io::Errno::PERM);
    }
}

fn warn_small_pipe(bytes: usize, error: rustix::io::Errno) {
    tracing::warn!(
        "the encoder's pipe has {bytes} bytes instead of {PIPE_BYTES} ({error}): feeding it takes more time; raise fs.pipe-max-size or fs.pipe-user-pages-soft"
    );
}

/// The last lines of a text that never ends: long lines are cut, old ones forgotten.
#[derive(Debug, Default)]
pub(crate) struct LastLines(VecDeque<String>);

impl LastLines {
    /// Reads until the end.
    pub(crate) fn read_to_end(source: impl Read) -> Vec<String> {
        Self::read_without(&[], source)
    }

    /// Reads until the end, and keeps what is read without `secrets`.
    pub(crate) fn read_without(
        secrets: &[(String, &'static str)],
        source: impl Read,
    ) -> Vec<String> {
        let mut lines = Self::default();
        for_each_line(source, |line| {
            let line = crate::config::without(secrets, &line);
            tracing::debug!("ffmpeg: {line}");
            lines.push(line);
        });
        lines.0.into()
    }

    pub(crate) fn push(&mut self, line: String) {
        if self.0.len() == MAX_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    /// Those that are kept, oldest first.
    pub(crate) fn to_vec(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }
}

/// Gives `each` line of a text, until its end: printable, cut where it is too long, none that is empty.
pub(crate) fn for_each_line(mut source: impl Read, mut each: impl FnMut(String)) {
    let mut line = Vec::new();
    let mut end = |line: &mut Vec<u8>| {
        let text = printable(line);
        line.clear();
        if !text.is_empty() {
            each(text);
        }
    };
    let mut buffer = [0; 4096];
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        for &byte in &buffer[..count] {
            match byte {
                b'\n' | b'\r' => end(&mut line),
                _ if line.len() < MAX_LINE => line.push(byte),
                _ => {}
            }
        }
    }
    end(&mut line);
}

/// One line of a log as people want it: no control characters, no addresses (`[libx264 @ 0x55d0c8]`).
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    if let Some(at) = text.find(" @ 0x")
        && let Some(end) = text[at..].find(']')
    {
        text.replace_range(at..at + end, "");
    }
    text
}

/// The end of what FFmpeg said as one line, its errors alone if there are any.
pub(crate) fn last_words(lines: &[String]) -> String {
    const SHOWN: usize = 3;
    let is_error = |line: &&String| line.contains("[error] ") || line.contains("[fatal] ");
    let mut said: Vec<&String> = lines.iter().filter(is_error).collect();
    if said.is_empty() {
        said = lines.iter().collect();
    }
    if said.is_empty() {
        return "it says nothing".into();
    }
    let shown = said[said.len().saturating_sub(SHOWN)..].iter();
    let words: Vec<String> = shown
        .map(|line| {
            let line = line.replace("[error] ", "").replace("[fatal] ", "");
            line.trim_end_matches(['.', ' ', '-']).to_owned()
        })
        .collect();
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_kept_and_long_ones_are_cut() {
        let text: String = (0..100)
            .map(|n| format!("[x @ 0x5f] line {n}\r\n"))
            .collect();
        let long = "y".repeat(5000);
        let lines = LastLines::read_to_end([text.as_bytes(), long.as_bytes()].concat().as_slice());
        assert_eq!(lines.len(), MAX_LINES);
        assert_eq!(lines[18], "[x] line 99");
        assert_eq!(lines[19].len(), MAX_LINE);
    }

    #[test]
    fn last_words_are_one_line() {
        let lines = [
            "b",
            "[x] [error] cause.",
            "[warning] a",
            "[error] consequence -- ",
        ];
        let lines = lines.map(String::from);
        assert_eq!(last_words(&lines), "[x] cause; consequence");
        assert_eq!(last_words(&lines[..1]), "b");
    }
}
