//! A backend and its location as one URL.

use super::stores::{family, is_encrypted};
use crate::{Error, Result};

/// Django's dotted paths, for who comes from there.
const DJANGO: [(&str, &str); 7] = [
    ("django.core.cache.backends.locmem.LocMemCache", "memory"),
    (
        "django.core.cache.backends.filebased.FileBasedCache",
        "file",
    ),
    ("django.core.cache.backends.dummy.DummyCache", "null"),
    ("django.core.cache.backends.redis.RedisCache", "redis"),
    ("django_redis.cache.RedisCache", "redis"),
    (
        "django.core.cache.backends.memcached.PyMemcacheCache",
        "memcached",
    ),
    (
        "django.core.cache.backends.memcached.PyLibMCCache",
        "memcached",
    ),
];

/// Django's own database, which Larder does not know.
const DATABASE: &str = "django.core.cache.backends.db.DatabaseCache";

/// The URL of `backend` at a location: a URL already, or one or several servers, as Django has them.
pub(super) fn url(
    backend: &str,
    location: &[String],
    error: impl Fn(&str) -> Error,
) -> Result<String> {
    if backend.contains("://") {
        // It may hold a password, and is not repeated.
        return Err(error("`backend` is a URL").with_hint("call it `url`"));
    }
    let django = DJANGO.iter().find(|(path, _)| *path == backend);
    let scheme = django.map_or_else(|| backend.to_ascii_lowercase(), |(_, it)| (*it).to_owned());
    // A cache is turned off by changing one line.
    if scheme == "null" {
        return Ok("null://".to_owned());
    }
    if let [location] = location
        && let Some((own, _)) = location.split_once("://")
        && sockets(&scheme, std::slice::from_ref(location)).is_none()
    {
        let is_sql = ["sqlite", "postgres", "mysql"].contains(&family(own));
        // Who asks for TLS is not to go without.
        let is_bare = is_encrypted(&scheme) && !is_encrypted(own);
        let is_same = family(own) == family(&scheme) && !is_bare;
        if is_same || (backend == DATABASE && is_sql) {
            return Ok(location.clone());
        }
        let what = format!("`backend` is `{backend}`, but `location` is of `{own}`");
        return Err(error(&what).with_hint("give a `url` alone, or a `location` without a scheme"));
    }
    if backend == DATABASE {
        let what = "`DatabaseCache` does not say which database";
        let hint = "give its URL: `sqlite:///path/cache.db`, `postgres://host/database` or `mysql://host/database`";
        return Err(error(what).with_hint(hint));
    }
    servers(&scheme, location, error)
}

fn servers(scheme: &str, location: &[String], error: impl Fn(&str) -> Error) -> Result<String> {
    if let Some(paths) = sockets(scheme, location) {
        let family = family(scheme);
        return Ok(format!("{family}+unix://{}", paths.join(",")));
    }
    if location.iter().any(|server| server.contains("://")) {
        let hint = "list servers as `host:port`";
        return Err(error("`location` lists URLs").with_hint(hint));
    }
    if family(scheme) == "memcached" {
        // Django reads a text of several servers as a list.
        return Ok(format!(
            "{scheme}://{}",
            location.join(",").replace(';', ",")
        ));
    }
    // A cluster has several, and so have sentinels, whose list ends in the name of the primary.
    let several = scheme.ends_with("+cluster") || scheme.ends_with("+sentinel");
    let known = ["memory", "file", "redis", "sqlite", "postgres", "mysql"];
    if location.len() > 1 && !several && known.contains(&family(scheme)) {
        let what = format!("`location` lists several, and `{scheme}` takes one");
        return Err(error(&what));
    }
    // An absolute path is the URL's own, as in `file:///var/cache`.
    Ok(format!("{scheme}://{}", location.join(",")))
}

/// The paths of sockets, which Django writes as `unix:/run/memcached.sock` or without `unix:`.
fn sockets<'a>(scheme: &str, location: &'a [String]) -> Option<Vec<&'a str>> {
    if !["memcached", "redis"].contains(&family(scheme)) || location.is_empty() {
        return None;
    }
    let path = |server: &'a String| {
        let path = server.strip_prefix("unix:").unwrap_or(server);
        let path = path.strip_prefix("//").unwrap_or(path);
        path.starts_with('/').then_some(path)
    };
    location.iter().map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn read(backend: &str, location: &[&str]) -> Result<String, String> {
        let location: Vec<String> = location.iter().map(|&it| it.to_owned()).collect();
        let error = |what: &str| Error::new(ErrorKind::Invalid, "settings", what);
        url(backend, &location, error).map_err(|error| error.to_string())
    }

    #[test]
    fn a_location_is_a_url_a_path_or_servers() {
        for (backend, location, url) in [
            ("memory", &[][..], "memory://"),
            ("Redis", &["cache:6379/1"], "redis://cache:6379/1"),
            ("redis", &["REDISS://cache"], "REDISS://cache"),
            ("rediss", &["valkeys://cache"], "valkeys://cache"),
            ("redis", &["unix:/run/r.sock"], "redis+unix:///run/r.sock"),
            (
                "redis",
                &["unix:///run/r.sock?db=1"],
                "redis+unix:///run/r.sock?db=1",
            ),
            (
                "memcached",
                &["unix:/run/m.sock"],
                "memcached+unix:///run/m.sock",
            ),
            (
                "memcached",
                &["/run/m.sock"],
                "memcached+unix:///run/m.sock",
            ),
            ("redis+cluster", &["a:1", "b:2"], "redis+cluster://a:1,b:2"),
            (
                "rediss+sentinel",
                &["a:1", "b:2/mymaster/1"],
                "rediss+sentinel://a:1,b:2/mymaster/1",
            ),
            (
                "redis",
                &["redis+cluster://a:1,b:2"],
                "redis+cluster://a:1,b:2",
            ),
            ("memcached", &["a:1", "b:2"], "memcached://a:1,b:2"),
            ("memcached", &["a:1;b:2"], "memcached://a:1,b:2"),
            ("file", &["/var/cache"], "file:///var/cache"),
            ("null", &["redis://cache"], "null://"),
            ("mine", &["a", "b"], "mine://a,b"),
            (DATABASE, &["postgres://db/shop"], "postgres://db/shop"),
        ] {
            assert_eq!(
                read(backend, location).as_deref(),
                Ok(url),
                "{backend} {location:?}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused_without_secrets() {
        for (backend, location) in [
            ("redis", &["memcached://:secret@cache"][..]),
            ("nonsense", &["memory://secret"]),
            ("redis://:secret@cache", &[]),
            (DATABASE, &["secret"]),
            (DATABASE, &["redis://secret"]),
            ("memcached", &["memcached://secret", "memcached://b"]),
            ("redis", &["secret", "b"]),
            ("rediss", &["redis://:secret@cache"]),
            ("memcached+tls", &["memcached://me:secret@cache"]),
        ] {
            let error = read(backend, location).expect_err(backend);

            assert!(!error.contains("secret"), "{error}");
        }
    }
}
