//! `ringgear_options`: read with care for its size, as programs of other versions have it longer.

use std::ffi::{c_char, c_int};

use ringgear_producer::messages::DEFAULT_SOCKET;
use ringgear_producer::{FrameFormat, PixelFormat, ProducerOptions};

use crate::code::Failure;
use crate::text;

/// The most planes that a format has.
pub(crate) const MAX_PLANES: usize = 3;

/// Larger than any version's struct: what claims more was not set up.
pub(crate) const MAX_STRUCT: usize = 4096;

/// The client's name, if the program gives none.
pub(crate) const CLIENT: &str = concat!("ringgear-c/", env!("CARGO_PKG_VERSION"));

/// `ringgear_options`.
#[repr(C)]
#[derive(Debug)]
pub struct Options {
    /// The size that the program knows.
    pub struct_size: usize,
    /// The stream to feed.
    pub stream: *const c_char,
    /// The pixel format's name.
    pub format: *const c_char,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The control socket, or null.
    pub socket: *const c_char,
    /// The program's name, or null.
    pub client: *const c_char,
    /// Bytes from row to row; all 0 for rows without padding.
    pub strides: [usize; MAX_PLANES],
    /// How many slots, or 0.
    pub slots: u32,
    /// Whether to end another producer's session.
    pub take_over: c_int,
}

/// Sets the struct of options, of `size` bytes at `options`, to defaults.
///
/// # Safety
/// `options` is null, or `size` bytes there may be written.
pub(crate) unsafe fn init<T>(options: *mut T, size: usize) {
    if options.is_null() || !(size_of::<usize>()..=MAX_STRUCT).contains(&size) {
        return;
    }
    // SAFETY: `size` bytes are the caller's to give.
    unsafe { options.cast::<u8>().write_bytes(0, size) };
    // SAFETY: at least a size's bytes are there, the struct's first, and aligned as the struct is.
    unsafe { options.cast::<usize>().write(size) };
}

/// The struct at `options`, if it is one that this library understands.
///
/// # Safety
/// `options` is null or points to a struct that [`init`] has set up, which begins with its size, and any bytes are valid in `T`'s fields.
pub(crate) unsafe fn set_up<'a, T>(options: *const T) -> Result<&'a T, Failure> {
    if options.is_null() {
        return Err(Failure::argument("options is NULL"));
    }
    // SAFETY: not null, and every version of the struct begins with its size.
    let size = unsafe { options.cast::<usize>().read() };
    if !(size_of::<T>()..=MAX_STRUCT).contains(&size) {
        let text =
            "options are not set up: call the init function for them with their sizeof first";
        return Err(Failure::argument(text));
    }
    let more = size - size_of::<T>();
    // SAFETY: the struct is `size` bytes long by its own word, and this is where ours ends.
    let rest = unsafe { options.add(1).cast::<u8>() };
    // SAFETY: the same bytes, initialised by `init`.
    let rest = unsafe { std::slice::from_raw_parts(rest, more) };
    if rest.iter().any(|&byte| byte != 0) {
        let text = "options set what this library does not know: install the program's version";
        return Err(Failure::argument(text));
    }
    // SAFETY: `size` covers our struct, and any bytes are valid in its fields.
    Ok(unsafe { &*options })
}

/// What the struct at `options` says.
///
/// # Safety
/// `options` is null or points to a struct that `ringgear_options_init` has set up, whose texts are null or end with a NUL.
pub(crate) unsafe fn read(options: *const Options) -> Result<ProducerOptions, Failure> {
    // SAFETY: by the caller's promise.
    let options = unsafe { set_up(options) }?;
    // SAFETY: a text by the caller's promise, as the three below.
    let stream = unsafe { text::given(options.stream, "options.stream") }?;
    // SAFETY: as above.
    let format = unsafe { text::given(options.format, "options.format") }?;
    // SAFETY: as above.
    let socket = unsafe { text::given(options.socket, "options.socket") }?;
    // SAFETY: as above.
    let client = unsafe { text::given(options.client, "options.client") }?;
    let stream = stream.ok_or_else(|| Failure::argument("options.stream is not set"))?;
    let format = format.ok_or_else(|| Failure::argument("options.format is not set"))?;
    Ok(ProducerOptions {
        socket: socket.map_or_else(default_socket, Into::into),
        slots: (options.slots != 0).then_some(options.slots),
        take_over: options.take_over != 0,
        client: client.unwrap_or(CLIENT).to_owned(),
        ..ProducerOptions::new(stream, frame_format(options, format)?)
    })
}

fn frame_format(options: &Options, name: &str) -> Result<FrameFormat, Failure> {
    let (width, height) = (options.width, options.height);
    let impossible = Failure::format;
    let Some(pixels) = PixelFormat::from_name(name) else {
        let known = PixelFormat::ALL.map(PixelFormat::name).join(", ");
        let text = format!("no pixel format is called '{name}': use one of {known}");
        return Err(impossible(text));
    };
    let packed = FrameFormat::packed(pixels, width, height)
        .map_err(|error| impossible(error.to_string()))?;
    let (strides, unused) = options.strides.split_at(packed.planes().len());
    if options.strides == [0; MAX_PLANES] {
        return Ok(packed);
    }
    if unused.iter().any(|&stride| stride != 0) {
        let (planes, text) = (strides.len(), "planes, but more strides are set");
        return Err(impossible(format!("{name} has {planes} {text}")));
    }
    FrameFormat::with_strides(pixels, width, height, strides)
        .map_err(|error| impossible(error.to_string()))
}

pub(crate) fn default_socket() -> std::path::PathBuf {
    std::env::var_os("RINGGEAR_SOCKET")
        .filter(|path| !path.is_empty())
        .map_or_else(|| DEFAULT_SOCKET.into(), Into::into)
}
