//! The record types of the store's user: how a record of such a type is redone.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Why a [handler](crate::Options::redo_type) of the user failed. An [`Error`](crate::Error) of
/// this crate stays that error.
pub type HandlerError = Box<dyn std::error::Error + Send + Sync>;

/// Handlers by the number of their type, each with the type's name.
pub(crate) struct Types<H: ?Sized>(BTreeMap<u16, (Arc<str>, Arc<H>)>);

/// Makes a change in the body of a page, by what a record says.
pub(crate) type RedoFn = dyn Fn(&mut [u8], &[u8]) -> Result<(), HandlerError> + Send + Sync;

pub(crate) type RedoTypes = Types<RedoFn>;

impl<H: ?Sized> Types<H> {
    pub(crate) fn insert(&mut self, number: u16, name: &str, handler: Arc<H>) {
        self.0.insert(number, (name.into(), handler));
    }

    pub(crate) fn has(&self, number: u16) -> bool {
        self.0.contains_key(&number)
    }

    pub(crate) fn name(&self, number: u16) -> Arc<str> {
        self.0.get(&number).map_or_else(|| "".into(), |(name, _)| name.clone())
    }

    /// Calls the handler of a type. A panic is an error.
    pub(crate) fn call<T>(&self, number: u16, call: impl FnOnce(&H) -> Result<T, HandlerError>) -> Result<T, HandlerError> {
        let Some((_, handler)) = self.0.get(&number) else { return Err("it is not registered".into()) };
        match catch_unwind(AssertUnwindSafe(|| call(handler))) {
            Ok(done) => done,
            Err(panic) => Err(format!("it panicked: {}", said(&*panic)).into()),
        }
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

impl<H: ?Sized> Default for Types<H> {
    fn default() -> Self {
        Types(BTreeMap::new())
    }
}

impl<H: ?Sized> Clone for Types<H> {
    fn clone(&self) -> Self {
        Types(self.0.clone())
    }
}

impl<H: ?Sized> fmt::Debug for Types<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(number, (name, _))| (number, name))).finish()
    }
}
