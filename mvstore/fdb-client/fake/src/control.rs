//! Keys below `\xff\xff/fake/`, by which a test makes things go wrong.
//!
//! A transaction that sets one of them is a command to the stand-in. It takes effect at once when it
//! commits and writes nothing. Values are text:
//!
//! | key | value | effect |
//! |---|---|---|
//! | `commit` | code, then `lost`, `applied` or `in-flight` | the next commit fails with the code, and never happens, or has happened, or happens right after another transaction has committed |
//! | `read` | code | the next read fails with it |
//! | `away` | `1` or `0` | until it is `0` again nothing is answered, and timeouts are over at once |
//! | `skip` | number | that many versions pass |
//! | `page` | number | the most pairs in a reply to a range read |

use std::collections::VecDeque;

use crate::cluster::{CommitRequest, State};
use crate::code;

/// Where the keys lie.
pub(crate) const PREFIX: &[u8] = b"\xff\xff/fake/";

/// What is to go wrong.
pub(crate) struct Faults {
    pub(crate) commits: VecDeque<(i32, Fate)>,
    pub(crate) reads: VecDeque<i32>,
    pub(crate) away: bool,
    pub(crate) page: usize,
    pub(crate) in_flight: Vec<CommitRequest>,
}

/// What becomes of a commit whose reply is an error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost,
    Applied,
    InFlight,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            commits: VecDeque::new(),
            reads: VecDeque::new(),
            away: false,
            // Few enough that ordinary tests read several pages.
            page: 5,
            in_flight: Vec::new(),
        }
    }
}

/// Carries a command out.
pub(crate) fn command(state: &mut State, name: &[u8], value: &[u8]) -> Result<(), i32> {
    run(state, name, value).ok_or(code::CLIENT_INVALID_OPERATION)
}

fn run(state: &mut State, name: &[u8], value: &[u8]) -> Option<()> {
    let value = str::from_utf8(value).ok()?;
    match name {
        b"commit" => {
            let (code, fate) = value.split_once(' ')?;
            let fate = match fate {
                "lost" => Fate::Lost,
                "applied" => Fate::Applied,
                "in-flight" => Fate::InFlight,
                _ => return None,
            };
            state.faults.commits.push_back((code.parse().ok()?, fate));
        }
        b"read" => state.faults.reads.push_back(value.parse().ok()?),
        b"away" => state.faults.away = value == "1",
        b"skip" => state.skip(value.parse().ok()?),
        b"page" => state.faults.page = value.parse().ok()?,
        _ => return None,
    }
    Some(())
}
