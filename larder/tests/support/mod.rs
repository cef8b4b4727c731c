//! Real servers for tests, each on a port of its own.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(unused_imports, reason = "each test file uses a part")]

mod cluster;
mod memcached;
mod redis;
mod sql;

use std::path::Path;
use std::process::Command;

pub(crate) use cluster::{RedisCluster, Watched, cli, until};
pub(crate) use memcached::MemcachedServer;
pub(crate) use redis::{RedisServer, free_port, new_folder};
pub(crate) use sql::{Kind, SqlServer, SqliteFile};

/// Makes an authority (`ca.crt`) and a certificate for `localhost` (`server.crt`, `server.key`).
pub(crate) fn make_certificates(folder: &Path) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(folder)
            .output()
            .expect("the `openssl` command is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments:?}: {said}");
    };
    let new_key = ["-newkey", "rsa:2048", "-nodes"];
    let authority = ["req", "-x509", "-days", "2", "-subj", "/CN=test authority"];
    openssl(
        &[
            &authority[..],
            &new_key,
            &["-keyout", "ca.key", "-out", "ca.crt"],
        ]
        .concat(),
    );
    let request = ["req", "-subj", "/CN=localhost"];
    openssl(
        &[
            &request[..],
            &new_key,
            &["-keyout", "server.key", "-out", "server.csr"],
        ]
        .concat(),
    );
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost").expect("it is writable");
    let sign = "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
                -extfile names -out server.crt";
    openssl(&sign.split_whitespace().collect::<Vec<_>>());
}
