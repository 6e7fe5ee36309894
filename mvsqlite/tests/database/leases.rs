//! Write leases of one namespace, as the store grants them: first come, first served. No time passes
//! here; a lease ends, and places are forgotten, when a test says so.

#![allow(unreachable_pub, reason = "the tests of the VFS use it too")]

use mvsqlite_protocol::v2::{Concurrency, LeaseAction, LeaseReply, LeaseRequest};
use mvsqlite_protocol::{Code, LeaseNonce, Problem, ReadVersion, Version};

pub struct Leases {
    pub mode: Concurrency,
    pub holder: Option<LeaseNonce>,
    pub queue: Vec<LeaseNonce>,
    pub ttl_millis: u64,
    /// How often a lease was renewed.
    pub renewed: u32,
}

impl Default for Leases {
    fn default() -> Self {
        Self {
            mode: Concurrency::Optimistic,
            holder: None,
            queue: Vec::new(),
            ttl_millis: 60_000,
            renewed: 0,
        }
    }
}

fn locked() -> Problem {
    Problem::new(Code::Locked, "another has the write lease")
}

impl Leases {
    pub fn answer(
        &mut self,
        request: &LeaseRequest,
        head: Version,
        read_version: ReadVersion,
    ) -> Result<LeaseReply, Problem> {
        let granted = LeaseReply::Granted {
            ttl_millis: self.ttl_millis,
            head,
            read_version,
        };
        let nonce = request.nonce;
        match request.action {
            LeaseAction::Acquire { .. } => {
                if !self.queue.contains(&nonce) {
                    self.queue.push(nonce);
                }
                let is_next = self.queue[0] == nonce && self.holder.is_none();
                if self.holder == Some(nonce) || is_next {
                    self.queue.retain(|other| *other != nonce);
                    self.holder = Some(nonce);
                    return Ok(granted);
                }
                Ok(LeaseReply::Busy {
                    place: 1,
                    retry_millis: 1,
                    place_millis: 60_000,
                })
            }
            LeaseAction::Renew if self.holder == Some(nonce) => {
                self.renewed += 1;
                Ok(granted)
            }
            LeaseAction::Renew => Err(locked()),
            LeaseAction::Release { .. } => {
                self.queue.retain(|other| *other != nonce);
                self.holder = self.holder.filter(|holder| *holder != nonce);
                Ok(LeaseReply::Released)
            }
        }
    }

    /// Whether a commit with this lease is let in.
    pub fn judge(&self, brought: Option<LeaseNonce>) -> Result<(), Problem> {
        let exclusive = self.mode == Concurrency::Exclusive;
        match brought {
            Some(_) if brought == self.holder => Ok(()),
            None if self.holder.is_none() && !exclusive => Ok(()),
            _ => Err(locked()),
        }
    }

    /// The commit was made, and gives the lease back.
    pub fn committed(&mut self, brought: Option<LeaseNonce>) {
        if brought.is_some() {
            self.holder = None;
        }
    }
}
