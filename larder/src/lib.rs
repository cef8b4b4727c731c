//! Larder.

#[cfg(feature = "page")]
pub mod django_keys;
#[cfg(feature = "page")]
pub mod page;
