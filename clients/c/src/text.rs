//! Texts across the boundary: C's strings in, one line out that stays for as long as the header promises.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};

use crate::code::Failure;

thread_local! {
    /// Of this thread's last call that failed without a producer to keep it.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
    /// What this thread was last shown.
    static SHOWN: RefCell<CString> = RefCell::default();
}

/// Keeps `text` as this thread's last error.
pub(crate) fn keep(text: String) {
    // A thread that is ending keeps nothing any more.
    let _ = LAST.try_with(|last| *last.borrow_mut() = text);
}

/// This thread's last error.
pub(crate) fn kept() -> String {
    LAST.try_with(|last| last.borrow().clone())
        .unwrap_or_default()
}

/// `text` as one line for C, valid until this thread is shown another.
pub(crate) fn show(text: &str) -> *const c_char {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    // There is no NUL left in it.
    let line = CString::new(line).unwrap_or_default();
    SHOWN
        .try_with(|shown| {
            *shown.borrow_mut() = line;
            shown.borrow().as_ptr()
        })
        .unwrap_or(c"".as_ptr())
}

/// The text at `text`, none where that is null. `name` is its name for people.
///
/// # Safety
/// `text` is null, or points to a string that ends with a NUL and stays for `'a`.
pub(crate) unsafe fn given<'a>(
    text: *const c_char,
    name: &str,
) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and a string by the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str()
        .map(Some)
        .map_err(|_| Failure::argument(format!("{name} is not UTF-8")))
}
