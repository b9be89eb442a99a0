//! The journal's own protocol: a datagram of fields for each line.
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use tracing::Level;

use super::line::Line;

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// No datagram is larger. The journal takes more, but by a file; a line of fields that long says nothing more to anybody.
const MAX_DATAGRAM: usize = 64 * 1024;

/// The way to the journal. Nobody waits for it: what it does not take at once is lost, and counted.
pub(super) struct Journal {
    datagrams: UnixDatagram,
    /// How many lines are lost that it was not told of yet.
    lost: AtomicU64,
}

impl Journal {
    /// # Errors
    /// When no journal listens.
    pub(super) fn open() -> io::Result<Self> {
        Self::at(Path::new(SOCKET))
    }

    fn at(socket: &Path) -> io::Result<Self> {
        let datagrams = UnixDatagram::unbound()?;
        datagrams.set_nonblocking(true)?;
        datagrams.connect(socket)?;
        Ok(Self {
            datagrams,
            lost: AtomicU64::new(0),
        })
    }

    /// Sends a line. Without a journal, as while it is started again, standard error has it, which its stream leads back there.
    pub(super) fn send(&self, line: &Line) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 && self.write(&of_lost(lost)).is_err() {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
        match self.write(&datagram(line)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => eprint!("{}", line.text(None, false)),
        }
    }

    fn write(&self, datagram: &[u8]) -> io::Result<()> {
        let sent = match self.datagrams.send(datagram) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                // The socket of a journal that was started again is another.
                self.datagrams.connect(SOCKET)?;
                self.datagrams.send(datagram)
            }
            sent => sent,
        };
        sent.map(drop)
    }
}

/// The line about so many that are lost.
fn of_lost(lost: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let message = format!("the journal was too slow: {lost} lines before this one are lost");
    put(&mut bytes, "MESSAGE", &message);
    put(&mut bytes, "PRIORITY", priority(Level::WARN));
    put(&mut bytes, "SYSLOG_IDENTIFIER", "ringgear");
    bytes
}

fn datagram(line: &Line) -> Vec<u8> {
    let mut bytes = Vec::new();
    let metadata = line.metadata;
    put(&mut bytes, "MESSAGE", &line.message);
    put(&mut bytes, "PRIORITY", priority(*metadata.level()));
    put(&mut bytes, "SYSLOG_IDENTIFIER", "ringgear");
    put(&mut bytes, "TARGET", metadata.target());
    if let Some(file) = metadata.file() {
        put(&mut bytes, "CODE_FILE", file);
    }
    if let Some(number) = metadata.line() {
        put(&mut bytes, "CODE_LINE", &number.to_string());
    }
    if let Some(module) = metadata.module_path() {
        put(&mut bytes, "CODE_MODULE", module);
    }
    for (name, value) in &line.fields {
        let name = format!("RINGGEAR_{}", name.to_ascii_uppercase().replace('.', "_"));
        let value = match value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        // Name, length and value.
        if bytes.len() + name.len() + value.len() + 16 <= MAX_DATAGRAM {
            put(&mut bytes, &name, &value);
        }
    }
    bytes
}

/// A value of several lines has its length before it, 64 bits with the lowest byte first.
fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend((value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend(value.as_bytes());
    bytes.push(b'\n');
}

/// As syslog counts.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::logging::line::tests::lines_of;

    #[test]
    fn the_journal_gets_a_line_by_its_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listening = UnixDatagram::bind(&path).unwrap();
        listening
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let lines = lines_of(|| {
            tracing::error!(stream = %"door", pid = 7, last_words = "first\nsecond", "encoder died");
        });
        Journal::at(&path).unwrap().send(&lines[0]);
        let mut bytes = vec![0; MAX_DATAGRAM];
        let length = listening.recv(&mut bytes).unwrap();
        let told = bytes[..length].to_vec();
        let has = |field: &[u8]| told.windows(field.len()).any(|window| window == field);
        let text = String::from_utf8_lossy(&told);
        for field in [
            "MESSAGE=encoder died\n",
            "PRIORITY=3\n",
            "SYSLOG_IDENTIFIER=ringgear\n",
            "CODE_FILE=src/cli/logging/journal.rs\n",
            "CODE_LINE=",
            "RINGGEAR_STREAM=door\n",
            "RINGGEAR_PID=7\n",
        ] {
            assert!(has(field.as_bytes()), "{field} is not in {text}");
        }
        assert!(
            has(b"RINGGEAR_LAST_WORDS\n\x0c\0\0\0\0\0\0\0first\nsecond\n"),
            "{text}"
        );
    }

    #[test]
    fn a_journal_that_takes_nothing_holds_nobody_up_and_is_told_later_what_it_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listening = UnixDatagram::bind(&path).unwrap();
        let line = &lines_of(|| tracing::info!("on and on"))[0];
        let journal = Journal::at(&path).unwrap();
        // As many as the kernel keeps for it, and some more.
        let mut sent = 0_u64;
        while journal.lost.load(Ordering::Relaxed) < 7 {
            journal.send(line);
            sent += 1;
        }
        listening.set_nonblocking(true).unwrap();
        let mut bytes = vec![0; MAX_DATAGRAM];
        let mut taken = || {
            let length = listening.recv(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
        };
        let kept = std::iter::from_fn(&mut taken).count() as u64;
        assert_eq!(kept, sent - 7);
        journal.send(line);
        let told = taken().unwrap();
        assert!(told.contains("too slow: 7 lines before"), "{told}");
        assert!(taken().unwrap().contains("MESSAGE=on and on\n"));
        journal.send(line);
        assert!(taken().unwrap().contains("MESSAGE=on and on\n"));
        assert_eq!(taken(), None);
    }

    #[test]
    fn no_datagram_is_larger_than_the_bound() {
        let lines = lines_of(|| {
            let long = "x".repeat(1 << 20);
            tracing::info!(a = long, b = long, c = long, d = long, e = long, "{long}");
        });
        assert!(datagram(&lines[0]).len() <= MAX_DATAGRAM);
    }
}
