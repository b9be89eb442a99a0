//! `[limits]`: what clients of the control socket may use up, and what the windows may hold.

use super::error::{Offset, Report};
use super::sections;
use super::table::{Entries as _, Section};
use super::{Limits, Plan, defaults};

/// The limits as the file has them, the others by default. A limit that another makes pointless
/// is hardly meant.
pub(super) fn check(section: &Section<sections::Limits>, report: &mut Report) -> Limits {
    let given = &section.values;
    let default = defaults::LIMITS;
    macro_rules! or_default {
        ($key:ident) => {
            given
                .$key
                .as_ref()
                .map_or(default.$key, |entry| entry.get_ref().0.0)
        };
    }
    let limits = Limits {
        connections: or_default!(connections),
        connections_per_user: or_default!(connections_per_user),
        connections_per_second: or_default!(connections_per_second),
        message_bytes: given
            .message_bytes
            .as_ref()
            .and_then(|entry| usize::try_from(entry.get_ref().0.0).ok())
            .unwrap_or(default.message_bytes),
        messages_per_second: or_default!(messages_per_second),
        idle_timeout: or_default!(idle_timeout),
        sessions_per_user: or_default!(sessions_per_user),
        sessions_per_second: or_default!(sessions_per_second),
        frame_pixels: or_default!(frame_pixels),
        memory_per_session: or_default!(memory_per_session),
        memory_per_user: or_default!(memory_per_user),
        memory: or_default!(memory),
        replay_memory: given
            .replay_memory
            .as_ref()
            .map(|entry| entry.get_ref().0.0),
        window_memory: or_default!(window_memory),
        picture_memory: or_default!(picture_memory),
    };
    debug_assert_eq!(
        sections::Limits::keys().len(),
        15,
        "every key is read above"
    );
    let order = [
        (
            "memory_per_session",
            limits.memory_per_session,
            "memory_per_user",
            limits.memory_per_user,
            given
                .memory_per_session
                .as_ref()
                .map(|entry| entry.span().start),
        ),
        (
            "memory_per_user",
            limits.memory_per_user,
            "memory",
            limits.memory,
            given
                .memory_per_user
                .as_ref()
                .map(|entry| entry.span().start),
        ),
        (
            "connections_per_user",
            u64::from(limits.connections_per_user),
            "connections",
            u64::from(limits.connections),
            given
                .connections_per_user
                .as_ref()
                .map(|entry| entry.span().start),
        ),
        (
            "sessions_per_user",
            u64::from(limits.sessions_per_user),
            "connections_per_user",
            u64::from(limits.connections_per_user),
            given
                .sessions_per_user
                .as_ref()
                .map(|entry| entry.span().start),
        ),
    ];
    for (part, part_limit, whole, whole_limit, place) in order {
        if let Some(at) = place
            && part_limit > whole_limit
        {
            let what = format!(
                "{part} is {part_limit}, but {whole} is {whole_limit}, so it is never reached"
            );
            report.warning(at, what, format!("raise {whole} or lower {part}"));
        }
    }
    limits
}

/// Warns when the windows need more memory than they may have, as far as the config tells.
pub(super) fn check_windows(plan: &Plan, at: Offset, report: &mut Report) {
    let needed: u64 = plan
        .streams
        .values()
        .fold(0, |sum, stream| sum.saturating_add(stream.window_bytes()));
    let given = plan.limits.window_memory;
    if needed > given {
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        let what = format!(
            "the windows hold about {} MiB by their lengths and bitrates, but window_memory is {} MiB, so segments go before their time",
            mebibytes(needed),
            mebibytes(given)
        );
        report.warning(
            at,
            what,
            "raise [limits] window_memory, shorten windows or lower bitrates",
        );
    }
}
