//! A child process whose words are kept, and which never outlives its test.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::pause;

const LINES_KEPT: usize = 2000;

type Lines = Arc<Mutex<VecDeque<String>>>;

/// A running child. Dropping it kills it, and shows what it said if the test is failing.
pub(crate) struct Process {
    label: String,
    child: Child,
    lines: Lines,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command`, keeping what it writes to stdout and stderr.
    pub(crate) fn start(label: &str, command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{label}: {command:?} does not start: {error}"));
        let lines = Lines::default();
        let readers = vec![
            keep(child.stdout.take().unwrap(), "", &lines),
            keep(child.stderr.take().unwrap(), "", &lines),
        ];
        Self {
            label: label.to_owned(),
            child,
            lines,
            readers,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The pipe to the child, if it was started with one.
    pub(crate) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        // A child that has just ended by itself is no failure.
        let _ = kill_process(pid, signal);
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the child's end, and fails the test when it has not come by the deadline.
    #[track_caller]
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                for reader in self.readers.drain(..) {
                    reader.join().unwrap();
                }
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} did not end within {within:?}",
                self.label
            );
            pause();
        }
    }

    /// Everything it has said so far.
    pub(crate) fn said(&self) -> String {
        let lines = self.lines.lock().unwrap();
        lines
            .iter()
            .flat_map(|line| [line.as_str(), "\n"])
            .collect()
    }

    /// Waits for a line that contains `text`, and returns it.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, text: &str, within: Duration) -> String {
        super::wait_for(&format!("{} says '{text}'", self.label), within, || {
            let lines = self.lines.lock().unwrap();
            lines.iter().find(|line| line.contains(text)).cloned()
        })
    }

    /// SIGKILL, and the end of it.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- what {} said ---\n{}---", self.label, self.said());
        }
    }
}

fn keep(pipe: impl Read + Send + 'static, prefix: &'static str, lines: &Lines) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { return };
            let mut lines = lines.lock().unwrap();
            if lines.len() == LINES_KEPT {
                lines.pop_front();
            }
            lines.push_back(format!("{prefix}{}", String::from_utf8_lossy(&line)));
        }
    })
}

/// What a short run of a program came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `command` to its end, which has to come by the deadline.
#[track_caller]
pub(crate) fn run(command: &mut Command, within: Duration) -> Outcome {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let read = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = read(Box::new(child.stdout.take().unwrap()));
    let stderr = read(Box::new(child.stderr.take().unwrap()));
    let deadline = Instant::now() + within;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!(
                "{command:?} did not end within {within:?}; it said: {}",
                stderr.join().unwrap()
            );
        }
        pause();
    };
    Outcome {
        code: status.code(),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}
