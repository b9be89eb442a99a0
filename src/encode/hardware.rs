//! Encoders in hardware: the device that each needs, and the filters that bring pictures into its memory. Pure.

use crate::config::Hardware;

/// Where a machine with one graphics processor has it.
const FIRST_RENDER_NODE: &str = "/dev/dri/renderD128";

/// FFmpeg's options that make the device from which pictures are uploaded, to stand before its input.
pub(super) fn device_options(kind: Hardware, device: Option<&str>) -> Vec<String> {
    let mut words = Vec::new();
    let mut make = |value: String| words.extend(["-init_hw_device".to_owned(), value]);
    match (kind, device) {
        (Hardware::Nvenc | Hardware::V4l2m2m, _) => return words,
        (Hardware::Vaapi, device) => {
            make(format!("vaapi=hw:{}", device.unwrap_or(FIRST_RENDER_NODE)));
        }
        (Hardware::Qsv, None) => make("qsv=hw".to_owned()),
        // A render node is VAAPI's; Quick Sync is derived from it.
        (Hardware::Qsv, Some(device)) => {
            make(format!("vaapi=node:{device}"));
            make("qsv=hw@node".to_owned());
        }
    }
    words.extend(["-filter_hw_device", "hw"].map(str::to_owned));
    words
}

/// The end of a filter chain that leads to it; none where it takes pictures as they are.
pub(super) const fn upload(kind: Hardware) -> Option<&'static str> {
    match kind {
        Hardware::Vaapi => Some("format=nv12,hwupload"),
        // Room for those that it holds while it works.
        Hardware::Qsv => Some("format=nv12,hwupload=extra_hw_frames=16"),
        Hardware::Nvenc | Hardware::V4l2m2m => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_says_where_its_pictures_go() {
        let words = |kind, device| device_options(kind, device).join(" ");
        assert_eq!(
            words(Hardware::Vaapi, None),
            "-init_hw_device vaapi=hw:/dev/dri/renderD128 -filter_hw_device hw"
        );
        assert_eq!(
            words(Hardware::Qsv, None),
            "-init_hw_device qsv=hw -filter_hw_device hw"
        );
        assert_eq!(
            words(Hardware::Qsv, Some("/dev/dri/renderD129")),
            "-init_hw_device vaapi=node:/dev/dri/renderD129 -init_hw_device qsv=hw@node -filter_hw_device hw"
        );
        assert_eq!(words(Hardware::Nvenc, Some("1")), "");
        assert!(upload(Hardware::V4l2m2m).is_none());
    }
}
