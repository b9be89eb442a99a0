//! Who may feed a stream: `allow_users` and `allow_groups`, names resolved by the system's own databases.

use std::fmt;

use nix::unistd::{Group, Uid, User};
use toml::Spanned;

use super::error::Report;
use super::sections::Stream;
use super::value::{Kind, Read, Refused};

/// How many users, and how many groups, a stream may name.
const MOST: usize = 64;

/// The users and groups that may feed a stream. Both empty: whoever may use the control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feeders {
    /// The users.
    pub users: Vec<Account>,
    /// The groups, one of which the producer has to be in.
    pub groups: Vec<Account>,
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its uid or gid.
    pub id: u32,
    /// Its name, if the config names it so.
    pub name: Option<String>,
}

impl Feeders {
    /// Whether a process of user `uid`, whose groups are `groups`, may feed the stream.
    pub fn include(&self, uid: u32, mut groups: impl Iterator<Item = u32>) -> bool {
        self.is_everyone()
            || self.users.iter().any(|user| user.id == uid)
            || groups.any(|gid| self.groups.iter().any(|group| group.id == gid))
    }

    /// Whether the config names nobody.
    pub fn is_everyone(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }
}

impl fmt::Display for Feeders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_everyone() {
            return f.write_str("whoever may use the control socket");
        }
        let (mut between, mut kind) = ("", "");
        let users = self.users.iter().map(|user| ("user", user));
        let groups = self.groups.iter().map(|group| ("group", group));
        for (this, account) in users.chain(groups) {
            f.write_str(between)?;
            if this != kind {
                write!(f, "{this} ")?;
            }
            account.fmt(f)?;
            (between, kind) = (", ", this);
        }
        Ok(())
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.id),
            None => self.id.fmt(f),
        }
    }
}

/// The name of user `uid`, if it has one.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    Some(User::from_uid(Uid::from_raw(uid)).ok()??.name)
}

/// An account as the config writes it.
#[derive(Clone, Debug)]
pub(super) enum Written {
    Name(String),
    Id(u32),
}

impl Kind for Written {
    fn write() -> String {
        "a name in quotes, or a number from 0 to 4294967294 without".into()
    }

    fn from_text(text: &str) -> Result<Self, Refused> {
        if text.is_empty() {
            return Err(Refused::Value);
        }
        Ok(Self::Name(text.to_owned()))
    }

    fn from_whole(number: i64) -> Result<Self, Refused> {
        match u32::try_from(number) {
            // The last is what the kernel calls nobody at all.
            Ok(id) if id < u32::MAX => Ok(Self::Id(id)),
            _ => Err(Refused::Value),
        }
    }
}

/// A list as the config has it.
pub(super) type List = Option<Spanned<Vec<Spanned<Read<Written>>>>>;

/// Checks a stream's two lists.
pub(super) fn check(stream: &Stream, report: &mut Report) -> Feeders {
    let user = |name: &str| Ok(User::from_name(name)?.map(|user| user.uid.as_raw()));
    let group = |name: &str| Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()));
    Feeders {
        users: resolve("user", &stream.allow_users, user, report),
        groups: resolve("group", &stream.allow_groups, group, report),
    }
}

fn resolve(
    kind: &str,
    list: &List,
    find: impl Fn(&str) -> nix::Result<Option<u32>>,
    report: &mut Report,
) -> Vec<Account> {
    let Some(list) = list else { return Vec::new() };
    let at = list.span().start;
    if list.get_ref().is_empty() {
        let mend = format!("list {kind}s, or leave it out to let in whoever may use the socket");
        report.error(at, format!("allow_{kind}s is empty"), mend);
    }
    if list.get_ref().len() > MOST {
        let what = format!("allow_{kind}s lists more than {MOST} {kind}s");
        report.error(at, what, "list a group that they are all in");
        return Vec::new();
    }
    let mut accounts = Vec::new();
    for entry in list.get_ref() {
        let name = match &entry.get_ref().0 {
            Written::Id(id) => {
                accounts.push(Account {
                    id: *id,
                    name: None,
                });
                continue;
            }
            Written::Name(name) => name,
        };
        let shown: String = name.chars().take(MOST).collect();
        match find(name) {
            Ok(Some(id)) => accounts.push(Account {
                id,
                name: Some(name.clone()),
            }),
            Ok(None) if name.bytes().all(|byte| byte.is_ascii_digit()) => {
                let what = format!("there is no {kind} named {shown:?}");
                report.error(entry.span().start, what, "write a number without quotes");
            }
            Ok(None) => {
                let what = format!("there is no {kind} named {shown:?}");
                let mend = format!("create it with {kind}add, or name another");
                report.error(entry.span().start, what, mend);
            }
            Err(error) => {
                let what = format!("{kind} {shown:?} can't be looked up: {}", error.desc());
                let mend = "write its number, or mend the system's user database";
                report.error(entry.span().start, what, mend);
            }
        }
    }
    accounts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(id: u32, name: Option<&str>) -> Account {
        let name = name.map(Into::into);
        Account { id, name }
    }

    #[test]
    fn a_producer_needs_its_user_or_one_of_its_groups_listed() {
        let nobody = [].into_iter();
        let everyone = Feeders::default();
        assert!(everyone.include(7, nobody.clone()));
        let feeders = Feeders {
            users: vec![account(1000, Some("cam")), account(1001, None)],
            groups: vec![account(44, Some("video"))],
        };
        assert!(feeders.include(1001, nobody.clone()));
        assert!(feeders.include(7, [3, 44].into_iter()));
        assert!(!feeders.include(44, [1000, 1001].into_iter()));
        assert!(!feeders.include(0, [0].into_iter()), "root is no exception");
        assert_eq!(
            feeders.to_string(),
            "user cam (1000), 1001, group video (44)"
        );
    }
}
