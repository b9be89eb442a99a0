//! A stream's sound, checked.

use std::path::Path;

use toml::Spanned;
use toml::de::DeValue;

use super::error::{Offset, Report};
use super::sections::{Audio, AudioRendition};
use super::source::SourceInput;
use super::table::{self, Section};
use super::{RenditionPlan, defaults, source, stream};

/// How many audio renditions a stream has at most.
const MAX_RENDITIONS: usize = 4;
/// The most input arguments of a source.
const MAX_ARGUMENTS: usize = 64;
/// The source that is no file: a producer of sound, over the control socket.
const PRODUCER: &str = "producer";
/// The highest bitrate that makes sense of stereo, in bits per second.
const MAX_BITRATE: u64 = 512_000;

/// A stream's sound, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioPlan {
    /// Where it comes from.
    pub source: AudioInput,
    /// The encodings, in the order of the config; at least one.
    pub renditions: Vec<AudioRenditionPlan>,
}

/// Where sound comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AudioInput {
    /// What an FFmpeg of its own reads.
    Own(AudioSource),
    /// The pictures' source.
    Pictures,
    /// A producer of sound.
    Producer,
}

/// Where sound comes from, by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioSource {
    /// What FFmpeg reads: a file, a URL or a device.
    pub input: String,
    /// FFmpeg's arguments before its `-i`.
    pub input_args: Vec<String>,
    /// Whether a file begins again at its end; else silence follows it.
    pub repeat: bool,
}

/// One encoding of a stream's sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioRenditionPlan {
    /// Its name, fit for a path and a URL, and none of the video's; its folder.
    pub name: String,
    /// Its codec.
    pub codec: AudioCodec,
    /// Bits per second.
    pub bitrate: u64,
}

/// The codecs of sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudioCodec {
    /// AAC-LC.
    Aac,
    /// Opus.
    Opus,
    /// The source's own, which has to be AAC, as it is: beside pictures that are copied.
    Copy,
}

impl AudioCodec {
    /// FFmpeg's name of its encoder, or for what it does in place of one; the config uses it too.
    pub fn encoder(self) -> &'static str {
        match self {
            Self::Aac => "aac",
            Self::Opus => "libopus",
            Self::Copy => defaults::COPY,
        }
    }

    /// FFmpeg's encoder that has to be there for it; none for what is copied.
    pub fn needed(self) -> Option<String> {
        (self != Self::Copy).then(|| self.encoder().to_owned())
    }
}

impl AudioPlan {
    /// Makes a source that is a file's path one from the folder of the config.
    pub(super) fn resolve(&mut self, folder: &Path) {
        if let AudioInput::Own(source) = &mut self.source
            && let Ok(SourceInput::File(file)) = SourceInput::of(&source.input, &source.input_args)
            && let Some(path) = folder.join(file).to_str()
        {
            source.input = path.to_owned();
        }
    }

    /// Its own source, as people may see it; none for what comes with the pictures.
    pub fn shown(&self) -> Option<String> {
        match &self.source {
            AudioInput::Own(source) => Some(source.shown()),
            AudioInput::Pictures => None,
            AudioInput::Producer => Some("a producer".to_owned()),
        }
    }
}

impl AudioSource {
    /// As people may see it: a URL without passwords and without its query.
    pub(crate) fn shown(&self) -> String {
        source::without(&self.secrets(), &self.input)
    }

    /// What of it nobody but FFmpeg may see, each with what is shown instead.
    pub(crate) fn secrets(&self) -> Vec<(String, &'static str)> {
        match self.input.contains("://") {
            true => source::secrets(&self.input),
            false => Vec::new(),
        }
    }

    /// Whether it is a URL of what mostly is a file elsewhere, which comes as fast as it is taken.
    pub(crate) fn is_download(&self) -> bool {
        const SCHEMES: [&str; 6] = ["http", "https", "ftp", "ftps", "sftp", "smb"];
        let scheme = self.input.split_once("://").map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| SCHEMES.iter().any(|one| scheme.eq_ignore_ascii_case(one)))
    }

    /// Whether it is a file that is there.
    pub(crate) fn is_file(&self) -> bool {
        Path::new(&self.input).is_file()
    }
}

/// Checks the table `audio` of a stream whose renditions are `video`, copied or not. Returns the encoders that have to be there too, and where they stand.
pub(super) fn check(
    value: Option<Spanned<DeValue<'_>>>,
    video: &[RenditionPlan],
    has_source: bool,
    report: &mut Report,
) -> (Option<AudioPlan>, Vec<(String, Offset)>) {
    let Some(value) = value else {
        return (None, Vec::new());
    };
    let copied = video.iter().any(|one| one.codec == defaults::COPY);
    let is_table = matches!(value.get_ref(), DeValue::Table(_));
    let (mut table, at) = table::as_table("[streams.NAME.audio]", value, report);
    if !is_table {
        return (None, Vec::new());
    }
    let renditions = table.remove("renditions");
    let section = table::read::<Audio>("[streams.NAME.audio]", table, at, report);
    if !section.has("source") {
        check_without_source(&section, has_source, report);
    }
    let input_args = check_arguments(&section, report);
    let is_fed = is_fed(&section, report);
    if copied && let Some(own) = &section.values.source {
        let what = "beside copied pictures there is only the sound of their own source";
        let mend = "take source out of audio, or name an encoder in codec of the pictures";
        report.error(own.span().start, what, mend);
    }
    let Audio { source, r#loop, .. } = section.values;
    let (renditions, codecs) = check_renditions(renditions, at, video, report);
    let source = match source {
        Some(_) if is_fed => AudioInput::Producer,
        Some(source) => AudioInput::Own(AudioSource {
            input: source.into_inner().0.0,
            input_args,
            repeat: r#loop.map_or(defaults::AUDIO_LOOP, |flag| flag.into_inner().0.0),
        }),
        None => AudioInput::Pictures,
    };
    (Some(AudioPlan { source, renditions }), codecs)
}

/// Without a source of its own, sound is what the stream's source carries.
fn check_without_source(section: &Section<Audio>, has_source: bool, report: &mut Report) {
    if !has_source {
        let what = "audio has no source, and neither has the stream";
        let mend =
            "add source = \"music.ogg\", a URL, a device with its input_args, or \"producer\"";
        return report.error(section.at, what, mend);
    }
    let Audio {
        input_args, r#loop, ..
    } = &section.values;
    let input_args = input_args.as_ref().map(|list| ("input_args", list.span()));
    let lone = [
        input_args,
        r#loop.as_ref().map(|flag| ("loop", flag.span())),
    ];
    for (key, span) in lone.into_iter().flatten() {
        let what = format!("{key} of audio does nothing: the sound is that of the stream's source");
        report.warning(span.start, what, "take it out, or give audio a source");
    }
}

/// Whether a producer feeds it; then there is nothing that an FFmpeg would have to be told.
fn is_fed(section: &Section<Audio>, report: &mut Report) -> bool {
    let Audio {
        source,
        input_args,
        r#loop,
    } = &section.values;
    let is_fed = source
        .as_ref()
        .is_some_and(|source| source.get_ref().0.0 == PRODUCER);
    let useless = [
        ("input_args", input_args.as_ref().map(Spanned::span)),
        ("loop", r#loop.as_ref().map(Spanned::span)),
    ];
    for (key, span) in useless {
        if let Some(span) = span.filter(|_| is_fed) {
            let what = format!("{key} is for what FFmpeg reads, and this sound is a producer's");
            let mend = "take it out; a file that is called so is written \"./producer\"";
            report.error(span.start, what, mend);
        }
    }
    is_fed
}

fn check_arguments(section: &Section<Audio>, report: &mut Report) -> Vec<String> {
    let Some(list) = &section.values.input_args else {
        return Vec::new();
    };
    let at = list.span().start;
    let words: Vec<String> = list
        .get_ref()
        .iter()
        .map(|word| word.get_ref().0.0.clone())
        .collect();
    if words.len() > MAX_ARGUMENTS {
        let what = format!("input_args has {} words", words.len());
        report.error(at, what, format!("write at most {MAX_ARGUMENTS}"));
    }
    for word in &words {
        if let Some(why) = source::why_owned(word) {
            let what = format!("input_args can't have {word:?}: {why}");
            report.error(at, what, "take it out");
        }
    }
    words
}

fn check_renditions(
    renditions: Option<Spanned<DeValue<'_>>>,
    at: Offset,
    video: &[RenditionPlan],
    report: &mut Report,
) -> (Vec<AudioRenditionPlan>, Vec<(String, Offset)>) {
    let items = match renditions {
        None => {
            let only = AudioRenditionPlan {
                name: defaults::AUDIO_RENDITION.into(),
                codec: default_codec(video),
                bitrate: defaults::AUDIO_BITRATE,
            };
            check_free(&only.name, at, video, &[], report);
            let codecs = only.codec.needed().map(|codec| (codec, at));
            return (vec![only], codecs.into_iter().collect());
        }
        Some(value) => match table::as_list("[[streams.NAME.audio.renditions]]", value, report) {
            Some(items) => items,
            None => return (Vec::new(), Vec::new()),
        },
    };
    if items.is_empty() {
        let mend = "leave it out for one rendition named audio";
        report.error(at, "the audio's renditions are empty", mend);
    }
    if items.len() > MAX_RENDITIONS {
        let what = format!("the audio has more than {MAX_RENDITIONS} renditions");
        report.error(at, what, "remove some");
    }
    let mut plans = Vec::new();
    let mut codecs = Vec::new();
    for item in items.into_iter().take(MAX_RENDITIONS) {
        let (table, at) = table::as_table("an audio rendition", item, report);
        let section = table::read::<AudioRendition>("an audio rendition", table, at, report);
        let name = check_name(&section, video, &plans, report);
        let (codec, codec_at) = check_codec(&section, video, report);
        codecs.extend(codec.needed().map(|codec| (codec, codec_at)));
        let bitrate = check_bitrate(codec, &section, report);
        plans.push(AudioRenditionPlan {
            name,
            codec,
            bitrate,
        });
    }
    (plans, codecs)
}

fn check_name(
    section: &Section<AudioRendition>,
    video: &[RenditionPlan],
    before: &[AudioRenditionPlan],
    report: &mut Report,
) -> String {
    let Some(entry) = &section.values.name else {
        if !section.has("name") {
            let mend = "add name = \"audio\", or the like: it is the folder's name";
            report.error(section.at, "an audio rendition has no name", mend);
        }
        return String::new();
    };
    let (name, at) = (&entry.get_ref().0.0, entry.span().start);
    stream::check_name("audio rendition", name, at, report);
    check_free(name, at, video, before, report);
    name.clone()
}

/// Without regard to case, as some file systems compare names.
fn check_free(
    name: &str,
    at: Offset,
    video: &[RenditionPlan],
    before: &[AudioRenditionPlan],
    report: &mut Report,
) {
    let video = video.iter().map(|other| &other.name);
    let mut others = video.chain(before.iter().map(|other| &other.name));
    if others.any(|other| other.eq_ignore_ascii_case(name)) {
        let what = format!("the stream has two renditions named {name:?}");
        report.error(at, what, "rename one of them: each has a folder of its own");
    }
}

/// What becomes of sound if nothing is said: it is copied where the pictures are.
fn default_codec(video: &[RenditionPlan]) -> AudioCodec {
    match video.iter().any(|one| one.codec == defaults::COPY) {
        true => AudioCodec::Copy,
        false => defaults::AUDIO_CODEC,
    }
}

fn check_codec(
    section: &Section<AudioRendition>,
    video: &[RenditionPlan],
    report: &mut Report,
) -> (AudioCodec, Offset) {
    let default = default_codec(video);
    let Some(entry) = &section.values.codec else {
        return (default, section.at);
    };
    let (codec, at) = (entry.get_ref().0.0.as_str(), entry.span().start);
    let known = [AudioCodec::Aac, AudioCodec::Opus, AudioCodec::Copy];
    match known.into_iter().find(|known| known.encoder() == codec) {
        Some(AudioCodec::Copy) if default != AudioCodec::Copy => {
            let what = "sound can be copied only beside pictures that are";
            let mend = "write \"aac\" or \"libopus\", or codec = \"copy\" for the pictures, too";
            report.error(at, what, mend);
            (defaults::AUDIO_CODEC, at)
        }
        Some(codec) => (codec, at),
        None => {
            let what = format!("codec {codec:?} is no encoder of sound that can be published");
            let mend = "write \"aac\" or \"libopus\", or beside copied pictures \"copy\"";
            report.error(at, what, mend);
            (defaults::AUDIO_CODEC, at)
        }
    }
}

fn check_bitrate(codec: AudioCodec, section: &Section<AudioRendition>, report: &mut Report) -> u64 {
    let Some(entry) = &section.values.bitrate else {
        return defaults::AUDIO_BITRATE;
    };
    if codec == AudioCodec::Copy {
        let what = "sound that is copied has the source's bitrate";
        let mend = "take bitrate out, or write codec = \"aac\"";
        report.error(entry.span().start, what, mend);
    }
    let bits = entry.get_ref().0.0;
    if bits > MAX_BITRATE {
        let what = format!("an audio bitrate of {bits} is too high");
        report.error(entry.span().start, what, "write \"16k\" to \"512k\"");
    }
    bits
}
