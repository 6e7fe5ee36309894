//! Results that become ready on the network thread, and wake who waits.

use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::cluster::Pair;

/// A pair as the C API lays it out.
#[repr(C, packed(4))]
#[derive(Clone, Copy)]
pub(crate) struct KeyValue {
    key: *const u8,
    key_length: c_int,
    value: *const u8,
    value_length: c_int,
}

/// Pairs, and the array that points to their bytes.
pub(crate) struct Pairs {
    array: Vec<KeyValue>,
    /// The bytes behind the pointers. Moving the outer vector does not move them.
    _bytes: Vec<Pair>,
    more: bool,
}

// SAFETY: the pointers lead to bytes that the value owns and that never change.
unsafe impl Send for Pairs {}
// SAFETY: as above.
unsafe impl Sync for Pairs {}

impl Pairs {
    pub(crate) fn new(bytes: Vec<Pair>, more: bool) -> Self {
        let array = bytes
            .iter()
            .map(|(key, value)| KeyValue {
                key: key.as_ptr(),
                key_length: key.len() as c_int,
                value: value.as_ptr(),
                value_length: value.len() as c_int,
            })
            .collect();
        Self {
            array,
            _bytes: bytes,
            more,
        }
    }

    pub(crate) fn array(&self) -> &[KeyValue] {
        &self.array
    }

    pub(crate) fn more(&self) -> bool {
        self.more
    }
}

pub(crate) enum Value {
    Nothing,
    Version(i64),
    Key(Vec<u8>),
    Found(Option<Vec<u8>>),
    Pairs(Pairs),
}

pub(crate) type Outcome = Result<Value, i32>;
pub(crate) type Callback = unsafe extern "C" fn(*mut Future, *mut c_void);

struct Waiter {
    callback: Callback,
    future: *mut Future,
    parameter: *mut c_void,
}

// SAFETY: the C API says that callbacks come from the network thread; both pointers are only
// handed back.
unsafe impl Send for Waiter {}

impl Waiter {
    fn call(self) {
        // SAFETY: whoever set the callback promised that it may be called once with this parameter.
        unsafe { (self.callback)(self.future, self.parameter) }
    }
}

/// An `FDBFuture`.
#[derive(Default)]
pub(crate) struct Future {
    outcome: OnceLock<Outcome>,
    waiter: Mutex<Option<Waiter>>,
}

impl Future {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Makes it ready, unless it is.
    pub(crate) fn complete(&self, outcome: Outcome) {
        if self.outcome.set(outcome).is_err() {
            return;
        }
        // The outcome is set before the lock is taken, and `on_ready` looks at it under the lock:
        // one of the two calls the waiter.
        let waiter = self.lock().take();
        if let Some(waiter) = waiter {
            waiter.call();
        }
    }

    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    pub(crate) fn on_ready(self: &Arc<Self>, callback: Callback, parameter: *mut c_void) {
        let waiter = Waiter {
            callback,
            future: Arc::as_ptr(self).cast_mut(),
            parameter,
        };
        let mut slot = self.lock();
        if self.outcome.get().is_none() {
            *slot = Some(waiter);
            return;
        }
        drop(slot);
        waiter.call();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Waiter>> {
        self.waiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
