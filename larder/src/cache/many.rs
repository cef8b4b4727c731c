//! Loading all that is missing at once.
