//! `ringgear status --watch`: the same again each second. On a terminal a screen of bars, which is left as it was found; into a
//! pipe plain text, until nobody reads it.

mod screen;

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};

use super::CliError;
use crate::status::StreamsStatus;
use screen::{Sample, Size};

const EVERY: Duration = Duration::from_secs(1);
/// Another screen, without a cursor; and back again.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Prints what `text` says each second, until its reader goes away or it fails.
pub(super) fn print(text: impl Fn() -> Result<String, CliError>) -> Result<(), CliError> {
    loop {
        let began = Instant::now();
        let mut out = io::stdout();
        let written = out.write_all(text()?.as_bytes()).and_then(|()| out.flush());
        if written.is_err() {
            return Ok(());
        }
        std::thread::sleep(EVERY.saturating_sub(began.elapsed()));
    }
}

/// Shows what `ask` says on the terminal, until Ctrl-C or q. A daemon that is away is asked again.
pub(super) fn show(ask: impl Fn() -> Result<StreamsStatus, CliError>) -> Result<(), CliError> {
    let failed =
        |error: io::Error| CliError::Failed(format!("the terminal can't be used: {error}"));
    let mut terminal = Terminal::enter().map_err(failed)?;
    let (mut before, mut now) = (None, None);
    loop {
        let asked = Instant::now();
        let trouble = match ask() {
            Ok(status) => {
                before = now.replace(Sample { at: asked, status });
                None
            }
            Err(error) => Some(error.to_string()),
        };
        let due = asked + EVERY;
        loop {
            let frame = screen::frame(before.as_ref(), now.as_ref(), trouble.as_deref(), size());
            // A terminal that is gone needs no more frames.
            if terminal.draw(&frame).is_err() {
                return Ok(());
            }
            match terminal.wait(due).map_err(failed)? {
                Event::Due => break,
                Event::Resized => {}
                Event::End => return Ok(()),
            }
        }
    }
}

fn size() -> Size {
    let size = tcgetwinsize(io::stdout()).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or(
        Size {
            columns: 80,
            rows: 24,
        },
        |size| Size {
            columns: size.ws_col.into(),
            rows: size.ws_row.into(),
        },
    )
}

/// What ends a wait.
enum Event {
    Due,
    Resized,
    End,
}

/// The terminal, as it was found once this is dropped.
struct Terminal {
    /// Of standard input, if that is the terminal.
    before: Option<Termios>,
    ends: UnixStream,
    resizes: UnixStream,
}

impl Terminal {
    fn enter() -> io::Result<Self> {
        let (ends, ending) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, ending.try_clone()?)?;
        }
        let (resizes, resizing) = UnixStream::pair()?;
        resizes.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(SIGWINCH, resizing)?;
        let stdin = io::stdin();
        let before = stdin.is_terminal().then(|| tcgetattr(&stdin)).transpose()?;
        if let Some(before) = &before {
            let mut quiet = before.clone();
            // Keys come at once and are not shown; to be stopped in the middle would leave the other screen behind.
            quiet.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            quiet.special_codes[SpecialCodeIndex::VSUSP] = 0;
            tcsetattr(&stdin, OptionalActions::Now, &quiet)?;
        }
        let mut terminal = Self {
            before,
            ends,
            resizes,
        };
        terminal.draw(ENTER)?;
        Ok(terminal)
    }

    fn draw(&mut self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn wait(&mut self, until: Instant) -> io::Result<Event> {
        let stdin = io::stdin();
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(Event::Due);
            }
            let mut awaited: Vec<BorrowedFd<'_>> = vec![self.ends.as_fd(), self.resizes.as_fd()];
            if self.before.is_some() {
                awaited.push(stdin.as_fd());
            }
            let ready = ready(&awaited, rest)?;
            if ready[0] {
                return Ok(Event::End);
            }
            if ready[1] {
                let _ = self.resizes.read(&mut [0; 64]);
                return Ok(Event::Resized);
            }
            if ready.get(2) == Some(&true) {
                let mut keys = [0; 64];
                let count = rustix::io::read(&stdin, &mut keys)?;
                if count == 0 || keys[..count].contains(&b'q') {
                    return Ok(Event::End);
                }
            }
        }
    }
}

/// Which of these have something to read, waited for so long.
fn ready(awaited: &[BorrowedFd<'_>], rest: Duration) -> io::Result<Vec<bool>> {
    let polled = awaited.iter().copied();
    let polled = polled.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let mut polled: Vec<PollFd<'_>> = polled.collect();
    let rest = Timespec::try_from(rest).map_err(io::Error::other)?;
    match poll(&mut polled, Some(&rest)) {
        // What the signal was is read the next time.
        Err(rustix::io::Errno::INTR) => return Ok(vec![false; awaited.len()]),
        polled => polled?,
    };
    Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect())
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.draw(LEAVE);
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}
