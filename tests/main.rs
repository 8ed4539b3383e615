//! The one integration binary: a module a subject, a sentence each for what belongs there.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test that panics has failed"
)]
