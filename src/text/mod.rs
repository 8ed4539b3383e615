//! What people write: TOML with positions, the small values in it (modes, durations, users, text
//! with variables), and everything that is wrong with it, told at once.
//!
//! A reader asks a [`Table`] for the keys that it knows; whatever is left over is an unknown key.
//! Nothing here fails: what is wrong goes to [`Problems`], and a value that cannot be had is `None`.

mod file;
mod near;
mod problem;
mod table;
mod template;
mod values;

pub use file::{File, Span};
pub use near::nearest;
pub use problem::{Class, Error, Position, Problem, Problems};
pub use table::{Item, Table, Text};
pub use template::{Scope, Template};
pub use values::{Principal, User, absolute_path, duration, inner_path, mode, simple_name};
