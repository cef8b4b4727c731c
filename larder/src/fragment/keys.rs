//! The names of fragments.

use std::fmt;

use crate::django_keys::{KeyFormat, fragment_key};

/// A value that a fragment varies on, as Django writes it into the key: `True`, `None`, `7`.
///
/// What is not here is given as its text: `id.to_string().into()`.
///
/// ```
/// use larder::fragment::VaryOn;
///
/// assert_eq!(VaryOn::from(true).to_string(), "True");
/// assert_eq!(VaryOn::from(None::<i64>).to_string(), "None");
/// assert_eq!(VaryOn::from(1.0).to_string(), "1.0");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VaryOn(String);

impl fmt::Display for VaryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for VaryOn {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&String> for VaryOn {
    fn from(text: &String) -> Self {
        Self(text.clone())
    }
}

impl From<&str> for VaryOn {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<bool> for VaryOn {
    fn from(yes: bool) -> Self {
        Self(if yes { "True" } else { "False" }.to_owned())
    }
}

impl<T: Into<Self>> From<Option<T>> for VaryOn {
    fn from(value: Option<T>) -> Self {
        value.map_or_else(|| Self("None".to_owned()), Into::into)
    }
}

macro_rules! from_numbers {
    ($($format:literal: $($number:ty)*;)*) => {$($(
        impl From<$number> for VaryOn {
            fn from(number: $number) -> Self {
                Self(format!($format, number))
            }
        }
    )*)*};
}

from_numbers! {
    "{}": i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize;
    "{:?}": f32 f64;
}

/// Returns the key of the fragment `name` that varies on `vary`, to `get` or to `delete` it: exactly
/// one combination of values.
///
/// The format is that of Django 6.1 and later;
/// [`django_keys::fragment_key`](crate::django_keys::fragment_key) has the older one as well.
///
/// ```
/// use larder::fragment::make_template_fragment_key;
///
/// let key = make_template_fragment_key("sidebar", &["admin".into()]);
///
/// assert_eq!(key, "template.cache.sidebar.606c25d96ba555bdd715281fc7026301");
/// ```
pub fn make_template_fragment_key(name: &str, vary: &[VaryOn]) -> String {
    fragment_key(name, vary, KeyFormat::default())
}
