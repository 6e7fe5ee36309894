//! Moments: versions and times.

use mvsqlite_protocol::v2::ResolveRequest;
use mvsqlite_protocol::{Code, Moment, Version};
use mvstore::error::StoreError;
use mvstore::kv::faults::Fault;

use crate::support::{Fixture, START_MILLIS, filled, key, page_one};

async fn resolve(f: &Fixture, moment: Moment) -> Result<Version, StoreError> {
    let reply = f.store.resolve(&f.key, ResolveRequest { moment }).await?;
    Ok(reply.version)
}

#[tokio::test]
async fn a_version_resolves_to_the_newest_commit_at_or_below_it() {
    let f = Fixture::new().await;
    let created = f.begin().await.version;
    let a = f.put(&[(0, page_one(1, 1))]).await.version;
    f.store.create_namespace(&key("other")).await.unwrap();
    f.store.create_namespace(&key("third")).await.unwrap();
    let b = f.put(&[(1, filled(1))]).await.version;
    let last = f.store.create_namespace(&key("last")).await.unwrap();
    let at = |version| resolve(&f, Moment::Version(version));
    assert_eq!(at(a).await, Ok(a));
    assert_eq!(at(b).await, Ok(b));
    assert_eq!(at(Version::new(b.commit() - 1, u16::MAX)).await, Ok(a));
    assert_eq!(
        at(Version::new(a.commit() - 1, u16::MAX)).await,
        Ok(created)
    );
    // Above the namespace's head, but not above what the store has reached.
    assert_eq!(at(last.as_version()).await, Ok(b));
    let future = Version::new(last.as_version().commit() + 1, 0);
    assert_eq!(at(future).await.unwrap_err().code(), Code::VersionUnknown);
    assert_eq!(
        at(Version::ZERO).await.unwrap_err().code(),
        Code::VersionUnknown
    );

    let request = ResolveRequest {
        moment: Moment::Version(a),
    };
    let reply = f.store.resolve(&f.key, request).await.unwrap();
    assert_eq!(reply.page_size, 512);
    let request = ResolveRequest {
        moment: Moment::Version(created),
    };
    assert_eq!(f.store.resolve(&f.key, request).await.unwrap().page_size, 0);
}

/// Puts a commit every two seconds and a record every five, from second 0 to 60.
async fn a_minute(f: &Fixture) -> Vec<(u64, Version)> {
    let mut commits = Vec::new();
    for second in 0..60 {
        f.clock.set(START_MILLIS + second * 1000);
        if second % 5 == 0 {
            f.store.record_time().await.unwrap();
        }
        if second % 2 == 1 {
            let version = f.put(&[(1, filled(second as u8))]).await.version;
            commits.push((START_MILLIS + second * 1000, version));
        }
    }
    commits
}

#[tokio::test]
async fn a_time_resolves_to_the_last_commit_before_a_later_one() {
    let f = Fixture::new().await;
    let created = f.begin().await.version;
    let commits = a_minute(&f).await;
    for millis in (START_MILLIS..START_MILLIS + 59_000).step_by(250) {
        let expected = commits.iter().rfind(|(time, _)| *time <= millis);
        let expected = expected.map_or(created, |(_, version)| *version);
        assert_eq!(resolve(&f, Moment::UnixMillis(millis)).await, Ok(expected));
    }
}

#[tokio::test]
async fn times_that_have_not_come_or_lie_before_the_namespace_are_refused() {
    let f = Fixture::new().await;
    a_minute(&f).await;
    let future = Moment::UnixMillis(START_MILLIS + 60_000);
    assert_eq!(
        resolve(&f, future).await.unwrap_err().code(),
        Code::VersionUnknown
    );
    f.clock.set(START_MILLIS + 100_000);
    f.store.record_time().await.unwrap();
    f.store.create_namespace(&key("late")).await.unwrap();
    let request = ResolveRequest {
        moment: Moment::UnixMillis(START_MILLIS + 30_000),
    };
    let refusal = f.store.resolve(&key("late"), request).await.unwrap_err();
    assert!(
        refusal.to_string().contains("did not exist yet"),
        "{refusal}"
    );
}

#[tokio::test]
async fn records_of_time_ascend_even_when_the_clock_is_set_back() {
    let f = Fixture::new().await;
    a_minute(&f).await;
    f.clock.set(START_MILLIS + 1000);
    f.put(&[(1, filled(100))]).await;
    f.store.record_time().await.unwrap();
    f.clock.set(START_MILLIS + 70_000);
    f.store.record_time().await.unwrap();
    let seconds = START_MILLIS / 1000;
    let mut last = (0, Version::ZERO);
    for second in 1..71 {
        let bracket = f.store.time_to_version(seconds + second).await.unwrap();
        let after = bracket.after.unwrap();
        assert!(after.time < seconds + second);
        assert!((after.time, after.version) >= last);
        last = (after.time, after.version);
        if let Some(not_after) = bracket.not_after {
            assert!(not_after.time >= seconds + second && not_after.version > after.version);
        }
    }
}

#[tokio::test]
async fn now_is_between_the_current_version_and_the_next() {
    let f = Fixture::new().await;
    let version = f.put(&[(1, filled(1))]).await.version;
    let now = f.store.time_to_version(0).await.unwrap();
    let (after, not_after) = (now.after.unwrap(), now.not_after.unwrap());
    assert_eq!(after.version, Version::new(version.commit(), u16::MAX));
    assert_eq!(not_after.version, Version::new(version.commit() + 1, 0));
    assert_eq!(
        (after.time, not_after.time),
        (START_MILLIS / 1000, START_MILLIS / 1000 + 1)
    );
    assert_eq!(
        resolve(&f, Moment::Version(after.version)).await,
        Ok(version)
    );
    let nothing = f.store.time_to_version(5).await.unwrap();
    assert_eq!((nothing.after, nothing.not_after), (None, None));
}

#[tokio::test]
async fn an_idle_store_records_no_time_and_faults_do_not_stop_the_recorder() {
    let f = Fixture::new().await;
    f.store.record_time().await.unwrap();
    let before = f.begin().await.read_version;
    f.clock.advance(5000);
    f.store.record_time().await.unwrap();
    assert_eq!(f.begin().await.read_version, before);
    f.put(&[(1, filled(1))]).await;
    f.faults([Some(Fault::Conflict), Some(Fault::UnknownCommitted)]);
    f.store.record_time().await.unwrap();
    f.store.record_time().await.unwrap();
    f.faults([Some(Fault::Unavailable)]);
    f.clock.advance(5000);
    let refusal = f.store.record_time().await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
}
