//! What threads share: the standard library's, or shuttle's where its schedules explore the trees
//! (`--cfg shuttle`).

#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};

pub(crate) use std::sync::PoisonError;
