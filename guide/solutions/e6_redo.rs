//! Exercise 6: redo with page LSNs (chapter 8).
//!
//! Accounts on pages. A change is a record in the log, `account u32, delta i64`, and then a change
//! of the account's page in memory; the page remembers the record's LSN. Pages are written to the
//! page file at any time. Two rules make it safe:
//!
//! - **Log before page**: before a page is written, the log is durable up to the page's LSN.
//! - **Redo**: opening applies each record in the log to its page, unless the page's LSN says that
//!   it has it already.

use std::collections::BTreeMap;

use foreword::{Log, Lsn, Result};

/// An account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The last record that was applied.
    pub lsn: Lsn,
    /// What is on it.
    pub balance: i64,
}

/// Where pages are kept. A page is written as a whole.
pub trait PageFile {
    /// A page as it was written last.
    fn read(&self, account: u32) -> Option<Page>;
    /// Writes a page.
    fn write(&mut self, account: u32, page: Page);
}

/// Accounts that survive.
#[derive(Debug)]
pub struct Accounts<F> {
    log: Log,
    file: F,
    pages: BTreeMap<u32, Page>,
}

impl<F: PageFile> Accounts<F> {
    /// Opens the accounts: redo. A page that no record is about need not be looked at.
    ///
    /// # Errors
    /// Those of the log.
    pub fn open(log: Log, file: F) -> Result<Accounts<F>> {
        let mut accounts = Accounts { log, file, pages: BTreeMap::new() };
        for record in accounts.log.iter(Lsn::ZERO) {
            let record = record?;
            let Some((account, delta)) = decode(&record.data) else { continue };
            accounts.apply(account, delta, record.lsn);
        }
        Ok(accounts)
    }

    /// What is on an account.
    pub fn balance(&self, account: u32) -> i64 {
        self.pages.get(&account).copied().or_else(|| self.file.read(account)).unwrap_or_default().balance
    }

    /// Changes an account. It becomes durable with the next [`commit`](Accounts::commit).
    ///
    /// # Errors
    /// Those of the log; nothing was changed.
    pub fn add(&mut self, account: u32, delta: i64) -> Result<Lsn> {
        let lsn = self.log.append(&encode(account, delta))?;
        self.apply(account, delta, lsn);
        Ok(lsn)
    }

    /// Makes all changes durable. Writes no page.
    ///
    /// # Errors
    /// Those of the log.
    pub fn commit(&mut self) -> Result<()> {
        self.log.sync()?;
        Ok(())
    }

    /// Writes an account's page, if it was changed since the accounts were opened.
    ///
    /// # Errors
    /// Those of the log; the page was not written.
    pub fn write_page(&mut self, account: u32) -> Result<()> {
        if let Some(&page) = self.pages.get(&account) {
            self.log.sync_to(page.lsn)?;
            self.file.write(account, page);
        }
        Ok(())
    }

    /// Applies a record to its page, if the page does not have it.
    fn apply(&mut self, account: u32, delta: i64, lsn: Lsn) {
        let page = self.pages.entry(account).or_insert_with(|| self.file.read(account).unwrap_or_default());
        if lsn > page.lsn {
            *page = Page { lsn, balance: page.balance + delta };
        }
    }
}

fn encode(account: u32, delta: i64) -> Vec<u8> {
    [&account.to_le_bytes()[..], &delta.to_le_bytes()].concat()
}

fn decode(record: &[u8]) -> Option<(u32, i64)> {
    let (account, delta) = record.split_first_chunk()?;
    Some((u32::from_le_bytes(*account), i64::from_le_bytes(delta.try_into().ok()?)))
}
