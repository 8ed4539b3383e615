//! Pull and push against real registries, and against a double that misbehaves on purpose.

use crate::support::registry::Registry;

#[test]
fn a_registry_starts() {
    let registry = Registry::plain();
    assert!(registry.host().starts_with("127.0.0.1:"));
}
