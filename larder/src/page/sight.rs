//! What the store has for a request, and whether it may be served.

use std::sync::Arc;

use http::HeaderMap;

use super::layer::Site;
use super::route::Variant;
use super::rules::storable::{is_for_others, may_serve};
use super::service::Question;
use super::stored::{HeaderList, Page};
use crate::cache::Look;
use crate::entry::{Entry, Stamp};
use crate::event::{Miss, Outcome, Reason};
use crate::{Error, Moment};

/// What the store has for a request.
pub(super) enum Sight {
    Hit(Page, Outcome),
    /// A hit, behind which a new page is to be made before this one's time is over.
    Due(Page, Listed, Arc<Variant>, Outcome),
    /// A page that is another's, which this request must leave alone.
    NotOurs(Reason),
    /// A page past its TTL, which may stand in while, or if not, a new one is made.
    Stale(Page, Listed, Arc<Variant>),
    /// The URL is known, this variant of it is not.
    NoPage(Listed, Arc<Variant>, Miss),
    NoList(Miss),
}

/// A header list, and the stamp of its slot.
pub(super) type Listed = (Arc<HeaderList>, Stamp);

impl Site {
    /// Reads header list and page, in one round trip where the URL varies on what it did last time.
    pub(super) async fn look(
        &self,
        question: &Question,
        headers: &HeaderMap,
    ) -> Result<Sight, Error> {
        let Self { settings, .. } = self;
        let (cache, route) = (&settings.cache, &question.route);
        loop {
            let variant = route.variant(headers, &settings.keys, cache);
            let [list_look, page_look] = cache.look_at_pair(&route.list_key, &variant.key).await?;
            let now = cache.shared.clock.now();
            let listed = list_look.usable(now);
            let Some((entry, list)) = listed.and_then(|entry| Some((entry, route.list(entry)?)))
            else {
                return Ok(Sight::NoList(list_look.miss()));
            };
            if *list.names != *variant.names {
                route.learn(&list.names);
                continue;
            }
            let listed = (list, entry.stamp);
            return Ok(self.sight(question, listed, variant, &page_look, now));
        }
    }

    fn sight(
        &self,
        question: &Question,
        listed: Listed,
        variant: Arc<Variant>,
        look: &Look,
        now: Moment,
    ) -> Sight {
        let Some(entry) = look.usable(now) else {
            let miss = look.miss();
            return Sight::NoPage(listed, variant, miss);
        };
        match self.suitable(question, listed.0.mark, &variant, entry) {
            None if let Some(reason) = self.whose(question, listed.0.mark, &variant, entry) => {
                Sight::NotOurs(reason)
            }
            None => Sight::NoPage(listed, variant, Miss::Unsuitable),
            Some(page) if entry.is_live(now) => {
                let cache = &self.settings.cache;
                cache.absorb(entry.tags.as_deref(), Some(entry.fresh_until));
                let outcome = Outcome::Hit(entry.fresh_until.left(now));
                if question.is_due(entry, &cache.shared.clock) {
                    return Sight::Due(page, listed, variant, outcome);
                }
                Sight::Hit(page, outcome)
            }
            Some(page) => Sight::Stale(page, listed, variant),
        }
    }

    /// The page in `entry`, if it is this URL's, this variant's, and for such a request.
    pub(super) fn suitable(
        &self,
        question: &Question,
        mark: u64,
        variant: &Variant,
        entry: &Entry,
    ) -> Option<Page> {
        let page = variant.page(entry)?;
        let head = &page.head;
        let is_this = head.mark == mark
            && head.url == question.route.url
            && head.values == variant.values
            && may_serve(question.asked, head.audience, &self.settings.rules).is_ok();
        is_this.then_some(page)
    }

    /// Why the page in `entry` is none for this request but good for others: to make this request's
    /// page in its place would throw it out.
    fn whose(
        &self,
        question: &Question,
        mark: u64,
        variant: &Variant,
        entry: &Entry,
    ) -> Option<Reason> {
        let (asked, route) = (question.asked, &question.route);
        let head = variant.page(entry)?.head;
        if head.mark != mark || head.values != variant.values {
            return None;
        }
        if head.url != route.url {
            // Of two spellings that have one key, Django's has the right of way.
            return (!route.is_as_django_spells()).then_some(Reason::Spelling);
        }
        is_for_others(asked, head.audience, &self.settings.rules)
            .then(|| may_serve(asked, head.audience, &self.settings.rules).err())?
    }
}
