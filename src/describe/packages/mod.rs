//! Which packages are in an image, and which layer brought each, read from the tars of its layers:
//!
//! ```text
//! layer's blob -> entries -> finds: a file of a package manager, by path
//!                            whiteouts
//! finds, layer upon layer -> what is there in the end -> packages, each once
//! ```
//!
//! A package manager's own word counts. What a Debian package or a conda package brings of another
//! manager's (`python3-numpy`, `r-cran-mass`) is told at that package and is not a second one.

mod finds;
mod merge;

pub use finds::{Finds, read};
pub use merge::{Inventory, merge};
