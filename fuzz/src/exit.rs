//! The error of the command's modules, as far as they need it.

use std::fmt;

#[derive(Debug)]
pub(crate) enum Failure {
    Wrong(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure::Wrong(why) = self;
        f.write_str(why)
    }
}
