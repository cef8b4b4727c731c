//! Which server keeps a key: the ring of libketama and libmemcached (`KETAMA_WEIGHTED`).
//!
//! Every server has 160 points on a ring of 32 bits, more or fewer by its weight, four from each MD5
//! of its name with a number. A key belongs to the first point at or after its own, so that a server
//! added or taken away moves only its share of the keys.

use md5::{Digest as _, Md5};

use super::address::{DEFAULT_PORT, Place};

const POINTS: f32 = 160.0;
const POINTS_PER_HASH: f32 = 4.0;

/// Points, in order, each with the position of its server.
#[derive(Debug)]
pub(super) struct Ring {
    points: Vec<(u32, usize)>,
    servers: usize,
}

impl Ring {
    /// The ring of `servers`, which are not empty, with a weight for each.
    pub(super) fn new(servers: &[Place], weights: &[u32]) -> Self {
        let total = weights.iter().copied().map(u64::from).sum();
        let mut points = Vec::new();
        for (at, (server, weight)) in servers.iter().zip(weights).enumerate() {
            let name = name(server);
            let hashes = hashes(*weight, total, servers.len());
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

/// How many hashes' points a server has on the ring.
///
/// Step by step as libmemcached rounds, so that what falls just short of a whole number does so here
/// as well, as with 25 equal servers.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "it is positive, and rounds as libmemcached does"
)]
fn hashes(weight: u32, total: u64, servers: usize) -> u32 {
    let share = weight as f32 / total as f32;
    let hashes = share * POINTS / POINTS_PER_HASH * servers as f32;
    ((f64::from(hashes) + 1e-10) as f32).floor() as u32
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
    fn shares_that_are_no_whole_numbers_are_rounded_as_libmemcached_does() {
        // What `memcached_generate_hash` of libmemcached 1.0.16 says.
        for (servers, expected) in [
            (
                25,
                "22 7 7 5 22 17 8 0 3 15 0 16 24 11 23 1 21 19 10 12 24 20 3 12 0 0 7 13 22 7 24 13 18 1 15 \
                 5 1 6 6 21",
            ),
            (
                50,
                "31 44 32 34 22 40 45 40 3 47 0 42 24 11 37 43 36 29 34 12 24 48 3 12 44 0 7 47 22 33 24 37 \
                 18 45 49 5 37 6 6 21",
            ),
        ] {
            let ports = 11211..11211 + servers;
            let hosts: Vec<Place> = ports
                .map(|port| Place::Host("127.0.0.1".to_owned(), port))
                .collect();
            let ring = Ring::new(&hosts, &vec![1; hosts.len()]);

            for (number, expected) in expected.split(' ').enumerate() {
                let server = ring.server_of(&format!(":1:user:{number}"), |_| false);
                assert_eq!(server.to_string(), expected, "{number} of {servers}");
            }
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
