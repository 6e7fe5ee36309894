//! One run: the world is made, the workload set up, run and verified.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::faults;
use crate::history::{Log, Recorder};
use crate::outcome::{Failure, Outcome};
use crate::plan::Plan;
use crate::process::Process;
use crate::scheduler::Ended;
use crate::workload::Workload;
use crate::world::World;

/// Runs a workload in the world of a seed. The same arguments give the same outcome.
pub fn simulate(seed: u64, plan: &Plan, workload: &Arc<dyn Workload>) -> Outcome {
    let run = Run {
        world: World::new(seed, plan),
        workload: Arc::clone(workload),
        log: Arc::default(),
    };
    let failure = run.all().err();
    let world = &run.world;
    world.end();
    Outcome {
        trace_hash: world.scheduler.trace_hash(),
        steps: world.scheduler.steps(),
        failure,
        statistics: world.statistics().clone(),
    }
}

struct Run {
    world: Arc<World>,
    workload: Arc<dyn Workload>,
    log: Arc<Log>,
}

impl Run {
    fn all(&self) -> Result<(), Failure> {
        self.world.watch_points();
        for node in &self.world.nodes {
            node.start();
        }
        let (setup, workload) = (self.process(0), Arc::clone(&self.workload));
        let work = move |process: &Process| workload.setup(process);
        self.phase("setting up", vec![(setup, work)])?;
        self.run_clients()?;
        self.settle()?;
        let verdict = self.verify()?;
        // The clients' own threads end when they have had nothing to do for a while.
        self.until("ending", || self.world.scheduler.fibers() == 0)?;
        verdict.map_err(Failure::Check)
    }

    fn run_clients(&self) -> Result<(), Failure> {
        let ids = 1..=self.workload.processes();
        let clients: Vec<_> = ids.map(|id| self.process(id)).collect();
        faults::begin(&self.world, &clients);
        let work = clients.into_iter().map(|client| {
            let (workload, log) = (Arc::clone(&self.workload), Arc::clone(&self.log));
            let run = move |process: &Process| workload.run(process, &Recorder::new(process, &log));
            (client, run)
        });
        self.phase("running", work.collect())
    }

    /// Waits until all stores serve and nothing is under way that a client has given up: it would
    /// change what is looked at.
    fn settle(&self) -> Result<(), Failure> {
        let world = &self.world;
        faults::end(world);
        let serves = || world.nodes.iter().all(|node| node.running().is_some());
        self.until("settling", || serves() && world.is_quiet())
    }

    fn verify(&self) -> Result<Result<(), String>, Failure> {
        let verified = Arc::new(Mutex::new(Ok(())));
        let (verdict, history) = (Arc::clone(&verified), self.log.history());
        let verifier = self.process(self.workload.processes() + 1);
        let workload = Arc::clone(&self.workload);
        let verify = move |process: &Process| {
            let found = workload.verify(process, &history);
            *verdict.lock().unwrap_or_else(PoisonError::into_inner) = found;
        };
        self.phase("verifying", vec![(verifier, verify)])?;
        Ok(verified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone())
    }

    fn process(&self, id: u32) -> Process {
        Process::new(&self.world, id, |config, random| {
            self.workload.configure(config, random);
        })
    }

    /// Has each process do its work, side by side, until all of them have ended.
    fn phase<W>(&self, what: &'static str, work: Vec<(Process, W)>) -> Result<(), Failure>
    where
        W: FnOnce(&Process) + Send + 'static,
    {
        self.world.scheduler.note(what);
        let left = Arc::new(AtomicUsize::new(work.len()));
        for (process, work) in work {
            let left = Arc::clone(&left);
            let name = format!("process {}", process.id());
            let life = move || {
                work(&process);
                drop(process);
                left.fetch_sub(1, Ordering::Relaxed);
            };
            let spawned = self.world.scheduler.spawn_fiber(name, life);
            spawned.map_err(|error| Failure::Check(format!("no thread: {error}")))?;
        }
        self.until(what, || left.load(Ordering::Relaxed) == 0)
    }

    fn until(&self, what: &'static str, mut done: impl FnMut() -> bool) -> Result<(), Failure> {
        let plan = &self.world.plan;
        // What ends a run takes no longer than this.
        let most_time = plan.most_time + Duration::from_secs(60);
        let done = || {
            self.world.bury();
            done()
        };
        match self.world.scheduler.run(plan.most_steps, most_time, done) {
            Ended::Done => Ok(()),
            Ended::Deadlock => Err(Failure::Deadlock(what)),
            Ended::TooLong(of_what) => Err(Failure::TooLong(what, of_what)),
            Ended::Panicked(text) => Err(Failure::Panicked(text)),
        }
    }
}
