//! The functions of `libfdb_c` that the crate `foundationdb` calls, defined as jumps through a table.
//!
//! A jump leaves every register and the stack as the caller left them, so it needs to know nothing
//! of a function's parameters. Each entry of the table leads to [`unloaded`] until
//! [`fill`] has been given an address for all of them; entries never change afterwards.
//!
//! The list holds what `foundationdb` refers to with API 7.3, no more. A call that is missing from
//! it is an undefined symbol when mvstore is linked.

use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A function's address in the loaded library.
#[repr(transparent)]
struct Slot(AtomicPtr<c_void>);

/// A function's name and where its address goes.
pub(crate) struct Call {
    /// As the C header has it.
    pub(crate) name: &'static str,
    slot: &'static Slot,
}

/// The addresses of all calls, in the order of [`CALLS`].
pub(crate) struct Addresses(Vec<*mut c_void>);

impl Addresses {
    /// Looks every call up.
    ///
    /// # Errors
    ///
    /// The name of the first that `find` does not know.
    ///
    /// # Safety
    ///
    /// What `find` returns for a name is for the rest of the process the address of the function
    /// that FoundationDB's C header declares under it.
    pub(crate) unsafe fn of_all(
        find: impl Fn(&str) -> Option<*mut c_void>,
    ) -> Result<Self, &'static str> {
        CALLS
            .iter()
            .map(|call| {
                find(call.name)
                    .filter(|address| !address.is_null())
                    .ok_or(call.name)
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Lets every call jump to its function. All or none: [`Addresses`] has one for each.
pub(crate) fn fill(addresses: &Addresses) {
    for (call, address) in CALLS.iter().zip(&addresses.0) {
        call.slot.0.store(*address, Ordering::Release);
    }
}

/// Where calls lead before the library is loaded. Nothing can be returned, because what the caller
/// expects is not known here; and it is a mistake in mvstore, not in its surroundings.
extern "C" fn unloaded() -> ! {
    eprintln!("mvstore: a FoundationDB function was called before its client library was loaded");
    std::process::abort();
}

/// A jump to the address in a slot, by a register that the calling convention leaves to such jumps.
#[cfg(target_arch = "x86_64")]
macro_rules! jump {
    ($slot:path) => {
        core::arch::naked_asm!("jmp qword ptr [rip + {slot}]", slot = sym $slot)
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! jump {
    ($slot:path) => {
        core::arch::naked_asm!(
            "adrp x16, {slot}",
            "ldr x16, [x16, :lo12:{slot}]",
            "br x16",
            slot = sym $slot
        )
    };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the FoundationDB engine needs a `jump!` for this architecture, in calls.rs");

macro_rules! calls {
    ($($name:ident)*) => {
        #[allow(non_upper_case_globals, reason = "each slot has the name of its function")]
        mod slot {
            use super::{AtomicPtr, Slot, unloaded};
            $(pub(super) static $name: Slot = Slot(AtomicPtr::new(unloaded as *mut _));)*
        }

        $(
            // SAFETY: (no_mangle) no other object of the program defines this name: libfdb_c is not
            // linked. (naked) the jump keeps the caller's registers and stack for the callee, which
            // has the signature that foundationdb-sys declares, or is `unloaded`.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            unsafe extern "C" fn $name() {
                jump!(slot::$name)
            }
        )*

        /// Every call.
        pub(crate) static CALLS: &[Call] = &[
            $(Call { name: stringify!($name), slot: &slot::$name },)*
        ];

        /// Makes the linker keep the jumps, whichever order it looks at libraries in.
        #[used]
        static JUMPS: &[unsafe extern "C" fn()] = &[$($name,)*];
    };
}

calls! {
    fdb_create_database
    fdb_database_create_transaction
    fdb_database_destroy
    fdb_database_get_client_status
    fdb_database_set_option
    fdb_error_predicate
    fdb_future_destroy
    fdb_future_get_error
    fdb_future_get_int64
    fdb_future_get_key
    fdb_future_get_key_array
    fdb_future_get_keyvalue_array
    fdb_future_get_mappedkeyvalue_array
    fdb_future_get_string_array
    fdb_future_get_value
    fdb_future_is_ready
    fdb_future_set_callback
    fdb_get_error
    fdb_get_max_api_version
    fdb_network_set_option
    fdb_run_network
    fdb_select_api_version_impl
    fdb_setup_network
    fdb_stop_network
    fdb_transaction_add_conflict_range
    fdb_transaction_atomic_op
    fdb_transaction_cancel
    fdb_transaction_clear
    fdb_transaction_clear_range
    fdb_transaction_commit
    fdb_transaction_destroy
    fdb_transaction_get
    fdb_transaction_get_addresses_for_key
    fdb_transaction_get_approximate_size
    fdb_transaction_get_committed_version
    fdb_transaction_get_estimated_range_size_bytes
    fdb_transaction_get_key
    fdb_transaction_get_mapped_range
    fdb_transaction_get_range
    fdb_transaction_get_range_split_points
    fdb_transaction_get_read_version
    fdb_transaction_get_versionstamp
    fdb_transaction_on_error
    fdb_transaction_reset
    fdb_transaction_set
    fdb_transaction_set_option
    fdb_transaction_set_read_version
    fdb_transaction_watch
}
