//! What `larder` says: exit code, stdout and stderr, whole.

use std::process::Command;

const HELP: &str = "\
Larder, the caching framework for web apps

Usage: larder

Options:
  -h, --help     Print help
  -V, --version  Print version
";

#[track_caller]
fn says(flags: &[&str], code: i32, stdout: &str, stderr: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(flags)
        .output()
        .expect("the binary under test starts");

    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        stdout,
        "stdout of {flags:?}"
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        stderr,
        "stderr of {flags:?}"
    );
    assert_eq!(output.status.code(), Some(code), "exit code of {flags:?}");
}

#[test]
fn version_is_the_crates() {
    let version = concat!("larder ", env!("CARGO_PKG_VERSION"), "\n");

    says(&["--version"], 0, version, "");
    says(&["-V"], 0, version, "");
}

#[test]
fn help_goes_to_stdout() {
    says(&["--help"], 0, HELP, "");
}

#[test]
fn bare_call_is_an_error_that_shows_the_help() {
    says(&[], 2, "", HELP);
}

#[test]
fn unknown_flag_is_an_error() {
    let told = "\
error: unexpected argument '--versions' found

  tip: a similar argument exists: '--version'

Usage: larder --version

For more information, try '--help'.
";

    says(&["--versions"], 2, "", told);
}
