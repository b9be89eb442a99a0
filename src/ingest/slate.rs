//! The slate: what is shown when a stream has had no frame for `stale_after`. The last picture, darkened, with the
//! stream's name, "no signal" and for how long.

use std::io;
use std::time::Duration;

use font8x8::UnicodeFonts;

use crate::clock::MonotonicTime;
use crate::picture::{Picture, PictureFormat, PicturePool, PixelBuffer, Size};

const BLACK: u8 = 16;
const DARK: u8 = BLACK + 12;
const WHITE: u8 = 235;
const NEUTRAL: u8 = 128;

/// Draws slates over one darkened picture, a new one each second.
pub(crate) struct Slate {
    stream: String,
    background: PixelBuffer,
    format: PictureFormat,
    size: Size,
    pool: PicturePool,
    drawn: Option<(u64, Picture)>,
}

impl Slate {
    /// A slate over the last picture before the signal was lost.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(crate) fn over(stream: &str, last: &Picture) -> io::Result<Self> {
        let mut slate = Self::blank(stream, last.format, last.size)?;
        let luma = last.size.width as usize * last.size.height as usize;
        let background = slate.background.bytes_mut();
        background.copy_from_slice(last.pixels());
        let (y, chroma) = background.split_at_mut(luma);
        for value in y {
            *value = BLACK + (value.saturating_sub(BLACK)) / 4;
        }
        for value in chroma {
            *value = value.midpoint(NEUTRAL);
        }
        Ok(slate)
    }

    /// A slate over plain dark grey, where no picture is known.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(crate) fn plain(stream: &str, format: PictureFormat, size: Size) -> io::Result<Self> {
        let mut slate = Self::blank(stream, format, size)?;
        darken(slate.background.bytes_mut(), size);
        Ok(slate)
    }

    fn blank(stream: &str, format: PictureFormat, size: Size) -> io::Result<Self> {
        let pool = PicturePool::new(format.bytes(size));
        Ok(Self {
            stream: stream.to_owned(),
            background: pool.take()?,
            format,
            size,
            pool,
            drawn: None,
        })
    }

    /// The slate to show now; the same picture for all ticks of a second. `silent` is the time without a frame, if there ever was one.
    /// Without memory for another, the slate before is shown on.
    ///
    /// # Errors
    /// When the system has no memory for the first.
    pub(crate) fn picture(
        &mut self,
        silent: Option<Duration>,
        now: MonotonicTime,
    ) -> io::Result<Picture> {
        let second = silent.map_or(0, |silent| silent.as_secs());
        if let Some((drawn, picture)) = &self.drawn
            && *drawn == second
        {
            return Ok(picture.captured_at(now));
        }
        let since = match silent {
            None => "no signal".to_owned(),
            Some(silent) => format!("no signal for {}", spoken(silent)),
        };
        let mut buffer = match (self.pool.take(), &self.drawn) {
            (Ok(buffer), _) => buffer,
            (Err(_), Some((_, before))) => return Ok(before.captured_at(now)),
            (Err(error), None) => return Err(error),
        };
        let pixels = buffer.bytes_mut();
        pixels.copy_from_slice(&self.background);
        let canvas = &mut Canvas {
            luma: pixels,
            size: self.size,
        };
        canvas.write_centred(&self.stream, 42, 60);
        canvas.write_centred(&since, 56, 70);
        let picture = Picture::new(self.format, self.size, now, buffer);
        self.drawn = Some((second, picture.clone()));
        Ok(picture)
    }
}

/// A dark picture that says `words` under the stream's name.
///
/// # Errors
/// When the system has no memory for it.
pub(crate) fn notice(
    stream: &str,
    words: &str,
    format: PictureFormat,
    size: Size,
) -> io::Result<Picture> {
    let mut buffer = PicturePool::new(format.bytes(size)).take()?;
    let luma = buffer.bytes_mut();
    darken(luma, size);
    let canvas = &mut Canvas { luma, size };
    canvas.write_centred(stream, 42, 60);
    canvas.write_centred(words, 56, 70);
    Ok(Picture::new(format, size, MonotonicTime(0), buffer))
}

/// Plain dark grey.
fn darken(pixels: &mut [u8], size: Size) {
    let (luma, chroma) = pixels.split_at_mut(size.width as usize * size.height as usize);
    luma.fill(DARK);
    chroma.fill(NEUTRAL);
}

/// `7 s`, `12 min 5 s`, `3 h 20 min`, `2 d 4 h`.
fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days} d {} h", hours % 24),
        () if hours > 0 => format!("{hours} h {} min", minutes % 60),
        () if minutes > 0 => format!("{minutes} min {} s", seconds % 60),
        () => format!("{seconds} s"),
    }
}

/// The luma plane, to be written on.
struct Canvas<'a> {
    luma: &'a mut [u8],
    size: Size,
}

impl Canvas<'_> {
    /// Writes one line, centred, as large as `share` percent of the width allow but at most a twelfth of the height; `centre` is its
    /// place from the top in percent.
    fn write_centred(&mut self, text: &str, centre: usize, share: usize) {
        let (width, height) = (self.size.width as usize, self.size.height as usize);
        let cells = text.chars().count().max(1) * 8;
        let by_width = width * share / 100 / cells;
        let scale = by_width.min(height / 96).max(1);
        let left = width.saturating_sub(cells * scale) / 2;
        let top = (height * centre / 100).saturating_sub(4 * scale);
        for (index, letter) in text.chars().enumerate() {
            let glyph = font8x8::BASIC_FONTS.get(letter).unwrap_or([0x7e; 8]);
            for (row, bits) in glyph.into_iter().enumerate() {
                for column in (0..8).filter(|column| bits >> column & 1 == 1) {
                    self.fill(
                        left + (index * 8 + column) * scale,
                        top + row * scale,
                        scale,
                    );
                }
            }
        }
    }

    fn fill(&mut self, left: usize, top: usize, side: usize) {
        let width = self.size.width as usize;
        let right = (left + side).min(width);
        for row in top..(top + side).min(self.size.height as usize) {
            if left < right {
                self.luma[row * width + left..row * width + right].fill(WHITE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slate_shows_text_over_the_darkened_last_picture() {
        let size = Size::new(320, 180);
        let bright = PixelBuffer::unpooled(vec![200; PictureFormat::I420.bytes(size)]);
        let last = Picture::new(PictureFormat::I420, size, MonotonicTime(0), bright);
        let mut slate = Slate::over("door", &last).unwrap();
        let picture = slate
            .picture(Some(Duration::from_secs(3)), MonotonicTime(5))
            .unwrap();
        let luma = &picture.pixels()[..320 * 180];
        assert_eq!(luma[0], BLACK + (200 - BLACK) / 4);
        assert!(
            luma.iter().filter(|&&y| y == WHITE).count() > 200,
            "letters are drawn"
        );
        let later = slate
            .picture(Some(Duration::from_secs(4)), MonotonicTime(6))
            .unwrap();
        assert_ne!(picture.pixels(), later.pixels(), "the time since is told");
        assert_eq!(later.captured, MonotonicTime(6));
    }

    #[test]
    fn a_name_that_is_too_long_for_a_tiny_picture_is_cut_not_an_error() {
        let mut slate =
            Slate::plain(&"x".repeat(64), PictureFormat::Nv12, Size::new(16, 16)).unwrap();
        assert_eq!(
            slate
                .picture(None, MonotonicTime(0))
                .unwrap()
                .pixels()
                .len(),
            16 * 16 * 3 / 2
        );
    }

    #[test]
    fn a_slate_that_there_is_no_memory_for_is_an_error() {
        let size = Size::new(1 << 30, 1 << 30);
        let error = Slate::plain("door", PictureFormat::I420, size).err();
        assert_eq!(error.unwrap().kind(), io::ErrorKind::OutOfMemory);
        assert!(notice("door", "words", PictureFormat::I420, size).is_err());
    }

    #[test]
    fn without_memory_for_another_the_slate_before_is_shown_on() {
        let size = Size::new(64, 64);
        let mut slate = Slate::plain("door", PictureFormat::I420, size).unwrap();
        let at = |second| (Some(Duration::from_secs(second)), MonotonicTime(second));
        let before = slate.picture(at(1).0, at(1).1).unwrap();
        slate.pool = PicturePool::new(usize::MAX >> 2);
        let later = slate.picture(at(2).0, at(2).1).unwrap();
        assert!(later.shares_pixels(&before) && later.captured == at(2).1);
    }

    #[test]
    fn times_are_told_in_two_units_at_most() {
        assert_eq!(spoken(Duration::from_secs(7)), "7 s");
        assert_eq!(spoken(Duration::from_secs(725)), "12 min 5 s");
        assert_eq!(spoken(Duration::from_secs(12_000)), "3 h 20 min");
        assert_eq!(spoken(Duration::from_secs(187_200)), "2 d 4 h");
    }
}
