//! Fragments of an Askama template, by the call that knows no engine.
//!
//! `cargo run --example askama --features fragment`

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use askama::Template;
use larder::fragment::make_template_fragment_key;
use larder::store::Memory;
use larder::{Cache, FetchError};

/// What is slow to make, and the same for everybody in one section.
#[derive(Template)]
#[template(
    source = "<ul>{% for product in products %}<li>{{ product }}</li>{% endfor %}</ul>",
    ext = "html"
)]
struct Sidebar {
    products: Vec<String>,
}

/// The page around it, which has it as a text that is escaped already.
#[derive(Template)]
#[template(source = "<h1>Hello {{ name }}</h1>{{ sidebar|safe }}", ext = "html")]
struct Page<'a> {
    name: &'a str,
    sidebar: String,
}

/// Stands for a database; counts how often it is asked.
#[derive(Clone, Default)]
struct Shop(Arc<AtomicUsize>);

impl Shop {
    fn products(&self, section: &str) -> Vec<String> {
        self.0.fetch_add(1, Ordering::SeqCst);
        vec![format!("{section} & more")]
    }
}

async fn page(cache: &Cache, shop: &Shop, name: &str) -> Result<String, FetchError<askama::Error>> {
    let shop = shop.clone();
    let sidebar = cache.fragment("sidebar").vary("books").tags(["products"]);
    let sidebar = sidebar.ttl(Duration::from_secs(500)).render(|| async move {
        let products = shop.products("books");
        Sidebar { products }.render()
    });
    let sidebar = sidebar.await?;
    Page { name, sidebar }
        .render()
        .map_err(|error| FetchError::Load(Arc::new(error)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (cache, shop) = (Cache::new(Memory::new()), Shop::default());

    let ann = page(&cache, &shop, "Ann").await?;
    let bob = page(&cache, &shop, "Bob").await?;
    println!("{ann}\n{bob}");
    assert_eq!(ann, "<h1>Hello Ann</h1><ul><li>books &#38; more</li></ul>");
    assert!(bob.starts_with("<h1>Hello Bob</h1><ul>"));
    assert_eq!(shop.0.load(Ordering::SeqCst), 1, "one sidebar for both");

    // A product has changed, or one sidebar is to go.
    cache.invalidate(["products"]).await?;
    page(&cache, &shop, "Ann").await?;
    cache
        .delete(make_template_fragment_key("sidebar", &["books".into()]))
        .await?;
    page(&cache, &shop, "Ann").await?;
    assert_eq!(shop.0.load(Ordering::SeqCst), 3);
    Ok(())
}
