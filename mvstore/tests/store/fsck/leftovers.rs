//! Records of stages that nobody would ever have removed.
//!
//! Found by ending the seeded mixture with a check. Symptom: `stage-empty`, a record of 29 bytes for
//! each. Causes: a commit that cut off all pages that it had staged still marked its stage committed,
//! and a truncation that its caller left forgot which stages it had emptied; the record of a stage
//! goes with the truncation that takes its last page, so no later one came back to it. Fix: such a
//! commit removes the record, and a truncation that is left does so too.

use std::ops::ControlFlow;
use std::sync::Arc;

use mvsqlite_protocol::v2::StageRef;

use crate::layers::{fixture, fold, head, put_large};
use crate::support::{Fixture, expect_sound, filled};

#[tokio::test]
async fn a_commit_that_cuts_off_all_it_staged_leaves_no_record() {
    let f = Fixture::new().await;
    f.put(&[head(9, 1), (1, filled(1))]).await;
    let base = f.begin().await;
    let staged = f.stage(&base, None, &[(7, filled(2))]).await.unwrap();
    let mut request = f.write(&base, &[head(3, 2)]);
    request.stage = Some(StageRef {
        stage: staged.stage,
        count: staged.count,
        sum: staged.sum,
    });
    f.commit(&request).await.unwrap();
    expect_sound(Arc::new(f.engine.clone())).await;
}

#[tokio::test]
async fn a_truncation_that_is_left_removes_the_records_of_stages_that_it_emptied() {
    let f = fixture().await;
    f.put(&[head(9, 1), (1, filled(1))]).await;
    put_large(&f, &vec![(1, filled(2)), (2, filled(2))]).await;
    fold(&f).await;
    let cut = f.put(&[(1, filled(3)), (2, filled(3))]).await.version;
    // It leaves as soon as something was removed.
    let leave = |removed| match removed {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    };
    let left = f.store.truncate_namespace(&f.key, cut, true, leave).await;
    assert!(!left.unwrap().is_complete);
    expect_sound(Arc::new(f.engine.clone())).await;
}
