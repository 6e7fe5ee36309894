//! Registration: the names under which SQLite knows the VFS.
//!
//! | name | page size of databases made through it, in bytes |
//! |---|---|
//! | `mvsqlite` | `MVSQLITE_SECTOR_SIZE` |
//! | `mvsqlite-4096`, `-8192`, `-16384`, `-32768` | the one in the name |
//!
//! They are one VFS with the same databases, and [`Vfs::register_as`] makes others; only [`VFS_NAME`](crate::VFS_NAME) is ever the default.
//! A registration is made once per SQLite library and lives for ever.

use std::ffi::{CStr, c_int};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use mvsqlite::{Config, ConfigError, Environment, PerProcess};

use crate::api::Api;
use crate::database_file::OpenDatabase;
use crate::failure::guarded_code;
use crate::ffi::{code, sqlite3, sqlite3_vfs};
use crate::names::Names;
use crate::private_file::PrivateFile;
use crate::super_journal::SuperJournals;
use crate::vfs::{self, Vfs};
use crate::{delegate, functions};

/// The VFS could not be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// This SQLite has no default VFS to build on.
    NoDefaultVfs,
    /// `sqlite3_vfs_register` failed with this code.
    Refused(c_int),
    /// More SQLite libraries in this process than can be served.
    TooManyLibraries,
}

impl std::fmt::Display for RegisterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoDefaultVfs => f.write_str("this SQLite has no default VFS"),
            Self::Refused(code) => write!(f, "sqlite3_vfs_register failed with code {code}"),
            Self::TooManyLibraries => write!(
                f,
                "more than {} SQLite libraries in one process cannot be served",
                functions::SLOTS
            ),
        }
    }
}

impl std::error::Error for RegisterError {}

/// One name of a VFS.
pub(crate) struct Registration {
    vfs: &'static Vfs,
    name: &'static CStr,
    page_size: Option<u32>,
}

impl Registration {
    pub(crate) fn vfs(&self) -> &'static Vfs {
        self.vfs
    }

    /// The name that SQLite knows it by.
    pub(crate) fn name(&self) -> &'static CStr {
        self.name
    }

    /// The page size of databases made through it, in bytes, if the name decides it.
    pub(crate) fn page_size(&self) -> Option<u32> {
        self.page_size
    }
}

/// The names besides the main one.
const PAGE_SIZES: [(&CStr, u32); 4] = [
    (c"mvsqlite-4096", 4096),
    (c"mvsqlite-8192", 8192),
    (c"mvsqlite-16384", 16_384),
    (c"mvsqlite-32768", 32_768),
];

/// Which names are ours, with everything else of a wrong configuration left out: an ordinary file
/// must open even if the store's address is wrong.
fn names_alone() -> Option<Config> {
    let config: Result<Config, ConfigError> = Config::from_variables(|variable| match variable {
        "MVSQLITE_DATA_PLANE" => Some("http://nowhere".to_owned()),
        "MVSQLITE_DB_NAME_MAP" | "MVSQLITE_ONLY_MAPPED" => std::env::var(variable).ok(),
        _ => None,
    });
    config.ok()
}

/// A VFS by the address of its library's `sqlite3_vfs_register`.
type Known = (usize, &'static Vfs);

/// The VFSs that [`Vfs::register_once`] made.
static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// The VFSs that [`Vfs::register_as`] made.
static NAMED: Mutex<Vec<Known>> = Mutex::new(Vec::new());

impl Vfs {
    /// Registers the VFS `mvsqlite` with a SQLite library; to be done once per library.
    ///
    /// With an error for an environment the VFS is registered all the same: opening a name that
    /// would be ours then fails with `SQLITE_CANTOPEN` and says why, rather than making a local
    /// file. The configuration beside the error tells which names those are; `None` for all.
    ///
    /// # Errors
    /// If the library has no default VFS or does not take another one.
    pub fn register(
        api: Api,
        environment: Result<Arc<Environment>, (ConfigError, Option<Config>)>,
        make_default: bool,
    ) -> Result<&'static Self, RegisterError> {
        // SAFETY: a table of working functions; null asks for the default VFS.
        let base = unsafe { (api.vfs_find)(ptr::null()) };
        if base.is_null() {
            return Err(RegisterError::NoDefaultVfs);
        }
        let names = match environment {
            Ok(environment) => Names::Ready(ArcSwap::new(environment)),
            Err((error, config)) => Names::Broken(error, config.map(Box::new)),
        };
        // SAFETY: the default VFS stays registered.
        let vfs = unsafe { Self::make(api, names, base, crate::VFS_NAME_C, None) };
        vfs.add_name(vfs.description, make_default)?;
        for (name, page_size) in PAGE_SIZES {
            let registration = Box::into_raw(Box::new(Registration {
                vfs,
                name,
                page_size: Some(page_size),
            }));
            // SAFETY: the default VFS stays registered.
            let description = unsafe { describe(registration, name, &*base) };
            vfs.add_name(description, false)?;
        }
        Ok(vfs)
    }

    /// Registers a VFS of another name and with an environment of its own: databases opened through
    /// different names are as those of different processes. The names of the page sizes are not
    /// made. For simulations, which have many processes in one.
    ///
    /// # Errors
    /// If the library has no default VFS or does not take another one.
    pub fn register_as(
        api: Api,
        name: &'static CStr,
        environment: Arc<Environment>,
    ) -> Result<&'static Self, RegisterError> {
        // SAFETY: a table of working functions; null asks for the default VFS.
        let base = unsafe { (api.vfs_find)(ptr::null()) };
        if base.is_null() {
            return Err(RegisterError::NoDefaultVfs);
        }
        let library = (api.vfs_register as *const ()).addr();
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        // The functions look for nothing in their slot but the library's API.
        let found = named.iter().find(|(of, _)| *of == library);
        let slot = found.and_then(|(_, vfs)| vfs.slot);
        let names = Names::Ready(ArcSwap::new(environment));
        // SAFETY: the default VFS stays registered.
        let vfs = unsafe { Self::make(api, names, base, name, slot) };
        vfs.add_name(vfs.description, false)?;
        vfs.serve_functions()?;
        named.push((library, vfs));
        Ok(vfs)
    }

    /// From now on databases are opened with this environment; those that are open keep theirs.
    /// `false` if it was registered with an error instead of an environment, which stays.
    pub fn replace_environment(&self, environment: Arc<Environment>) -> bool {
        match &self.names {
            Names::Ready(current) => {
                current.store(environment);
                true
            }
            Names::Broken(..) => false,
        }
    }

    /// Makes a VFS and its main registration, with a slot of its own if none is given.
    ///
    /// # Safety
    /// `base` is the default VFS, which stays registered.
    unsafe fn make(
        api: Api,
        names: Names,
        base: *mut sqlite3_vfs,
        name: &'static CStr,
        slot: Option<usize>,
    ) -> &'static Self {
        // The two know each other, so both have an address before either is written.
        let address: *mut Self = Box::into_raw(Box::<Self>::new_uninit()).cast();
        let registration: *mut Registration =
            Box::into_raw(Box::<Registration>::new_uninit()).cast();
        // SAFETY: the caller's.
        let description = unsafe { describe(registration, name, &*base) };
        // SAFETY: both allocated above for exactly this, and never freed.
        unsafe {
            address.write(Self {
                api,
                names,
                base,
                super_journals: PerProcess::new(std::process::id(), SuperJournals::default),
                description,
                slot: slot.or_else(|| functions::take_slot(address)),
            });
            registration.write(Registration {
                vfs: &*address,
                name,
                page_size: None,
            });
            &*address
        }
    }

    /// As [`Vfs::register`], with what the environment variables say.
    ///
    /// # Errors
    /// As [`Vfs::register`].
    pub fn register_from_env(api: Api, make_default: bool) -> Result<&'static Self, RegisterError> {
        let environment = Environment::from_env().map_err(|error| (error, names_alone()));
        Self::register(api, environment, make_default)
    }

    /// The VFS of a library: that of an earlier call for the same library, or a new one, made by
    /// `register`. New connections of the library get the SQL functions from then on.
    ///
    /// For embeddings whose entry may be called any number of times, by any thread.
    ///
    /// # Errors
    /// Those of `register`.
    pub fn register_once<E: From<RegisterError>>(
        api: Api,
        register: impl FnOnce(Api) -> Result<&'static Self, E>,
    ) -> Result<&'static Self, E> {
        let library = (api.vfs_register as *const ()).addr();
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|(of, _)| *of == library);
        let vfs = match found.map(|(_, vfs)| *vfs) {
            Some(vfs) => {
                // `sqlite3_shutdown` forgets what was registered; doing it again changes nothing.
                vfs.add_name(vfs.description, false)?;
                vfs
            }
            None => {
                let vfs = register(api)?;
                known.push((library, vfs));
                vfs
            }
        };
        vfs.serve_functions()?;
        Ok(vfs)
    }

    /// New connections of the library get the SQL functions from now on.
    fn serve_functions(&self) -> Result<(), RegisterError> {
        let slot = self.slot.ok_or(RegisterError::TooManyLibraries)?;
        let entry = functions::entry_point(slot);
        // SAFETY: the entry point takes what SQLite gives to automatic extensions.
        match unsafe { (self.api.auto_extension)(entry) } {
            code::OK => Ok(()),
            refused => Err(RegisterError::Refused(refused)),
        }
    }

    /// Whether a library has the VFS already, from whatever copy of this code.
    pub fn is_registered(api: &Api) -> bool {
        // SAFETY: a table of working functions and a C string.
        !unsafe { (api.vfs_find)(crate::VFS_NAME_C.as_ptr()) }.is_null()
    }

    fn add_name(
        &self,
        description: *mut sqlite3_vfs,
        make_default: bool,
    ) -> Result<(), RegisterError> {
        // SAFETY: the description lives for ever.
        match unsafe { (self.api.vfs_register)(description, c_int::from(make_default)) } {
            code::OK => Ok(()),
            refused => Err(RegisterError::Refused(refused)),
        }
    }

    /// Makes the VFS the default of its library.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn make_default(&self) -> Result<(), RegisterError> {
        self.add_name(self.description, true)
    }

    /// Makes the VFS the default again if the one it was built on has become it.
    ///
    /// `sqlite3_shutdown` and `sqlite3_initialize` do that, and the next open would make a local file.
    pub fn stay_default(&self) {
        // SAFETY: null asks for the default VFS; the description lives for ever.
        unsafe {
            if (self.api.vfs_find)(ptr::null()) == self.base {
                (self.api.vfs_register)(self.description, 1);
            }
        }
    }

    /// Adds the SQL functions to a connection of the library this VFS is registered with.
    ///
    /// A failure is logged and otherwise without consequence.
    ///
    /// # Safety
    /// `db` is an open connection of that library, used by no other thread during the call.
    pub unsafe fn add_functions(&self, db: *mut sqlite3) {
        let Some(slot) = self.slot else { return };
        guarded_code(&self.api, "adding SQL functions", || {
            // SAFETY: the caller's.
            unsafe { functions::add_to(&self.api, slot, db) }.map(|()| code::OK)
        });
    }
}

/// SQLite's description of a registration, never freed.
fn describe(
    registration: *mut Registration,
    name: &'static CStr,
    base: &sqlite3_vfs,
) -> *mut sqlite3_vfs {
    let ours = size_of::<OpenDatabase>().max(size_of::<PrivateFile>());
    Box::into_raw(Box::new(sqlite3_vfs {
        version: 3,
        file_bytes: base.file_bytes.max(c_int::try_from(ours).unwrap_or(0)),
        max_pathname: base.max_pathname.max(MAX_NAME),
        next: ptr::null_mut(),
        name: name.as_ptr(),
        app_data: registration.cast(),
        open: Some(vfs::open),
        delete: Some(vfs::delete),
        access: Some(vfs::access),
        full_pathname: Some(vfs::full_pathname),
        dl_open: Some(delegate::dl_open),
        dl_error: Some(delegate::dl_error),
        dl_sym: Some(delegate::dl_sym),
        dl_close: Some(delegate::dl_close),
        randomness: Some(delegate::randomness),
        sleep: Some(delegate::sleep),
        current_time: Some(delegate::current_time),
        get_last_error: Some(delegate::get_last_error),
        current_time_int64: Some(delegate::current_time_int64),
        set_system_call: Some(delegate::set_system_call),
        get_system_call: Some(delegate::get_system_call),
        next_system_call: Some(delegate::next_system_call),
    }))
}

/// Room for the longest key, a moment, and the suffix of a journal.
const MAX_NAME: c_int = 512;

/// The registration behind SQLite's pointer.
///
/// # Safety
/// `raw` was made by [`describe`].
pub(crate) unsafe fn registration(raw: *mut sqlite3_vfs) -> &'static Registration {
    // SAFETY: the caller's; a registration lives for ever.
    unsafe { &*(*raw).app_data.cast::<Registration>() }
}

/// The VFS behind SQLite's pointer.
///
/// # Safety
/// As [`registration`].
pub(crate) unsafe fn vfs(raw: *mut sqlite3_vfs) -> &'static Vfs {
    // SAFETY: the caller's.
    unsafe { registration(raw) }.vfs()
}
