//! Who may watch a stream: everybody, or whoever has one of its tokens or a pass. A pass is a text that a key of the stream has signed and that
//! expires; any program that knows the key can make one ([`signed_text`]). Pure.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::tick::UnixTime;

/// The shortest and the longest token or key, in bytes.
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 20..=256;
/// What a token or key is, for whoever has to write one.
pub const SECRET: &str =
    "20 to 256 letters, digits or signs without spaces, as `openssl rand -hex 32` prints them";
/// A signature in hexadecimal.
const SIGNATURE_DIGITS: usize = 64;
/// The most digits of a time in seconds.
const TIME_DIGITS: usize = 12;

type Signer = Hmac<Sha256>;

/// A token or a key. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// `text`, if it is fit for a header and too long to be guessed; see [`SECRET`].
    pub fn new(text: &str) -> Option<Self> {
        let fits = SECRET_BYTES.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(text.to_owned()))
    }

    fn sign(&self, text: &[u8]) -> Signer {
        let signer = Signer::new_from_slice(self.0.as_bytes());
        signer
            .expect("HMAC takes keys of any length")
            .chain_update(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Who may watch a stream; by default, everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Whether a token or a pass is needed. If so and there are no tokens and no keys, nobody may watch.
    pub guarded: bool,
    /// Each opens the stream for as long as it stands in the config.
    pub tokens: Vec<Secret>,
    /// What signs passes: the first one new ones, and any of them those that are shown.
    pub keys: Vec<Secret>,
}

/// What the key of a pass for `stream` signs with HMAC-SHA256. The pass is then `{expires}-{signature}`, the signature in lower-case hexadecimal, and
/// `expires` the Unix time in whole seconds from which on it is good no longer.
pub fn signed_text(stream: &str, expires: u64) -> String {
    format!("ringgear:{stream}:{expires}")
}

impl Access {
    /// Whether `shown` is one of the tokens. How long that takes says nothing of them.
    pub fn admits_token(&self, shown: &str) -> bool {
        if !SECRET_BYTES.contains(&shown.len()) {
            return false;
        }
        let shown = Secret(shown.to_owned());
        self.tokens.iter().fold(false, |admitted, token| {
            // Keyed digests of the same text are alike where the keys are.
            let own = token.sign(b"ringgear token").finalize().into_bytes();
            shown.sign(b"ringgear token").verify(&own).is_ok() | admitted
        })
    }

    /// When the pass `shown` for `stream` expires, in Unix seconds; none if nobody here has signed it, or it has expired at `now`.
    pub fn admits_pass(&self, stream: &str, shown: &str, now: UnixTime) -> Option<u64> {
        let (expires, signature) = shown.split_once('-')?;
        let digits = expires.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || expires.starts_with('0') || expires.len() > TIME_DIGITS {
            return None;
        }
        let expires: u64 = expires.parse().ok()?;
        let signature = bytes_of(signature)?;
        let text = signed_text(stream, expires);
        let admitted = self.keys.iter().fold(false, |admitted, key| {
            let verified = key.sign(text.as_bytes()).verify_slice(&signature);
            verified.is_ok() | admitted
        });
        (admitted && now.as_nanos() / 1_000_000_000 < expires).then_some(expires)
    }

    /// A pass for `stream` until `expires`, in Unix seconds; none without a key.
    pub fn sign(&self, stream: &str, expires: u64) -> Option<String> {
        let text = signed_text(stream, expires);
        let signature = self.keys.first()?.sign(text.as_bytes()).finalize();
        let digits = |byte: &u8| format!("{byte:02x}");
        let signature: String = signature.into_bytes().iter().map(digits).collect();
        Some(format!("{expires}-{signature}"))
    }
}

/// A signature's bytes; of each there is one way to write it.
fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let pairs = digits.as_bytes().chunks_exact(2);
    let bytes = pairs.map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?));
    (digits.len() == SIGNATURE_DIGITS).then(|| bytes.collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn secret(text: &str) -> Secret {
        Secret::new(text).unwrap()
    }

    fn signed_by(keys: &[&str]) -> Access {
        Access {
            guarded: true,
            keys: keys.iter().map(|key| secret(key)).collect(),
            ..Access::default()
        }
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_pass_is_what_any_other_program_would_make_of_the_documented_text() {
        // printf ringgear:door:1800000000 | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let pass = signed_by(&[KEY]).sign("door", 1_800_000_000);
        let signature = "5647b264cfda9bb2aecca03c91cba7a7c1bb4b44b03c177ead9e7bad4f027577";
        assert_eq!(pass, Some(format!("1800000000-{signature}")));
    }

    #[test]
    fn a_pass_opens_its_own_stream_until_it_expires_whichever_key_has_signed_it() {
        let access = signed_by(&["another-key-of-the-stream", KEY]);
        let pass = signed_by(&[KEY]).sign("door", 2000).unwrap();
        assert_eq!(access.admits_pass("door", &pass, at(1999)), Some(2000));
        assert_eq!(access.admits_pass("door", &pass, at(2000)), None);
        assert_eq!(access.admits_pass("gate", &pass, at(1000)), None);
        assert_eq!(Access::default().admits_pass("door", &pass, at(0)), None);
        let (expires, signature) = pass.split_once('-').unwrap();
        for forged in [
            String::new(),
            "-".to_owned(),
            format!("3000-{signature}"),
            format!("0{expires}-{signature}"),
            format!("+{expires}-{signature}"),
            format!("{expires}-{}", signature.to_uppercase()),
            format!("{expires}-{}", &signature[1..]),
            format!("{expires}-{signature}00"),
            format!("{expires}-{}", "0".repeat(64)),
            format!("{expires}-{}", "\u{e9}".repeat(32)),
            format!("99999999999999999999-{signature}"),
        ] {
            assert_eq!(access.admits_pass("door", &forged, at(0)), None, "{forged}");
        }
    }

    #[test]
    fn a_token_is_known_whole_or_not_at_all_and_is_never_shown() {
        let access = Access {
            guarded: true,
            tokens: vec![secret("a-token-that-nobody-guesses"), secret(KEY)],
            ..Access::default()
        };
        assert!(access.admits_token(KEY));
        assert!(access.admits_token("a-token-that-nobody-guesses"));
        for wrong in ["", &KEY[1..], &format!("{KEY}0"), &KEY.to_uppercase()] {
            assert!(!access.admits_token(wrong), "{wrong}");
        }
        assert!(!signed_by(&[KEY]).admits_token(KEY), "a key is no token");
        assert!(!format!("{access:?}").contains("nobody"));
    }

    #[test]
    fn a_secret_is_long_and_of_visible_signs() {
        for (text, good) in [
            (KEY, true),
            ("too-short", false),
            ("spaces are not for headers", false),
            ("\u{fc}ber-langes-geheimnis-hier", false),
        ] {
            assert_eq!(Secret::new(text).is_some(), good, "{text}");
        }
        assert!(Secret::new(&"x".repeat(257)).is_none());
    }
}
