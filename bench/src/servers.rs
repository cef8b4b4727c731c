//! Servers for the benches: on loopback ports of their own, gone with their values.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// A folder that goes with this value, and the server in it, if there is one.
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    server: Option<Child>,
}

impl Place {
    pub(crate) fn new(name: &str) -> Outcome<Self> {
        let folder =
            std::env::temp_dir().join(format!("larder-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            folder,
            server: None,
        })
    }

    /// Starts `command` here.
    fn run(&mut self, command: &mut Command, package: &str) -> Outcome {
        let started = command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let program = command.get_program().display();
        self.server = Some(started.map_err(|error| {
            format!("cannot start `{program}`: {error}; hint: `apt-get install {package}`")
        })?);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let quit = ["-QUIT".to_owned(), server.id().to_string()];
            let _ = Command::new("kill").args(quit).status();
            // PostgreSQL, killed, would leave its children; others may have been told to ignore QUIT.
            for _ in 0..100 {
                if server.try_wait().is_ok_and(|ended| ended.is_some()) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn script(place: &mut Place, name: &str, port: u16, package: &str) -> Outcome {
    let support = concat!(env!("CARGO_MANIFEST_DIR"), "/../larder/tests/support");
    let mut command = Command::new("sh");
    command
        .arg(format!("{support}/{name}"))
        .arg(&place.folder)
        .arg(port.to_string());
    place.run(&mut command, package)
}

/// A PostgreSQL server, which may still be starting, and its URL.
pub(crate) fn postgres() -> Outcome<(Place, String)> {
    let (mut place, port) = (Place::new("postgres")?, free_port()?);
    script(&mut place, "postgres.sh", port, "postgresql")?;
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    Ok((place, url))
}

/// A MariaDB server, which may still be starting, and its URL.
pub(crate) fn mariadb() -> Outcome<(Place, String)> {
    let (mut place, port) = (Place::new("mariadb")?, free_port()?);
    script(&mut place, "mariadb.sh", port, "mariadb-server")?;
    let url = format!("mysql://larder:secret@127.0.0.1:{port}/larder");
    Ok((place, url))
}

/// A Redis server, and its URL.
pub(crate) fn redis() -> Outcome<(Place, String)> {
    let (mut place, port) = (Place::new("redis")?, free_port()?);
    let mut command = Command::new("redis-server");
    command.args([
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--port",
        &port.to_string(),
    ]);
    place.run(&mut command, "redis-server")?;
    until_it_listens(port)?;
    Ok((place, format!("redis://127.0.0.1:{port}/0")))
}

/// A memcached server, and its URL.
pub(crate) fn memcached() -> Outcome<(Place, String)> {
    let (mut place, port) = (Place::new("memcached")?, free_port()?);
    let mut command = Command::new("memcached");
    command.args([
        "-l",
        "127.0.0.1",
        "-U",
        "0",
        "-u",
        "root",
        "-p",
        &port.to_string(),
    ]);
    place.run(&mut command, "memcached")?;
    until_it_listens(port)?;
    Ok((place, format!("memcached://127.0.0.1:{port}")))
}

fn until_it_listens(port: u16) -> Outcome {
    for _ in 0..500 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("nobody listens on port {port}").into())
}
