//! Events for operators, if the feature `tracing` is on; nothing at all if it is off. A subscriber
//! is a stranger: no event under a lock.

#[cfg(feature = "tracing")]
mod on {
    macro_rules! debug {
        ($($event:tt)*) => { _ = $crate::strangers::run(|| tracing::debug!($($event)*)) };
    }
    macro_rules! info {
        ($($event:tt)*) => { _ = $crate::strangers::run(|| tracing::info!($($event)*)) };
    }
    macro_rules! warning {
        ($($event:tt)*) => { _ = $crate::strangers::run(|| tracing::warn!($($event)*)) };
    }
    macro_rules! error {
        ($($event:tt)*) => { _ = $crate::strangers::run(|| tracing::error!($($event)*)) };
    }
    pub(crate) use {debug, error, info, warning as warn};
}

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
#[cfg(feature = "tracing")]
pub(crate) use on::*;
