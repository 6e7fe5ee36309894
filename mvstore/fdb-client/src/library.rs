//! Finding `libfdb_c.so`, and refusing one that will not do before any of it is used.

use std::env;
use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::calls::{self, Addresses};
use crate::{API_VERSION, StartError};

/// The file that is looked for.
pub(crate) const FILE_NAME: &str = "libfdb_c.so";

/// Where the client library is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibrarySearch {
    directories: Vec<PathBuf>,
    /// Whether to ask the loader for its own path (`LD_LIBRARY_PATH`, `/etc/ld.so.conf`) at last.
    loader_path: bool,
}

impl LibrarySearch {
    /// In `$FDB_HOME` and `$FDB_HOME/lib` if that variable is set, then on the loader's path.
    pub fn from_env() -> Self {
        let home = env::var_os("FDB_HOME").filter(|home| !home.is_empty());
        Self {
            loader_path: true,
            ..Self::only_in(home.as_ref().map(Path::new))
        }
    }

    /// In this directory and its `lib`, and nowhere else.
    pub fn only_in<'a>(home: impl Into<Option<&'a Path>>) -> Self {
        let directories = home
            .into()
            .map(|home| vec![home.to_owned(), home.join("lib")])
            .unwrap_or_default();
        Self {
            directories,
            loader_path: false,
        }
    }

    /// Loads the first library found and lets the calls lead into it. Returns its file.
    pub(crate) fn load(&self) -> Result<PathBuf, StartError> {
        let (library, file) = self.open()?;
        // SAFETY: the file goes by the name of FoundationDB's client library, whose functions are
        // those of its C header, and it is never unloaded (`into_raw` below); a library that is
        // another under this name is the mistake of whoever installed it, and most are found out
        // by a function that is missing. On an error nothing of it was called but its
        // constructors, and it stays loaded as well, because it may have started threads.
        let addresses = unsafe {
            Addresses::of_all(|name| {
                let symbol = library.get::<*mut c_void>(name.as_bytes()).ok()?;
                Some(symbol.into_raw())
            })
        };
        // SAFETY: as above; the signature is that of the C header.
        let supported = unsafe {
            library
                .get::<extern "C" fn() -> c_int>(b"fdb_get_max_api_version")
                .map_or(0, |max_api_version| max_api_version())
        };
        let _handle = library.into_raw();
        let addresses = addresses.map_err(|call| StartError::MissingCall {
            library: file.clone(),
            call,
        })?;
        if supported < API_VERSION {
            return Err(StartError::ApiTooOld {
                library: file,
                supported,
            });
        }
        calls::fill(&addresses);
        Ok(file)
    }

    /// A library in a named directory is an explicit choice: if it does not load, that is an error
    /// and no reason to take another one.
    fn open(&self) -> Result<(Library, PathBuf), StartError> {
        let mut tried = Vec::new();
        for directory in &self.directories {
            let file = directory.join(FILE_NAME);
            if !file.exists() {
                tried.push(format!("{}: no such file", file.display()));
                continue;
            }
            return match open(&file) {
                Ok(library) => Ok((library, file)),
                Err(reason) => Err(StartError::Unloadable {
                    library: file,
                    reason,
                }),
            };
        }
        if self.loader_path {
            match open(Path::new(FILE_NAME)) {
                Ok(library) => return Ok((library, PathBuf::from(FILE_NAME))),
                Err(reason) => tried.push(format!("the loader's path: {reason}")),
            }
        }
        Err(StartError::NotFound { tried })
    }
}

fn open(file: &Path) -> Result<Library, String> {
    // Local, so that the library's names and ours of the same spelling never meet.
    let flags = RTLD_NOW | RTLD_LOCAL;
    // SAFETY: FoundationDB's client library runs C++ constructors when it is loaded, which ask
    // nothing of the process; it is made to be opened like this by its Python and Java bindings.
    unsafe { Library::open(Some(file), flags) }.map_err(|error| {
        // The loader's own words are in the source; the wrapper only says which call failed.
        std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
    })
}
