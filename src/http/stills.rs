//! Stills: a stream's newest picture as JPEG, encoded beside the async threads, one at a time per stream and not more
//! often than a page can use.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::jpeg;
use crate::clock::{Anchor, MonotonicTime};
use crate::picture::Picture;

/// A still of the same size is not made again sooner than this.
const INTERVAL: Duration = Duration::from_millis(500);
/// The widths that are made besides the full one; what is asked for becomes the next of them.
const WIDTHS: [u16; 5] = [160, 320, 640, 960, 1280];

/// Why there is no still.
#[derive(Debug, thiserror::Error)]
pub(super) enum StillError {
    #[error("the picture can't be encoded as JPEG: {0}")]
    Encode(#[from] jpeg_encoder::EncodingError),
    #[error("the encoding of a still was cut off: {0}")]
    Cut(#[from] tokio::task::JoinError),
}

/// One stream's stills: at most one of each width.
pub(super) struct Stills {
    made: Mutex<BTreeMap<Option<u16>, Still>>,
    /// Held while one is encoded, so that all who wait for it get the same.
    turn: Semaphore,
}

#[derive(Clone)]
struct Still {
    captured: MonotonicTime,
    made: MonotonicTime,
    jpeg: Bytes,
}

impl Default for Stills {
    fn default() -> Self {
        Self {
            made: Mutex::default(),
            turn: Semaphore::new(1),
        }
    }
}

/// The width that is made for one that is asked for; none for the full one.
pub(super) fn offered_width(asked: Option<u32>, full: u32) -> Option<u16> {
    let asked = asked?;
    WIDTHS
        .into_iter()
        .find(|width| u32::from(*width) >= asked)
        .filter(|width| u32::from(*width) < full)
}

impl Stills {
    /// `picture`, or one a moment older, as JPEG.
    pub(super) async fn get(
        &self,
        picture: Picture,
        width: Option<u32>,
        anchor: &Anchor,
    ) -> Result<Bytes, StillError> {
        let width = offered_width(width, picture.size.width);
        if let Some(jpeg) = self.fresh(&picture, width, anchor.monotonic()) {
            return Ok(jpeg);
        }
        let turn = self.turn.acquire().await;
        let _turn = turn.expect("the semaphore is never closed");
        if let Some(jpeg) = self.fresh(&picture, width, anchor.monotonic()) {
            return Ok(jpeg);
        }
        let captured = picture.captured;
        let encoded = tokio::task::spawn_blocking(move || jpeg::encode(&picture, width)).await??;
        let still = Still {
            captured,
            made: anchor.monotonic(),
            jpeg: encoded.into(),
        };
        let jpeg = still.jpeg.clone();
        self.lock().insert(width, still);
        Ok(jpeg)
    }

    fn fresh(&self, picture: &Picture, width: Option<u16>, now: MonotonicTime) -> Option<Bytes> {
        let made = self.lock();
        let still = made.get(&width)?;
        let same = still.captured == picture.captured;
        (same || now.saturating_since(still.made) < INTERVAL).then(|| still.jpeg.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Option<u16>, Still>> {
        self.made
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Stills {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stills").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_widths_are_made_whatever_is_asked_for() {
        for (asked, width) in [
            (None, None),
            (Some(0), Some(160)),
            (Some(200), Some(320)),
            (Some(320), Some(320)),
            (Some(1000), Some(1280)),
            (Some(1281), None),
            (Some(u32::MAX), None),
        ] {
            assert_eq!(offered_width(asked, 1920), width, "{asked:?}");
        }
        assert_eq!(offered_width(Some(320), 320), None);
    }
}
