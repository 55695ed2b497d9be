//! A concurrent B+tree with serializable transactions, on the pages of [`foreword_pages`].

pub mod locks;
