//! Lines from a peer, bounded: no more than the longest line that is allowed is ever held.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Why no line comes.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    /// The peer sends and sends without a newline.
    #[error("a message is longer than {0} bytes ([limits] message_bytes)")]
    TooLong(usize),
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Cuts a stream of bytes into lines. A call to [`Lines::next`] that is dropped loses nothing.
pub(super) struct Lines {
    held: Vec<u8>,
    searched: usize,
    longest: usize,
}

impl Lines {
    /// Lines of at most `longest` bytes, their newlines included.
    pub(super) fn new(longest: usize) -> Self {
        Self {
            held: Vec::new(),
            searched: 0,
            longest,
        }
    }

    /// The next line without its newline; none at the end.
    pub(super) async fn next(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<Vec<u8>>, LineError> {
        loop {
            if let Some(at) = self.held[self.searched..]
                .iter()
                .position(|&byte| byte == b'\n')
            {
                let rest = self.held.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.held, rest);
                line.pop();
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.held.len();
            if self.held.len() >= self.longest {
                return Err(LineError::TooLong(self.longest));
            }
            let mut chunk = [0; 4096];
            let room = chunk.len().min(self.longest - self.held.len());
            match from.read(&mut chunk[..room]).await? {
                0 => return Ok(None),
                read => self.held.extend_from_slice(&chunk[..read]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_whole_however_they_are_cut() {
        let mut lines = Lines::new(64);
        let mut input = tokio_test_reader(&[b"{\"a\":", b"1}\n{}\n", b"\n", b"rest"]);
        let mut seen = Vec::new();
        while let Some(line) = lines.next(&mut input).await.unwrap() {
            seen.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(seen, ["{\"a\":1}", "{}", ""]);
    }

    #[tokio::test]
    async fn an_endless_line_is_an_error_and_is_not_held() {
        let mut lines = Lines::new(10_000);
        let mut endless = tokio::io::repeat(b'x');
        assert!(matches!(
            lines.next(&mut endless).await,
            Err(LineError::TooLong(10_000))
        ));
        assert!(lines.held.len() <= 10_000);
    }

    fn tokio_test_reader(chunks: &[&'static [u8]]) -> impl AsyncRead + Unpin {
        let (mut writer, reader) = tokio::io::duplex(8);
        let chunks: Vec<_> = chunks.to_vec();
        tokio::spawn(async move {
            for chunk in chunks {
                tokio::io::AsyncWriteExt::write_all(&mut writer, chunk)
                    .await
                    .unwrap();
            }
        });
        reader
    }
}
