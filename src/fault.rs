//! What every room's error can say of itself: the class that decides the exit code, and the next
//! thing to try. The text of an error stays in the room that raises it; only `cli` prints.

use std::fmt;

/// The class of a failure; it decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The work was tried and did not succeed (exit code 1).
    Failed,
    /// The command line or a file that a user wrote is wrong (exit code 2).
    Usage,
    /// The machine lacks something: namespaces, space, network, a permission (exit code 3).
    Environment,
    /// A state that the program holds to be impossible (exit code 101).
    Bug,
}

impl Kind {
    /// Returns the exit code of this class.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Environment => 3,
            Kind::Bug => 101,
        }
    }
}

/// An error that knows its class and, where there is one, the user's next step.
pub trait Fault: std::error::Error {
    /// Returns the class of this failure.
    fn kind(&self) -> Kind {
        Kind::Failed
    }

    /// Returns what the user can do about it, as one sentence without a full stop.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Classifies an I/O error: no space, no permission and the like are the machine's.
pub fn kind_of_io(error: &std::io::Error) -> Kind {
    use std::io::ErrorKind as E;
    match error.kind() {
        E::StorageFull | E::QuotaExceeded | E::PermissionDenied | E::ReadOnlyFilesystem => {
            Kind::Environment
        }
        _ => Kind::Failed,
    }
}

/// Returns what to do about an I/O error whose cause is the machine's state.
pub fn hint_of_io(error: &std::io::Error) -> Option<String> {
    use std::io::ErrorKind as E;
    match error.kind() {
        E::StorageFull | E::QuotaExceeded => Some(
            "free space there, run `ocibuild gc`, give a larger --disk if that is the bound, or choose \
             another place with --store or --scratch"
                .to_owned(),
        ),
        E::PermissionDenied => {
            Some("check who owns that path, or choose another with --store".to_owned())
        }
        E::ReadOnlyFilesystem => {
            Some("choose a place that can be written with --store or --scratch".to_owned())
        }
        _ => None,
    }
}

/// Joins names as `a`, `b` and `c` for a message.
pub fn list_of<T: fmt::Display>(items: &[T]) -> String {
    match items {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [head @ .., last] => {
            let head: Vec<String> = head.iter().map(|item| format!("`{item}`")).collect();
            format!("{} and `{last}`", head.join(", "))
        }
    }
}
