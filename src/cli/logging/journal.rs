//! The journal's own protocol: a datagram of fields for each line.
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use serde_json::Value;
use tracing::Level;

use super::line::Line;

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// No datagram is larger. The journal takes more, but by a file; a line of fields that long says nothing more to anybody.
const MAX_DATAGRAM: usize = 64 * 1024;

/// The way to the journal.
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// # Errors
    /// When no journal listens.
    pub(super) fn open() -> io::Result<Self> {
        Self::at(Path::new(SOCKET))
    }

    fn at(socket: &Path) -> io::Result<Self> {
        let datagrams = UnixDatagram::unbound()?;
        datagrams.connect(socket)?;
        Ok(Self(datagrams))
    }

    /// Sends a line. Without a journal, as while it is started again, standard error has it, which its stream leads back there.
    pub(super) fn send(&self, line: &Line) {
        let sent = self.0.send(&datagram(line));
        // The socket of a journal that was started again is another.
        let again = sent.or_else(|_| {
            self.0.connect(SOCKET)?;
            self.0.send(&datagram(line))
        });
        if again.is_err() {
            eprint!("{}", line.text(None, false));
        }
    }
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
    fn no_datagram_is_larger_than_the_bound() {
        let lines = lines_of(|| {
            let long = "x".repeat(1 << 20);
            tracing::info!(a = long, b = long, c = long, d = long, e = long, "{long}");
        });
        assert!(datagram(&lines[0]).len() <= MAX_DATAGRAM);
    }
}
