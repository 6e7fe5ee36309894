//! What the client takes from its environment, from disk, and from pages.

use std::cell::RefCell;

use mvsqlite::Config;

use crate::Input;
use crate::seed::{btree_page, page_one};

type Seeds = Vec<(&'static str, Vec<u8>)>;

/// The variables, in the order of an input's lines.
const VARIABLES: [&str; 17] = [
    "MVSQLITE_DATA_PLANE",
    "MVSQLITE_DB_NAME_MAP",
    "MVSQLITE_ONLY_MAPPED",
    "MVSQLITE_HTTP_TIMEOUT_SECS",
    "MVSQLITE_SECTOR_SIZE",
    "MVSQLITE_PAGE_CACHE_SIZE",
    "MVSQLITE_PREFETCH_DEPTH",
    "MVSQLITE_DISK_CACHE",
    "MVSQLITE_DISK_CACHE_BYTES",
    "MVSQLITE_TRANSACTION_BYTES",
    "MVSQLITE_UPLOAD_BYTES",
    "MVSQLITE_JOURNAL_BYTES",
    "MVSQLITE_CONCURRENCY",
    "MVSQLITE_READ_STALENESS_MS",
    "MVSQLITE_TOKEN",
    "MVSQLITE_TOKEN_FILE",
    "MVSQLITE_LOCK_OWNER",
];

/// The client's environment variables, a line each, and the name of a file that is opened then.
///
/// - what is taken is within the ranges that the reference promises;
/// - what is refused names its variable, and shows no token;
/// - a name that is mapped is taken, and only those if that was asked for;
/// - URLs read the same when they are put together again.
pub(super) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    text.split([',', '\n']).for_each(mvsqlite::fuzzing::server);
    let lines: Vec<&str> = text.split('\n').collect();
    let value = |variable: &str| {
        let at = VARIABLES.iter().position(|name| *name == variable);
        let at = at.unwrap_or_else(|| panic!("{variable} is not fuzzed"));
        lines.get(at).map(|line| (*line).to_owned())
    };
    let config = match Config::from_variables(value) {
        Ok(config) => config,
        Err(error) => {
            assert!(error.to_string().starts_with(error.variable));
            return;
        }
    };
    assert!(!config.servers.is_empty());
    assert!(config.page_size.is_power_of_two() && (512..=32_768).contains(&config.page_size));
    assert!(config.timeout.as_secs() >= 1 && config.upload_bytes >= 1 << 16);
    assert!(
        config
            .disk_cache
            .as_ref()
            .is_none_or(|path| path.is_absolute())
    );
    if let Some(token) = value("MVSQLITE_TOKEN").filter(|token| token.trim().len() > 8) {
        assert!(
            !format!("{config:?}").contains(token.trim()),
            "a token is shown"
        );
    }
    for (name, target) in &config.name_map {
        assert!(!name.is_empty() && !target.is_empty());
        assert!(config.takes(name) || name == ":memory:");
    }
    let name = lines.get(VARIABLES.len()).copied().unwrap_or("a");
    assert_eq!(config.takes(name), config.target(name).is_some());
    if config.only_mapped && config.name_map.is_empty() {
        assert!(!config.takes(name));
    }
}

thread_local! {
    static DIRECTORY: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
}

/// A file of the disk cache; see `mvsqlite::fuzzing::disk_cache`.
pub(super) fn disk_cache(bytes: &[u8]) {
    DIRECTORY.with_borrow_mut(|directory| {
        let made = || tempfile::tempdir().expect("a temporary directory can be made");
        mvsqlite::fuzzing::disk_cache(bytes, directory.get_or_insert_with(made).path());
    });
}

pub(super) fn config_seeds() -> Seeds {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        (
            "servers",
            text("http://localhost:7000/, unix:/run/mv.sock,http://[::1]:80,http://db"),
        ),
        (
            "all",
            text(
                "http://db\n/data/app.db=orders,b=c\n1\n10\n4096\n5000\n8\n/var/cache/mv\n1073741824\n65536\n65536\n65536\nexclusive\n500\nsecret-token\n\nme\n/data/../data/app.db",
            ),
        ),
        (
            "token-file",
            text("http://db\n\n\n\n\n\n\n\n\n\n\n\noptimistic\n\n\n/run/token\n"),
        ),
        (
            "url-name",
            text(
                "http://db\nx=http://host:7000/a/b@000000000001e2400000\n0\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nx",
            ),
        ),
        ("tls", text("https://db")),
        ("bad-port", text("http://db:70000\n")),
    ]
}

pub(super) fn page_one_seeds() -> Seeds {
    let with = |counter: u32, change: &dyn Fn(&mut Vec<u8>)| {
        let mut page = page_one(512, 7);
        change(&mut page);
        [&counter.to_be_bytes()[..], &page].concat()
    };
    vec![
        ("plain", with(9, &|_| {})),
        ("wal", with(u32::MAX, &|page| page[18..20].fill(2))),
        ("reserved", with(26, &|page| page[20] = 255)),
        ("short", with(26, &|page| page.truncate(100))),
        ("no-database", with(1, &|page| page[3] = 0)),
    ]
}

pub(super) fn read_set_seeds() -> Seeds {
    vec![
        ("few", vec![200, 1, 0, 1, 0, 9, 3, 4, 2]),
        (
            "joined",
            vec![2, 1, 0, 1, 0, 9, 3, 4, 2, 255, 24, 255, 10, 1, 0, 1, 0],
        ),
        ("none", vec![0]),
    ]
}

pub(super) fn disk_cache_seeds() -> Seeds {
    let mut file = b"mvsqpgs1".to_vec();
    file.extend([1; 8]);
    file.extend([2; 10]);
    file.extend([3; 10]);
    file.extend(512u32.to_be_bytes());
    file.extend(2u32.to_be_bytes());
    file.extend([0; 8]);
    for page in [7u32, 9] {
        file.extend(page.to_be_bytes());
        file.extend([page as u8 / 4; 10]);
        file.extend([0; 8]);
    }
    let rows = file.clone();
    file.extend([5; 1024]);
    let cut = file[..file.len() - 100].to_vec();
    vec![("two-pages", file), ("cut", cut), ("rows-only", rows)]
}

pub(super) fn page_cache_seeds() -> Seeds {
    // Begin, read, commit of others, begin, arrivals; then an own commit.
    let steps = [
        1, 0, 4, 0, 2, 3, 4, 0, 0, 0x0f, 1, 0, 4, 0, 3, 0x30, 4, 0, 1, 0, 4, 0, 2, 4, 4, 0,
    ];
    vec![
        ("one-client", [&[255][..], &steps].concat()),
        ("small", [&[30][..], &steps, &steps].concat()),
        (
            "late",
            [
                &[255][..],
                &[1, 0, 2, 3, 1, 0, 0, 9, 3, 0x30, 12, 0, 4, 0, 20, 0].repeat(3),
            ]
            .concat(),
        ),
    ]
}

pub(super) fn prefetch_seeds() -> Seeds {
    const SIZE: usize = 256;
    let interior = |children: &[(u8, u8)], last| {
        let cells: Vec<[u8; 5]> = children
            .iter()
            .map(|(page, rowid)| [0, 0, 0, *page, *rowid])
            .collect();
        let cells: Vec<&[u8]> = cells.iter().map(|cell| &cell[..]).collect();
        btree_page(SIZE, 5, &cells, last)
    };
    let index_leaf = btree_page(SIZE, 10, &[&[4, 3, 15, 1, b'a'], &[4, 3, 15, 9, b'b']], 0);
    let leaf = btree_page(SIZE, 13, &[&[4, 1, 2, 23, b'a', b'b']], 0);
    let long = [&[0x84, 0x58, 1][..], &[0; 70], &[0, 0, 0, 9]].concat();
    let overflowing = btree_page(SIZE, 13, &[&long], 0);
    let mut file = page_one(SIZE, 12);
    file.extend(interior(&[(3, 10), (4, 20), (5, 30)], 6));
    for _ in 0..4 {
        file.extend(&leaf);
    }
    file.extend(index_leaf);
    file.extend(overflowing);
    file.extend([&[0, 0, 0, 10][..], &[7; SIZE - 4]].concat());
    let reads = |pages: &[u8]| {
        pages
            .iter()
            .flat_map(|page| [*page, 1])
            .collect::<Vec<u8>>()
    };
    let seed = |head: [u8; 4], pages: &[u8]| {
        let mut input = Input::new(&head);
        let head = [pages.len() as u8, input.u8(), input.u8(), input.u8()];
        [&head[..], &reads(pages), &file].concat()
    };
    vec![
        ("forward", seed([41, 255, 0, 0], &[0, 1, 2, 3, 4, 5])),
        ("backward", seed([41, 0, 0, 0], &[0, 1, 5, 4, 3, 2])),
        ("hops", seed([255, 0xf0, 0, 0], &[1, 6, 2, 5, 2])),
        ("chain", seed([21, 0, 16, 0], &[7, 8, 9, 10])),
        (
            "self",
            [
                &[3, 99, 255, 0][..],
                &[0, 1, 0, 3, 1, 1],
                &page_one(SIZE, 3),
                &interior(&[(2, 1), (2, 2)], 2),
            ]
            .concat(),
        ),
    ]
}
