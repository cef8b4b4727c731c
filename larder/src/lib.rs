//! Larder.

#[cfg(feature = "page")]
pub mod django_keys;
