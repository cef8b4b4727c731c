//! What is kept of a response: its page, and its place in the list of the URL's variants.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AGE, ETAG, HeaderMap};
use http::response;

use super::keys::{self, KeyOptions};
use super::layer::Site;
use super::load::{JustMade, Plan, Slot};
use super::route::Route;
use super::rules::{freshness, validators, vary};
use super::stored::{HeaderList, PAGE, PageHead, VaryValue, kept_headers};
use crate::cache::{Gathered, Keep, Kept};
use crate::entry::{Entry, Stamp};
use crate::event::Reason;
use crate::store::When;
use crate::{Key, Moment, Ttl};

/// How often a variant tries to get into its URL's list while others do the same.
const MOST_TRIES: usize = 20;

/// All names of both lists, in the order of a page's key.
fn union(known: &[String], names: Vec<String>) -> Vec<String> {
    let new: Vec<String> = names
        .into_iter()
        .filter(|name| !known.contains(name))
        .collect();
    if new.is_empty() {
        return known.to_vec();
    }
    keys::header_list(&[known, &new].concat(), &KeyOptions::default())
}

/// Turns a response into what is kept of it.
pub(super) struct Maker<'a> {
    pub(super) site: &'a Site,
    pub(super) route: &'a Route,
    pub(super) request: &'a HeaderMap,
    pub(super) plan: Plan,
    pub(super) parts: response::Parts,
    /// What the handler and its body read from caches, and the era of their tags.
    pub(super) made_of: (Gathered, u64),
    /// When the handler was asked.
    pub(super) began: Moment,
}

impl Maker<'_> {
    /// Puts variant and list where they belong, but for the one that the engine itself writes.
    pub(super) async fn keep(self, slot: Slot, body: Bytes) -> Keep {
        let settings = &self.site.settings;
        // The layer knows no request's language, so that `Accept-Language` stays among the names.
        let mut names = keys::header_list(&self.plan.verdict.vary, &KeyOptions::default());
        if let Slot::Page { list, .. } = &slot {
            // All that responses of this URL ever named: a response that names less is no reason to
            // lose the variants of those that named more.
            names = union(&list.names, names);
        }
        let values = vary::values(&names, self.request);
        let values: Vec<VaryValue> = (values.into_iter())
            .map(|value| value.map(|value| Bytes::from(value.into_owned())))
            .collect();
        let page_key = self
            .route
            .page_key(&values, &settings.keys, &settings.cache);
        match slot {
            Slot::Page { list, stamp, key } if list.names == names && page_key == key => {
                let mark = list.mark;
                if !self.extend_list(list, stamp, &key).await {
                    return Keep::Pass;
                }
                let head = self.head(mark, values, &body);
                self.kept(head.encode(&body), &head, names, body)
            }
            slot => {
                let mark = settings.cache.shared.clock.random();
                let list = HeaderList::new(mark, names.clone(), &page_key, self.stale_until());
                let head = self.head(mark, values, &body);
                self.put(&page_key, head.encode(&body), When::Always).await;
                if let Slot::Page { stamp, .. } = slot {
                    // The URL varies on other headers than before. Should somebody have dropped or
                    // replaced the list meanwhile, the page stays out of reach.
                    self.put(&self.route.list_key, list.encode(), When::IfStamp(stamp))
                        .await;
                    return Keep::Pass;
                }
                self.kept(list.encode(), &head, names, body)
            }
        }
    }

    /// Gives the list its new variant, and as long a life as the page's; says whether the page is in
    /// it. Of many variants made at once one after the other gets in.
    async fn extend_list(&self, mut list: Arc<HeaderList>, mut stamp: Stamp, page: &Key) -> bool {
        let cache = &self.site.settings.cache;
        let (key, until) = (&self.route.list_key, self.stale_until());
        for _ in 0..MOST_TRIES {
            let Ok(look) = cache.look_for_stale(key).await else {
                return false;
            };
            let now = cache.shared.clock.now();
            // A list that is gone or replaced stays so: what it led to is out of reach on purpose.
            let Some(entry) = look.usable(now) else {
                return false;
            };
            if entry.stamp != stamp {
                let same =
                    |found: &Arc<HeaderList>| found.mark == list.mark && found.names == list.names;
                let Some(found) = self.route.list(entry).filter(same) else {
                    return false;
                };
                (list, stamp) = (found, entry.stamp);
            }
            let Some(next) = list.with(page, now, until) else {
                self.site.tell_once(Reason::Variants);
                return false;
            };
            if *list == next && entry.fresh_until >= until {
                return true;
            }
            let mut longer = Entry::new(&cache.shared.clock, next.encode());
            longer = longer.fresh_until(until.max(entry.stale_until));
            longer.codec = PAGE;
            longer.tags.clone_from(&entry.tags);
            match cache
                .shared
                .store
                .put(key, longer, When::IfStamp(stamp))
                .await
            {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "header_list_not_extended");
                    return false;
                }
            }
        }
        false
    }

    /// Until when the page is fresh: no longer than what it was made of.
    fn fresh_until(&self) -> Moment {
        let until = self.plan.at.plus(self.plan.ttl);
        until.min(self.made_of.0.life.unwrap_or(Moment::NEVER))
    }

    /// Until when the page may be served, stale or not.
    fn stale_until(&self) -> Moment {
        self.fresh_until().plus(self.grace())
    }

    fn windows(&self) -> (Duration, Duration) {
        let said = freshness::stale(&self.plan.verdict.said);
        let settings = &self.site.settings;
        (
            said.while_revalidate.unwrap_or(settings.grace),
            said.if_error.unwrap_or(settings.if_error),
        )
    }

    fn grace(&self) -> Duration {
        let (while_revalidate, if_error) = self.windows();
        while_revalidate.max(if_error)
    }

    fn head(&self, mark: u64, values: Vec<VaryValue>, body: &[u8]) -> Arc<PageHead> {
        let mut headers = kept_headers(&self.parts);
        let age = freshness::age_of(&headers);
        headers.remove(AGE);
        if validators::wants_etag(&headers)
            && let Some(etag) = validators::etag(body)
            && let Ok(etag) = format!("W/{etag}").try_into()
        {
            // Weak, since a layer further out may still compress the body.
            headers.insert(ETAG, etag);
        }
        let (while_revalidate, if_error) = self.windows();
        Arc::new(PageHead {
            mark,
            url: self.route.url.clone(),
            values,
            audience: self.plan.verdict.audience,
            status: self.parts.status,
            headers,
            stored: self.plan.at,
            age,
            while_revalidate,
            if_error,
        })
    }

    fn kept(
        &self,
        value: crate::Value,
        head: &Arc<PageHead>,
        names: Vec<String>,
        body: Bytes,
    ) -> Keep {
        let made = JustMade {
            names,
            head: Arc::clone(head),
            body,
        };
        let now = self.site.settings.cache.shared.clock.now();
        let left = self.plan.at.plus(self.plan.ttl).left(now);
        Keep::Value(Kept {
            value,
            codec: PAGE,
            ttl: Ttl::For(left.unwrap_or(self.plan.ttl)),
            grace: self.grace(),
            tags: Vec::new(),
            extra: Some(Arc::new(made)),
        })
    }

    /// Writes beside the engine's own write. What fails here is out of reach, and harmless.
    async fn put(&self, key: &Key, value: crate::Value, when: When) {
        let cache = &self.site.settings.cache;
        let (made_of, era) = &self.made_of;
        // Tags of another space: the engine refuses such a page as well.
        if made_of.mixed {
            return;
        }
        let mut entry = Entry::new(&cache.shared.clock, value)
            .fresh_until(self.fresh_until())
            .with_grace(self.grace());
        entry.codec = PAGE;
        if self.site.settings.early > 0.0 {
            let took = cache.shared.clock.now().left(self.began);
            entry.took = Some(took.unwrap_or_default());
        }
        if let Some(tagged) = made_of.tagged(*era) {
            entry = entry.with_tags(tagged);
        }
        if let Err(error) = cache.shared.store.put(key, entry, when).await {
            tracing::debug!(%error, "page_not_written");
        }
    }
}
