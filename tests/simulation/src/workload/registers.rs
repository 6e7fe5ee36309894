//! Lists in pages: each transaction reads some pages and appends to some, as SQLite's pager would, but
//! without SQLite.

use mvsqlite::{DatabaseFile, Error, LockLevel, OpenOptions, SqliteCode};
use mvsqlite_checker::{Model, Operation, Outcome, check};
use mvsqlite_protocol::NamespaceKey;

use super::Workload;
use crate::history::{History, Recorder, Recording};
use crate::process::Process;
use crate::random::Random;

const PAGE_SIZE: usize = 512;
/// Lists: pages from the second on.
const LISTS: u32 = 6;
/// Elements that a page has room for.
const ROOM: usize = PAGE_SIZE / 8 - 1;
const NAME: &str = "registers";

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Registers {
    /// How many processes.
    pub processes: u32,
    /// How many transactions each of them tries.
    pub transactions: u32,
}

impl Registers {
    pub(super) fn drawn(random: &mut Random) -> Self {
        Self {
            processes: random.between(2..7) as u32,
            transactions: random.between(10..40) as u32,
        }
    }
}

impl Workload for Registers {
    fn name(&self) -> &'static str {
        NAME
    }

    fn processes(&self) -> u32 {
        self.processes
    }

    fn configure(&self, config: &mut mvsqlite::Config, random: &mut Random) {
        config.page_size = PAGE_SIZE as u32;
        config.cache_bytes = random.between(0..16) * PAGE_SIZE as u64;
    }

    fn setup(&self, process: &Process) {
        let key: NamespaceKey = NAME.parse().expect("a name without odd characters");
        let made = process.administer("create", |store| async move {
            store.create_namespace(&key).await
        });
        made.expect("no store is killed now")
            .expect("the store is empty");
        let mut pager = Pager::open(process).expect("the namespace was made");
        let pages = (0..LISTS).map(|list| (list + 1, List::default().to_page()));
        let header = (0, header());
        let commit = pager.transaction(|pager| pager.commit(std::iter::once(header).chain(pages)));
        commit.expect("nobody is in the way");
    }

    fn run(&self, process: &Process, recorder: &Recorder) {
        let mut random = process.random();
        let mut pager = None;
        let mut next = 0;
        for _ in 0..self.transactions {
            if !process.alive() {
                return;
            }
            process.sleep(
                random.duration(std::time::Duration::ZERO..std::time::Duration::from_millis(20)),
            );
            let open = match pager.take() {
                Some(open) => open,
                None => match Pager::open(process) {
                    Ok(open) => open,
                    Err(_) => continue,
                },
            };
            let open = pager.insert(open);
            let recording = recorder.begin();
            let id = u64::from(process.id()) * 1_000_000;
            attempt(open, recording, &mut random, || {
                next += 1;
                id + next
            });
        }
    }

    fn verify(&self, process: &Process, history: &History) -> Result<(), String> {
        let mut pager = Pager::open(process).map_err(|error| error.to_string())?;
        let mut history = history.clone();
        let lists = pager.transaction(|pager| {
            (0..LISTS)
                .map(|list| Ok((list.into(), pager.list(list)?.0)))
                .collect()
        });
        history.final_lists = lists.map_err(|error: Error| error.to_string())?;
        check(&history, Model::StrictSerializable)
            .map(drop)
            .map_err(|violation| violation.to_string())
    }
}

/// A transaction that reads some lists and appends to some.
fn attempt(
    pager: &mut Pager,
    mut recording: Recording<'_>,
    random: &mut Random,
    mut element: impl FnMut() -> u64,
) {
    let mut appends = false;
    let done = pager.transaction(|pager| {
        recording.read_at(pager.version());
        let mut written = Vec::new();
        for _ in 0..=random.below(3) {
            let key = random.below(LISTS.into()) as u32;
            if written.iter().any(|(page, _)| *page == key + 1) {
                continue;
            }
            let mut list = pager.list(key)?;
            let elements = list.0.clone();
            recording.observe(Operation::ReadList {
                key: key.into(),
                elements,
            });
            if list.0.len() < ROOM && random.chance(0.6) {
                let element = element();
                list.0.push(element);
                recording.observe(Operation::Append {
                    key: key.into(),
                    element,
                });
                written.push((key + 1, list.to_page()));
            }
        }
        appends = !written.is_empty();
        match appends {
            true => pager.commit(written),
            false => Ok(()),
        }
    });
    let version = pager.file.last_known_version();
    match done {
        Ok(()) => recording.end(
            Outcome::Committed,
            version.filter(|_| appends).map(|v| v.to_string()),
        ),
        Err(error) if error.sqlite_code() == SqliteCode::IoErrCommitAtomic => {}
        Err(error) => {
            recording.note(error);
            recording.end(Outcome::Aborted, None);
        }
    }
}

/// Elements of a list, as a page keeps them: how many, and each of them.
#[derive(Debug, Default)]
struct List(Vec<u64>);

impl List {
    fn to_page(&self) -> Vec<u8> {
        let mut page = (self.0.len() as u64).to_le_bytes().to_vec();
        page.extend(self.0.iter().flat_map(|element| element.to_le_bytes()));
        page.resize(PAGE_SIZE, 0);
        page
    }

    fn of_page(page: &[u8]) -> Self {
        let mut numbers = page
            .chunks_exact(8)
            .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("chunks are of 8 bytes")));
        let count = numbers.next().unwrap_or_default();
        Self(numbers.take(usize::try_from(count).unwrap_or(0)).collect())
    }
}

/// The header of a database of these lists.
fn header() -> Vec<u8> {
    let mut page = vec![0; PAGE_SIZE];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..18].copy_from_slice(&(PAGE_SIZE as u16).to_be_bytes());
    page[18..20].fill(1);
    page[28..32].copy_from_slice(&(LISTS + 1).to_be_bytes());
    page
}

/// What SQLite's pager does with a file, without a cache.
struct Pager {
    file: DatabaseFile,
}

impl Pager {
    fn open(process: &Process) -> Result<Self, Error> {
        let name = NAME.parse().expect("a name without odd characters");
        let mut file = DatabaseFile::open(process.environment(), name, OpenOptions::default())?;
        // SQLite looks at the header when it opens a file, under no lock.
        file.read(0, &mut [0; 100])?;
        Ok(Self { file })
    }

    fn version(&self) -> String {
        let version = self.file.last_known_version();
        version
            .map(|version| version.to_string())
            .unwrap_or_default()
    }

    fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.file.lock(LockLevel::Shared)?;
        let done = self.file.read(24, &mut [0; 16]).and_then(|_| work(self));
        self.file.unlock(LockLevel::None);
        done
    }

    fn page(&mut self, index: u32) -> Result<Vec<u8>, Error> {
        let mut page = vec![0xee; PAGE_SIZE];
        self.file
            .read(u64::from(index) * PAGE_SIZE as u64, &mut page)?;
        Ok(page)
    }

    fn list(&mut self, list: u32) -> Result<List, Error> {
        Ok(List::of_page(&self.page(list + 1)?))
    }

    fn commit(&mut self, pages: impl IntoIterator<Item = (u32, Vec<u8>)>) -> Result<(), Error> {
        self.file.lock(LockLevel::Reserved)?;
        let written = self.write(pages.into_iter().collect());
        if written.is_ok() {
            self.file.commit_phase_two()?;
        }
        // What SQLite plays back after a failure is ignored by the file.
        self.file.unlock(LockLevel::Shared);
        written
    }

    fn write(&mut self, mut pages: Vec<(u32, Vec<u8>)>) -> Result<(), Error> {
        self.file.lock(LockLevel::Exclusive)?;
        let mut first = match pages.iter().position(|(index, _)| *index == 0) {
            Some(at) => pages.swap_remove(at).1,
            None => self.page(0)?,
        };
        let counter = u32::from_be_bytes([first[24], first[25], first[26], first[27]]);
        let counter = counter.wrapping_add(1).to_be_bytes();
        first[24..28].copy_from_slice(&counter);
        first[92..96].copy_from_slice(&counter);
        pages.push((0, first));
        for (index, page) in &pages {
            self.file
                .write(u64::from(*index) * PAGE_SIZE as u64, page)?;
        }
        self.file.sync(None)
    }
}
