//! Fragments of Tera templates, by the call that knows no engine.
//!
//! `cargo run --example tera --features fragment`

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder::store::Memory;
use larder::{Cache, FetchError};
use tera::{Context, Tera};

const SIDEBAR: &str = "<ul>{% for product in products %}<li>{{ product }}</li>{% endfor %}</ul>";
const PAGE: &str = "<h1>Hello {{ name }}</h1>{{ sidebar | safe }}";

/// The templates, and what stands for a database; counts how often it is asked.
struct Site {
    tera: Tera,
    asked: AtomicUsize,
}

impl Site {
    fn new() -> tera::TeraResult<Arc<Self>> {
        let mut tera = Tera::default();
        tera.add_raw_templates(vec![("sidebar.html", SIDEBAR), ("page.html", PAGE)])?;
        Ok(Arc::new(Self {
            tera,
            asked: AtomicUsize::new(0),
        }))
    }

    fn products(&self, section: &str) -> Vec<String> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        vec![format!("{section} & more")]
    }

    /// Tera has no tag that is rendered only if it must be: the part is a template of its own, and the
    /// page gets its text.
    async fn page(
        self: &Arc<Self>,
        cache: &Cache,
        name: &str,
    ) -> Result<String, FetchError<tera::Error>> {
        let site = Arc::clone(self);
        let sidebar = cache.fragment("sidebar").vary("books").tags(["products"]);
        let sidebar = sidebar.ttl(Duration::from_secs(500)).render(|| async move {
            let mut context = Context::new();
            context.insert("products", &site.products("books"));
            site.tera.render("sidebar.html", &context)
        });
        let mut context = Context::new();
        context.insert("name", name);
        context.insert("sidebar", &sidebar.await?);
        let page = self.tera.render("page.html", &context);
        page.map_err(|error| FetchError::Load(Arc::new(error)))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (cache, site) = (Cache::new(Memory::new()), Site::new()?);

    let ann = site.page(&cache, "Ann").await?;
    let bob = site.page(&cache, "Bob").await?;
    println!("{ann}\n{bob}");
    assert_eq!(ann, "<h1>Hello Ann</h1><ul><li>books &amp; more</li></ul>");
    assert!(bob.starts_with("<h1>Hello Bob</h1><ul>"));
    assert_eq!(site.asked.load(Ordering::SeqCst), 1, "one sidebar for both");

    cache.invalidate(["products"]).await?;
    site.page(&cache, "Ann").await?;
    assert_eq!(site.asked.load(Ordering::SeqCst), 2);
    Ok(())
}
