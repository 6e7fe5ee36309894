//! Messages on their way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use mvsqlite::client::{Reply, TransportError};
use mvsqlite_protocol::{Code, Problem};
use tokio::select;
use tokio::sync::oneshot;

use super::{NETWORK, Network, World};
use crate::dispatch::{Message, is_first_sending, only_reads, refusal, serve};
use crate::store_node::Running;

type Answer = Result<Reply, TransportError>;

fn failed(maybe_sent: bool, reason: &str) -> TransportError {
    TransportError {
        maybe_sent,
        reason: reason.to_owned(),
    }
}

/// One more thing in flight, until it is dropped.
struct InFlight(Arc<AtomicU64>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl World {
    pub(super) fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is on its way any more, and no store works at anything.
    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
    }

    /// Counts a future as in flight until it has ended or was dropped.
    pub(super) fn counted<F>(&self, work: F) -> impl Future<Output = F::Output> + Send + use<F>
    where
        F: Future + Send + 'static,
    {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let counted = InFlight(Arc::clone(&self.in_flight));
        async move {
            let _counted = counted;
            work.await
        }
    }

    /// A client and a store cannot reach each other until then.
    pub(crate) fn cut(&self, client: u32, server: usize, until: Duration) {
        self.network().cut.insert((client, server), until);
    }

    /// All can reach each other again, and there is room on the disk.
    pub(crate) fn heal(&self) {
        self.network().cut.clear();
        self.engine.set_full(false);
    }

    fn is_cut(&self, client: u32, server: usize) -> bool {
        let until = self.network().cut.get(&(client, server)).copied();
        until.is_some_and(|until| self.scheduler.now() < until)
    }

    /// Whether something of this probability happens now.
    fn strikes(&self, probability: f64) -> bool {
        self.switch.is_on() && self.network().random.chance(probability)
    }

    fn note(&self, client: u32, message: &Message, what: &str) {
        let path = &message.path;
        self.scheduler
            .note(format_args!("{path} of process {client} {what}"));
    }

    async fn travel(&self) {
        let time = match self.strikes(self.plan.faults.network.delayed) {
            true => Duration::from_millis(1)..Duration::from_secs(3),
            false => self.plan.latency.clone(),
        };
        let time = self.network().random.duration(time);
        self.scheduler.sleep(time).await;
    }

    /// Sends a request to a store and waits for the answer, from within a fiber.
    pub(crate) fn call(
        self: &Arc<Self>,
        client: u32,
        server: usize,
        message: Message,
        timeout: Duration,
    ) -> Answer {
        self.statistics().requests += 1;
        let faults = self.plan.faults.network;
        let (reply, answer) = oneshot::channel();
        let lost = self.is_cut(client, server) || self.strikes(faults.request_lost);
        if self.strikes(faults.duplicated) && !is_first_sending(&message) {
            self.statistics().duplicated += 1;
            self.note(client, &message, "is sent twice");
            let (nobody, _) = oneshot::channel();
            self.send(client, server, message.clone(), nobody);
        }
        // Kept, so that nobody answers.
        let _kept = match lost {
            true => {
                self.statistics().lost += 1;
                self.note(client, &message, "gets lost");
                Some(reply)
            }
            false => {
                self.send(client, server, message, reply);
                None
            }
        };
        self.scheduler.block_on(async {
            select! {
                biased;
                answer = answer => answer.unwrap_or_else(|_| Err(failed(true, "the connection broke"))),
                () = self.scheduler.sleep(timeout) => Err(failed(true, "no answer in time")),
            }
        })
    }

    fn send(
        self: &Arc<Self>,
        client: u32,
        server: usize,
        message: Message,
        reply: oneshot::Sender<Answer>,
    ) {
        let name = format!(
            "network: {} from process {client} to store {server}",
            message.path
        );
        let delivery = Arc::clone(self).deliver(client, server, message, reply);
        self.scheduler.spawn(NETWORK, name, self.counted(delivery));
    }

    async fn deliver(
        self: Arc<Self>,
        client: u32,
        server: usize,
        message: Message,
        mut reply: oneshot::Sender<Answer>,
    ) {
        self.travel().await;
        let path = message.path.clone();
        let running = self.nodes.get(server).and_then(|node| node.running());
        let answer = match running {
            None => Err(failed(false, "connection refused")),
            Some(running) => {
                let reads = only_reads(&message.path);
                let served = self.serve(server, running, message);
                select! {
                    biased;
                    answer = served => answer,
                    // A read is given up with its client; a write is not.
                    () = reply.closed(), if reads => return,
                }
            }
        };
        self.travel().await;
        let lost = self.strikes(self.plan.faults.network.reply_lost);
        if lost || self.is_cut(client, server) {
            self.statistics().lost += 1;
            self.scheduler.note(format_args!(
                "the reply to {path} of process {client} gets lost"
            ));
            reply.closed().await;
            return;
        }
        let _ = reply.send(answer);
    }

    /// Has a store work at a request until its time is up, as its HTTP server does: then it answers
    /// that it does not know, and goes on if it writes.
    async fn serve(&self, server: usize, running: Running, message: Message) -> Answer {
        let reads = only_reads(&message.path);
        let late = match message.path.rsplit('/').next() {
            Some("commit" | "settle") => Code::OutcomeUnknown,
            _ => Code::Timeout,
        };
        let (mut done, served) = oneshot::channel();
        let name = format!("store {server}: {}", message.path);
        let work = async move {
            let serving = serve(&running.store, message);
            select! {
                biased;
                reply = serving => { let _ = done.send(reply); }
                () = done.closed(), if reads => {}
            }
        };
        self.scheduler
            .spawn(running.group, name, self.counted(work));
        let breaks = self.strikes(self.plan.faults.network.broken);
        let soon = self.network().random.duration(self.plan.fsync.clone());
        select! {
            biased;
            reply = served => reply.map_err(|_| failed(true, "the connection was reset")),
            () = self.scheduler.sleep(soon), if breaks => Err(failed(true, "the connection broke")),
            () = self.scheduler.sleep(self.plan.request_timeout) => {
                Ok(refusal(&Problem::new(late, "it was not done in time")))
            }
        }
    }
}
