//! A producer of sound, in C's hands: the functions of `ringgear.h` that begin with `ringgear_audio_`.

use std::ffi::{c_char, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use ringgear_producer::{
    AudioProducer, AudioProducerOptions, LinkEvent, SampleFormat, SoundFormat,
};

use crate::abi::{Account, Counters, captured, failed, fill_counters, give_account, guarded};
use crate::code::{self, E_INTERNAL, Failure, OK};
use crate::options;
use crate::story::{Step, Story};
use crate::text;

/// `ringgear_audio_options`.
#[repr(C)]
#[derive(Debug)]
pub struct AudioOptions {
    /// The size that the program knows.
    pub struct_size: usize,
    /// The stream to feed.
    pub stream: *const c_char,
    /// The sound format's name.
    pub format: *const c_char,
    /// Samples a second.
    pub rate: u32,
    /// How many channels.
    pub channels: u32,
    /// The control socket, or null.
    pub socket: *const c_char,
    /// The program's name, or null.
    pub client: *const c_char,
    /// How many slots, or 0.
    pub slots: u32,
    /// Whether to end another producer's session.
    pub take_over: c_int,
}

/// A producer of sound.
#[derive(Debug)]
pub struct Audio(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    producer: AudioProducer,
    story: Story,
}

impl Audio {
    fn open(options: AudioProducerOptions) -> Result<Self, Failure> {
        let story = Story::default();
        let told = story.listener();
        let producer = AudioProducer::open(options, move |event| {
            told.tell(match event {
                LinkEvent::Waiting { cause } => {
                    format!("{cause}; sound is dropped until the daemon is back")
                }
                LinkEvent::Back { .. } => String::new(),
            });
        })?;
        Ok(Self(Mutex::new(Inner { producer, story })))
    }
}

impl Inner {
    /// Runs a step on the producer, and keeps what it says.
    fn step(&mut self, run: impl FnOnce(&mut AudioProducer) -> Result<Step, Failure>) -> c_int {
        let outcome = match self.story.over() {
            Some(failure) => Err(failure),
            None => run(&mut self.producer),
        };
        self.story.note(outcome)
    }
}

/// What the struct at `options` says.
///
/// # Safety
/// As for `options::set_up`, and its texts are null or end with a NUL.
unsafe fn read(options: *const AudioOptions) -> Result<AudioProducerOptions, Failure> {
    // SAFETY: by the caller's promise.
    let options = unsafe { options::set_up(options) }?;
    // SAFETY: a text by the caller's promise, as the three below.
    let stream = unsafe { text::given(options.stream, "options.stream") }?;
    // SAFETY: as above.
    let format = unsafe { text::given(options.format, "options.format") }?;
    // SAFETY: as above.
    let socket = unsafe { text::given(options.socket, "options.socket") }?;
    // SAFETY: as above.
    let client = unsafe { text::given(options.client, "options.client") }?;
    let stream = stream.ok_or_else(|| Failure::argument("options.stream is not set"))?;
    let name = format.ok_or_else(|| Failure::argument("options.format is not set"))?;
    let Some(samples) = SampleFormat::from_name(name) else {
        let known = SampleFormat::ALL.map(SampleFormat::name).join(", ");
        let text = format!("no sound format is called '{name}': use one of {known}");
        return Err(Failure::format(text));
    };
    let format = SoundFormat::new(samples, options.rate, options.channels)
        .map_err(|error| Failure::format(error.to_string()))?;
    Ok(AudioProducerOptions {
        socket: socket.map_or_else(options::default_socket, Into::into),
        slots: (options.slots != 0).then_some(options.slots),
        take_over: options.take_over != 0,
        client: client.unwrap_or(options::CLIENT).to_owned(),
        ..AudioProducerOptions::new(stream, format)
    })
}

/// Runs a step on a producer.
///
/// # Safety
/// `audio` is null, or from `ringgear_audio_open` and not closed.
unsafe fn on(
    audio: *mut Audio,
    run: impl FnOnce(&mut AudioProducer) -> Result<Step, Failure>,
) -> c_int {
    guarded(E_INTERNAL, || {
        // SAFETY: by the caller's promise; it is shared by reference alone until it is closed.
        let Some(audio) = (unsafe { audio.as_ref() }) else {
            return failed(Failure::argument("audio is NULL"));
        };
        let Ok(mut inner) = audio.0.lock() else {
            return E_INTERNAL;
        };
        inner.step(run)
    })
}

/// Sets every option to its default.
///
/// # Safety
/// `options` is null, or `struct_size` bytes there may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_audio_options_init(
    options: *mut AudioOptions,
    struct_size: usize,
) {
    // SAFETY: by the caller's promise.
    guarded((), || unsafe { options::init(options, struct_size) });
}

/// Opens a producer of sound.
///
/// # Safety
/// `options` is null or set up by [`ringgear_audio_options_init`], with texts that are null or end with a NUL; `audio` is null or may be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_audio_open(
    options: *const AudioOptions,
    audio: *mut *mut Audio,
) -> c_int {
    guarded(E_INTERNAL, || {
        if audio.is_null() {
            return failed(Failure::argument("audio is NULL"));
        }
        // SAFETY: not null, and the caller's to give.
        unsafe { audio.write(std::ptr::null_mut()) };
        // SAFETY: by the caller's promise.
        let options = unsafe { read(options) };
        match options.and_then(Audio::open) {
            Ok(opened) => {
                let opened = Box::into_raw(Box::new(opened));
                // SAFETY: as above.
                unsafe { audio.write(opened) };
                OK
            }
            Err(failure) => failed(failure),
        }
    })
}

/// Copies samples into the ring.
///
/// # Safety
/// `audio` is null, or from [`ringgear_audio_open`] and not closed; `samples` is null, or `size` bytes there may be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_audio_write(
    audio: *mut Audio,
    samples: *const c_void,
    size: usize,
    captured_ns: u64,
) -> c_int {
    let write = |producer: &mut AudioProducer| {
        if samples.is_null() {
            return Err(Failure::argument("samples is NULL"));
        }
        let sample = producer.format().sample_bytes();
        if !size.is_multiple_of(sample) || isize::try_from(size).is_err() {
            let text = format!("{size} bytes are no whole samples: one has {sample}");
            return Err(Failure::argument(text));
        }
        // SAFETY: not null, and so many bytes may be read, by the caller's promise.
        let samples = unsafe { std::slice::from_raw_parts(samples.cast::<u8>(), size) };
        match producer.write(samples, captured(captured_ns)) {
            Ok(true) => Ok(Step::Done),
            Ok(false) => Ok(Step::Dropped),
            Err(error) => Err(Failure::last(error)),
        }
    };
    // SAFETY: by the caller's promise.
    unsafe { on(audio, write) }
}

/// Notices a session lost and a session found.
///
/// # Safety
/// `audio` is null, or from [`ringgear_audio_open`] and not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_audio_check(audio: *mut Audio) -> c_int {
    let check = |producer: &mut AudioProducer| match producer.check() {
        Ok(()) if producer.is_connected() => Ok(Step::Done),
        Ok(()) => Ok(Step::Dropped),
        Err(error) => Err(Failure::last(error)),
    };
    // SAFETY: by the caller's promise.
    unsafe { on(audio, check) }
}

/// Fills in counters.
///
/// # Safety
/// `audio` is null, or from [`ringgear_audio_open`] and not closed; `counters` is null, or `struct_size` bytes there may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_audio_get_counters(
    audio: *mut Audio,
    counters: *mut Counters,
    struct_size: usize,
) -> c_int {
    guarded(E_INTERNAL, || {
        // SAFETY: by the caller's promise.
        let Some(audio) = (unsafe { audio.as_ref() }) else {
            return failed(Failure::argument("audio is NULL"));
        };
        let Ok(inner) = audio.0.lock() else {
            return E_INTERNAL;
        };
        let producer = &inner.producer;
        let now = Counters {
            committed: producer.committed(),
            superseded: producer.superseded(),
            dropped: producer.dropped(),
            sessions: producer.sessions(),
            connected: u64::from(producer.is_connected()),
        };
        // SAFETY: by the caller's promise.
        unsafe { fill_counters(now, counters, struct_size) }
    })
}

/// Ends the producer in good order, and frees it.
///
/// # Safety
/// `audio` is null, or from [`ringgear_audio_open`] and not closed; nothing uses it from here on. `account` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_audio_close(audio: *mut Audio, account: *mut Account) -> c_int {
    guarded(E_INTERNAL, || {
        let mut closed = Ok((OK, None));
        if !audio.is_null() {
            // SAFETY: from `Box::into_raw` in `ringgear_audio_open`, and closed once, by the caller's promise.
            let audio = unsafe { Box::from_raw(audio) };
            let inner = audio.0.into_inner().unwrap_or_else(PoisonError::into_inner);
            closed = inner.story.close(inner.producer.close());
        }
        // SAFETY: by the caller's promise.
        unsafe { give_account(closed, account) }
    })
}

/// What the producer's last failure was about.
///
/// # Safety
/// `audio` is null, or from [`ringgear_audio_open`] and not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_audio_last_error(audio: *mut Audio) -> *const c_char {
    guarded(c"".as_ptr(), || {
        // SAFETY: by the caller's promise.
        let Some(audio) = (unsafe { audio.as_ref() }) else {
            return text::show(&text::kept());
        };
        match audio.0.lock() {
            Ok(inner) => text::show(inner.story.said()),
            Err(_) => code::meaning(E_INTERNAL).as_ptr(),
        }
    })
}
