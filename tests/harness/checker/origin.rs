//! Where a window is read from.

use std::path::{Path, PathBuf};

use crate::harness::http;

/// An answer that was had; none of it says that the origin is away.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// A header's value by its lower-case name; none from a folder.
    headers: Option<Vec<(String, String)>>,
}

impl Fetched {
    /// Whether there are headers to be judged.
    pub(crate) fn has_headers(&self) -> bool {
        self.headers.is_some()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = self.headers.as_ref()?;
        let found = headers.iter().find(|(header, _)| header == name)?;
        Some(&found.1)
    }
}

/// The origin does not answer at all.
#[derive(Debug)]
pub(crate) struct Away;

/// Something that serves a window. Paths are those of the contract, without a leading slash.
pub(crate) trait Origin {
    fn get(&mut self, path: &str) -> Result<Fetched, Away>;
    /// Status only.
    fn head(&mut self, path: &str) -> Result<u16, Away>;
    /// The bytes of everything in the stream's folder, where there is one.
    fn size(&mut self, stream: &str) -> Option<u64>;
}

/// Ringgear's own origin, or a web server before the folder.
pub(crate) struct HttpOrigin {
    pub(crate) port: u16,
}

impl Origin for HttpOrigin {
    fn get(&mut self, path: &str) -> Result<Fetched, Away> {
        let answer = http::get(self.port, &format!("/{path}")).map_err(|_| Away)?;
        Ok(Fetched {
            status: answer.status,
            body: answer.body,
            headers: Some(answer.headers),
        })
    }

    fn head(&mut self, path: &str) -> Result<u16, Away> {
        let answer = http::request(self.port, "HEAD", &format!("/{path}"), &[]);
        Ok(answer.map_err(|_| Away)?.status)
    }

    fn size(&mut self, _stream: &str) -> Option<u64> {
        None
    }
}

/// The publish folder as it lies on the disk.
pub(crate) struct FolderOrigin {
    pub(crate) dir: PathBuf,
}

impl Origin for FolderOrigin {
    fn get(&mut self, path: &str) -> Result<Fetched, Away> {
        let (status, body) = match std::fs::read(self.dir.join(path)) {
            Ok(body) => (200, body),
            Err(_) => (404, Vec::new()),
        };
        Ok(Fetched {
            status,
            body,
            headers: None,
        })
    }

    fn head(&mut self, path: &str) -> Result<u16, Away> {
        Ok(if self.dir.join(path).is_file() {
            200
        } else {
            404
        })
    }

    fn size(&mut self, stream: &str) -> Option<u64> {
        Some(size_of(&self.dir.join(stream)))
    }
}

fn size_of(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            // It went between the listing and the look.
            Err(_) => 0,
        })
        .sum()
}
