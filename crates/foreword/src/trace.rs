//! Events for operators, if the feature `tracing` is on; nothing at all if it is off.

#[cfg(feature = "tracing")]
pub(crate) use tracing::{debug, error, info, warn};

#[cfg(not(feature = "tracing"))]
mod off {
    /// Uses the values without evaluating them, so that both builds see the same warnings.
    macro_rules! nothing {
        ($($key:ident $(= $(%)? $value:expr)?),* , $message:literal) => {{
            if false {
                $($( let _ = &$value; )?)*
            }
        }};
    }
    pub(crate) use nothing as debug;
    pub(crate) use nothing as error;
    pub(crate) use nothing as info;
    pub(crate) use nothing as warn;
}
#[cfg(not(feature = "tracing"))]
pub(crate) use off::*;
