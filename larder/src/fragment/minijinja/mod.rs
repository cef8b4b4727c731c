//! The tag for `MiniJinja`.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`install`], [`add_template`], [`set_loader`], [`render`]: what a program calls |
//! | `tag.rs` | `{% cache %}` rewritten to what the engine of the templates knows |
//! | `arguments.rs` | what stands in the tag |
//! | `function.rs` | the function behind the tag |
//! | `unawaited.rs` | rendering where the store would have to be waited for |
//! | `errors.rs` | errors at a line of a template |

mod arguments;
mod errors;
mod function;
mod tag;
mod unawaited;

use std::borrow::Cow;
use std::sync::Arc;

use minijinja::value::{Rest, Value, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, TemplateSource};
use tokio::runtime::Handle;

use self::function::Function;
use crate::cache::Scope;
use crate::django_keys::KeyFormat;
use crate::{Cache, Caches};

tokio::task_local! {
    /// On threads that may wait for a store: the runtime by which they do.
    static PATIENT: Handle;
}

/// The caches that templates use, and how their keys are written.
///
/// ```
/// use larder::django_keys::KeyFormat;
/// use larder::fragment::{Fragments, install};
/// use larder::{Cache, store::Memory};
///
/// let cache = Cache::new(Memory::new());
/// let mut env = minijinja::Environment::new();
/// install(&mut env, Fragments::from(cache).key_format(KeyFormat::Django52));
/// ```
#[derive(Debug, Clone)]
pub struct Fragments {
    caches: Caches,
    format: KeyFormat,
}

impl Fragments {
    /// How the values that a fragment varies on become a key. Default: as Django 6.1 and later.
    #[must_use]
    pub fn key_format(mut self, format: KeyFormat) -> Self {
        self.format = format;
        self
    }
}

impl From<Caches> for Fragments {
    fn from(caches: Caches) -> Self {
        Self {
            caches,
            format: KeyFormat::default(),
        }
    }
}

impl From<Cache> for Fragments {
    fn from(cache: Cache) -> Self {
        Caches::new().with("default", cache).into()
    }
}

/// Teaches the templates of `env` to keep parts of themselves: the function behind the tag.
///
/// The tag itself is understood in templates that come by [`add_template`] or [`set_loader`]; in any
/// other it is written `{% call cache(500, "sidebar", user.id) %}…{% endcall %}`, which is the same.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), minijinja::Error> {
/// use std::sync::Arc;
/// use larder::{Cache, fragment, store::Memory};
/// use minijinja::{Environment, context};
///
/// let mut env = Environment::new();
/// fragment::install(&mut env, Cache::new(Memory::new()));
/// fragment::add_template(&mut env, "home.html", r#"
///     {% cache 500 "sidebar" user.id %}Hello {{ user.name }}{% endcache %}
/// "#)?;
/// let env = Arc::new(env);
///
/// let page = |name| context! { user => context! { id => 7, name => name } };
/// let first = fragment::render(&env, "home.html", page("Ann")).await?;
/// assert_eq!(first.trim(), "Hello Ann");
/// let second = fragment::render(&env, "home.html", page("Bob")).await?;
/// assert_eq!(second.trim(), "Hello Ann", "it was kept for user 7");
/// # Ok(())
/// # }
/// ```
///
/// | in the tag | is |
/// | --- | --- |
/// | the first | for how long: seconds, `"5m"`, `none` for ever, `0` not at all |
/// | the second | the name, in quotes; a bare word is taken literally, as in Django |
/// | further ones | the values on which the text depends; undefined counts as empty, unless undefined values are errors |
/// | `using="alias"` | the cache; default: the alias `template_fragments` if there is one, else `default` |
/// | `tags=["a", "b"]` | tags by which [`Cache::invalidate`] finds it |
/// | `grace=60` | for how long after its TTL it is served while somebody renders it anew |
///
/// Arguments are separated by blanks; an expression with blanks stands in parentheses.
///
/// The body is rendered only if it is not there, in the scope of the template: loop variables, macros
/// and includes work. What is kept is escaped already and comes back so; a text that was kept without
/// escaping is not given to a template that escapes. A body may not hold a `{% block %}`, which
/// `MiniJinja` does not allow there; in a block, `{% cache %}` may stand.
///
/// *Waiting.* Templates are rendered by plain functions and stores are not. [`render`] may wait for any
/// store. A template that is rendered directly has what its store can tell at once, which memory can,
/// and does not wait for another's rendering either; a store that would have to be waited for is a miss. It is filled in the background: the first such
/// rendering leaves a note in the slot, the next one that begins when the note is there is written
/// under it. Nothing of that happens outside a runtime.
pub fn install(env: &mut Environment<'_>, fragments: impl Into<Fragments>) {
    let function = Function::new(fragments.into());
    env.add_function(
        "cache",
        move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            function.call(state, &args.into_values())
        },
    );
}

/// Adds a template that may have `{% cache %}` in it.
///
/// Errors are those of the template, with its name and line. The delimiters are those of `env` as it
/// is now; with line statements or line comments there is no tag.
///
/// ```
/// let mut env = minijinja::Environment::new();
/// let unclosed = "<p>\n{% cache 500 'nav' %}";
/// let error = larder::fragment::add_template(&mut env, "home.html", unclosed).unwrap_err();
/// assert_eq!((error.name(), error.line()), (Some("home.html"), Some(2)));
/// ```
pub fn add_template(env: &mut Environment<'_>, name: &str, source: &str) -> Result<(), Error> {
    let source = tag::rewritten(name, source, env.syntax())?.into_owned();
    env.add_template_owned(name.to_owned(), source)
}

/// Loads templates that may have `{% cache %}` in them by `loader`, such as
/// [`minijinja::path_loader`].
///
/// A template with the tag is loaded once: that it has changed is not seen until
/// [`Environment::clear_templates`]. The delimiters are those of `env` as it is now.
///
/// ```
/// let mut env = minijinja::Environment::new();
/// larder::fragment::set_loader(&mut env, minijinja::path_loader("templates"));
/// ```
pub fn set_loader<S: Into<TemplateSource>>(
    env: &mut Environment<'_>,
    loader: impl Fn(&str) -> Result<Option<S>, Error> + Send + Sync + 'static,
) {
    let syntax = env.syntax().clone();
    env.set_loader(move |name| {
        let Some(source) = loader(name)? else {
            return Ok(None);
        };
        let source: TemplateSource = source.into();
        Ok(Some(
            match tag::rewritten(name, source.source(), &syntax)? {
                Cow::Borrowed(_) => source,
                Cow::Owned(rewritten) => rewritten.into(),
            },
        ))
    });
}

/// Renders the template `name` where it may wait for the stores of its fragments: on the runtime's
/// pool of threads for blocking work.
///
/// Inside a page's handler or a load, what the template reads becomes a part of that, as ever. Should
/// the caller go away, the rendering goes on and fills what it has begun. A panic is an error.
pub async fn render(
    env: &Arc<Environment<'static>>,
    name: &str,
    context: impl Into<Value>,
) -> Result<String, Error> {
    let (env, name, context) = (Arc::clone(env), name.to_owned(), context.into());
    let (scope, span, handle) = (
        Scope::current(),
        tracing::Span::current(),
        Handle::current(),
    );
    let render = move || span.in_scope(|| env.get_template(&name)?.render(context));
    let patient = move || PATIENT.sync_scope(handle, render);
    let rendered = tokio::task::spawn_blocking(move || match scope {
        Some(scope) => scope.around_now(patient),
        None => patient(),
    });
    rendered.await.unwrap_or_else(|_| {
        let what = "the rendering panicked";
        Err(Error::new(ErrorKind::InvalidOperation, what))
    })
}
