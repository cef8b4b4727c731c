//! The page as a browser paints it.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod demo;

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};

use demo::Demo;

const GREEN: [u8; 3] = [0x28, 0xa7, 0x45];

/// Photographs `url` in a window of 1000 by 600 and returns its pixels, three bytes each.
fn photograph(url: &str, picture: &Path) -> Vec<[u8; 3]> {
    let profile = picture.with_file_name(format!("chromium-{}", std::process::id()));
    let browser = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
    let output = Command::new(&browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .args([
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
            "--window-size=1000,600",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(url)
        .stdout(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("cannot start `{browser}`: {error}; hint: apt-get install chromium")
        });
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::remove_dir_all(&profile).unwrap();

    let mut decoder = png::Decoder::new(BufReader::new(File::open(picture).unwrap()));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height), (1000, 600));
    pixels
        .chunks_exact(info.color_type.samples())
        .map(|pixel| [pixel[0], pixel[1], pixel[2]])
        .collect()
}

#[test]
fn button_is_green_and_the_heading_dark() {
    let demo = Demo::start(&["--delay", "100ms"]);
    let picture = Path::new(env!("CARGO_TARGET_TMPDIR")).join("home.png");

    let pixels = photograph(&demo.url, &picture);

    let count = |colour: [u8; 3]| pixels.iter().filter(|pixel| **pixel == colour).count();
    assert!(
        (2_000..20_000).contains(&count(GREEN)),
        "{} pixels are green",
        count(GREEN)
    );
    assert!(
        count([0x21, 0x25, 0x29]) > 500,
        "{} pixels are ink",
        count([0x21, 0x25, 0x29])
    );
    assert!(demo.stop().contains("path=/style.css"));
}
