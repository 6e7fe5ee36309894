//! A store in memory with a namespace or two, the same for every run: what answers where a target
//! needs a server that means well.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mvsqlite::client::Reply;
use mvsqlite_protocol::{Code, NamespaceKey, Problem, problem, v2};
use mvstore::environment::{Clock, Entropy};
use mvstore::kv::memory::MemoryEngine;
use mvstore::store::{Store, StoreOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

/// The namespaces that are there.
pub(crate) const KEYS: [&str; 2] = ["a", "b"];

/// A clock that stands still, and randomness that is none.
struct Numbers(AtomicU64);

impl Clock for Numbers {
    fn unix_millis(&self) -> u64 {
        1_767_225_600_000
    }
}

impl Entropy for Numbers {
    fn fill(&self, buffer: &mut [u8]) -> io::Result<()> {
        for byte in buffer {
            let number = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            *byte = (number ^ number >> 32).to_be_bytes()[2];
        }
        Ok(())
    }
}

thread_local! {
    static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
}

/// Waits for a call of the store.
pub(crate) fn wait<T>(work: impl Future<Output = T>) -> T {
    RUNTIME.with_borrow_mut(|runtime| {
        let runtime = runtime.get_or_insert_with(|| {
            let mut made = Builder::new_current_thread();
            made.enable_all().build().expect("a runtime can be made")
        });
        runtime.block_on(work)
    })
}

/// A store with its namespaces.
pub(crate) fn store() -> Store {
    let numbers = Arc::new(Numbers(AtomicU64::new(1)));
    let options = StoreOptions {
        clock: Arc::clone(&numbers) as Arc<dyn Clock>,
        entropy: numbers,
        page_cache_bytes: 1 << 16,
        ..StoreOptions::new("m", "d")
    };
    wait(async {
        let store = Store::open(Arc::new(MemoryEngine::new()), options).await;
        let store = store.expect("a store in memory opens");
        for key in KEYS {
            let made = store.create_namespace(&key.parse().expect("a key")).await;
            made.expect("a new namespace is made");
        }
        store
    })
}

type Answer = Result<Vec<u8>, Problem>;

/// What the store answers to a request of data plane v2.
pub(crate) fn answer(store: &Store, path: &str, body: &[u8]) -> Reply {
    match wait(call(store, path, body)) {
        Ok(body) => Reply {
            status: 200,
            content_type: Some(v2::CONTENT_TYPE.to_owned()),
            body,
        },
        Err(problem) => Reply {
            status: problem.status,
            content_type: Some(problem::CONTENT_TYPE.to_owned()),
            body: serde_json::to_vec(&problem).expect("a problem can be encoded"),
        },
    }
}

/// A call of the store by its path, with the namespace's key as it is.
pub(crate) async fn call(store: &Store, path: &str, body: &[u8]) -> Answer {
    match path {
        "/v2/commit" => return reply(store.commit_group(decode(body)?).await),
        "/v2/settle" => return reply(store.settle_group(decode(body)?).await),
        _ => {}
    }
    let nowhere = || Problem::new(Code::NotFound, "no such path");
    let rest = path.strip_prefix("/v2/ns/").ok_or_else(nowhere)?;
    let (key, call) = rest.split_once('/').ok_or_else(nowhere)?;
    let key: NamespaceKey = key.parse().map_err(|_| nowhere())?;
    match call {
        "begin" => reply(store.begin(&key, decode(body)?).await),
        "resolve" => reply(store.resolve(&key, decode(body)?).await),
        "stage" => reply(store.stage(&key, decode(body)?).await),
        "commit" => reply(store.commit(&key, decode(body)?).await),
        "settle" => reply(store.settle(&key, decode(body)?).await),
        "lease" => reply(store.lease(&key, decode(body)?).await),
        "read" => {
            let images = store
                .read(&key, decode(body)?)
                .await
                .map_err(Problem::from)?;
            Ok(images.iter().flat_map(encode).collect())
        }
        _ => Err(nowhere()),
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    v2::decode(body).map_err(|error| Problem::new(Code::Malformed, error.to_string()))
}

fn reply<T: Serialize, E: Into<Problem>>(answer: Result<T, E>) -> Answer {
    answer.map(|message| encode(&message)).map_err(E::into)
}

fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    v2::encode(message).expect("a message of ours")
}
