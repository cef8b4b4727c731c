//! Which server keeps a key: the ring of libketama and libmemcached (`KETAMA_WEIGHTED`).
//!
//! Every server has 160 points on a ring of 32 bits, more or fewer by its weight, four from each MD5
//! of its name with a number. A key belongs to the first point at or after its own, so that a server
//! added or taken away moves only its share of the keys.

use md5::{Digest as _, Md5};

use super::address::{DEFAULT_PORT, Place};

const POINTS: f64 = 160.0;
const POINTS_PER_HASH: f64 = 4.0;

/// Points, in order, each with the position of its server.
#[derive(Debug)]
pub(super) struct Ring {
    points: Vec<(u32, usize)>,
    servers: usize,
}

impl Ring {
    /// The ring of `servers`, which are not empty, with a weight for each.
    pub(super) fn new(servers: &[Place], weights: &[u32]) -> Self {
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        let count = f64::from(u32::try_from(servers.len()).unwrap_or(u32::MAX));
        let mut points = Vec::new();
        for (at, (server, weight)) in servers.iter().zip(weights).enumerate() {
            let name = name(server);
            let share = f64::from(*weight) / total;
            let hashes = share * POINTS / POINTS_PER_HASH * count + 1e-10;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is positive, and what is over a whole number is dropped as libmemcached does"
            )]
            let hashes = hashes.floor() as u32;
            for number in 0..hashes {
                let digest = Md5::digest(format!("{name}-{number}"));
                let (words, _) = digest.as_chunks::<4>();
                points.extend(words.iter().map(|word| (u32::from_le_bytes(*word), at)));
            }
        }
        points.sort_unstable();
        Self {
            points,
            servers: servers.len(),
        }
    }

    /// The position of the server of `name`; the next on the ring where `is_out` says so of one.
    pub(super) fn server_of(&self, name: &str, is_out: impl Fn(usize) -> bool) -> usize {
        // A weight near nothing beside great ones leaves a server without points, but never all.
        if self.servers == 1 || self.points.is_empty() {
            return 0;
        }
        let digest = Md5::digest(name.as_bytes());
        let (words, _) = digest.as_chunks::<4>();
        let hash = u32::from_le_bytes(words[0]);
        let start = self.points.partition_point(|(point, _)| *point < hash) % self.points.len();
        let from_start = self.points[start..].iter().chain(&self.points[..start]);
        let mut servers = from_start.map(|(_, server)| *server);
        let own = self.points[start].1;
        servers.find(|server| !is_out(*server)).unwrap_or(own)
    }
}

/// The server's name in the hashes: without the usual port.
fn name(server: &Place) -> String {
    match server {
        Place::Host(host, DEFAULT_PORT) => host.clone(),
        Place::Host(host, port) => format!("{host}:{port}"),
        Place::Socket(path) => format!("{}:0", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Vec<Place> {
        [11211, 11212, 21303]
            .map(|port| Place::Host("127.0.0.1".to_owned(), port))
            .to_vec()
    }

    fn walk(ring: &Ring, count: usize) -> String {
        (0..count)
            .map(|number| {
                ring.server_of(&format!(":1:user:{number}"), |_| false)
                    .to_string()
            })
            .collect()
    }

    #[test]
    fn keys_go_where_libmemcached_puts_them() {
        // Where pylibmc 1.6.3 (libmemcached 1.1) with `ketama_weighted` stored these keys on real servers.
        for (weights, expected) in [
            (
                [1, 1, 1],
                "010202201200111110102200002220200101122110211112200120222012",
            ),
            (
                [1, 2, 1],
                "012102201210111110102220002220101111122110111111200120122211",
            ),
            (
                [3, 1, 2],
                "000002000200211110002200002220200200222020210122200120222012",
            ),
        ] {
            let ring = Ring::new(&hosts(), &weights);

            assert_eq!(walk(&ring, expected.len()), expected, "{weights:?}");
        }
    }

    #[test]
    fn shares_follow_weights() {
        let ring = Ring::new(&hosts(), &[1, 2, 1]);
        let keys = walk(&ring, 10_000);

        let of = |server: char| keys.chars().filter(|found| *found == server).count();

        assert!((4_000..6_000).contains(&of('1')), "{}", of('1'));
        assert!((1_800..3_200).contains(&of('0')), "{}", of('0'));
    }

    #[test]
    fn only_the_keys_of_a_server_that_is_out_move() {
        let ring = Ring::new(&hosts(), &[1, 1, 1]);
        let mut moved = [0, 0];
        for number in 0..1000 {
            let name = format!(":1:{number}");
            let (before, after) = (
                ring.server_of(&name, |_| false),
                ring.server_of(&name, |server| server == 1),
            );
            if before == 1 {
                moved[usize::from(after == 2)] += 1;
            } else {
                assert_eq!(after, before, "{name}");
            }
        }
        assert!(moved[0] > 50 && moved[1] > 50, "{moved:?}");
        assert_eq!(
            ring.server_of("k", |_| true),
            ring.server_of("k", |_| false)
        );
    }
}
