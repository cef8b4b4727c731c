//! Flags, help, the environment, completions.

use crate::ground::{Store, clean, run, run_in, says};
use crate::support;

#[test]
fn version_is_the_crates() {
    let version = concat!("larder ", env!("CARGO_PKG_VERSION"), "\n");

    says(&["--version"], 0, version, "");
    says(&["-V"], 0, version, "");
}

#[test]
fn help_lists_commands_flags_and_exit_codes() {
    let help = "\
Looks into caches and changes them

Usage: larder [OPTIONS] <COMMAND>

Commands:
  get          Print the value at a key, as JSON
  set          Write a value, whatever was there
  add          Write a value if none is there
  delete       Remove keys, and print how many were there
  touch        Give a value a new TTL
  ttl          Print what is left of a TTL, in seconds, or `never`
  incr         Add to an integer, and print the sum
  keys         Print the keys, one a line
  stats        Print where the cache is, and how many keys it has
  clear        Remove all keys of the cache's prefix, of all versions
  table        Look after the tables of SQL stores
  check        Check a file of settings, and whether each cache takes and gives back a value
  completions  Print a script by which a shell completes this command

Options:
      --store <URL>      The cache, as a URL: `redis://host:6379/1?key_prefix=shop`; else what `LARDER_STORE` says
      --settings <FILE>  A TOML file with `[caches.ALIAS]` tables
      --alias <NAME>     Which of its caches [default: default]
  -h, --help             Print help
  -V, --version          Print version

Exit codes:
  0  done
  1  the answer is no: no such key, one that is there already, a cache that cannot be used
  2  an error
";

    says(&["--help"], 0, help, "");
}

#[test]
fn help_for_clear_says_what_goes() {
    let (code, help, told) = run(&["clear", "--help"], b"");

    assert_eq!((code, told.as_str()), (0, ""));
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        help.starts_with(
            "Remove all keys of the cache's prefix, of all versions Values with tags go as well"
        ),
        "{help}"
    );
    assert!(
        help.contains("The setting `space` keeps them apart"),
        "{help}"
    );
}

#[test]
fn unknown_flag_is_an_error() {
    let told = "\
error: unexpected argument '--versions' found

  tip: a similar argument exists: '--version'

Usage: larder --version <COMMAND>

For more information, try '--help'.
";

    says(&["--versions"], 2, "", told);
}

#[test]
fn a_flag_is_stronger_than_the_environment() {
    let folder = support::new_folder();
    let file = folder.join("larder.toml");
    let here = Store::new("here");
    let there = Store::new("there");
    std::fs::write(&file, format!("[caches.default]\nurl = '{}'", here.url)).unwrap();
    here.says(&["set", "k", "here"], 0, "", "");
    there.says(&["set", "k", "there"], 0, "", "");
    let exported = [
        ("LARDER_STORE", there.url.as_str()),
        ("LARDER_SHOP_URL", here.url.as_str()),
    ];
    let path = file.to_str().unwrap();

    for (flags, value) in [
        (&["get", "k"][..], "\"there\"\n"),
        (&["--settings", path, "get", "k"], "\"here\"\n"),
        (&["--store", &here.url, "get", "k"], "\"here\"\n"),
        (&["--alias", "shop", "get", "k"], "\"here\"\n"),
    ] {
        let expected = (0, value.to_owned(), String::new());
        assert_eq!(run_in(&exported, flags, b""), expected, "{flags:?}");
    }
    let (code, _, told) = run(
        &["--store", "memory://", "--settings", path, "get", "k"],
        b"",
    );
    assert_eq!(code, 2, "{told}");
    assert_eq!(run_in(&exported, &["check", path], b"").0, 0);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_ttl_in_months_is_asked_about() {
    let told = "error: invalid value '5M' for '--ttl <TTL>': `m` is minutes, `months` are months\n\nFor more information, try '--help'.\n";
    let store = Store::at("memory://");

    store.says(&["set", "--ttl", "5M", "k", "v"], 2, "", told);
    store.says(&["set", "--ttl", "5m", "k", "v"], 0, "", "");
    store.says(&["set", "--ttl", "2months", "k", "v"], 0, "", "");
}

#[test]
fn bash_completes_a_word() {
    let folder = support::new_folder();
    let script = folder.join("larder.bash");
    std::fs::write(&script, run(&["completions", "bash"], b"").1).unwrap();
    let complete = |words: &str, at: usize| {
        let text = format!(
            "source '{}'; COMP_WORDS=({words}); COMP_CWORD={at}; \
             _larder larder \"${{COMP_WORDS[at]}}\" larder; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let text = text.replace("[at]", &format!("[{at}]"));
        let output = clean("bash").args(["-c", &text]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };

    assert_eq!(complete("larder ta", 1), "table\n");
    assert_eq!(complete("larder table cr", 2), "create\n");
    assert_eq!(complete("larder clear --y", 2), "--yes\n");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn other_shells_are_told_how_to_complete() {
    for (shell, start) in [("zsh", "#compdef larder\n"), ("fish", "# Print an optspec")] {
        let (code, script, stderr) = run(&["completions", shell], b"");

        assert_eq!((code, stderr.as_str()), (0, ""), "{shell}");
        assert!(script.starts_with(start), "{shell}: {script}");
        assert!(script.contains("incr"), "{shell}");
    }
}
