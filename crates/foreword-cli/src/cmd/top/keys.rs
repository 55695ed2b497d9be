//! Keys that end `top`, where it has a terminal.

/// The terminal hands over each key at once, and does not show it, until this goes. Signals are as
/// ever.
pub(super) struct Keys {
    #[cfg(unix)]
    before: Option<rustix::termios::Termios>,
}

#[cfg(unix)]
impl Keys {
    /// Of standard input, if it is a terminal and they are wanted.
    pub(super) fn of_terminal(wanted: bool) -> Keys {
        let stdin = std::io::stdin();
        Keys { before: rustix::termios::tcgetattr(&stdin).ok().filter(|_| wanted) }
    }

    /// Whether one was pressed that ends it.
    pub(super) fn end(&mut self) -> bool {
        let mut keys = [0; 64];
        // (Arrows and their like begin as Esc does.)
        match self.listen().and_then(|()| rustix::io::read(std::io::stdin(), &mut keys).ok()).map(|n| &keys[..n]) {
            Some([0x1b]) => true,
            Some([0x1b, ..]) | None => false,
            Some(keys) => keys.contains(&b'q') || keys.contains(&b'Q'),
        }
    }

    /// Has the terminal hand over what was typed, without waiting. Called each time, for a shell
    /// that stops and continues the process restores the terminal's modes. In the background the
    /// terminal belongs to another process.
    fn listen(&self) -> Option<()> {
        use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcgetpgrp, tcsetattr};
        self.before.as_ref()?;
        let stdin = std::io::stdin();
        if tcgetpgrp(&stdin).ok()? != rustix::process::getpgrp() {
            return None;
        }
        let mut modes = tcgetattr(&stdin).ok()?;
        if modes.local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO) {
            modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            modes.special_codes[SpecialCodeIndex::VMIN] = 0;
            modes.special_codes[SpecialCodeIndex::VTIME] = 0;
            tcsetattr(&stdin, OptionalActions::Now, &modes).ok()?;
        }
        Some(())
    }
}

#[cfg(unix)]
impl Drop for Keys {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcgetpgrp, tcsetattr};
        let stdin = std::io::stdin();
        let ours = tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp());
        if let Some(before) = self.before.as_ref().filter(|_| ours) {
            // A terminal that is gone needs nothing.
            let _ = tcsetattr(&stdin, OptionalActions::Now, before);
        }
    }
}

#[cfg(not(unix))]
impl Keys {
    pub(super) fn of_terminal(_wanted: bool) -> Keys {
        Keys {}
    }

    pub(super) fn end(&mut self) -> bool {
        false
    }
}
