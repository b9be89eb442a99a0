use super::*;

/// The daemon's own user.
const OWN: u32 = 5000;

fn accounts(change: impl FnOnce(&mut Limits)) -> Arc<Accounts> {
    let mut limits = Limits::default();
    change(&mut limits);
    let mut accounts = Arc::into_inner(Accounts::new(limits)).unwrap();
    accounts.own_uid = OWN;
    Arc::new(accounts)
}

#[test]
fn what_is_dropped_can_be_had_again_and_users_do_not_pay_for_each_other() {
    let accounts = accounts(|limits| {
        (limits.connections, limits.connections_per_user) = (8, 2);
    });
    let first = accounts.connection(1).unwrap();
    let _second = accounts.connection(1).unwrap();
    let refused = accounts.connection(1).unwrap_err();
    assert_eq!(refused, LimitError::UserConnections { uid: 1, limit: 2 });
    let _other = accounts.connection(2).unwrap();
    drop(first);
    let later = Instant::now() + Duration::from_secs(1);
    let _again = accounts.connection_at(1, later).unwrap();
    let refused = accounts.connection(1).unwrap_err();
    assert_eq!(refused, LimitError::UserConnections { uid: 1, limit: 2 });
}

#[test]
fn hoarders_leave_connections_for_users_who_have_few_and_those_for_who_administers() {
    let accounts = accounts(|_| {});
    let mut held = Vec::new();
    // Two users whose limits would be all there is.
    for uid in [1, 2] {
        while let Ok(hold) = accounts.connection(uid) {
            held.push(hold);
        }
    }
    assert_eq!(held.len(), 224);
    let refused = accounts.connection(2).unwrap_err();
    let (open, limit) = (224, 256);
    assert_eq!(refused, LimitError::Connections { open, limit });
    // However many users come, each with a few, the last ones are kept for root and the daemon's own user.
    for uid in 100..200 {
        held.extend(std::iter::from_fn(|| accounts.connection(uid).ok()).take(2));
    }
    assert_eq!(held.len(), 240);
    for uid in [0, OWN] {
        held.extend((0..8).map(|_| accounts.connection(uid).unwrap()));
    }
    let refused = accounts.connection(0).unwrap_err();
    assert!(matches!(refused, LimitError::Connections { open: 256, .. }));
}

#[test]
fn who_connects_too_fast_is_refused_and_who_administers_or_comes_slowly_is_not() {
    let accounts = accounts(|limits| {
        (limits.connections_per_second, limits.connections_per_user) = (10, 5);
    });
    let now = Instant::now();
    let connects = |uid, at: u64| {
        let now = now + Duration::from_millis(at);
        accounts.connection_at(uid, now).map(drop)
    };
    assert!((0..5).all(|_| connects(1, 0).is_ok()));
    let refused = connects(1, 0).unwrap_err();
    let (uid, limit) = (1, 10);
    assert_eq!(refused, LimitError::ConnectionsTooFast { uid, limit });
    assert!(connects(2, 0).is_ok(), "another user does not wait for it");
    assert!((0..1000).all(|_| connects(0, 0).is_ok() && connects(OWN, 0).is_ok()));
    assert!(connects(1, 100).is_ok() && connects(1, 100).is_err());
}

#[test]
fn memory_is_bounded_per_session_user_and_in_all() {
    let accounts = accounts(|limits| {
        (
            limits.memory_per_session,
            limits.memory_per_user,
            limits.memory,
        ) = (100, 150, 220);
    });
    let refused = accounts.session(1, 101).unwrap_err();
    assert_eq!(
        refused,
        LimitError::SessionMemory {
            bytes: 101,
            limit: 100
        }
    );
    let first = accounts.session(1, 100).unwrap();
    let refused = accounts.session(1, 51).unwrap_err();
    assert_eq!(
        refused,
        LimitError::UserMemory {
            uid: 1,
            bytes: 151,
            limit: 150
        }
    );
    let _second = accounts.session(2, 100).unwrap();
    // The last of it is kept for those who administer.
    let refused = accounts.session(3, 8).unwrap_err();
    let (bytes, limit) = (208, 220);
    assert_eq!(refused, LimitError::Memory { bytes, limit });
    let _last = accounts.session(0, 20).unwrap();
    let refused = accounts.session(0, 1).unwrap_err();
    let (bytes, limit) = (221, 220);
    assert_eq!(refused, LimitError::Memory { bytes, limit });
    drop(first);
    accounts.session(3, 80).unwrap();
    let refused = accounts.session(3, u64::MAX).unwrap_err();
    assert!(matches!(refused, LimitError::SessionMemory { .. }));
}

#[test]
fn sessions_are_bounded_in_number_and_pace_and_a_refusal_costs_nothing() {
    let accounts = accounts(|limits| {
        (limits.sessions_per_user, limits.sessions_per_second) = (2, 1);
    });
    let now = Instant::now();
    let _held = accounts.session_at(1, 1, now).unwrap();
    drop(accounts.session_at(1, 1, now).unwrap());
    let refused = accounts.session_at(1, 1, now).unwrap_err();
    assert_eq!(refused, LimitError::SessionsTooFast { uid: 1, limit: 1 });
    accounts.session_at(2, 1, now).unwrap();
    let later = now + Duration::from_secs(1);
    let _held_too = accounts.session_at(1, 1, later).unwrap();
    let much_later = now + Duration::from_secs(9);
    let refused = accounts.session_at(1, 1, much_later).unwrap_err();
    assert_eq!(refused, LimitError::UserSessions { uid: 1, limit: 2 });
}

#[test]
fn large_rings_count_as_several_sessions() {
    let accounts = accounts(|limits| {
        (limits.sessions_per_user, limits.sessions_per_second) = (1, 10);
    });
    let now = Instant::now();
    let begins = |at: u64, bytes| {
        let now = now + Duration::from_millis(at);
        accounts.session_at(1, bytes, now).map(drop)
    };
    begins(0, 8 * RING_UNIT).unwrap();
    let refused = begins(799, 1).unwrap_err();
    let (uid, limit) = (1, 10);
    assert_eq!(refused, LimitError::SessionsTooFast { uid, limit });
    begins(800, RING_UNIT).unwrap();
    begins(900, 1).unwrap();
}

#[test]
fn what_a_user_repeats_is_logged_now_and_then_with_a_count() {
    let accounts = accounts(|limits| limits.sessions_per_user = 4);
    let start = Instant::now();
    // Twenty times a second for a minute.
    let said: Vec<u64> = (0..1200)
        .filter_map(|nth| accounts.may_log_at(1, start + Duration::from_millis(50 * nth)))
        .collect();
    assert_eq!(said.len(), 4 + 19, "{said:?}");
    assert_eq!(said[..5], [0, 0, 0, 0, 56], "{said:?}");
    assert!(said[5..].iter().all(|&unlogged| unlogged == 59), "{said:?}");
    assert_eq!(accounts.may_log_at(2, start), Some(0), "another user");
}

#[test]
fn users_who_hold_nothing_are_forgotten() {
    let accounts = accounts(|_| {});
    let _held = accounts.connection(0).unwrap();
    for uid in 1..10_000 {
        accounts.connection(uid).unwrap();
    }
    let books = accounts.books();
    assert!(books.users.len() <= USERS_KEPT);
    assert_eq!((books.connections, books.users[&0].connections), (1, 1));
}
