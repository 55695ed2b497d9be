//! Target `directory`: a whole directory, by a [recipe]: read, opened with or without repair,
//! worked with, and opened again.

use foreword::OnDamage;

use crate::{oracle, recipe};

/// Tries one input: a byte that says what is done about damage and what work follows, and the
/// recipe.
pub fn run(data: &[u8]) {
    let Some((&plan, data)) = data.split_first() else { return };
    let Some(files) = recipe::directory(data) else { return };
    let actions = [OnDamage::Refuse, OnDamage::StopAtDamage, OnDamage::Salvage];
    let disk = oracle::disk(&files);
    let seen = oracle::look(&disk, &files);
    oracle::write(&disk, &files, seen.as_ref(), actions[usize::from(plan >> 4) % actions.len()], plan & 15);
}
