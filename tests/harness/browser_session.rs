//! A headless Chromium that is driven line by line.

use std::io::Write as _;
use std::path::Path;
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use super::players::browser_driver;
use super::process::Process;
use super::wait_for;

/// A driver of the browser's folder that answers each line by a line of JSON.
pub(crate) struct BrowserSession {
    process: Process,
    commands: ChildStdin,
    answers: usize,
}

impl BrowserSession {
    /// Starts the driver `script`, with `plan` if it wants one, and waits until it says that it is ready.
    #[track_caller]
    pub(crate) fn start(script: &str, plan: Option<&Path>, within: Duration) -> Self {
        let mut command = browser_driver(script);
        command.args(plan).stdin(Stdio::piped());
        let mut process = Process::start(script, &mut command);
        let commands = process.take_stdin().unwrap();
        let line = wait_for("the browser is ready", within, || {
            let said = process.said();
            let line = said.lines().last()?;
            (line == "ready" || line.starts_with("failed")).then(|| line.to_owned())
        });
        assert_eq!(line, "ready");
        Self {
            process,
            commands,
            answers: 0,
        }
    }

    /// Has it do what `line` says, and gives its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, line: &str, within: Duration) -> String {
        writeln!(self.commands, "{line}").unwrap();
        self.answers += 1;
        let nth = self.answers - 1;
        wait_for("the browser answers", within, || {
            let said = self.process.said();
            let mut lines = said.lines().filter(|line| line.starts_with(['[', '{']));
            lines.nth(nth).map(str::to_owned)
        })
    }
}
