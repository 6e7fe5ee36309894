//! Retries, unknown outcomes, and what settles them.

use std::sync::Arc;

use mvsqlite_protocol::v2::{CommitRequest, SettleReply, SettleRequest};
use mvsqlite_protocol::{Code, PageSet};
use mvstore::error::StoreError;
use mvstore::kv::faults::Fault;
use mvstore::kv::memory::MemoryEngine;
use mvstore::kv::{Engine, Freshness};

use crate::interleave::Interleaved;
use crate::support::{Fixture, Random, filled};

async fn settle(f: &Fixture, request: &CommitRequest) -> Result<SettleReply, StoreError> {
    let request = SettleRequest {
        namespace: request.namespace,
        key: request.key,
    };
    f.store.settle(&f.key, request).await
}

fn again(request: &CommitRequest) -> CommitRequest {
    CommitRequest {
        retry: true,
        ..request.clone()
    }
}

#[tokio::test]
async fn a_commit_sent_again_is_done_once_and_answered_the_same_even_much_later() {
    let f = Fixture::new().await;
    let base = f.begin().await;
    let other = f.put(&[(9, filled(9))]).await;
    let request = f.write(&base, &[(1, filled(1))]);
    let first = f.commit(&request).await.unwrap();
    f.put(&[(1, filled(2))]).await;
    f.put(&[(5, filled(5))]).await;
    let head = f.begin().await.version;
    for sending in [request.clone(), again(&request)] {
        let reply = f.commit(&sending).await.unwrap();
        assert_eq!(reply.version, first.version);
        // Others' changes up to the commit itself: later ones are the next begin's business.
        assert_eq!(reply.seen, first.version);
        assert_eq!(reply.changed, Some([9].into_iter().collect()));
    }
    assert!(other.version < first.version);
    assert_eq!(f.begin().await.version, head);
}

#[tokio::test]
async fn outcomes_that_the_engine_does_not_know_are_found_out_before_answering() {
    let f = Fixture::new().await;
    for fault in [Fault::UnknownCommitted, Fault::UnknownNotCommitted] {
        let base = f.begin().await;
        let request = f.write(&base, &[(1, filled(fault as u8 + 1))]);
        f.faults([Some(fault)]);
        let reply = f.commit(&request).await.unwrap();
        assert_eq!(f.begin().await.version, reply.version);
        assert_eq!(
            f.content(reply.version, 1).await,
            Some(filled(fault as u8 + 1))
        );
    }
}

#[tokio::test]
async fn a_key_used_for_another_commit_is_refused() {
    let f = Fixture::new().await;
    let base = f.begin().await;
    let request = f.write(&base, &[(1, filled(1))]);
    f.commit(&request).await.unwrap();
    let mut other = f.write(&base, &[(2, filled(2))]);
    other.key = request.key;
    assert_eq!(f.commit(&other).await.unwrap_err().code(), Code::KeyReused);
}

#[tokio::test]
async fn settling_finds_a_commit_or_makes_it_impossible() {
    let f = Fixture::new().await;
    let base = f.begin().await;
    let done = f.write(&base, &[(1, filled(1))]);
    let version = f.commit(&done).await.unwrap().version;
    let Ok(SettleReply::Committed { version: found, .. }) = settle(&f, &done).await else {
        panic!("it was committed");
    };
    assert_eq!(found, version);

    let base = f.begin().await;
    let late = f.write(&base, &[(2, filled(2))]);
    assert_eq!(settle(&f, &late).await, Ok(SettleReply::Aborted));
    assert_eq!(settle(&f, &late).await, Ok(SettleReply::Aborted));
    assert_eq!(f.commit(&late).await.unwrap_err().code(), Code::Aborted);
    assert_eq!(f.begin().await.version, base.version);
}

#[tokio::test]
async fn settling_gets_to_its_end_through_faults_or_says_that_it_did_not() {
    let f = Fixture::new().await;
    let base = f.begin().await;
    for fault in [
        Fault::Conflict,
        Fault::UnknownCommitted,
        Fault::UnknownNotCommitted,
    ] {
        let late = f.write(&base, &[(2, filled(2))]);
        f.faults([Some(fault)]);
        assert_eq!(settle(&f, &late).await, Ok(SettleReply::Aborted));
        assert_eq!(f.commit(&late).await.unwrap_err().code(), Code::Aborted);
    }
    let late = f.write(&base, &[(2, filled(2))]);
    f.faults([Some(Fault::Unavailable)]);
    assert_eq!(
        settle(&f, &late).await.unwrap_err().code(),
        Code::OutcomeUnknown
    );
}

/// A retry may be refused while an earlier sending is still on its way. If that one could go through
/// afterwards, the client would have rolled back what the store then commits.
#[tokio::test]
async fn a_refused_retry_stops_every_earlier_sending() {
    let f = Fixture::new().await;
    let base = f.begin().await;
    let first = f.write(&base, &[(1, filled(1))]);
    f.faults([Some(Fault::Conflict); 5]);
    let refusal = f.commit(&again(&first)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Conflict);
    assert_eq!(f.commit(&first).await.unwrap_err().code(), Code::Aborted);

    let mut staged = f.write(&base, &[(1, filled(1))]);
    let stage = f.stage(&base, None, &[(5, filled(5))]).await.unwrap();
    staged.stage = Some(mvsqlite_protocol::v2::StageRef {
        stage: stage.stage,
        count: 2,
        sum: stage.sum,
    });
    assert_eq!(
        f.commit(&again(&staged)).await.unwrap_err().code(),
        Code::StageInvalid
    );
    assert_eq!(f.commit(&staged).await.unwrap_err().code(), Code::Aborted);

    let unlucky = f.write(&base, &[(1, filled(1))]);
    f.faults([Some(Fault::Unavailable)]);
    assert_eq!(
        f.commit(&again(&unlucky)).await.unwrap_err().code(),
        Code::Aborted
    );
    let unlucky = f.write(&base, &[(1, filled(1))]);
    f.faults([Some(Fault::Unavailable); 2]);
    assert_eq!(
        f.commit(&again(&unlucky)).await.unwrap_err().code(),
        Code::OutcomeUnknown
    );
    assert_eq!(f.begin().await.version, base.version);
}

#[tokio::test]
async fn a_first_sending_that_is_refused_may_be_tried_again() {
    let f = Fixture::new().await;
    let base = f.begin().await;
    let request = f.write(&base, &[(1, filled(1))]);
    f.faults([Some(Fault::Unavailable)]);
    assert_eq!(
        f.commit(&request).await.unwrap_err().code(),
        Code::Unavailable
    );
    f.commit(&again(&request)).await.unwrap();
}

#[tokio::test]
async fn a_retry_that_finds_its_commit_done_succeeds_whatever_else_has_changed() {
    let f = Fixture::new().await;
    let base = f.begin().await;
    let request = f.write(&base, &[(1, filled(1))]);
    let version = f.commit(&request).await.unwrap().version;
    let other = crate::support::key("renamed");
    f.store.rename_namespace(&f.key, &other).await.unwrap();
    let reply = f.commit(&again(&request)).await.unwrap();
    assert_eq!(
        (reply.version, reply.changed),
        (version, Some(PageSet::new()))
    );
}

#[tokio::test]
async fn outcomes_are_kept_for_an_hour_and_then_forgotten() {
    let f = Fixture::new().await;
    let base = f.begin().await;
    let request = f.write(&base, &[(1, filled(1))]);
    f.commit(&request).await.unwrap();
    let aborted = f.write(&base, &[(2, filled(2))]);
    settle(&f, &aborted).await.unwrap();

    f.clock.advance(3600 * 1000);
    assert_eq!(f.store.collect_expired().await.unwrap().idempotency_keys, 0);
    f.commit(&again(&request)).await.unwrap();
    f.clock.advance(1);
    assert_eq!(f.store.collect_expired().await.unwrap().idempotency_keys, 2);
    assert_eq!(f.store.collect_expired().await.unwrap().idempotency_keys, 0);
    // Forgotten: the pages stand in its own way now.
    assert_eq!(
        f.commit(&again(&request)).await.unwrap_err().code(),
        Code::Conflict
    );
}

/// Symptom: a commit that had happened was refused, as if it had not. Cause: the engine had lost its
/// answer, and the attempt that was to find out met damaged bytes before it had looked. Fix: behind
/// a lost answer the commit is settled before it is refused.
#[tokio::test]
async fn a_commit_is_not_refused_before_somebody_looked_whether_it_happened() {
    let memory = Arc::new(MemoryEngine::new());
    let engine = Interleaved::new(memory.clone(), Arc::new(Random::new(1)));
    let f = Fixture::over(Arc::new(engine.clone()), 1).await;
    let base = f.begin().await;
    let mut damaged = b"m\0d".to_vec();
    damaged.extend_from_slice(base.namespace.as_bytes());
    damaged.extend_from_slice(b"l\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0");
    engine.before_commit(async move {
        let mut txn = memory.begin(Freshness::Strict);
        txn.set(&damaged, &[0xff]);
        txn.commit().await.unwrap();
    });
    f.faults([Some(Fault::UnknownCommitted)]);
    let request = f.write(&base, &[(1, filled(1))]);
    let reply = f.commit(&request).await.unwrap();
    assert!(reply.version > base.version);
}

/// Symptom: a commit was refused as not made, and turned up after all when the server was started
/// again. Cause: the engine had lost its answer; the next attempt did not find it, which says nothing
/// as long as the engine cannot reach its storage, and was refused by the engine. Fix: as above, so
/// that the refusal stands on an abort marker, or the outcome is not known.
#[tokio::test]
async fn behind_a_lost_answer_a_refusal_by_the_engine_is_settled() {
    let f = Fixture::new().await;
    let base = f.begin().await;
    let request = f.write(&base, &[(1, filled(1))]);
    f.faults([Some(Fault::UnknownNotCommitted), Some(Fault::Unavailable)]);
    let refusal = f.commit(&request).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Aborted, "{refusal}");
    let late = f.commit(&request).await.unwrap_err();
    assert_eq!(late.code(), Code::Aborted, "{late}");

    let request = f.write(&base, &[(1, filled(1))]);
    let lost = [Fault::UnknownNotCommitted, Fault::Unavailable].map(Some);
    f.faults(lost.into_iter().chain([Some(Fault::Unavailable)]));
    let refusal = f.commit(&request).await.unwrap_err();
    assert_eq!(refusal.code(), Code::OutcomeUnknown, "{refusal}");
}
