//! Locks on keys: strict two-phase, with deadlocks detected.
