//! The hub client behind the C ABI.
