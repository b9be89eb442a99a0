//! The screen of `status --watch`: a line of bars for each stream. Pure.

use std::fmt::Write as _;
use std::time::Instant;

use crate::cli::bar::bar;
use crate::cli::status::whole_seconds;
use crate::status::{Distribution, StreamState, StreamStatus, StreamsStatus};

/// The lag at which a bar is full.
const FULL_LAG: f64 = 2.0;
const MAX_NAME: usize = 24;
const MAX_BAR: usize = 24;
const MIN_BAR: usize = 3;

const PLAIN: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";

/// What the daemon said, and when.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) status: StreamsStatus,
}

/// The terminal's, in characters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// What a stream did between two samples, a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Rates {
    received: Option<f64>,
    /// Frames passed over or late, ticks missed, and pictures left out for the encoder.
    dropped: Option<f64>,
    /// From a frame's commit until its part can be fetched, in seconds, mean.
    lag: Option<f64>,
}

impl Rates {
    fn between(before: &StreamStatus, now: &StreamStatus, seconds: f64) -> Self {
        let a_second = |count: fn(&StreamStatus) -> u64| {
            // Another daemon counts from 0.
            let more = count(now).checked_sub(count(before))?;
            (seconds > 0.0).then(|| more as f64 / seconds)
        };
        Self {
            received: a_second(|stream| stream.frames.received),
            dropped: a_second(|stream| {
                let frames = stream.frames.superseded + stream.frames.late;
                frames + stream.ticks.missed + stream.encoder.skipped + stream.encoder.replaced
            }),
            lag: mean(&before.latency.commit_to_part, &now.latency.commit_to_part),
        }
    }
}

fn mean(before: &Distribution, now: &Distribution) -> Option<f64> {
    let count = now
        .count
        .checked_sub(before.count)
        .filter(|&count| count > 0)?;
    Some((now.sum_seconds - before.sum_seconds).max(0.0) / count as f64)
}

/// A frame: from the upper left corner on, over what was there before.
pub(super) fn frame(
    before: Option<&Sample>,
    now: Option<&Sample>,
    trouble: Option<&str>,
    size: Size,
) -> String {
    let mut lines = Vec::new();
    if let Some(trouble) = trouble {
        lines.push(Line::default().styled(RED, trouble));
    }
    if let Some(now) = now {
        lines.push(head(&now.status));
        lines.push(Line::default());
        let layout = Layout::of(&now.status, size.columns);
        lines.push(layout.header());
        for stream in &now.status.streams {
            let former = before.and_then(|before| {
                let mut streams = before.status.streams.iter();
                let former = streams.find(|former| former.name == stream.name)?;
                Some((former, (now.at - before.at).as_secs_f64()))
            });
            let rates = former.map_or_else(Rates::default, |(former, seconds)| {
                Rates::between(former, stream, seconds)
            });
            lines.push(layout.stream(stream, rates));
            if let Some(detail) = &stream.detail {
                lines.push(Line::default().styled(DIM, &format!("  {detail}")));
            }
        }
    }
    // The last row stays free: a full one would scroll.
    let room = size.rows.saturating_sub(1);
    if lines.len() > room {
        let hidden = lines.len() + 1 - room.max(1);
        lines.truncate(room.saturating_sub(1));
        lines.push(Line::default().styled(
            DIM,
            &format!("and {hidden} lines more, for which the terminal is too small"),
        ));
    }
    let mut text = "\x1b[H".to_owned();
    for line in &lines {
        text += &line.cut(size.columns);
        text += "\x1b[K\n";
    }
    text + "\x1b[J"
}

fn head(status: &StreamsStatus) -> Line {
    let live = status
        .streams
        .iter()
        .filter(|stream| stream.state == StreamState::Live);
    let viewers: u64 = status
        .streams
        .iter()
        .map(|stream| stream.window.viewers)
        .sum();
    let renditions = status.streams.iter().flat_map(|stream| &stream.renditions);
    let bits: u64 = renditions
        .map(|rendition| rendition.average_bits_per_second)
        .sum();
    let up = humantime::format_duration(whole_seconds(status.uptime_seconds));
    let told = format!(
        "  up {up}   {} of {} live   {viewers} watching   {:.1} Mbit/s",
        live.count(),
        status.streams.len(),
        bits as f64 / 1e6
    );
    Line::default()
        .styled(BOLD, &format!("ringgear {}", status.version))
        .plain(&told)
        .styled(DIM, "   q ends")
}

/// The columns' widths.
#[derive(Clone, Copy, Debug)]
struct Layout {
    name: usize,
    bar: usize,
}

impl Layout {
    const STATE: usize = 9;
    const RATE: usize = 9;
    const LAG: usize = 7;
    const DROPS: usize = 6;
    const VIEWERS: usize = 7;

    fn of(status: &StreamsStatus, columns: usize) -> Self {
        let names = status
            .streams
            .iter()
            .map(|stream| stream.name.chars().count());
        let name = names.max().unwrap_or(0).clamp("STREAM".len(), MAX_NAME);
        let fixed = name + Self::STATE + Self::RATE + Self::LAG + Self::DROPS + Self::VIEWERS;
        // Two spaces between columns, one behind each bar.
        let bars = columns.saturating_sub(fixed + 5 * 2 + 3);
        Self {
            name,
            bar: (bars / 3).clamp(MIN_BAR, MAX_BAR),
        }
    }

    fn header(&self) -> Line {
        let Self { name, bar } = *self;
        let text = format!(
            "{:name$}  {:state$}  {:rate$}  {:lag$}  {:drops$}  {:>viewers$}",
            "STREAM",
            "STATE",
            "FRAMES/S",
            "LAG",
            "DROPS/S",
            "VIEWERS",
            state = Self::STATE,
            rate = bar + 1 + Self::RATE,
            lag = bar + 1 + Self::LAG,
            drops = bar + 1 + Self::DROPS,
            viewers = Self::VIEWERS,
        );
        Line::default().styled(DIM, &text)
    }

    fn stream(&self, stream: &StreamStatus, rates: Rates) -> Line {
        let wanted = framerate(&stream.framerate);
        let received = rates.received.unwrap_or(stream.frames.per_second);
        let of_rate = wanted.map_or(0.0, |wanted| received / wanted);
        let of_lag = rates.lag.unwrap_or(0.0) / FULL_LAG;
        let dropped = rates.dropped.unwrap_or(0.0);
        let of_drops = wanted.map_or(0.0, |wanted| dropped / wanted);
        let known = |value: Option<f64>, text: String| value.map_or("-".to_owned(), |_| text);
        let name: String = stream.name.chars().take(self.name).collect();
        let numbers = [
            (
                of_rate,
                if of_rate < 0.9 { YELLOW } else { GREEN },
                wanted.map_or_else(
                    || format!("{received:.1}"),
                    |wanted| format!("{received:.1}/{}", (wanted * 10.0).round() / 10.0),
                ),
                Self::RATE,
            ),
            (
                of_lag,
                shade(of_lag),
                known(rates.lag, format!("{:.2} s", rates.lag.unwrap_or(0.0))),
                Self::LAG,
            ),
            (
                of_drops,
                if dropped > 0.0 { RED } else { GREEN },
                known(rates.dropped, format!("{dropped:.1}")),
                Self::DROPS,
            ),
        ];
        let colour = match stream.state {
            StreamState::Live => GREEN,
            StreamState::Failed | StreamState::NoSignal => RED,
            _ => YELLOW,
        };
        let mut line = Line::default()
            .styled(BOLD, &format!("{name:width$}  ", width = self.name))
            .styled(
                colour,
                &format!("{:width$}  ", stream.state.to_string(), width = Self::STATE),
            );
        for (part, colour, text, width) in numbers {
            line = line
                .styled(colour, &bar(part, self.bar))
                .plain(&format!(" {text:width$}  "));
        }
        line.plain(&format!(
            "{:>width$}",
            stream.window.viewers,
            width = Self::VIEWERS
        ))
    }
}

fn shade(part: f64) -> &'static str {
    match part {
        part if part > 0.75 => RED,
        part if part > 0.4 => YELLOW,
        _ => GREEN,
    }
}

/// Ticks a second of `30` or `30000/1001`.
fn framerate(text: &str) -> Option<f64> {
    let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
    let rate = numerator.parse::<f64>().ok()? / denominator.parse::<f64>().ok()?;
    (rate.is_finite() && rate > 0.0).then_some(rate)
}

/// Pieces of text with their styles.
#[derive(Debug, Default)]
struct Line(Vec<(&'static str, String)>);

impl Line {
    /// Nothing that the daemon says may steer the terminal.
    fn styled(mut self, style: &'static str, text: &str) -> Self {
        let text = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        self.0.push((style, text.collect()));
        self
    }

    fn plain(self, text: &str) -> Self {
        self.styled("", text)
    }

    /// As many characters as fit, with their styles.
    fn cut(&self, columns: usize) -> String {
        let (mut text, mut room) = (String::new(), columns);
        for (style, piece) in &self.0 {
            let shown: String = piece.chars().take(room).collect();
            room -= shown.chars().count();
            let end = if style.is_empty() { "" } else { PLAIN };
            let _ = write!(text, "{style}{shown}{end}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A stream that has received so many frames, passed over some of them, and published parts that took so long together.
    fn stream(received: u64, superseded: u64, parts: (u64, f64)) -> StreamStatus {
        let text = serde_json::json!({
            "name": "door", "state": "live", "mode": "live", "framerate": "25",
            "frames": {"received": received, "used": 0, "superseded": superseded, "late": 0, "per_second": 25.0},
            "ticks": {"total": 0, "fresh": 0, "repeated": 0, "slate": 0, "overdue": 0, "missed": 0, "last": 0},
            "encoder": {"restarts": 0, "pending": 0, "replaced": 0},
            "renditions": [],
            "window": {"first_segment": 0, "segments": 0, "seconds": 0.0, "bytes": 0, "viewers": 3},
            "latency": {
                "tick_lateness": Distribution::default(), "encoder_delay": Distribution::default(),
                "commit_to_part": Distribution { count: parts.0, sum_seconds: parts.1, ..Distribution::default() },
            },
        });
        serde_json::from_value(text).unwrap()
    }

    fn sample(at: Instant, streams: Vec<StreamStatus>) -> Sample {
        let status = StreamsStatus {
            version: "1.2.3".to_owned(),
            time: String::new(),
            uptime_seconds: 60.0,
            streams,
        };
        Sample { at, status }
    }

    /// A frame as it looks: without what steers the terminal.
    fn looks(frame: &str) -> Vec<String> {
        let mut pieces = frame.split('\x1b');
        let first = pieces.next().unwrap_or_default().to_owned();
        let text = pieces.fold(first, |text, piece| {
            text + piece
                .split_once(|c: char| c.is_ascii_alphabetic())
                .unwrap()
                .1
        });
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_stream_shows_what_it_did_since_the_sample_before() {
        let start = Instant::now();
        let before = sample(start, vec![stream(100, 10, (10, 2.0))]);
        let now = sample(
            start + Duration::from_secs(2),
            vec![stream(150, 20, (20, 7.0))],
        );
        let size = Size {
            columns: 120,
            rows: 24,
        };
        let shown = looks(&frame(Some(&before), Some(&now), None, size));
        assert!(
            shown[0].starts_with("ringgear 1.2.3  up 1m   1 of 1 live   3 watching"),
            "{shown:#?}"
        );
        for told in ["door", "live", " 25.0/25 ", " 0.50 s ", " 5.0 "] {
            assert!(shown[3].contains(told), "{told}: {shown:#?}");
        }
        // A daemon that was started again counts from 0.
        let shown = looks(&frame(Some(&now), Some(&before), None, size));
        assert!(shown[3].contains(" - "), "{shown:#?}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_none_is_below_it() {
        let streams: Vec<_> = (0..100).map(|_| stream(0, 0, (0, 0.0))).collect();
        let now = sample(Instant::now(), streams);
        for (columns, rows) in [(200, 50), (80, 24), (40, 10), (1, 1)] {
            let frame = frame(
                None,
                Some(&now),
                Some("no\x1b[2Jdaemon"),
                Size { columns, rows },
            );
            let shown = looks(&frame);
            assert!(
                shown.iter().all(|line| line.chars().count() <= columns),
                "{shown:#?}"
            );
            assert!(shown.len() <= rows, "{} lines in {rows} rows", shown.len());
            assert!(!frame.contains("\x1b[2J"));
        }
    }
}
