//! Encoders in hardware: their kinds, and how a config names their devices.

/// A kind of encoder in hardware, by FFmpeg's name of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardware {
    /// NVIDIA's: takes pictures from ordinary memory.
    Nvenc,
    /// Intel's and AMD's, by the kernel's render nodes: pictures are uploaded first.
    Vaapi,
    /// Intel's Quick Sync: likewise.
    Qsv,
    /// The kernel's own interface, as on a Raspberry Pi: takes pictures from ordinary memory.
    V4l2m2m,
}

impl Hardware {
    /// The kind that encoder `codec` is of; none for software and for kinds that nothing is known of.
    pub fn of(codec: &str) -> Option<Self> {
        let (_, interface) = codec.split_once('_')?;
        match interface {
            "nvenc" => Some(Self::Nvenc),
            "vaapi" => Some(Self::Vaapi),
            "qsv" => Some(Self::Qsv),
            "v4l2m2m" => Some(Self::V4l2m2m),
            _ => None,
        }
    }

    /// Whether one of several devices can be chosen.
    pub const fn names_devices(self) -> bool {
        !matches!(self, Self::V4l2m2m)
    }

    /// Whether its pictures have to be uploaded, by a device that is the same for a whole FFmpeg process.
    pub const fn uploads(self) -> bool {
        matches!(self, Self::Vaapi | Self::Qsv)
    }

    /// Checks that `device` can be one of these; if not, says what to write.
    pub fn check_device(self, device: &str) -> Result<(), &'static str> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
        match self {
            Self::Nvenc if !device.parse::<u8>().is_ok_and(|gpu| gpu < 64) => {
                Err("write the GPU's number, like \"0\"")
            }
            Self::Vaapi | Self::Qsv if !device.starts_with('/') || !device.chars().all(good) => {
                Err("write the path of its render node, like \"/dev/dri/renderD128\"")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_the_end_of_their_names() {
        assert_eq!(Hardware::of("hevc_nvenc"), Some(Hardware::Nvenc));
        assert_eq!(Hardware::of("h264_v4l2m2m"), Some(Hardware::V4l2m2m));
        assert_eq!(Hardware::of("h264_amf"), None);
        assert_eq!(Hardware::of("libx264"), None);
        assert!(Hardware::Vaapi.uploads() && !Hardware::Nvenc.uploads());
    }

    #[test]
    fn a_device_is_a_number_or_a_path_and_nothing_that_ffmpeg_would_take_apart() {
        assert!(Hardware::Nvenc.check_device("1").is_ok());
        assert!(Hardware::Nvenc.check_device("/dev/nvidia0").is_err());
        assert!(Hardware::Vaapi.check_device("/dev/dri/renderD129").is_ok());
        for bad in ["renderD128", "/dev/dri/renderD128,driver=x", "/dev/a b", ""] {
            assert!(Hardware::Vaapi.check_device(bad).is_err(), "{bad}");
        }
    }
}
