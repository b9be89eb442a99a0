//! The functions of `ringgear.h`. Each catches its panics, checks what can be checked of its pointers, and leaves the work to [`Handle`].

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use ringgear_producer::messages::FrameCounts;
use ringgear_producer::{Captured, FrameFormat};

use crate::code::{self, E_INTERNAL, Failure, OK};
use crate::handle::{Handle, Inner};
use crate::options::{self, MAX_PLANES, MAX_STRUCT, Options};
use crate::story::Step;
use crate::text;

/// The version of the binary interface: `RINGGEAR_ABI` of `ringgear.h`, which the soname has too.
const ABI: &str = env!("RINGGEAR_ABI");

/// `ringgear_plane`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Plane {
    /// The first row.
    pub data: *mut u8,
    /// From row to row.
    pub stride: usize,
    /// Bytes of a row that hold pixels.
    pub row_bytes: usize,
    /// Rows.
    pub rows: usize,
}

/// `ringgear_frame`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FrameView {
    /// All planes.
    pub data: *mut u8,
    /// Their bytes.
    pub size: usize,
    /// The camera's number of the frame.
    pub number: u64,
    /// How many planes there are.
    pub plane_count: usize,
    /// The planes.
    pub planes: [Plane; MAX_PLANES],
}

/// `ringgear_counters`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Frames handed to the daemon.
    pub committed: u64,
    /// Of them, those that gave way in a full ring.
    pub superseded: u64,
    /// Frames that found no daemon.
    pub dropped: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// 1 with a session, else 0.
    pub connected: u64,
}

/// `ringgear_account`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// Shown.
    pub used: u64,
    /// Passed over.
    pub superseded: u64,
    /// Too late.
    pub late: u64,
}

/// Runs `run`; a panic in it is `otherwise`.
pub(crate) fn guarded<T>(otherwise: T, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        // Dropping it could panic again.
        std::mem::forget(payload);
        otherwise
    })
}

/// Keeps `failure` for `ringgear_last_error(NULL)`.
pub(crate) fn failed(failure: Failure) -> c_int {
    text::keep(failure.text);
    failure.code
}

/// Runs a step on a producer.
///
/// # Safety
/// `producer` is null, or from `ringgear_open` and not closed.
unsafe fn on(
    producer: *mut Handle,
    run: impl FnOnce(&mut Inner) -> Result<Step, Failure>,
) -> c_int {
    guarded(E_INTERNAL, || {
        // SAFETY: by the caller's promise; the handle is shared by reference alone until it is closed.
        let Some(handle) = (unsafe { producer.as_ref() }) else {
            return failed(Failure::argument("producer is NULL"));
        };
        let Some(mut inner) = handle.lock() else {
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
pub unsafe extern "C" fn ringgear_options_init(options: *mut Options, struct_size: usize) {
    // SAFETY: by the caller's promise.
    guarded((), || unsafe { options::init(options, struct_size) });
}

/// Opens a producer.
///
/// # Safety
/// `options` is null or set up by [`ringgear_options_init`], with texts that are null or end with a NUL; `producer` is null or may be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_open(
    options: *const Options,
    producer: *mut *mut Handle,
) -> c_int {
    guarded(E_INTERNAL, || {
        if producer.is_null() {
            return failed(Failure::argument("producer is NULL"));
        }
        // SAFETY: not null, and the caller's to give.
        unsafe { producer.write(std::ptr::null_mut()) };
        // SAFETY: by the caller's promise.
        let options = unsafe { options::read(options) };
        match options.and_then(Handle::open) {
            Ok(handle) => {
                let handle = Box::into_raw(Box::new(handle));
                // SAFETY: as above.
                unsafe { producer.write(handle) };
                OK
            }
            Err(failure) => failed(failure),
        }
    })
}

/// Gives the next frame's place in shared memory.
///
/// # Safety
/// `producer` is null, or from [`ringgear_open`] and not closed; `frame` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_begin(producer: *mut Handle, frame: *mut FrameView) -> c_int {
    let begin = |inner: &mut Inner| {
        if frame.is_null() {
            return Err(Failure::argument("frame is NULL"));
        }
        let Some(number) = inner.begin()? else {
            return Ok(Step::Dropped);
        };
        let bytes = inner.frame()?;
        let (data, size) = (bytes.as_mut_ptr(), bytes.len());
        let view = view(inner.format(), data, size, number);
        // SAFETY: not null, and the caller's to give.
        unsafe { frame.write(view) };
        Ok(Step::Done)
    };
    // SAFETY: by the caller's promise.
    unsafe { on(producer, begin) }
}

/// The frame of `size` bytes at `data` as C sees it.
fn view(format: &FrameFormat, data: *mut u8, size: usize, number: u64) -> FrameView {
    let none = Plane {
        data: std::ptr::null_mut(),
        stride: 0,
        row_bytes: 0,
        rows: 0,
    };
    let mut planes = [none; MAX_PLANES];
    for (plane, lies) in planes.iter_mut().zip(format.planes()) {
        *plane = Plane {
            data: data.wrapping_add(lies.offset),
            stride: lies.stride,
            row_bytes: lies.row_bytes,
            rows: lies.rows,
        };
    }
    FrameView {
        data,
        size,
        number,
        plane_count: format.planes().len(),
        planes,
    }
}

/// Hands the frame that was begun to the daemon.
///
/// # Safety
/// `producer` is null, or from [`ringgear_open`] and not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_commit(producer: *mut Handle, captured_ns: u64) -> c_int {
    // SAFETY: by the caller's promise.
    unsafe {
        on(producer, |inner| {
            inner.commit(captured(captured_ns))?;
            Ok(Step::Done)
        })
    }
}

/// Gives up the frame that was begun.
///
/// # Safety
/// `producer` is null, or from [`ringgear_open`] and not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_abandon(producer: *mut Handle) -> c_int {
    // SAFETY: by the caller's promise.
    unsafe {
        on(producer, |inner| {
            inner.abandon()?;
            Ok(Step::Done)
        })
    }
}

/// Copies a whole frame without padding, and commits it.
///
/// # Safety
/// `producer` is null, or from [`ringgear_open`] and not closed; `pixels` is null, or `size` bytes there may be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_write(
    producer: *mut Handle,
    pixels: *const c_void,
    size: usize,
    captured_ns: u64,
) -> c_int {
    let write = |inner: &mut Inner| {
        let format = inner.format();
        let wanted: usize = format.planes().iter().map(|p| p.row_bytes * p.rows).sum();
        if pixels.is_null() {
            return Err(Failure::argument("pixels is NULL"));
        }
        if size != wanted {
            let text = format!("a frame of {format} has {wanted} bytes, not {size}");
            return Err(Failure::argument(text));
        }
        let mut sources = [Source::NONE; MAX_PLANES];
        let mut data = pixels.cast::<u8>();
        for (source, plane) in sources.iter_mut().zip(format.planes()) {
            let stride = plane.row_bytes;
            *source = Source { data, stride };
            data = data.wrapping_add(stride * plane.rows);
        }
        // SAFETY: the planes' rows follow each other within the `size` bytes that the caller has promised.
        unsafe { copy(inner, &sources, captured_ns) }
    };
    // SAFETY: by the caller's promise.
    unsafe { on(producer, write) }
}

/// Copies a frame whose planes lie anywhere, and commits it.
///
/// # Safety
/// `producer` is null, or from [`ringgear_open`] and not closed; `planes` and `strides` are null or have `count` entries, and each plane is
/// null or has the format's rows at its stride.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_write_planes(
    producer: *mut Handle,
    planes: *const *const c_void,
    strides: *const usize,
    count: usize,
    captured_ns: u64,
) -> c_int {
    let write = |inner: &mut Inner| {
        let format = inner.format();
        if planes.is_null() || strides.is_null() {
            return Err(Failure::argument("planes or strides is NULL"));
        }
        if count != format.planes().len() {
            let wanted = format.planes().len();
            let text = format!("{format} has planes: {wanted}, not {count}");
            return Err(Failure::argument(text));
        }
        // SAFETY: `count` entries by the caller's promise, and no more than a few by the check above.
        let planes = unsafe { std::slice::from_raw_parts(planes, count) };
        // SAFETY: likewise.
        let strides = unsafe { std::slice::from_raw_parts(strides, count) };
        let mut sources = [Source::NONE; MAX_PLANES];
        for (index, lies) in format.planes().iter().enumerate() {
            let (data, stride) = (planes[index].cast::<u8>(), strides[index]);
            if data.is_null() {
                return Err(Failure::argument(format!("planes[{index}] is NULL")));
            }
            let whole = stride.checked_mul(lies.rows);
            if stride < lies.row_bytes || whole.is_none_or(|bytes| isize::try_from(bytes).is_err())
            {
                let row = lies.row_bytes;
                let text = format!("strides[{index}] is {stride}: a row has {row} bytes");
                return Err(Failure::argument(text));
            }
            sources[index] = Source { data, stride };
        }
        // SAFETY: each plane has its rows by the caller's promise.
        unsafe { copy(inner, &sources, captured_ns) }
    };
    // SAFETY: by the caller's promise.
    unsafe { on(producer, write) }
}

/// Where a plane's rows are to be read.
#[derive(Clone, Copy)]
struct Source {
    data: *const u8,
    stride: usize,
}

impl Source {
    const NONE: Self = Self {
        data: std::ptr::null(),
        stride: 0,
    };
}

/// Writes the next frame from `sources`, one for each plane of the format.
///
/// # Safety
/// At each source lie the plane's rows at the source's stride, outside of the ring.
unsafe fn copy(inner: &mut Inner, sources: &[Source], captured_ns: u64) -> Result<Step, Failure> {
    if inner.begin()?.is_none() {
        return Ok(Step::Dropped);
    }
    for (index, source) in sources.iter().enumerate() {
        let Some(&lies) = inner.format().planes().get(index) else {
            break;
        };
        let frame = &mut inner.frame()?[lies.offset..];
        if source.stride == lies.stride && lies.stride == lies.row_bytes {
            let bytes = lies.row_bytes * lies.rows;
            // SAFETY: rows without padding follow each other, so they are one run of bytes, by the caller's promise.
            let rows = unsafe { std::slice::from_raw_parts(source.data, bytes) };
            frame[..bytes].copy_from_slice(rows);
            continue;
        }
        for (row, target) in frame.chunks_mut(lies.stride).take(lies.rows).enumerate() {
            let start = source.data.wrapping_add(source.stride * row);
            // SAFETY: row `row` of the plane begins here, by the caller's promise.
            let from = unsafe { std::slice::from_raw_parts(start, lies.row_bytes) };
            target[..lies.row_bytes].copy_from_slice(from);
        }
    }
    inner.commit(captured(captured_ns))?;
    Ok(Step::Done)
}

pub(crate) fn captured(nanoseconds: u64) -> Option<Captured> {
    (nanoseconds != 0).then_some(Captured(nanoseconds))
}

/// Notices a session lost and a session found.
///
/// # Safety
/// `producer` is null, or from [`ringgear_open`] and not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_check(producer: *mut Handle) -> c_int {
    // SAFETY: by the caller's promise.
    unsafe { on(producer, Inner::check) }
}

/// Fills in counters.
///
/// # Safety
/// `producer` is null, or from [`ringgear_open`] and not closed; `counters` is null, or `struct_size` bytes there may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_get_counters(
    producer: *mut Handle,
    counters: *mut Counters,
    struct_size: usize,
) -> c_int {
    guarded(E_INTERNAL, || {
        // SAFETY: by the caller's promise.
        let Some(handle) = (unsafe { producer.as_ref() }) else {
            return failed(Failure::argument("producer is NULL"));
        };
        let Some(inner) = handle.lock() else {
            return E_INTERNAL;
        };
        // SAFETY: by the caller's promise.
        unsafe { fill_counters(inner.counters(), counters, struct_size) }
    })
}

/// Gives `now` to the program.
///
/// # Safety
/// `counters` is null, or `struct_size` bytes there may be written.
pub(crate) unsafe fn fill_counters(
    now: Counters,
    counters: *mut Counters,
    struct_size: usize,
) -> c_int {
    if counters.is_null() || !(size_of::<Counters>()..=MAX_STRUCT).contains(&struct_size) {
        let text = "counters is NULL, or struct_size is not its sizeof";
        return failed(Failure::argument(text));
    }
    // SAFETY: these bytes are the caller's to give. A newer program's struct is longer than ours, and what we don't know of it is zero.
    unsafe { counters.cast::<u8>().write_bytes(0, struct_size) };
    // SAFETY: at least our struct's bytes are there, by the check.
    unsafe { counters.write(now) };
    OK
}

/// Ends the producer in good order, and frees it.
///
/// # Safety
/// `producer` is null, or from [`ringgear_open`] and not closed; nothing uses it from here on. `account` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_close(producer: *mut Handle, account: *mut Account) -> c_int {
    guarded(E_INTERNAL, || {
        let mut closed = Ok((OK, None));
        if !producer.is_null() {
            // SAFETY: from `Box::into_raw` in `ringgear_open`, and closed once, by the caller's promise.
            let handle = unsafe { Box::from_raw(producer) };
            closed = handle.close();
        }
        // SAFETY: by the caller's promise.
        unsafe { give_account(closed, account) }
    })
}

/// Gives the program what closing came to.
///
/// # Safety
/// `account` is null or may be written.
pub(crate) unsafe fn give_account(
    closed: Result<(c_int, Option<FrameCounts>), Failure>,
    account: *mut Account,
) -> c_int {
    let (code, counts) = closed.unwrap_or_else(|failure| (failed(failure), None));
    let counts = counts.unwrap_or_default();
    if !account.is_null() {
        let last = Account {
            used: counts.used,
            superseded: counts.superseded,
            late: counts.late,
        };
        // SAFETY: not null, and the caller's to give.
        unsafe { account.write(last) };
    }
    code
}

/// CLOCK_MONOTONIC now, in nanoseconds.
#[unsafe(no_mangle)]
pub extern "C" fn ringgear_now() -> u64 {
    guarded(0, || ringgear_producer::now().0)
}

/// What a code means.
#[unsafe(no_mangle)]
pub extern "C" fn ringgear_strerror(code: c_int) -> *const c_char {
    code::meaning(code).as_ptr()
}

/// Whether trying again later makes sense.
#[unsafe(no_mangle)]
pub extern "C" fn ringgear_can_retry(code: c_int) -> c_int {
    c_int::from(code::can_retry(code))
}

/// What the producer's, or this thread's, last failure was about.
///
/// # Safety
/// `producer` is null, or from [`ringgear_open`] and not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringgear_last_error(producer: *mut Handle) -> *const c_char {
    guarded(c"".as_ptr(), || {
        // SAFETY: by the caller's promise.
        let Some(handle) = (unsafe { producer.as_ref() }) else {
            return text::show(&text::kept());
        };
        match handle.lock() {
            Some(inner) => text::show(inner.said()),
            None => code::meaning(E_INTERNAL).as_ptr(),
        }
    })
}

/// The library's `RINGGEAR_ABI`.
#[unsafe(no_mangle)]
pub extern "C" fn ringgear_abi() -> u32 {
    ABI.parse().unwrap_or(0)
}

/// The library's version.
#[unsafe(no_mangle)]
pub extern "C" fn ringgear_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}
