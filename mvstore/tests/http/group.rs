//! Commits over several namespaces, over HTTP.

use mvsqlite_protocol::v2::{
    BeginReply, BeginRequest, GroupCommitReply, GroupCommitRequest, GroupMember, GroupName,
    GroupSettleRequest, SettleReply, encode,
};
use mvsqlite_protocol::{Code, IdempotencyKey, PageData, PageSet, ReadVersion};

use crate::client::post;
use crate::server::{TestServer, begin, call, create, message, page, problem};

fn member(name: &str, begun: &BeginReply, pages: Vec<PageData>) -> GroupMember {
    GroupMember {
        ns: name.parse().unwrap(),
        namespace: begun.namespace,
        base: begun.version,
        read: PageSet::new(),
        pages,
        stage: None,
        lease: None,
    }
}

fn group(key: u8, members: Vec<GroupMember>) -> GroupCommitRequest {
    GroupCommitRequest {
        key: IdempotencyKey::from_bytes([key; 16]),
        retry: false,
        incarnation: None,
        read_version: ReadVersion(0),
        members,
    }
}

#[tokio::test]
async fn a_group_is_committed_settled_and_refused_as_a_whole() {
    let server = TestServer::with_namespace(&[]).await;
    create(server.admin, "other").await;
    let data = server.data;
    let (one, other) = (begin(data, "test").await, begin(data, "other").await);
    let both = |key| {
        let members = vec![
            member("test", &one, vec![page(1, 7)]),
            member("other", &other, vec![page(1, 8)]),
        ];
        group(key, members)
    };
    let reply = post(data, "/v2/commit", encode(&both(1)).unwrap()).await;
    let committed: GroupCommitReply = message(&reply);
    assert_eq!(committed.members.len(), 2);
    for name in ["test", "other"] {
        assert_eq!(begin(data, name).await.version, committed.version);
        let request = BeginRequest {
            as_of: Some(one.read_version),
            ..BeginRequest::default()
        };
        let then: BeginReply = message(&call(data, name, "begin", &request).await);
        assert!(then.version < committed.version);
    }
    let settle = GroupSettleRequest {
        key: IdempotencyKey::from_bytes([1; 16]),
        members: [("other", &other), ("test", &one)]
            .map(|(name, begun)| GroupName {
                ns: name.parse().unwrap(),
                namespace: begun.namespace,
            })
            .to_vec(),
    };
    let reply = post(data, "/v2/settle", encode(&settle).unwrap()).await;
    let settled: SettleReply = message(&reply);
    assert!(
        matches!(settled, SettleReply::Committed { version, .. } if version == committed.version)
    );
    // On the old snapshots.
    let reply = post(data, "/v2/commit", encode(&both(2)).unwrap()).await;
    assert_eq!(problem(&reply).code, Code::Conflict);
    let nobody = group(3, vec![]);
    let reply = post(data, "/v2/commit", encode(&nobody).unwrap()).await;
    assert_eq!(problem(&reply).code, Code::Malformed);
    for path in ["/v2/commit", "/v2/settle"] {
        assert_eq!(
            problem(&post(data, path, "nonsense").await).code,
            Code::Malformed
        );
    }
    assert_eq!(begin(data, "test").await.version, committed.version);
}
