use std::collections::VecDeque;
use std::num::NonZeroU32;

use super::*;

const START: u64 = 48_000 * 1_800_000_000;

/// A source whose clock runs `1 + drift` times as fast as ours and that clicks every five seconds of true time.
struct Source {
    drift: f64,
    /// How many samples come at once.
    chunk: u64,
    /// How late a chunk comes at most, in samples.
    jitter: u64,
    /// When it says nothing, in seconds since the start.
    silent: std::ops::Range<u64>,
    /// When all that it says is held up on its way, likewise.
    held_up: std::ops::Range<u64>,
    produced: u64,
    delivered: u64,
    queue: VecDeque<Pcm>,
}

const BETWEEN_CLICKS: u64 = 5 * 48_000;
/// As much as comes at once.
static SILENCE: [Pcm; 8192] = [[0.0; 2]; 8192];

impl Source {
    fn new(drift: f64, chunk: u64, jitter: u64) -> Self {
        Self {
            drift,
            chunk,
            jitter,
            silent: 0..0,
            held_up: 0..0,
            produced: 0,
            delivered: 0,
            queue: VecDeque::new(),
        }
    }

    /// The true time of its sample `count`, in samples since the start.
    fn time_of(&self, count: u64) -> f64 {
        count as f64 / (1.0 + self.drift)
    }

    /// Which of these samples clicks, if one does: the first one from each click's time on.
    fn click_in(&self, mut samples: std::ops::Range<u64>) -> Option<usize> {
        let clicks = |count: u64| match count.checked_sub(1) {
            Some(last) => (self.time_of(last) / BETWEEN_CLICKS as f64).floor() + 1.0,
            None => 0.0,
        };
        let before = clicks(samples.start);
        if clicks(samples.end) > before {
            samples.position(|count| clicks(count + 1) > before)
        } else {
            None
        }
    }

    /// Delivers what has come by `now`.
    fn deliver(&mut self, lock: &mut Lock, now: u64) {
        loop {
            let end = self.produced + self.chunk;
            // Late by chance, but always by the same chance.
            let chance = (end / self.chunk).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            let late = if self.jitter > 0 {
                chance % self.jitter
            } else {
                0
            };
            let held_up = match self.held_up.contains(&(end / 48_000)) {
                true => 0.15 * RATE,
                false => 0.0,
            };
            let at = self.time_of(end) + late as f64 + held_up;
            if at > now as f64 {
                return;
            }
            let second = now / 48_000;
            let begin = std::mem::replace(&mut self.produced, end);
            if self.silent.contains(&second) {
                // What it hears meanwhile is lost.
                continue;
            }
            let length = usize::try_from(self.chunk).unwrap();
            self.queue.extend(&SILENCE[..length]);
            if let Some(at) = self.click_in(begin..end) {
                let first = self.queue.len() - length;
                self.queue[first + at] = [1.0; 2];
            }
            self.delivered += self.chunk;
            lock.arrived(self.delivered, START as f64 + at, false);
        }
    }
}

/// How late each click was heard, in milliseconds: its second, and the error.
fn run(source: &mut Source, seconds: u64) -> (Lock, Vec<(f64, f64)>) {
    let rate = NonZeroU32::new(48_000).unwrap();
    let mut lock = Lock::new(Resampler::with_crossings(rate, 2));
    let (mut end, mut errors, mut out) = (START, Vec::new(), Vec::new());
    for now in (0..seconds * 48_000).step_by(480) {
        source.deliver(&mut lock, now);
        let to = (START + now).saturating_sub(lock.delay()).max(end);
        out.clear();
        let queue = &mut source.queue;
        lock.fill(&mut out, end, to, false, |most, resampler| {
            let count = most.min(queue.len());
            resampler.push(queue.drain(..count));
            count
        });
        assert_eq!(out.len() as u64, to - end);
        // A click is loudest a few samples after it rises.
        if let Some(rise) = out.iter().position(|pcm| pcm[0] > 0.3) {
            let click = rise..out.len().min(rise + 8);
            let loudest = click.max_by(|a, b| out[*a][0].total_cmp(&out[*b][0]));
            let at = end + loudest.unwrap() as u64;
            let since = (at - START) as f64;
            let click = (since / BETWEEN_CLICKS as f64).round() * BETWEEN_CLICKS as f64;
            errors.push((since / 48_000.0, (since - click) / 48.0));
        }
        end = to;
    }
    (lock, errors)
}

fn worst(errors: &[(f64, f64)], from: f64) -> f64 {
    let judged = errors.iter().filter(|(second, _)| *second >= from);
    judged.map(|(_, error)| error.abs()).fold(0.0, f64::max)
}

#[test]
fn an_hour_of_a_clock_that_is_100_ppm_off_stays_in_sync() {
    let mut source = Source::new(100e-6, 1024, 400);
    let (lock, errors) = run(&mut source, 3600);
    assert!(
        errors.len() > 700,
        "{} of 720 clicks were heard",
        errors.len()
    );
    // Without the lock the last click would be 360 ms off.
    assert!(worst(&errors, 0.0) < 20.0, "{}", worst(&errors, 0.0));
    assert!(worst(&errors, 120.0) < 2.0, "{}", worst(&errors, 120.0));
    assert!((lock.drift() - 100e-6).abs() < 10e-6, "{}", lock.drift());
    assert_eq!(lock.jumps(), 0);
}

#[test]
fn slow_clocks_and_large_chunks_are_followed_too() {
    for (drift, chunk) in [(-300e-6, 480), (0.0, 4800), (500e-6, 2048)] {
        let (lock, errors) = run(&mut Source::new(drift, chunk, 900), 240);
        assert!(errors.len() > 40, "{drift} {chunk}: {}", errors.len());
        let worst = worst(&errors, 10.0);
        assert!(worst < 20.0, "{drift} {chunk}: {worst}");
        assert!(
            (lock.drift() - drift).abs() < 50e-6,
            "{drift}: {}",
            lock.drift()
        );
    }
}

#[test]
fn sound_that_comes_long_after_its_capture_is_waited_for() {
    let rate = NonZeroU32::new(48_000).unwrap();
    let mut lock = Lock::new(Resampler::new(rate));
    lock.comes_after(0.3 * RATE);
    lock.arrived(480, START as f64, false);
    assert!(lock.delay() > 14_400, "{}", lock.delay());
    // Once it comes at once, it is waited for no longer.
    for second in 1..400 {
        lock.comes_after(0.0);
        lock.arrived(
            480 + second * 48_000,
            (START + second * 48_000) as f64,
            false,
        );
    }
    assert!(lock.delay() < 50_000 && lock.delay() as f64 >= DELAYS.0);
}

#[test]
fn after_a_silence_the_sound_is_in_its_place_again() {
    let mut source = Source::new(50e-6, 1024, 400);
    source.silent = 60..67;
    let (_, errors) = run(&mut source, 120);
    let heard =
        |range: std::ops::Range<f64>| errors.iter().filter(|(at, _)| range.contains(at)).count();
    assert_eq!(heard(61.0..66.9), 0, "what was not there is silence");
    assert!(heard(74.0..118.0) >= 8);
    assert!(worst(&errors, 0.0) < 20.0, "{errors:?}");
}

#[test]
fn what_a_busy_machine_holds_up_for_two_seconds_does_not_move_the_sound() {
    let mut source = Source::new(20e-6, 1024, 400);
    source.held_up = 58..60;
    let (lock, errors) = run(&mut source, 120);
    assert_eq!(lock.jumps(), 0);
    assert!(errors.len() >= 22, "{}", errors.len());
    assert!(worst(&errors, 10.0) < 20.0, "{errors:?}");
}

#[test]
fn a_source_that_is_held_back_passes_bit_for_bit() {
    let rate = NonZeroU32::new(48_000).unwrap();
    let mut lock = Lock::new(Resampler::new(rate));
    let sample = |n: u64| {
        #[allow(clippy::cast_possible_truncation)]
        let value = (n as f64 * 0.01).sin() as f32;
        [value; 2]
    };
    let (mut given, mut heard, mut end) = (0_u64, Vec::new(), START);
    for now in (0..10 * 48_000).step_by(480) {
        lock.arrived(given + 48_000, START as f64 + now as f64, true);
        let to = (START + now).saturating_sub(lock.delay()).max(end);
        lock.fill(&mut heard, end, to, true, |most, resampler| {
            resampler.push((given..given + most as u64).map(sample));
            given += most as u64;
            most
        });
        end = to;
    }
    let first = heard.iter().position(|pcm| *pcm == sample(1)).unwrap();
    for (n, pcm) in (1_u64..).zip(&heard[first..]) {
        assert_eq!(*pcm, sample(n), "{n}");
    }
    assert!(heard.len() - first > 9 * 48_000);
}

#[test]
fn sound_whose_place_is_known_lies_there_whenever_it_comes() {
    const FIRST: u64 = START + 10_000;
    const CHUNK: u64 = 1024;
    // So many samples after its place it comes, or before.
    for late in [-24_000_i64, 0, 3_000] {
        let mut lock = Lock::new(Resampler::new(NonZeroU32::new(48_000).unwrap()));
        let (mut queue, mut out) = (VecDeque::new(), Vec::new());
        let (mut received, mut moved, mut from) = (0, 0, START);
        for now in (0..1200).map(|turn| START + turn * 480) {
            loop {
                // In the middle of it, all moves by a second.
                moved = if received > 300_000 { 48_000 } else { moved };
                let end = FIRST + received + moved + CHUNK;
                let came = end.checked_add_signed(late).unwrap();
                if came > now {
                    break;
                }
                let click = |at: u64| [if at.is_multiple_of(48_000) { 1.0 } else { 0.0 }; 2];
                queue.extend((received..received + CHUNK).map(click));
                received += CHUNK;
                lock.timed(received, end as f64, came as f64);
            }
            let to = now.saturating_sub(lock.delay());
            if to > from {
                lock.fill(&mut out, from, to, false, |most, resampler| {
                    let count = queue.len().min(most);
                    resampler.push(queue.drain(..count));
                    count
                });
                from = to;
            }
        }
        let clicks = out.iter().enumerate().filter(|(_, pcm)| pcm[0] > 0.5);
        let clicks: Vec<u64> = clicks.map(|(at, _)| START + at as u64).collect();
        assert!(clicks.len() >= 8, "{late}: {clicks:?}");
        let off = clicks.iter().map(|at| (at - FIRST) % 48_000);
        let off = off.map(|off| off.min(48_000 - off)).max();
        assert!(off <= Some(1), "{late}: {clicks:?}");
        assert_eq!(lock.jumps(), 1, "{late}");
    }
}
