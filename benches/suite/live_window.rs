//! A live stream's window that is filled part by part: what several benches measure around.

use std::time::Duration;

use bytes::Bytes;
use ringgear::package::Part;
use ringgear::picture::Size;
use ringgear::sample::TrackDescription;
use ringgear::tick::{Framerate, Grid, Tick, UnixTime};
use ringgear::window::{Mode, TrackInit, Window, WindowSettings};

/// The window of a stream `door` with one rendition, `720p`: 30 pictures a second, segments of 2 s, parts of 333 ms, a length of 30 s.
pub(crate) struct LiveWindow {
    pub(crate) window: Window,
    grid: Grid,
    part: Bytes,
}

impl LiveWindow {
    /// How many parts fill it.
    pub(crate) const PARTS: usize = 15 * 6;

    /// One that begins with the segment of `now`, whose parts are all of these bytes.
    pub(crate) fn begin(now: UnixTime, part: Bytes) -> Self {
        let framerate = Framerate::new(30, 1).unwrap();
        let grid = Grid::new(
            framerate,
            Duration::from_secs(2),
            Duration::from_millis(333),
        );
        let settings = WindowSettings {
            stream: "door".to_owned(),
            mode: Mode::Live,
            tracks: vec!["720p".to_owned()],
            window: Duration::from_secs(30),
            target_duration: 2,
        };
        let init = TrackInit {
            description: TrackDescription {
                sample_entry: Bytes::new(),
                codecs: "avc1.64001f".to_owned(),
                size: Size::new(1280, 720),
                framerate,
                audio: None,
            },
            version: "0a".to_owned(),
            init: Bytes::from_static(b"init"),
        };
        let mut window = Window::new(settings, None);
        let first = grid.segment_start(grid.tick_at(now));
        window.begin_period(grid, first, vec![init], false, now);
        Self { window, grid, part }
    }

    /// When its next part begins.
    pub(crate) fn next(&self) -> UnixTime {
        self.grid.time_of(self.next_tick())
    }

    /// Takes its next part at `now`.
    pub(crate) fn take_part(&mut self, now: UnixTime) {
        let first = self.next_tick();
        let end = self.grid.part_end(first);
        let part = Part {
            segment: self.grid.segment_of(first),
            number: self.grid.part_of(first),
            first_tick: first,
            ticks: u32::try_from(end.since(first)).unwrap(),
            independent: self.grid.starts_segment(first),
            last: self.grid.starts_segment(end),
            captured: self.grid.time_of(first),
            bytes: self.part.clone(),
        };
        self.window.push(0, part, now).unwrap();
    }

    fn next_tick(&self) -> Tick {
        self.window.next_tick(0).unwrap()
    }
}
