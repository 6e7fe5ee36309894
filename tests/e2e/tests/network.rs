//! A network that loses requests and replies, cuts connections and stalls while many clients
//! commit: every transaction happens once or not at all, and whoever was told so can rely on it.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::{Duration, Instant};

use mvsqlite_e2e::{Client, Fault, Ledger, Proxy, Store, until};

const WORKERS: u32 = 5;
const SECONDS: u64 = 25;
const FAILING: Duration = Duration::from_secs(15);

#[test]
fn every_transaction_happens_once_or_not_at_all_on_a_failing_network() {
    let store = Store::start();
    let proxy = Proxy::before(&store);
    let client = Client::at(&proxy.url()).env("MVSQLITE_HTTP_TIMEOUT_SECS", "1");
    let ledger = Ledger::start(&store, &client, WORKERS, SECONDS);
    let begun = Instant::now();
    let mut struck = 0;
    for round in 0.. {
        if begun.elapsed() > FAILING {
            break;
        }
        // Never more than a few of a kind, so that there is progress in between.
        let (fault, times) = match round % 6 {
            0 => (Fault::LoseReply(&["commit"]), 3),
            1 => (Fault::LoseRequest(&["commit", "begin"]), 3),
            2 => (Fault::LoseReply(&["begin", "read"]), 3),
            3 => (Fault::Down, 5),
            4 => (Fault::LoseReply(&["commit", "settle"]), 20),
            _ => (Fault::Silence, 2),
        };
        proxy.set_times(fault.clone(), times);
        until("the fault to strike", Duration::from_secs(20), || {
            (proxy.struck() >= times).then_some(())
        });
        struck += proxy.struck();
        proxy.set(Fault::None);
        let enough = ledger.acknowledged() + 5;
        until("commits to go on", Duration::from_secs(20), || {
            (ledger.acknowledged() > enough).then_some(())
        });
    }
    println!("the network failed {struck} times");
    ledger.settle(&store);
    store.finish();
}
