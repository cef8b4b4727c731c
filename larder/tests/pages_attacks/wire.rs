//! Over a real connection: nothing that is said there makes the next answer begin in the wrong place.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse;
use http::{StatusCode, header};
use tokio::net::TcpListener;

use crate::{plain, site, text};

/// Says all of `requests` on one connection, the last of which closes it, and returns what came back.
async fn converse(requests: &[String]) -> String {
    let statuses = [200, 204, 404].map(|code| StatusCode::from_u16(code).unwrap());
    let (app, _) = site(plain().statuses(statuses), |number, headers| {
        match text(headers, "x-as") {
            "empty" => StatusCode::NO_CONTENT.into_response(),
            "missing" => (StatusCode::NOT_FOUND, "none").into_response(),
            _ => ([(header::VARY, "x-as")], Body::from(format!("<{number}>"))).into_response(),
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let requests = requests.to_vec();
    let said = tokio::task::spawn_blocking(move || {
        let mut connection = TcpStream::connect(address).unwrap();
        for request in requests {
            connection.write_all(request.as_bytes()).unwrap();
            // One after the other, so that each finds what the last has left.
            std::thread::sleep(Duration::from_millis(30));
        }
        let mut answers = String::new();
        connection.read_to_string(&mut answers).unwrap();
        answers
    });
    let answers = said.await.unwrap();
    server.abort();
    answers
}

fn said(line: &str, headers: &[&str]) -> String {
    format!("{line}\r\n{}\r\n\r\n", headers.join("\r\n"))
}

#[tokio::test]
async fn every_answer_on_a_connection_begins_where_the_last_one_ended() {
    let host = "host: example.com";
    let answers = converse(&[
        said("GET / HTTP/1.1", &[host]),
        said("GET / HTTP/1.1", &[host]),
        said("HEAD / HTTP/1.1", &[host]),
        said("GET / HTTP/1.1", &[host, "if-none-match: *"]),
        said("GET / HTTP/1.1", &[host, "if-match: \"x\""]),
        said("GET /n HTTP/1.1", &[host, "x-as: empty"]),
        said("GET /n HTTP/1.1", &[host, "x-as: empty"]),
        said("GET /m HTTP/1.1", &[host, "x-as: missing"]),
        said("GET /m HTTP/1.1", &[host, "x-as: missing"]),
        said("GET /b HTTP/1.1", &[host, "content-length: 4"]) + "body",
        said("GET http://example.com/ HTTP/1.1", &[host]),
        said("GET / HTTP/1.1", &["host: example.com/x"]),
        said("GET / HTTP/1.1", &[host, host]),
        said("GET / HTTP/1.1", &[host, "connection: close"]),
    ])
    .await;

    let statuses: Vec<&str> = answers
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| &answer[..3])
        .collect();
    let expected = [
        "200", "200", "200", "304", "412", "204", "204", "404", "404", "200", "200", "200", "200",
        "200",
    ];
    assert_eq!(statuses, expected, "{answers}");
    let bodies: Vec<&str> = answers
        .split("\r\n\r\n")
        .skip(1)
        .map(|rest| rest.split("HTTP/1.1").next().unwrap())
        .collect();
    let expected = [
        "<1>", "<1>", "", "", "", "", "", "none", "none", "<4>", "<1>", "<5>", "<6>", "<1>",
    ];
    assert_eq!(bodies, expected, "{answers}");
}
