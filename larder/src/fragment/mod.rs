//! Parts of a page: a tag for `MiniJinja`, and a call for any other way of making text.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use larder::fragment::make_template_fragment_key;
//! use larder::{Cache, store::Memory};
//!
//! let cache = Cache::new(Memory::new());
//! let sidebar = cache.fragment("sidebar").vary(7).ttl(Duration::from_secs(500));
//! let text = sidebar.render(|| async { Ok::<_, std::io::Error>("<nav>".to_owned()) }).await?;
//! assert_eq!(text, "<nav>");
//!
//! cache.delete(make_template_fragment_key("sidebar", &[7.into()])).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A fragment is a value under Django's name, made by the engine of every other value: one rendering
//! however many ask, nothing old after `delete` or `invalidate`, and what is read inside it, other
//! fragments included, is what it depends on: invalidate the inner one's tag, and the outer ones and
//! the page are gone with it.
//!
//! A cache never breaks the page: where the store fails, the fragment is rendered without it. The only
//! errors are those of the rendering itself, which are told to those who waited for it and are not
//! kept. A fragment waits for another's rendering for a second, then it renders its own.
//!
#![cfg_attr(
    feature = "minijinja",
    doc = "With the feature `minijinja`, templates have the tag as well; see [`install`]."
)]
//!
//! | file | what |
//! | --- | --- |
//! | `call.rs` | [`Fragment`]: the call that knows no engine |
//! | `keys.rs` | Django's names of fragments |
//! | `minijinja/` | the tag for `MiniJinja` (feature) |

mod call;
mod keys;
#[cfg(feature = "minijinja")]
mod minijinja;

pub use self::call::Fragment;
pub use self::keys::{VaryOn, make_template_fragment_key};
#[cfg(feature = "minijinja")]
pub use self::minijinja::{Fragments, add_template, install, render, set_loader};

use std::time::Duration;

use crate::Policy;

/// How long a fragment waits for another's rendering before it renders its own.
const WAIT: Duration = Duration::from_secs(1);

/// How fragments are loaded: a rendering that failed is tried again by whoever comes next.
fn policy() -> Policy {
    Policy::new().wait(WAIT).retry_after(Duration::ZERO)
}
