//! Whether a store creates an object only once. A race that two win refutes it; one that one wins
//! proves nothing: a server was seen to let two win in one race of 150.

use bytes::Bytes;
use futures_util::future::join_all;

use crate::error::{Error, Result};
use crate::keys::{hex, random};
use crate::store::{Created, Store};

/// What races have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// How many races.
    pub races: u32,
    /// How many wanted to create the object, in each.
    pub racers: u32,
    /// Races that more than one won.
    pub many: u32,
    /// The most that won one.
    pub most: u32,
    /// Races that no one won.
    pub none: u32,
    /// Racers that were told of an error other than that the object is there.
    pub errors: u32,
}

impl Probe {
    /// Whether it is refuted that an object is created only once.
    #[must_use]
    pub fn is_refuted(&self) -> bool {
        self.many > 0
    }
}

/// Lets racers create one object, a number of times, and counts the winners. The objects are
/// removed.
///
/// # Errors
/// [`Error::Store`] if the store cannot be used at all.
pub async fn probe(store: &Store, races: u32, racers: u32) -> Result<Probe> {
    let mut probe = Probe { races, racers, ..Probe::default() };
    for _ in 0..races {
        let name = format!("probe/{}", hex(&random::<8>()?));
        let create = async |n: u32| {
            let bytes = Bytes::from(format!("{n} {}", hex(&random::<8>()?)));
            store.put(&name, &bytes).await
        };
        let raced = join_all((0..racers).map(create)).await;
        let won = raced.iter().filter(|raced| matches!(raced, Ok(Created::Ours))).count() as u32;
        let errors = raced.iter().filter(|raced| raced.is_err()).count() as u32;
        if errors == racers
            && let Some(Err(error)) = raced.into_iter().next()
        {
            return Err(error);
        }
        store.delete(&name).await?;
        probe.many += u32::from(won > 1);
        probe.none += u32::from(won == 0);
        probe.most = probe.most.max(won);
        probe.errors += errors;
    }
    Ok(probe)
}

/// Refuses a store that is seen to create an object twice.
pub(crate) async fn creates_once(store: &Store) -> Result<()> {
    let name = format!("probe/{}", hex(&random::<8>()?));
    let first = store.put(&name, &Bytes::from_static(b"first")).await?;
    let second = store.put(&name, &Bytes::from_static(b"second")).await;
    store.delete(&name).await?;
    let raced = probe(store, 2, 8).await?;
    if first != Created::Ours || !matches!(second?, Created::Other(_)) || raced.is_refuted() {
        return Err(Error::NotAtomic { why: format!("{} created an object that was there already", store.url()) });
    }
    Ok(())
}
