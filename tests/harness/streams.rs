//! Streams for configs.

/// A small stream with a second of everything, and `keys` of its table: 25 ticks a second, segments of 1 s, parts of 200 ms, and one
/// rendition, `small`, of 320x180.
pub(crate) fn small_stream(name: &str, keys: &str) -> String {
    format!(
        "[streams.{name}]\nframerate = 25\nsegment = \"1s\"\npart = \"200ms\"\n{keys}\n\
         [[streams.{name}.renditions]]\nname = \"small\"\nsize = \"320x180\"\nbitrate = \"300k\"\npreset = \"ultrafast\"\n"
    )
}
