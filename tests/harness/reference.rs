//! A live stream that FFmpeg publishes by itself, of test pattern frames: what the players in the tests are tried on.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use ringgear_producer::pattern::{Bars, PatternPainter};
use ringgear_ring::format::{FrameFormat, PixelFormat};

use super::process::Process;

pub(crate) struct Reference {
    stop: Arc<AtomicBool>,
    feeder: Option<JoinHandle<()>>,
    _ffmpeg: Process,
}

impl Reference {
    /// Publishes HLS (`master.m3u8`) and DASH (`manifest.mpd`) into `folder`, 25 pictures a second.
    pub(crate) fn start(folder: &Path) -> Self {
        let mut ffmpeg = Process::start(
            "ffmpeg -f dash",
            Command::new("ffmpeg")
                .args([
                    "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", "640x360",
                ])
                .args([
                    "-framerate",
                    "25",
                    "-i",
                    "pipe:0",
                    "-c:v",
                    "libx264",
                    "-preset",
                    "ultrafast",
                ])
                .args([
                    "-tune",
                    "zerolatency",
                    "-g",
                    "25",
                    "-f",
                    "dash",
                    "-seg_duration",
                    "1",
                ])
                .args([
                    "-window_size",
                    "10",
                    "-extra_window_size",
                    "15",
                    "-hls_playlist",
                    "1",
                ])
                .args(["-use_template", "1", "-use_timeline", "1"])
                .arg(folder.join("manifest.mpd"))
                .stdin(Stdio::piped()),
        );
        let mut pipe = ffmpeg.take_stdin().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let feeder = std::thread::spawn(move || {
            let format = FrameFormat::packed(PixelFormat::Yuv420p, 640, 360).unwrap();
            let painter = PatternPainter::new(format.clone());
            let mut frame = vec![0; format.bytes()];
            let begun = Instant::now();
            for frame_number in 0.. {
                let due = begun + Duration::from_millis(40) * frame_number;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let now = SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap();
                let captured_ms = u64::try_from(now.as_millis()).unwrap();
                painter.paint(
                    Bars {
                        frame_number,
                        captured_ms,
                    },
                    &mut frame,
                );
                if stopped.load(Ordering::Relaxed) || pipe.write_all(&frame).is_err() {
                    return;
                }
            }
        });
        Self {
            stop,
            feeder: Some(feeder),
            _ffmpeg: ffmpeg,
        }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(feeder) = self.feeder.take() {
            let _ = feeder.join();
        }
    }
}
