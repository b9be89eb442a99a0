//! Keeps one stream alive. A panic in any of its threads ends the threads of this stream and of no other; the keeper
//! then starts them again on the window as it was last seen, after a rest that grows when it happens again and again.
//! This is the one place that knows what to do about a panic: the threads themselves catch nothing.

use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::StreamError;
use super::life::{Ground, Life};
use crate::config::StreamPlan;
use crate::publish::DiskPublisher;
use crate::threads;

/// How long the publish folder is waited for at a stop.
const LAST_PASS: Duration = Duration::from_secs(1);
/// The same of a recording, which has no other place.
const LAST_PASS_OF_RECORDING: Duration = Duration::from_secs(30);
/// The rest after a second death in a row; it doubles from there.
const FIRST_REST: Duration = Duration::from_millis(250);
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// How often a resting stream says that it is not stuck.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// What has lived so long is healthy: its next death is a first one.
const HEALTHY: Duration = Duration::from_secs(30);

/// What the keeper hears.
pub(super) enum News {
    /// The stream is to stop.
    Stop,
    /// It is to go on by a plan that differs in nothing that its threads are made by, but in the window's length and in when the
    /// slate is shown.
    Adjust(Box<StreamPlan>),
    /// A thread of the stream has ended.
    Ended {
        /// What it was for.
        task: &'static str,
        /// In which of the stream's lives.
        life: u64,
        /// What it panicked with, if it did.
        panic: Option<String>,
    },
}

/// The life number under which the publisher reports: it outlives the stream's lives.
const OF_NO_LIFE: u64 = 0;

/// Starts a stream's threads, so that the keeper hears of their ends.
#[derive(Clone)]
pub(super) struct Crew {
    stream: String,
    life: u64,
    keeper: Sender<News>,
}

impl Crew {
    /// Runs `body` on a thread named after its task and the stream.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn spawn(
        &self,
        task: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let watch = self.watch(task);
        threads::spawn_for(&self.stream, task, move || {
            let _watch = watch;
            body();
        })
    }

    /// Tells the keeper when it is dropped, on the thread that it belongs to.
    fn watch(&self, task: &'static str) -> Watch {
        Watch {
            task,
            life: self.life,
            keeper: self.keeper.clone(),
        }
    }
}

struct Watch {
    task: &'static str,
    life: u64,
    keeper: Sender<News>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let panic = std::thread::panicking().then(last_words);
        // A keeper that has ended needs no news.
        let _ = self.keeper.send(News::Ended {
            task: self.task,
            life: self.life,
            panic,
        });
    }
}

thread_local! {
    /// What this thread panicked with.
    static LAST_WORDS: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn last_words() -> String {
    let said = LAST_WORDS.with_borrow_mut(Option::take);
    said.unwrap_or_else(|| "it did not say why".to_owned())
}

/// Makes every panic of the process one line in the log, and its words known to the keeper of its stream.
pub(crate) fn hear_panics() {
    std::panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        let payload = info.payload();
        let said = payload.downcast_ref::<&str>().copied();
        let said = said.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let said = said.unwrap_or("no message").replace(['\n', '\r'], " ");
        let place = info.location().map_or_else(String::new, |place| {
            format!(" at {}:{}", place.file(), place.line())
        });
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("without a name").to_owned();
        tracing::error!(thread, "a thread panicked{place}: {said}");
        // A thread that is being torn down may have no place for it any more; then the log alone has it.
        let _ = LAST_WORDS.try_with(|words| *words.borrow_mut() = Some(format!("{said}{place}")));
    }));
}

/// Deaths in a row, and the rests that follow from them.
#[derive(Debug, Default)]
struct Deaths {
    in_a_row: u32,
}

impl Deaths {
    /// How long to rest after a death of what has lived for `lived`.
    fn rest_after(&mut self, lived: Duration) -> Duration {
        if lived >= HEALTHY {
            self.in_a_row = 0;
        }
        let rest = match self.in_a_row {
            0 => Duration::ZERO,
            before => (FIRST_REST * (1 << (before - 1).min(16))).min(LONGEST_REST),
        };
        self.in_a_row = self.in_a_row.saturating_add(1);
        rest
    }
}

/// The keeper of one stream, on a thread of its own.
pub(super) struct Keeper {
    ground: Ground,
    crew: Crew,
    news: Receiver<News>,
    lives: u64,
    deaths: Deaths,
    stopping: bool,
    publisher: Option<DiskPublisher>,
    publisher_started: Instant,
    publisher_deaths: Deaths,
}

impl Keeper {
    /// A keeper of the stream of `ground`, which hears of it over `news`, whose other end is `sender`.
    pub(super) fn new(ground: Ground, sender: Sender<News>, news: Receiver<News>) -> Self {
        let crew = Crew {
            stream: ground.plan.name.clone(),
            life: OF_NO_LIFE,
            keeper: sender,
        };
        Self {
            ground,
            crew,
            news,
            lives: 0,
            deaths: Deaths::default(),
            stopping: false,
            publisher: None,
            publisher_started: Instant::now(),
            publisher_deaths: Deaths::default(),
        }
    }

    /// Starts the publisher and the first life.
    ///
    /// # Errors
    /// When the system gives no threads for them.
    pub(super) fn begin(&mut self) -> Result<Life, StreamError> {
        self.ground.take_descriptors()?;
        if self.publisher.is_none() {
            self.start_publisher(Duration::ZERO)?;
        }
        self.lives += 1;
        let crew = Crew {
            life: self.lives,
            ..self.crew.clone()
        };
        Life::start(&mut self.ground, crew)
    }

    /// Runs until the stream has been stopped. `first` is what [`Self::begin`] gave.
    pub(super) fn run(mut self, first: Result<Life, StreamError>) {
        let mut next = first;
        loop {
            let born = Instant::now();
            let death = match next {
                Ok(life) => match self.live(life) {
                    Some(death) => death,
                    None => break,
                },
                Err(error) => error.to_string(),
            };
            let rest = self.deaths.rest_after(born.elapsed());
            tracing::error!(
                stream = %self.ground.plan.name, retry_in = ?rest,
                "the stream does not run and is started again: {death}"
            );
            self.ground.died(death);
            if self.rest(rest) {
                break;
            }
            next = self.begin();
        }
        let Self {
            ground, publisher, ..
        } = self;
        let patience = match ground.plan.mode.is_recorded() {
            true => LAST_PASS_OF_RECORDING,
            false => LAST_PASS,
        };
        if publisher.is_some_and(|publisher| !publisher.finish(patience)) {
            tracing::warn!(stream = %ground.plan.name, "the disk is too slow: the folder may lack the last segment");
        }
        ground.shared.report().ended = true;
        ground.conclude();
    }

    /// Waits for the end of `life`: what it died of, or none if it was stopped.
    fn live(&mut self, life: Life) -> Option<String> {
        loop {
            match self.news.recv() {
                Ok(News::Stop) => {
                    self.stopping = true;
                    life.stop();
                }
                Ok(News::Adjust(plan)) => {
                    life.adjust(&plan);
                    self.ground.adjust(*plan);
                }
                Ok(News::Ended {
                    life: OF_NO_LIFE,
                    panic,
                    ..
                }) => self.publisher_ended(panic),
                Ok(News::Ended { life, .. }) if life != self.lives => {}
                Ok(News::Ended {
                    task,
                    panic: Some(panic),
                    ..
                }) => {
                    life.abandon();
                    self.ground.shared.report().restarts += 1;
                    let death = format!("its task '{task}' panicked: {panic}");
                    return (!self.stopping).then_some(death);
                }
                Ok(News::Ended {
                    task: super::life::OWNER,
                    ..
                }) => {
                    life.abandon();
                    return None;
                }
                Ok(News::Ended { .. }) => {}
                Err(_) => unreachable!("the keeper's own crew holds the other end"),
            }
        }
    }

    /// Rests between two lives: whether it was stopped meanwhile.
    fn rest(&mut self, rest: Duration) -> bool {
        let until = Instant::now() + rest;
        loop {
            // Who rests is not stuck: the watchdog has to see the difference.
            self.ground.shows_life();
            let left = until.saturating_duration_since(Instant::now());
            match self.news.recv_timeout(left.min(SIGN_OF_LIFE)) {
                Ok(News::Stop) => return true,
                Ok(News::Adjust(plan)) => self.ground.adjust(*plan),
                Ok(News::Ended {
                    life: OF_NO_LIFE,
                    panic,
                    ..
                }) => self.publisher_ended(panic),
                // Of the life that is over.
                Ok(News::Ended { .. }) => {}
                Err(RecvTimeoutError::Timeout) if left > SIGN_OF_LIFE => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn start_publisher(&mut self, rest: Duration) -> Result<(), StreamError> {
        let guard = self.crew.watch("disk");
        let started = self.ground.start_publisher(rest, guard)?;
        self.publisher = Some(started);
        self.publisher_started = Instant::now() + rest;
        Ok(())
    }

    /// The publisher works for all lives of the stream; when it panics, it alone is started again.
    fn publisher_ended(&mut self, panic: Option<String>) {
        let Some(panic) = panic else { return };
        let lived = self.publisher_started.elapsed();
        let rest = self.publisher_deaths.rest_after(lived);
        tracing::error!(
            stream = %self.ground.plan.name, retry_in = ?rest,
            "the publisher of the stream's folder panicked and is started again: {panic}"
        );
        self.publisher = None;
        if let Err(error) = self.start_publisher(rest) {
            // The stream's next life tries again.
            tracing::error!(stream = %self.ground.plan.name, "the stream's folder is published no more: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_costs_no_rest_and_a_loop_of_them_rests_up_to_a_minute() {
        let mut deaths = Deaths::default();
        let at_once = Duration::from_millis(5);
        let rests: Vec<_> = (0..12).map(|_| deaths.rest_after(at_once)).collect();
        assert_eq!(rests[..3], [Duration::ZERO, FIRST_REST, 2 * FIRST_REST]);
        assert!(rests.is_sorted() && rests[11] == LONGEST_REST, "{rests:?}");
        assert_eq!(deaths.rest_after(HEALTHY), Duration::ZERO);
        assert_eq!(deaths.rest_after(at_once), FIRST_REST);
        for _ in 0..100 {
            assert!(deaths.rest_after(at_once) <= LONGEST_REST);
        }
    }

    #[test]
    fn a_thread_that_panics_is_heard_with_its_last_words() {
        hear_panics();
        let (keeper, news) = std::sync::mpsc::channel();
        let crew = Crew {
            stream: "door".to_owned(),
            life: 7,
            keeper,
        };
        let ended = crew.spawn("well", || {}).unwrap().join();
        assert!(ended.is_ok());
        let ended = crew.spawn("badly", || panic!("no\nway")).unwrap().join();
        assert!(ended.is_err());
        let mut heard = Vec::new();
        while let Ok(News::Ended { task, life, panic }) = news.try_recv() {
            assert_eq!(life, 7);
            heard.push((task, panic));
        }
        assert_eq!(heard[0], ("well", None));
        assert_eq!(heard[1].0, "badly");
        let words = heard[1].1.as_deref().unwrap();
        assert!(
            words.starts_with("no way at src/stream/keeper.rs:"),
            "{words}"
        );
    }
}
