//! Which library's function a caller would have got if this one were not there.
//!
//! The loader searches the global scope first (the program, preloaded libraries, what they link),
//! then that of the caller's library, which may have been loaded with `dlopen` and be hidden from
//! all others: Python's `sqlite3` module and the `libsqlite3` it links are such a pair.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};

/// The address that an interposed function returns to.
pub(crate) type Caller = *const c_void;

/// The names by which SQLite's own library is known to the loader.
const LIBRARY_NAMES: [&CStr; 2] = [c"libsqlite3.so.0", c"libsqlite3.so"];

/// Where functions are looked for on behalf of one caller, in this order: behind us in the global
/// scope; in the caller's library and what it links; in a SQLite library that is loaded somewhere.
pub(crate) struct Scope {
    handles: Vec<NonNull<c_void>>,
    /// The base address of this very library, whose functions are never the real ones.
    ourselves: *const c_void,
}

impl Scope {
    /// The scope of the code at this address.
    ///
    /// Its handles keep the libraries loaded until it is dropped, or for ever: [`Scope::keep`].
    pub(crate) fn of(caller: Caller) -> Self {
        let ourselves = Object::at(Self::of as *const c_void).map_or(ptr::null(), |o| o.base);
        let callers = Object::at(caller).and_then(|object| loaded(object.name));
        let known = LIBRARY_NAMES
            .iter()
            .filter_map(|name| loaded(name.as_ptr()));
        Self {
            handles: callers.into_iter().chain(known).collect(),
            ourselves,
        }
    }

    /// Keeps what was found usable for the rest of the process.
    pub(crate) fn keep(mut self) {
        self.handles.clear();
    }

    /// A function that every caller gets, from the program and what was loaded for all; `None` if
    /// there is none, or it is ours.
    pub(crate) fn global(symbol: &CStr) -> Option<NonNull<c_void>> {
        let nobody = Self {
            handles: Vec::new(),
            ourselves: Object::at(Self::of as *const c_void).map_or(ptr::null(), |o| o.base),
        };
        nobody.find(symbol)
    }

    /// The function a symbol stands for.
    pub(crate) fn find(&self, symbol: &CStr) -> Option<NonNull<c_void>> {
        let handles = self.handles.iter().map(|handle| handle.as_ptr());
        std::iter::once(libc::RTLD_NEXT)
            .chain(handles)
            .filter_map(|handle| {
                // SAFETY: a pseudo-handle or a handle from `dlopen` that was never closed.
                NonNull::new(unsafe { libc::dlsym(handle, symbol.as_ptr()) })
            })
            .find(|address| {
                Object::at(address.as_ptr()).is_none_or(|object| object.base != self.ourselves)
            })
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        for handle in &self.handles {
            // SAFETY: a handle from `dlopen`, closed once. The library has users besides us, since it
            // was loaded before.
            unsafe { libc::dlclose(handle.as_ptr()) };
        }
    }
}

/// A loaded program or library.
struct Object {
    name: *const c_char,
    base: *const c_void,
}

impl Object {
    /// The one an address lies in.
    fn at(address: *const c_void) -> Option<Self> {
        // SAFETY: all fields of the structure are pointers, for which zero is a value.
        let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
        // SAFETY: any address may be asked about; the structure is ours.
        let found: c_int = unsafe { libc::dladdr(address, &mut info) };
        (found != 0).then_some(Self {
            name: info.dli_fname,
            base: info.dli_fbase,
        })
    }
}

/// The handle of a library that is loaded already. The program itself has none.
fn loaded(name: *const c_char) -> Option<NonNull<c_void>> {
    if name.is_null() {
        return None;
    }
    // SAFETY: a C string from the loader or a literal; nothing is loaded by this.
    NonNull::new(unsafe { libc::dlopen(name, libc::RTLD_LAZY | libc::RTLD_NOLOAD) })
}
