//! Text as HTML and SVG have it.

/// The text with the characters that mean something in markup replaced: in an element and in a
/// quoted attribute.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
