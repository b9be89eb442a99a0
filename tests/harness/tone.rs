//! A tone that a producer of sound gives, and how loud what was published of it is.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use super::clap::samples;
use super::daemon::Daemon;
use super::hls::MediaPlaylist;

/// A block of samples whose loudness is looked at.
const BLOCK: usize = 960;

/// How a producer gives it to the stream `cam`.
pub(crate) const PUSH: [&str; 7] = [
    "push",
    "cam",
    "--audio",
    "--rate",
    "44100",
    "--channels",
    "1",
];

/// So many seconds of it: one channel of s16le at 44.1 kHz.
pub(crate) fn tone(daemon: &Daemon, seconds: u64) -> File {
    let path = daemon.place.path().join("tone.raw");
    let mut file = File::create(&path).unwrap();
    let value = |at: u32| {
        let turns = f64::from(at) * 441.0 / 44_100.0;
        #[allow(clippy::cast_possible_truncation)]
        let value = ((turns * std::f64::consts::TAU).sin() * 20_000.0) as i16;
        value.to_le_bytes()
    };
    let second: Vec<u8> = (0..44_100).flat_map(value).collect();
    (0..seconds).for_each(|_| file.write_all(&second).unwrap());
    File::open(path).unwrap()
}

/// How loud what `playlist` lists is: the root mean square of each block of 20 ms.
pub(crate) fn loudness(folder: &Path, playlist: &MediaPlaylist) -> Vec<f32> {
    let square = |block: &[f32]| block.iter().map(|value| value * value).sum::<f32>();
    #[allow(clippy::cast_precision_loss)]
    let loudness = |block: &[f32]| (square(block) / block.len() as f32).sqrt();
    let samples = samples(folder, playlist);
    samples.chunks_exact(BLOCK).map(loudness).collect()
}
