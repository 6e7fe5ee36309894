//! Runs every input of the corpora, and every one that once failed.

#![allow(clippy::unwrap_used, reason = "a panic is the report of a test")]

use std::alloc::System;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cap::Cap;
use mvsqlite_fuzz::{MEMORY, TARGETS, Target};

/// An allocation beyond the limit ends the process.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Hundreds of times what the slowest input takes: whoever is not done then will never be.
const PATIENCE: Duration = Duration::from_secs(60);

/// What once failed, and why: target, input, story.
const STORIES: [(&str, &str, &str); 3] = [
    (
        "evil_server",
        "file-of-4-billion-pages-cut-off",
        "each page that a commit cuts off was listed on its own: 32 GiB for a page 1 that claims so many",
    ),
    (
        "store_values",
        "damaged-outcome-read-as-aborted",
        "of an abort marker only the first byte was looked at: a damaged outcome said 'never committed'",
    ),
    (
        "store_read_set",
        "one-run-and-room-for-none",
        "a read set of one run with room for no range closed a gap that is not there; nobody gives it so little",
    ),
];

/// The inputs of a directory beside this crate's manifest, in order.
fn inputs(kind: &str, target: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(kind)
        .join(target);
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut inputs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    inputs
}

fn replay(target: &'static Target, input: &Path) {
    let bytes = fs::read(input).unwrap();
    assert!(
        bytes.len() <= 4096,
        "{} has more than 4 KiB",
        input.display()
    );
    let (done, ended) = mpsc::channel();
    let run = target.run;
    ALLOCATOR.set_limit(ALLOCATOR.allocated() + MEMORY).unwrap();
    let thread = thread::spawn(move || {
        run(&bytes);
        done.send(()).unwrap();
    });
    let ended = ended.recv_timeout(PATIENCE);
    ALLOCATOR.set_limit(usize::MAX).unwrap();
    assert_ne!(ended, Err(mpsc::RecvTimeoutError::Timeout), "it has no end");
    thread.join().unwrap();
}

#[test]
fn every_input_of_the_corpora_keeps_the_properties_of_its_target() {
    // Also one in a thread that nobody joins.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let mut count = 0;
    for target in TARGETS {
        let corpus = inputs("corpus", target.name);
        assert!(!corpus.is_empty(), "{} has no corpus", target.name);
        let regressions = inputs("regressions", target.name);
        for input in corpus.iter().chain(&regressions) {
            println!("{}", input.display());
            replay(target, input);
        }
        count += corpus.len() + regressions.len();
    }
    println!("replayed {count} inputs of {} targets", TARGETS.len());
}

#[test]
fn every_input_that_once_failed_has_its_story() {
    for target in TARGETS {
        for input in inputs("regressions", target.name) {
            let name = input.file_name().unwrap().to_str().unwrap();
            let told = |story: &&(&str, &str, &str)| (story.0, story.1) == (target.name, name);
            assert!(
                STORIES.iter().any(|story| told(&story)),
                "{} has no story",
                input.display()
            );
        }
    }
    for (target, input, _) in STORIES {
        let inputs = inputs("regressions", target);
        assert!(
            inputs.iter().any(|there| there.ends_with(input)),
            "{target}/{input} is gone"
        );
    }
}

#[test]
fn every_corpus_has_a_target() {
    for kind in ["corpus", "regressions"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind);
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let name = entry.unwrap().file_name();
            let name = name.to_str().unwrap();
            assert!(Target::named(name).is_some(), "{kind}/{name} has no target");
        }
    }
}
