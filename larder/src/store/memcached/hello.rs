//! The first words on a connection: login, and what the server says of itself.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

use super::address::{Login, Place, Server};
use super::connection::{Hello, Stream};

/// The longest line that is read.
const LONGEST_LINE: u64 = 8 * 1024;
/// More statistics than this no server has.
const MOST_LINES: usize = 1_000;

/// Why a connection cannot be used.
pub(super) enum Refused {
    Stream(String),
    Login(String),
    Stats(String),
    NoCas,
    TooOld(String),
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Self::Stream(error.to_string())
    }
}

/// A stream that is read line by line, before anything else is.
pub(super) type Lines = BufReader<Box<dyn Stream>>;

/// Connects and logs in.
pub(super) async fn log_in(server: &Server) -> Result<Lines, Refused> {
    let mut lines = BufReader::new(connect(server).await?);
    if let Some(Login { user, password }) = &server.login {
        let login = format!("{user} {password}");
        let ask = format!("set login 0 0 {}\r\n{login}\r\n", login.len());
        say(&mut lines, &ask).await?;
        let answer = line(&mut lines).await?;
        if answer != "STORED" {
            return Err(Refused::Login(answer));
        }
    }
    Ok(lines)
}

/// Connects, logs in and asks the server about itself.
///
/// A server whose restarts are trusted need not tell: its time is taken to be `now`.
pub(super) async fn open(
    server: &Server,
    trusted_at: Option<u64>,
) -> Result<(Box<dyn Stream>, Hello), Refused> {
    let mut lines = log_in(server).await?;
    say(&mut lines, "stats\r\nstats settings\r\nmn\r\n").await?;
    let (mut process, mut uptime, mut time) = (None, None, None);
    let told = stats(&mut lines, |name, text| match name {
        "pid" => process = text.parse::<u64>().ok(),
        "uptime" => uptime = text.parse::<u64>().ok(),
        "time" => time = text.parse::<u64>().ok(),
        _ => {}
    });
    tolerate(told.await, trusted_at)?;
    let (mut largest, mut has_cas) = (None, true);
    let told = stats(&mut lines, |name, text| match name {
        "item_size_max" => largest = text.parse::<u64>().ok(),
        "cas_enabled" => has_cas = text != "no",
        _ => {}
    });
    // What is not told here is found out when it matters.
    tolerate(told.await, Some(0))?;
    let answer = line(&mut lines).await?;
    if answer != "MN" {
        return Err(Refused::TooOld(answer));
    }
    if !has_cas {
        return Err(Refused::NoCas);
    }
    let started = time
        .zip(uptime)
        .map(|(time, uptime)| time.saturating_sub(uptime));
    let incarnation = match (trusted_at, process.zip(started)) {
        (Some(_), _) => 0,
        (None, Some((process, started))) => incarnation(process, started),
        (None, None) => {
            let says = "`pid`, `uptime` or `time` is missing".to_owned();
            return Err(Refused::Stats(says));
        }
    };
    if !lines.buffer().is_empty() {
        return Err(Refused::Stream(
            "more was said than was asked for".to_owned(),
        ));
    }
    let hello = Hello {
        incarnation,
        largest,
        time: time.or(trusted_at).unwrap_or(0),
    };
    Ok((lines.into_inner(), hello))
}

/// Lets a server be silent about itself where that may be.
fn tolerate(told: Result<(), Refused>, instead: Option<u64>) -> Result<(), Refused> {
    match told {
        Err(Refused::Stats(_)) if instead.is_some() => Ok(()),
        told => told,
    }
}

/// One number for a run of the server, never 0.
///
/// The second in which it started does not change while it runs, unlike time and uptime.
fn incarnation(process: u64, started: u64) -> u64 {
    let mixed = (started << 24 ^ process).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).max(1)
}

/// Hands every statistic to `take`, up to the end of the list.
pub(super) async fn stats(
    lines: &mut Lines,
    mut take: impl FnMut(&str, &str),
) -> Result<(), Refused> {
    for _ in 0..MOST_LINES {
        let line = line(lines).await?;
        if line == "END" || line == "RESET" {
            return Ok(());
        }
        let stat = line
            .strip_prefix("STAT ")
            .and_then(|stat| stat.split_once(' '));
        match stat {
            Some((name, text)) => take(name, text),
            None if line.contains("unauthenticated") => return Err(Refused::Login(line)),
            None => return Err(Refused::Stats(line)),
        }
    }
    Err(Refused::Stats("the list has no end".to_owned()))
}

pub(super) async fn say(lines: &mut Lines, text: &str) -> Result<(), Refused> {
    lines.write_all(text.as_bytes()).await?;
    lines.flush().await?;
    Ok(())
}

/// The next line, without its end.
pub(super) async fn line(lines: &mut Lines) -> Result<String, Refused> {
    let mut line = Vec::new();
    lines
        .take(LONGEST_LINE)
        .read_until(b'\n', &mut line)
        .await?;
    if line.is_empty() {
        return Err(Refused::Stream(
            "the server closed the connection".to_owned(),
        ));
    }
    // A list of keys ends its lines without the carriage return.
    let text = line.strip_suffix(b"\n");
    let text = text.ok_or_else(|| Refused::Stream("a line without end".to_owned()))?;
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    Ok(String::from_utf8_lossy(text).into_owned())
}

async fn connect(server: &Server) -> Result<Box<dyn Stream>, Refused> {
    let stream = match &server.place {
        Place::Host(host, port) => TcpStream::connect((host.as_str(), *port)).await?,
        #[cfg(unix)]
        Place::Socket(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
        #[cfg(not(unix))]
        Place::Socket(_) => {
            return Err(Refused::Stream(
                "this system has no UNIX sockets".to_owned(),
            ));
        }
    };
    stream.set_nodelay(true)?;
    // A connection that is given up takes along what is not sent yet.
    stream.set_zero_linger()?;
    let Some((tls, name)) = &server.tls else {
        return Ok(Box::new(stream));
    };
    let connector = TlsConnector::from(tls.clone());
    Ok(Box::new(connector.connect(name.clone(), stream).await?))
}
