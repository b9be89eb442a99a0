//! A track of sound beside pictures that are copied: copied as well, or encoded by the FFmpeg that copies them. Pure.

use std::num::NonZeroU32;

use bytes::{Bytes, BytesMut};

use super::aac::{Aac, AacError};
use super::description::{audio_codecs, decoder_config};
use crate::config::AudioCodec;
use crate::picture::Size;
use crate::sample::{AudioFormat, TrackDescription};
use crate::tick::{Framerate, SAMPLE_RATE};

/// What MPEG-4 calls AAC of its own (ISO/IEC 14496-1, 7.2.6.6).
const MPEG4_AUDIO: u8 = 0x40;
/// A frame of Opus that FFmpeg makes.
const OPUS_FRAME: NonZeroU32 = NonZeroU32::new(960).expect("it is not zero");
/// 20 ms of nothing in stereo: its range coder says silence first of all.
const OPUS_SILENCE: &[u8] = &[0xFC, 0xFF, 0xFE];

/// Sample entries of sound that never comes: stereo of 48 kHz, AAC-LC and Opus.
const SILENT_AAC: &[u8] = b"\0\0\0\x4Bmp4a\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\x02\0\x10\0\0\0\0\xBB\x80\0\0\
    \0\0\0\x27esds\0\0\0\0\x03\x19\0\x01\0\x04\x11\x40\x15\0\0\0\0\0\0\0\0\0\0\0\x05\x02\x11\x90\x06\x01\x02";
const SILENT_OPUS: &[u8] =
    b"\0\0\0\x37Opus\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\x02\0\x10\0\0\0\0\xBB\x80\0\0\
    \0\0\0\x13dOps\0\x02\x01\x38\0\0\xBB\x80\0\0\0";

/// Why sound can't be published beside copied pictures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SoundError {
    /// It is of another codec.
    #[error("its sound is {0}: only AAC can be copied")]
    Codec(String),
    /// It is AAC, but none that can be.
    #[error("its sound is AAC that can't be copied: {0}")]
    Aac(String),
    /// FFmpeg's muxer has written something that is no sample entry.
    #[error("what FFmpeg says of its sound can't be published: {0}")]
    Entry(&'static str),
}

impl From<AacError> for SoundError {
    fn from(error: AacError) -> Self {
        Self::Aac(error.to_string())
    }
}

/// A track of sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CopiedSound {
    sample_entry: Bytes,
    codecs: String,
    channels: u16,
    /// Samples a second that are heard, and of which a frame has so many of.
    rate: NonZeroU32,
    core_rate: NonZeroU32,
    frame: NonZeroU32,
    silence: Bytes,
}

impl CopiedSound {
    /// The track of a sample entry as FFmpeg's MP4 muxer writes it.
    ///
    /// # Errors
    /// When it is of another codec, or is no sample entry.
    pub(crate) fn new(entry: &Bytes) -> Result<Self, SoundError> {
        let codecs = || audio_codecs(entry).map_err(SoundError::Entry);
        match entry.get(4..8).unwrap_or_default() {
            b"mp4a" => Self::aac(entry, codecs),
            b"Opus" => Ok(Self {
                sample_entry: entry.clone(),
                codecs: codecs()?,
                channels: 2,
                rate: SAMPLE_RATE,
                core_rate: SAMPLE_RATE,
                frame: OPUS_FRAME,
                silence: Bytes::from_static(OPUS_SILENCE),
            }),
            other => {
                let name = String::from_utf8_lossy(other);
                Err(SoundError::Codec(format!("'{}'", name.escape_debug())))
            }
        }
    }

    fn aac(
        entry: &Bytes,
        codecs: impl FnOnce() -> Result<String, SoundError>,
    ) -> Result<Self, SoundError> {
        let config = decoder_config(entry).map_err(SoundError::Entry)?;
        if config.object_type != MPEG4_AUDIO {
            let name = match config.object_type {
                0x69 | 0x6B => "mp3".to_owned(),
                other => format!("of MPEG-4's type {other:#x}"),
            };
            return Err(SoundError::Codec(name));
        }
        if config.specific.is_empty() {
            return Err(SoundError::Entry("its AAC has no configuration"));
        }
        let aac = Aac::parse(config.specific)?;
        // Bitrates are FFmpeg's guess, another one each time: without them each opening is the same encoding.
        let mut sample_entry = BytesMut::from(&entry[..]);
        sample_entry[config.rates].fill(0);
        Ok(Self {
            sample_entry: sample_entry.freeze(),
            codecs: codecs()?,
            channels: aac.channels(),
            rate: aac.rate,
            core_rate: aac.core_rate,
            frame: aac.frame,
            silence: Bytes::from(aac.silence()),
        })
    }

    /// The track of sound that has never come.
    pub(crate) fn silent(codec: AudioCodec) -> Self {
        let entry = match codec {
            AudioCodec::Copy | AudioCodec::Aac => SILENT_AAC,
            AudioCodec::Opus => SILENT_OPUS,
        };
        Self::new(&Bytes::from_static(entry)).expect("both entries are whole, as a test shows")
    }

    /// A frame's length in units of which there are `scale` in a second.
    pub(crate) fn frame_in(&self, scale: u32) -> u64 {
        let units = u64::from(self.frame.get()) * u64::from(scale);
        let rate = u64::from(self.core_rate.get());
        ((units + rate / 2) / rate).max(1)
    }

    /// A frame without any sound.
    pub(crate) fn silence(&self) -> Bytes {
        self.silence.clone()
    }

    /// The track for init segment and manifests.
    pub(crate) fn description(&self) -> TrackDescription {
        let ticks = self.frame_in(Framerate::COPIED.num());
        TrackDescription {
            sample_entry: self.sample_entry.clone(),
            codecs: self.codecs.clone(),
            size: Size::new(0, 0),
            framerate: Framerate::copied(u32::try_from(ticks).unwrap_or(u32::MAX)),
            audio: Some(AudioFormat {
                channels: self.channels,
                frame: self.frame,
                copied_rate: Some(self.rate),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn silence_has_a_track_of_its_own() {
        for (codec, codecs, ticks) in [
            (AudioCodec::Copy, "mp4a.40.2", 1920),
            (AudioCodec::Opus, "opus", 1800),
        ] {
            let sound = CopiedSound::silent(codec);
            let described = sound.description();
            assert_eq!(
                (described.codecs.as_str(), described.timescale()),
                (codecs, 90_000)
            );
            assert_eq!(described.sample_duration(), ticks);
            assert_eq!(described.audio.unwrap().rate().get(), 48_000);
        }
    }

    #[test]
    fn a_track_does_not_change_with_its_guessed_bitrates() {
        let measured = |rate: u8| {
            let mut entry = SILENT_AAC.to_vec();
            let end = entry.len() - 7;
            entry[end - 8..end].fill(rate);
            CopiedSound::new(&Bytes::from(entry)).unwrap()
        };
        assert_eq!(measured(1), measured(9));
        let mut mp3 = SILENT_AAC.to_vec();
        let at = mp3.windows(2).position(|two| two == [0x40, 0x15]).unwrap();
        mp3[at] = 0x6B;
        let refused = CopiedSound::new(&Bytes::from(mp3)).unwrap_err().to_string();
        assert_eq!(refused, "its sound is mp3: only AAC can be copied");
        let other = CopiedSound::new(&Bytes::from_static(b"\0\0\0\x08ac-3"));
        assert!(other.unwrap_err().to_string().contains("'ac-3'"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = CopiedSound::new(&Bytes::from(bytes.clone()));
            let mut entry = SILENT_AAC[..44].to_vec();
            entry.extend(&bytes);
            let _ = CopiedSound::new(&Bytes::from(entry));
        }
    }
}
