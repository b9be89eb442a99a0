//! Texts: playlists, manifests, pages and assets, each rendered once and compressed at most once per encoding, when the
//! first viewer wants it so.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use bytes::Bytes;
use hyper::http::HeaderValue;
use sha2::{Digest, Sha256};

use super::reply::header_value;
use crate::manifest::hls::Extent;
use crate::window::Snapshot;

/// Below this, compression saves nothing.
const MIN_COMPRESSED: usize = 256;

/// A content coding (RFC 9110, section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Brotli,
}

impl Coding {
    /// The best coding that an Accept-Encoding header allows.
    pub(super) fn negotiate(header: &str) -> Self {
        let accepts = |coding: &str| {
            header.split(',').any(|offer| {
                let mut fields = offer.split(';').map(str::trim);
                let named = fields
                    .next()
                    .is_some_and(|name| name.eq_ignore_ascii_case(coding));
                let refused = |field: &str| {
                    let weight = field.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok());
                    weight.is_some_and(|weight| weight <= 0.0)
                };
                named && !fields.any(refused)
            })
        };
        if accepts("br") {
            Self::Brotli
        } else if accepts("gzip") {
            Self::Gzip
        } else {
            Self::Identity
        }
    }
}

/// How hard to compress: a playlist lives for a second, an asset as long as the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    Quick,
    Thorough,
}

/// A text and its compressed forms.
#[derive(Debug)]
pub(super) struct Text {
    plain: Bytes,
    /// Weak, as the same for every coding, quotes included.
    etag: OnceLock<HeaderValue>,
    effort: Effort,
    gzip: OnceLock<Bytes>,
    brotli: OnceLock<Bytes>,
}

impl Text {
    pub(super) fn new(plain: impl Into<Bytes>, effort: Effort) -> Self {
        Self {
            plain: plain.into(),
            etag: OnceLock::new(),
            effort,
            gzip: OnceLock::new(),
            brotli: OnceLock::new(),
        }
    }

    pub(super) fn etag(&self) -> &HeaderValue {
        let etag = || header_value(format!("W/\"{}\"", short_hash(&self.plain)));
        self.etag.get_or_init(etag)
    }

    /// The text in `coding`, or as it is where that is no gain; and the coding that it is in.
    pub(super) fn coded(&self, coding: Coding) -> (Bytes, Coding) {
        if self.plain.len() < MIN_COMPRESSED {
            return (self.plain.clone(), Coding::Identity);
        }
        let thorough = self.effort == Effort::Thorough;
        let bytes = match coding {
            Coding::Identity => &self.plain,
            Coding::Gzip => self
                .gzip
                .get_or_init(|| gzip(&self.plain, if thorough { 9 } else { 4 })),
            Coding::Brotli => self
                .brotli
                .get_or_init(|| brotli(&self.plain, if thorough { 9 } else { 4 })),
        };
        (bytes.clone(), coding)
    }
}

/// The first 64 bits of a SHA-256 in hexadecimal.
pub(super) fn short_hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().take(8).fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String can't fail");
        hex
    })
}

fn gzip(plain: &[u8], level: u32) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    written.expect("writing to a Vec can't fail").into()
}

fn brotli(plain: &[u8], quality: u32) -> Bytes {
    let mut coded = Vec::new();
    // A window no larger than the text needs keeps the encoder's memory small.
    let window = if plain.len() <= 60_000 { 16 } else { 20 };
    let mut encoder = brotli::CompressorWriter::new(&mut coded, 4096, quality, window);
    encoder
        .write_all(plain)
        .expect("writing to a Vec can't fail");
    drop(encoder);
    coded.into()
}

/// Which text of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Document {
    Multivariant,
    Media(usize, Extent),
    Mpd,
    LowLatencyMpd,
}

/// The texts of a stream's newest snapshot.
#[derive(Default)]
pub(crate) struct Rendered {
    newest: Mutex<Newest>,
}

type Cell = Arc<OnceLock<Arc<Text>>>;

#[derive(Default)]
struct Newest {
    /// Weak, so that a stream without viewers does not hold on to the media of an old window.
    snapshot: Weak<Snapshot>,
    texts: HashMap<Document, Cell>,
}

impl Rendered {
    /// `document` of `snapshot`, rendered by the first who asks; others wait for that.
    pub(super) fn get(
        &self,
        snapshot: &Arc<Snapshot>,
        document: Document,
        render: impl FnOnce() -> String,
    ) -> Arc<Text> {
        let cell = self.cell(snapshot, document);
        let text = cell.get_or_init(|| Arc::new(Text::new(render(), Effort::Quick)));
        Arc::clone(text)
    }

    fn cell(&self, snapshot: &Arc<Snapshot>, document: Document) -> Cell {
        let mut newest = self
            .newest
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if newest.snapshot.as_ptr() != Arc::as_ptr(snapshot) {
            *newest = Newest {
                snapshot: Arc::downgrade(snapshot),
                texts: HashMap::new(),
            };
        }
        Arc::clone(newest.texts.entry(document).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_allowed_coding_is_chosen() {
        for (header, coding) in [
            ("", Coding::Identity),
            ("gzip, deflate, br", Coding::Brotli),
            ("gzip;q=1.0, br;q=0", Coding::Gzip),
            ("GZIP", Coding::Gzip),
            ("gzip; q=0.000", Coding::Identity),
            ("identity, brrr", Coding::Identity),
        ] {
            assert_eq!(Coding::negotiate(header), coding, "{header}");
        }
    }

    #[test]
    fn a_text_is_compressed_only_where_that_helps() {
        let short = Text::new("#EXTM3U\n", Effort::Quick);
        assert_eq!(short.coded(Coding::Gzip).1, Coding::Identity);
        let long = Text::new("#EXTINF:2.000,\n1.m4s\n".repeat(100), Effort::Quick);
        for coding in [Coding::Gzip, Coding::Brotli] {
            let (bytes, is) = long.coded(coding);
            assert_eq!(is, coding);
            assert!(bytes.len() < 300, "{coding:?}: {} bytes", bytes.len());
        }
    }
}
