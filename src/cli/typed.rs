//! Names of images on the command line, where they may lack a registry.

use std::str::FromStr;

use ocibuild::oci::{Reference, ReferenceError};
use ocibuild::ops;

use super::context::Context;

/// A name as it was typed. It can be one.
#[derive(Clone, Debug)]
pub(crate) struct Typed(String);

impl FromStr for Typed {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Typed, ReferenceError> {
        text.parse::<Reference>()?;
        Ok(Typed(text.to_owned()))
    }
}

impl Typed {
    /// Returns the name of an image in a registry.
    pub(crate) fn in_registry(&self, context: &Context) -> Result<Reference, ops::Error> {
        ops::full_name(&self.0, ops::Whereabouts::Registry, &context.ops())
    }

    /// Returns the name of an image in the store, or, if `remote`, in a registry.
    pub(crate) fn of(&self, remote: bool, context: &Context) -> Result<Reference, ops::Error> {
        if remote { self.in_registry(context) } else { self.in_store(context) }
    }

    /// Returns the names of images in the store.
    pub(crate) fn all_in_store(
        names: &[Typed],
        context: &Context,
    ) -> Result<Vec<Reference>, ops::Error> {
        names.iter().map(|name| name.in_store(context)).collect()
    }

    /// Returns the name of an image in the store.
    pub(crate) fn in_store(&self, context: &Context) -> Result<Reference, ops::Error> {
        ops::full_name(&self.0, ops::Whereabouts::Store, &context.ops())
    }
}
