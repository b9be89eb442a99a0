//! One rendition's output: FFmpeg's NUT pipe in, samples out, each with the ticks that it stands for.

use std::io::{PipeReader, Read};

use super::bitstream::SampleMaker;
use super::encoder::{EncoderEvent, EncoderStart};
use super::nut::{self, NutEvent, NutPacket};
use super::{Cadence, EncodeError, EncodePlan};
use crate::picture::PictureFormat;
use crate::sample::{Sample, TrackDescription, TrackIndex};
use crate::tick::{Framerate, Grid, Tick};

/// Reads one rendition's samples and checks that they are the ticks that were asked for.
pub(super) struct TrackReader {
    pub(super) track: TrackIndex,
    rendition: String,
    grid: Grid,
    cadence: Cadence,
    /// Its samples a second.
    rate: Framerate,
    next_tick: Tick,
    /// How many samples there were.
    count: u64,
    keyframe_at: Option<Tick>,
    time_base: (u64, u64),
    nut: nut::Reader,
    samples: SampleMaker,
}

impl TrackReader {
    pub(super) fn new(
        plan: &EncodePlan,
        start: &EncoderStart,
        track: TrackIndex,
        description: &TrackDescription,
    ) -> Result<Self, EncodeError> {
        let rendition = &plan.renditions[track];
        // No encoder makes more of a picture than its pixels, beyond headers.
        let max_packet = 2 * PictureFormat::I420.bytes(rendition.size) + (1 << 20);
        let name = rendition.name.clone();
        Ok(Self {
            track,
            grid: plan.grid,
            cadence: start.track_cadence(plan, track),
            rate: plan.rate_of(rendition),
            next_tick: start.first_tick,
            count: 0,
            keyframe_at: start.keyframes_at[track],
            time_base: (1, 1),
            nut: nut::Reader::new(max_packet),
            samples: SampleMaker::new(description).map_err(|source| EncodeError::Bitstream {
                rendition: name.clone(),
                source,
            })?,
            rendition: name,
        })
    }

    /// Until the pipe's end; says how many samples there were. After an error the rest is read and forgotten, so that FFmpeg
    /// and the other renditions don't stand still until the owner has decided.
    pub(super) fn run(mut self, mut pipe: PipeReader, events: impl Fn(EncoderEvent)) -> u64 {
        let mut buffer = vec![0; 64 * 1024];
        let mut failed = false;
        loop {
            let count = match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            if failed {
                continue;
            }
            if let Err(error) = self.take(&buffer[..count], &events) {
                failed = true;
                let track = self.track;
                events(EncoderEvent::Failed { track, error });
            }
        }
        self.count
    }

    fn take(&mut self, bytes: &[u8], events: &impl Fn(EncoderEvent)) -> Result<(), EncodeError> {
        let malformed = |rendition: &str, source| EncodeError::Nut {
            rendition: rendition.to_owned(),
            source,
        };
        self.nut.push(bytes);
        while let Some(event) = self.nut.next().map_err(|e| malformed(&self.rendition, e))? {
            match event {
                NutEvent::Track(track) => {
                    if track.decode_delay > 0 {
                        return Err(self.reordered());
                    }
                    self.time_base = track.time_base;
                    let checked = self.samples.check_codec_data(&track.codec_data);
                    checked.map_err(|source| self.unfit(source))?;
                }
                NutEvent::Packet(packet) => events(EncoderEvent::Sample(self.sample(packet)?)),
            }
        }
        Ok(())
    }

    fn sample(&mut self, packet: NutPacket) -> Result<Sample, EncodeError> {
        let tick = self.next_tick;
        let after = self.cadence.after(tick);
        let index = self.count;
        let (num, den) = self.time_base;
        // pts * num/den seconds is index * den/num of the framerate, compared without division.
        let rate = self.rate;
        let found = u128::from(packet.pts) * u128::from(num) * u128::from(rate.num());
        let expected = u128::from(index) * u128::from(rate.den()) * u128::from(den);
        if found < expected {
            return Err(self.reordered());
        }
        if found > expected {
            return Err(EncodeError::OffGrid {
                rendition: self.rendition.clone(),
                pts: packet.pts,
                num,
                den,
                expected: tick,
            });
        }
        let asked = self.grid.starts_segment(tick) || self.keyframe_at == Some(tick);
        if asked && !packet.keyframe {
            return Err(EncodeError::NoKeyframe {
                rendition: self.rendition.clone(),
                tick,
            });
        }
        let keyframe = packet.keyframe;
        let ticks = u32::try_from(after.since(tick)).unwrap_or(u32::MAX);
        let data = self.samples.sample(packet.data, keyframe);
        let data = data.map_err(|source| self.unfit(source))?;
        self.next_tick = after;
        self.count += 1;
        Ok(Sample {
            track: self.track,
            decode_time: self.grid.decode_time(tick),
            duration: self.grid.framerate.den().saturating_mul(ticks),
            composition_offset: 0,
            keyframe,
            data,
        })
    }

    fn reordered(&self) -> EncodeError {
        EncodeError::Reordered {
            rendition: self.rendition.clone(),
        }
    }

    fn unfit(&self, source: super::BitstreamError) -> EncodeError {
        EncodeError::Bitstream {
            rendition: self.rendition.clone(),
            source,
        }
    }
}
