//! What goes wrong from time to time: stores that are killed, clocks that step, clients that stand
//! still. What goes wrong with each message or commit is decided where they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::process::Process;
use crate::random::Random;
use crate::scheduler::Group;
use crate::world::World;

/// The tasks that make things go wrong.
pub(crate) const FAULTS: Group = Group(1);

/// Whether anything goes wrong now: not while a workload is set up or looked at.
#[derive(Debug, Default)]
pub(crate) struct Switch(AtomicBool);

impl Switch {
    pub(crate) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }
}

/// Begins with all that goes wrong from time to time, to stores and to these clients.
pub(crate) fn begin(world: &Arc<World>, clients: &[Process]) {
    world.switch.set(true);
    let faults = world.plan.faults.clone();
    type Strike = Box<dyn Fn(&Arc<World>, &mut Random) + Send>;
    let (killed, paused) = (clients.to_vec(), clients.to_vec());
    let strikes: [(&str, Option<Duration>, Strike); 6] = [
        ("kill a store", faults.store_killed, Box::new(kill_store)),
        ("step a clock", faults.clock_steps, Box::new(step_clock)),
        ("cut a connection", faults.partitioned, Box::new(partition)),
        ("fill the disk", faults.disk_full, Box::new(fill_disk)),
        (
            "kill a client",
            faults.client_killed,
            Box::new(move |_, random| kill_client(random, &killed)),
        ),
        (
            "pause a client",
            faults.client_paused,
            Box::new(move |_, random| pause_client(random, &paused)),
        ),
    ];
    let held = Arc::clone(world);
    world.scheduler.spawn(FAULTS, "calm", async move {
        held.scheduler.sleep(TROUBLE).await;
        end(&held);
    });
    for (name, every, strike) in strikes {
        let Some(every) = every else { continue };
        let mut random = Random::for_purpose(world.seed, name);
        let held = Arc::clone(world);
        world.scheduler.spawn(FAULTS, name, async move {
            loop {
                let pause = random.duration(Duration::ZERO..2 * every);
                held.scheduler.sleep(pause).await;
                strike(&held, &mut random);
            }
        });
    }
}

/// How long things go wrong, in simulated time: whoever got nowhere until then comes to his end.
const TROUBLE: Duration = Duration::from_secs(120);

/// From now on nothing goes wrong; what is cut off or down comes back.
pub(crate) fn end(world: &World) {
    world.switch.set(false);
    world.scheduler.end_group(FAULTS);
    world.heal();
}

fn kill_store(world: &Arc<World>, random: &mut Random) {
    let node = random.pick(&world.nodes);
    world.kill(node, "killed");
}

fn step_clock(world: &Arc<World>, random: &mut Random) {
    let most = *random.pick(&[100, 10_000, 600_000]);
    let by = random.below(2 * most) as i64 - most as i64;
    let node = random.pick(&world.nodes);
    world.scheduler.note(format_args!(
        "store {}: clock steps by {by} ms",
        node.number
    ));
    world.statistics().clock_steps += 1;
    node.step_clock(by);
}

fn partition(world: &Arc<World>, random: &mut Random) {
    let client = random.between(1..9) as u32;
    let server = random.index(world.nodes.len());
    let time = random.duration(Duration::from_millis(5)..Duration::from_secs(3));
    world.scheduler.note(format_args!(
        "process {client} and store {server} are cut off for {time:?}"
    ));
    world.statistics().partitions += 1;
    world.cut(client, server, world.scheduler.now() + time);
}

fn fill_disk(world: &Arc<World>, random: &mut Random) {
    let time = random.duration(Duration::from_millis(5)..Duration::from_secs(2));
    world
        .scheduler
        .note(format_args!("the disk is full for {time:?}"));
    world.statistics().disk_full += 1;
    world.engine.set_full(true);
    let held = Arc::clone(world);
    world.scheduler.spawn(FAULTS, "make room", async move {
        held.scheduler.sleep(time).await;
        held.engine.set_full(false);
    });
}

/// At most half of them: somebody has to see what the others have left.
fn kill_client(random: &mut Random, clients: &[Process]) {
    let dead = clients.iter().filter(|client| !client.alive()).count();
    if (dead + 1) * 2 <= clients.len() {
        random.pick(clients).kill();
    }
}

fn pause_client(random: &mut Random, clients: &[Process]) {
    let most = Duration::from_millis(*random.pick(&[10, 500, 5_000]));
    let time = random.duration(Duration::ZERO..most);
    random.pick(clients).pause(time);
}
