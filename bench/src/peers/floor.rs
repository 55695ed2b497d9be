//! The physical floor as a contestant: what does the same to the disk with nothing around it. It is
//! no log; a cell measures it by other means.

use anyhow::bail;

use super::peer::{Feature, Peer};

/// Past the page cache.
pub const DIRECT: Peer = Peer {
    name: "floor",
    package: "",
    setting: "zero-filled file, one block behind the other, `O_DIRECT` and `RWF_DSYNC`; of T threads the last to come writes for all, and wakes them, and that is all they do; append: 1 MiB pieces, two at a time; recover: a file read in 1 MiB pieces, with its checksum",
    lacks: &[
        (Feature::Batch, "it knows no records"),
        (Feature::Async, "it knows no records"),
        (Feature::Together, "it knows no records"),
    ],
    open: |_, _| bail!("the floor is no log"),
    read: |_, _| bail!("the floor is no log"),
};

/// Through it.
pub const FDATASYNC: Peer = Peer { name: "floor-fdatasync", setting: "the same with `pwrite` and `fdatasync`", ..DIRECT };
