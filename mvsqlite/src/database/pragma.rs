//! Pragmas that SQLite asks the file about before it acts on them itself.

use std::time::Duration;

use mvsqlite_protocol::page::MAX_PAGE_SIZE;

use super::{DatabaseFile, Pragma};
use crate::config::MOST_STALENESS;

/// For messages.
const OURS: &str = "mvsqlite_version, mvsqlite_namespace, mvsqlite_id, mvsqlite_staleness, \
                    mvsqlite_cache and mvsqlite_last_error";

impl DatabaseFile {
    /// `SQLITE_FCNTL_PRAGMA`. `name` in any case; `value` as given, without quotes.
    ///
    /// - `journal_mode`: always `delete`, whatever is asked: the journal is private, and WAL has no
    ///   meaning here;
    /// - `synchronous`: stays as it is, since it decides whether SQLite makes a super-journal;
    ///   every commit is durable, which is FULL and what the answer says;
    /// - `locking_mode=EXCLUSIVE`: refused, because others would not be kept out;
    /// - `mmap_size`: 0;
    /// - `page_size`: 65,536 is refused;
    /// - `mvsqlite_version`: the version that the open transaction reads, or the last known one;
    /// - `mvsqlite_namespace`: the namespace's key;
    /// - `mvsqlite_id`: the store's incarnation and the namespace's id;
    /// - `mvsqlite_staleness[=N]`: how old a snapshot may be that a transaction begins at, in
    ///   milliseconds;
    /// - `mvsqlite_cache`: what the process's page cache holds, as JSON;
    /// - `mvsqlite_last_error`: the whole text of this database's last failure.
    pub fn pragma(&mut self, name: &str, value: Option<&str>) -> Pragma {
        match name.to_ascii_lowercase().as_str() {
            "journal_mode" => answer("delete"),
            "synchronous" => match value {
                Some(_) => answer("2"),
                None => Pragma::NotOurs,
            },
            "locking_mode" => locking_mode(value),
            "mmap_size" => answer("0"),
            "page_size" => self.ask_page_size(value),
            "mvsqlite_version" => {
                Pragma::Answer(self.current_version().map(|version| version.to_string()))
            }
            "mvsqlite_namespace" => answer(self.name.namespace.as_str()),
            "mvsqlite_id" => answer(&format!(
                "{}/{}",
                self.identity.incarnation, self.identity.namespace
            )),
            "mvsqlite_staleness" => self.staleness(value),
            "mvsqlite_cache" => answer(&self.remote.env.shared().cache_statistics()),
            "mvsqlite_last_error" => Pragma::Answer(self.last_error.clone()),
            unknown if unknown.starts_with("mvsqlite_") => {
                Pragma::Refused(format!("there is no pragma {unknown}; there are {OURS}"))
            }
            _ => Pragma::NotOurs,
        }
    }

    /// Answers what is in force then.
    fn staleness(&mut self, value: Option<&str>) -> Pragma {
        if let Some(value) = value {
            let Some(millis) = value.trim().parse().ok().filter(|n| *n <= MOST_STALENESS) else {
                return Pragma::Refused(format!(
                    "mvsqlite_staleness='{value}': expected milliseconds, from 0 to {MOST_STALENESS}"
                ));
            };
            self.staleness = Duration::from_millis(millis);
        }
        answer(&self.staleness.as_millis().to_string())
    }

    /// Remembers what was asked for: a later VACUUM would do it.
    fn ask_page_size(&mut self, value: Option<&str>) -> Pragma {
        let Some(asked) = value.and_then(|value| value.trim().parse::<u32>().ok()) else {
            return Pragma::NotOurs;
        };
        if asked.is_power_of_two() && asked == MAX_PAGE_SIZE * 2 {
            return Pragma::Refused(format!(
                "a page size of {asked} bytes is not supported, only 512 to {MAX_PAGE_SIZE}"
            ));
        }
        // SQLite ignores other values.
        if asked.is_power_of_two() && (512..=MAX_PAGE_SIZE).contains(&asked) {
            self.asked_page_size = Some(asked);
        }
        Pragma::NotOurs
    }
}

fn answer(text: &str) -> Pragma {
    Pragma::Answer(Some(text.to_owned()))
}

fn locking_mode(value: Option<&str>) -> Pragma {
    match value {
        Some(mode) if mode.eq_ignore_ascii_case("exclusive") => Pragma::Refused(
            "locking_mode=EXCLUSIVE is not supported: other programs would not be kept out; use the default, NORMAL"
                .to_owned(),
        ),
        _ => Pragma::NotOurs,
    }
}
