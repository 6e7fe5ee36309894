//! Reads and uploads.

use crate::server::{TestServer, create};
use crate::v1::client::{V1, committed, hash, read_pages};

async fn start(flags: &[&str]) -> (TestServer, V1) {
    let server = TestServer::with_namespace(flags).await;
    let v1 = V1::new(server.data, "test");
    (server, v1)
}

#[tokio::test]
async fn any_version_reads_the_newest_pages_at_or_below_it() {
    let (_server, v1) = start(&[]).await;
    let id = v1.head().await;
    let first = committed(&v1.commit(&id, None, &[(3, b"one"), (4, b"x")]).await).version;
    let second = committed(&v1.commit(&first, None, &[(3, b"two")]).await).version;
    let read = async |version: &str| {
        let page = v1.read(version, &[3]).await.remove(0);
        page.map(|(from, data)| (from, String::from_utf8(data).unwrap()))
    };
    assert_eq!(read(&id).await, None);
    assert_eq!(read("00000000000000000000").await, None);
    let one = Some((first.clone(), "one".to_owned()));
    assert_eq!(read(&first).await, one);
    // Between the two: everything of the first is at or below it.
    assert_eq!(read(&format!("{}ffff", &first[..16])).await, one);
    assert_eq!(
        read(&second).await,
        Some((second.clone(), "two".to_owned()))
    );
    assert_eq!(read(&second.to_uppercase()).await.unwrap().1, "two");
    // Nothing above what was committed is settled.
    let reply = v1.try_read("ffffffffffffffffffff", &[(3, None)]).await;
    assert_eq!(reply.status, 410);
}

#[tokio::test]
async fn each_request_of_a_batch_is_answered_in_order() {
    let (_server, v1) = start(&[]).await;
    let id = v1.head().await;
    let first = committed(&v1.commit(&id, None, &[(1, b"a"), (2, b"b")]).await).version;
    let hash = v1.upload(&[b"mine"]).await[0];
    let asked = [(2, None), (9, None), (1, Some(&hash)), (1, None), (2, None)];
    let reply = v1.try_read(&first, &asked).await;
    let data = |page: Option<(String, Vec<u8>)>| page.map(|(_, data)| data);
    let found: Vec<_> = read_pages(&reply).into_iter().map(data).collect();
    let expected: [Option<&[u8]>; 5] = [Some(b"b"), None, Some(b"mine"), Some(b"a"), Some(b"b")];
    assert_eq!(found, expected.map(|data| data.map(<[u8]>::to_vec)));
}

#[tokio::test]
async fn content_is_found_by_its_hash_in_its_own_namespace_only() {
    let (server, v1) = start(&[]).await;
    create(server.admin, "other").await;
    let other = V1::new(server.data, "other");
    let id = v1.head().await;
    let uploaded = v1.upload(&[b"uploaded"]).await[0];
    assert_eq!(uploaded, hash(b"uploaded"));
    let found = v1.read_hash(&id, &uploaded).await;
    assert_eq!(found, Some((id.clone(), b"uploaded".to_vec())));
    assert_eq!(other.read_hash(&id, &uploaded).await, None);
    // What a commit brought along is known as well, and stays so when the page has moved on.
    let first = committed(&v1.commit(&id, None, &[(5, b"brought")]).await).version;
    let second = committed(&v1.commit(&first, None, &[(5, b"newer")]).await).version;
    let found = v1.read_hash(&second, &hash(b"brought")).await;
    assert_eq!(found, Some((second, b"brought".to_vec())));
    assert_eq!(v1.read_hash(&id, &hash(b"never")).await, None);
}

#[tokio::test]
async fn an_upload_of_nothing_is_completed_and_repeated_pages_are_each_answered() {
    let (_server, v1) = start(&[]).await;
    assert!(v1.upload(&[]).await.is_empty());
    let hashes = v1.upload(&[b"a", b"b", b"a"]).await;
    assert_eq!(hashes, [hash(b"a"), hash(b"b"), hash(b"a")]);
}

#[tokio::test]
async fn the_largest_batches_go_through() {
    let (_server, v1) = start(&[]).await;
    let pages: Vec<Vec<u8>> = (0..100u8).map(|byte| vec![byte; 32_768]).collect();
    let pages: Vec<&[u8]> = pages.iter().map(Vec::as_slice).collect();
    let hashes = v1.upload(&pages).await;
    let id = v1.head().await;
    let twice: Vec<_> = hashes
        .iter()
        .chain(&hashes)
        .map(|hash| (1, Some(hash)))
        .collect();
    let reply = v1.try_read(&id, &twice).await;
    let found = read_pages(&reply);
    assert_eq!(found.len(), 200);
    for (found, page) in found.iter().zip(pages.iter().chain(&pages)) {
        assert_eq!(&found.as_ref().unwrap().1, page);
    }
}

#[tokio::test]
async fn pages_come_compressed_only_if_both_sides_want_that() {
    let (_server, v1) = start(&["--wire-zstd"]).await;
    let id = v1.head().await;
    let even = vec![7; 8192];
    // No shorter when compressed.
    let odd = b"odd".as_slice();
    let version = committed(&v1.commit(&id, None, &[(1, &even), (2, odd)]).await).version;
    let reply = v1.try_read(&version, &[(1, None), (2, None)]).await;
    assert!(reply.body.len() < 500, "{}", reply.body.len());
    let found = read_pages(&reply);
    assert_eq!(found[0].as_ref().unwrap().1, even);
    assert_eq!(found[1].as_ref().unwrap().1, odd);

    let (_server, v1) = start(&[]).await;
    let id = v1.head().await;
    let version = committed(&v1.commit(&id, None, &[(1, &even)]).await).version;
    let reply = v1.try_read(&version, &[(1, None)]).await;
    assert!(reply.body.len() > 8192);
}
