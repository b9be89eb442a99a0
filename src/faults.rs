//! Faults that a test asks for: a real panic in a real thread of the real program, or a thread that stands still. They exist only in builds with debug
//! assertions, or with the feature `faults` for those without; any other build has nothing of this but an empty function.

/// Panics if the folder that `$RINGGEAR_FAULTS` names holds a file called `{task}.{stream}`. The file is removed first,
/// so that it costs one panic; one that says `always` stays. At one that says `hang` the thread stands still until the file is gone.
#[cfg(any(debug_assertions, feature = "faults"))]
pub(crate) fn point(task: &str, stream: &str) {
    use std::path::PathBuf;
    use std::sync::OnceLock;

    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| std::env::var_os("RINGGEAR_FAULTS").map(PathBuf::from));
    let Some(folder) = folder else { return };
    let asked = folder.join(format!("{task}.{stream}"));
    let Ok(text) = std::fs::read_to_string(&asked) else {
        return;
    };
    if text.trim() == "hang" {
        while asked.exists() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        return;
    }
    if text.trim() == "always" || std::fs::remove_file(&asked).is_ok() {
        panic!("a test asked for a fault in task '{task}' of stream '{stream}'");
    }
}

/// Nothing, in a build without faults.
#[cfg(not(any(debug_assertions, feature = "faults")))]
pub(crate) fn point(_task: &str, _stream: &str) {}
