//! The store's own bytes: what stands on disk, and the rules about pages.

use crate::Input;
use crate::seed::{hex, page_one};

type Seeds = Vec<(&'static str, Vec<u8>)>;

/// Any set of runs survives a changelog entry; see also `mvstore::fuzzing::changelog`.
pub(super) fn changelog(bytes: &[u8]) {
    mvstore::fuzzing::changelog(bytes);
    let mut input = Input::new(bytes);
    let mut runs = Vec::new();
    while !input.is_empty() {
        let first = input.u32() >> (input.u8() % 32);
        runs.push((first, u32::from(input.u8()) + 1));
    }
    mvstore::fuzzing::changed_pages(runs);
}

pub(super) fn value_seeds() -> Seeds {
    let of = |kind: u8, text: &str| [&[kind][..], &hex(text)].concat();
    let id = "05050505050505050505";
    let nonce = "aa".repeat(16);
    let deadline = "0000000000000102 0000000000000404 0000000000000100";
    vec![
        ("format", of(0, "0001 0002 0003 0909090909090909")),
        (
            "catalog-entry",
            of(1, &format!("01 {id} 01 0606060606060606")),
        ),
        ("committed", of(2, &format!("01 {nonce} {id}"))),
        ("aborted", of(2, &format!("02 {}", "00".repeat(26)))),
        ("usage", of(3, "0300000000000000 0010000000000000")),
        ("lock", of(4, &format!("{nonce} {id} 01 0002 6d65"))),
        ("deadline", of(5, deadline)),
        ("lease-term", of(6, &format!("{nonce} {deadline}"))),
        ("truncation", of(7, &format!("{nonce} 0000000000000102"))),
        ("place", of(8, &format!("01020304 {id}"))),
        ("fold-cursor", of(9, "01 0000000000000102")),
        ("fold-cursor-new", of(9, "")),
        (
            "stage-record",
            of(
                10,
                "01 00001000 0000000000000002 0102030405060708 0000000000000005",
            ),
        ),
        ("sum", of(11, "0102030405060708")),
        ("version", of(11, id)),
    ]
}

pub(super) fn key_seeds() -> Seeds {
    let metadata = |text: &str| [&b"m\0m"[..], &hex(text)].concat();
    let of_namespace = |text: &str| [&b"d\0d"[..], &[1; 10], &hex(text)].concat();
    let id = "01".repeat(10);
    vec![
        ("name", [&b"m\0mn"[..], b"orders"].concat()),
        ("time", metadata("74 0000000000000102")),
        (
            "lease-place",
            metadata(&format!("6c {id} 71 0000000000000102 {}", "aa".repeat(16))),
        ),
        ("deleted", metadata(&format!("77 64 {id}"))),
        ("layer", metadata(&format!("77 6c {id} {id}"))),
        (
            "expiry",
            metadata(&format!(
                "78 0a 0000000000000102 {id} 73 {}",
                "aa".repeat(16)
            )),
        ),
        ("change", of_namespace(&format!("6c {id} 0001"))),
        ("page", of_namespace(&format!("70 00000007 {id}"))),
        (
            "staged",
            of_namespace(&format!("73 {} 70 00000007", "bb".repeat(16))),
        ),
        (
            "waiting-time",
            of_namespace(&format!("68 74 {}", "cc".repeat(32))),
        ),
    ]
}

pub(super) fn guard_seeds() -> Seeds {
    let zeros = |count: usize| "00".repeat(count);
    let layers = [
        "0202 00",
        &zeros(42),
        "03 01",
        &format!("01 00000000000000100000 01 {} 00000203", "bb".repeat(16)),
        &format!("01 00000000000000200000 02 {} 00000007", zeros(16)),
        "02 00000000000000300000 00000000000000180001",
        "00000000000000040000 00000000000000050006",
    ];
    let locked = format!(
        "0102 02 00000000000001020003 {} {}",
        "aa".repeat(16),
        zeros(18)
    );
    vec![
        ("new", hex(&format!("0101 00 {}", zeros(44)))),
        ("locked", hex(&locked)),
        ("layered", hex(&layers.concat())),
        ("newer", hex("0304 00 3f")),
    ]
}

pub(super) fn changelog_seeds() -> Seeds {
    let header = |chunks: u8| format!("0201 0000000000000102 0000000000000003 00{chunks:02x}");
    vec![
        (
            "one-chunk",
            hex(&format!("001b {} 0000 0201 a70200", header(1))),
        ),
        (
            "two-chunks",
            hex(&format!("0016 {} 0000 0002 0501", header(2))),
        ),
        ("everything", hex(&format!("0014 01{}", &header(1)[2..]))),
        ("scattered", vec![0xff; 60]),
    ]
}

pub(super) fn page_value_seeds() -> Seeds {
    let at = |text: &str| hex(&format!("00000003 {text}"));
    vec![
        ("raw", at("00 015660369ef64861 70616765")),
        (
            "staged",
            at(&format!("02 670213e8cbb55629 {}", "09".repeat(16))),
        ),
        ("absent", at("03 50ecef8b1761abdb")),
        ("waiting", at("00 70616765")),
        ("reserved", at("01 50ecef8b1761abdb")),
    ]
}

pub(super) fn page_one_seeds() -> Seeds {
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut new = page_one(128, 7);
        change(&mut new);
        [page_one(128, 7), new].concat()
    };
    vec![
        ("same", with(&|_| {})),
        ("counter", with(&|page| page[27] = 9)),
        ("growth", with(&|page| page[31] = 9)),
        ("schema", with(&|page| page[43] = 9)),
        ("no-database", with(&|page| page[0] = b's')),
        ("longer", with(&|page| page.push(0))),
        (
            "largest-page",
            with(&|page| page[16..18].copy_from_slice(&[0, 1])),
        ),
    ]
}

pub(super) fn read_set_seeds() -> Seeds {
    vec![
        ("few", vec![200, 0, 4, 4, 8, 4, 4, 12, 4]),
        (
            "joined",
            vec![3, 0, 4, 16, 4, 17, 8, 4, 18, 4, 4, 16, 4, 17, 8],
        ),
        ("none", vec![0, 0]),
    ]
}

pub(super) fn page_cache_seeds() -> Seeds {
    // Insert, commit, find, catch up by list, find; the same without a list.
    let steps = [
        2, 0xff, 0, 0, 0x0f, 0, 4, 0xff, 0, 6, 0, 0, 4, 0xff, 0, 0, 3, 0, 6, 1, 0, 4, 0xff, 1,
    ];
    vec![
        ("caught-up", [&[255][..], &steps].concat()),
        ("no-budget", [&[0][..], &steps].concat()),
        ("small", [&[40][..], &steps, &steps].concat()),
        (
            "cold-starts",
            [&[255][..], &[10, 0, 0, 8, 6, 0].repeat(10)].concat(),
        ),
    ]
}

/// An entry of a journal: a value for a key.
fn item(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut item = vec![2, 0, 0];
    item.extend(7u64.to_le_bytes());
    item.extend((key.len() as u16).to_le_bytes());
    item.extend((value.len() as u32).to_le_bytes());
    item.extend((value.len() as u32).to_le_bytes());
    item.extend(key);
    item.extend(value);
    item
}

/// A batch, whole but for its checksum.
fn batch(sequence: u64, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut batch = vec![1];
    batch.extend((entries.len() as u32).to_le_bytes());
    batch.extend(sequence.to_le_bytes());
    batch.extend(entries.concat());
    batch.push(3);
    batch.extend([0; 8]);
    batch.extend(b"FJL\x03");
    batch
}

pub(super) fn journal_seeds() -> Seeds {
    let clear = [&[4][..], &7u64.to_le_bytes()].concat();
    let first = batch(5, &[item(b"a", &[1; 40]), clear.clone()]);
    let second = batch(6, &[item(b"b", &first)]);
    let third = batch(7, &[clear]);
    let whole = [&first[..], &second, &third].concat();
    let torn = [&first[..], &second[..second.len() - 30]].concat();
    let damaged = [&first[..], &second[20..], &third].concat();
    vec![
        ("whole", whole),
        ("torn", torn),
        ("damaged", damaged),
        ("empty-batch", batch(0, &[])),
        ("zeros", vec![0; 100]),
        ("many-starts", journal_of_starts(3600)),
    ]
}

/// Clears in which each keyspace is the beginning of another batch, and no end.
pub(crate) fn journal_of_starts(length: usize) -> Vec<u8> {
    let mut journal = vec![0xff];
    while journal.len() < length {
        journal.extend([4, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff]);
    }
    journal
}

pub(super) fn format_file_seeds() -> Seeds {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        (
            "ours",
            text("mvsqlite embedded store\nmin-reader 1\nmin-writer 1\n"),
        ),
        (
            "newer",
            text("mvsqlite embedded store\nmin-reader 4294967295\nmin-writer 2\nmore\n"),
        ),
        ("cut", text("mvsqlite embedded store\nmin-")),
    ]
}
