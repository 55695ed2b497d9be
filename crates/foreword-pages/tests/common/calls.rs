//! A simulated disk that calls the test before its operations.

use std::sync::{Arc, Mutex};

use foreword::disk::Disk;
use foreword_sim::{OpKind, SimDisk};

use super::hooked;

/// A simulated disk that calls a function before operations on its files: before one operation, or
/// before each. The disk cannot reserve space.
#[derive(Clone)]
pub struct Hooked {
    disk: Arc<hooked::Hooked<SimDisk>>,
    calls: Arc<Calls>,
}

#[derive(Default)]
struct Calls {
    once: Mutex<Option<Once>>,
    each: Mutex<Option<Arc<Each>>>,
}

type Each = dyn Fn(OpKind, &str) + Send + Sync;

struct Once {
    ops: &'static [OpKind],
    /// Operations of these kinds that pass first.
    skip: u64,
    call: Box<dyn FnOnce(&str) + Send>,
}

impl Hooked {
    pub fn new(disk: &SimDisk) -> Hooked {
        let calls = Arc::new(Calls::default());
        let called = calls.clone();
        let disk = hooked::hooked_unreserving(disk.clone(), move |op, name| {
            let kind = match op {
                hooked::Op::Read(_) => OpKind::Read,
                hooked::Op::Write | hooked::Op::Zero => OpKind::Write,
                hooked::Op::WriteDurable => OpKind::DurableWrite,
                hooked::Op::Sync => OpKind::Sync,
                hooked::Op::SetLen | hooked::Op::Allocate(_) => OpKind::SetLen,
                _ => return Ok(()),
            };
            called.before(kind, name);
            Ok(())
        });
        Hooked { disk, calls }
    }

    pub fn handle(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }

    pub fn before_each(&self, call: impl Fn(OpKind, &str) + Send + Sync + 'static) {
        *self.calls.each.lock().unwrap() = Some(Arc::new(call));
    }

    pub fn before(&self, ops: &'static [OpKind], skip: u64, call: impl FnOnce(&str) + Send + 'static) {
        *self.calls.once.lock().unwrap() = Some(Once { ops, skip, call: Box::new(call) });
    }

    /// Removes the functions. Returns whether the one for a single operation was not called.
    pub fn clear(&self) -> bool {
        self.calls.each.lock().unwrap().take();
        self.calls.once.lock().unwrap().take().is_some()
    }
}

impl Calls {
    fn before(&self, op: OpKind, name: &str) {
        let each = self.each.lock().unwrap().clone();
        if let Some(each) = each {
            each(op, name);
        }
        let mut once = self.once.lock().unwrap();
        if let Some(due) = once.take_if(|once| once.ops.contains(&op) && once.skip == 0) {
            drop(once);
            (due.call)(name);
        } else if let Some(once) = once.as_mut().filter(|once| once.ops.contains(&op)) {
            once.skip -= 1;
        }
    }
}
