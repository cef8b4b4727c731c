//! The file store on a real disk: torn files, dead writers, full disks, several processes.
//!
//! A test that needs other processes starts its own binary again, for the same test, with a role.

#![cfg(all(feature = "file", unix))]
#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use larder::store::{File, FileBuilder, Numbers, Store, Tags, When};
use larder::{
    Cache, Clock, Codec, Entry, ErrorKind, Key, Mark, Moment, Stamp, State, Tag, Tagged, Value,
};

const LONG: Duration = Duration::from_mins(10);
const ROLE: &str = "LARDER_FILE_ROLE";
const FOLDER: &str = "LARDER_FILE_FOLDER";

/// A folder of this test alone; it goes with this value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("larder-file-test-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn builder(&self) -> FileBuilder {
        File::builder(&self.0)
    }

    fn open(&self) -> File {
        self.builder().open().unwrap()
    }

    /// Every file below, but those that are only there to be locked.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = all_below(&self.0);
        files.retain(|path| path.is_file());
        files.retain(|path| !matches!(name(path), ".lock" | ".sweep"));
        files
    }

    /// The slots' files.
    fn slots(&self) -> Vec<PathBuf> {
        let mut files = self.files();
        files.retain(|path| !path.starts_with(self.0.join("numbers")));
        files
    }

    /// The file of the only slot.
    fn slot(&self) -> PathBuf {
        let mut slots = self.slots();
        assert_eq!(slots.len(), 1, "{slots:?}");
        slots.pop().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A sweep may put a lock where it was just removed.
        for _ in 0..10 {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

fn all_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(all_below(&path));
        }
        found.push(path);
    }
    found
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn bytes(store: &File, bytes: impl Into<Vec<u8>>) -> Entry {
    Entry::new(store.clock(), Value::Bytes(bytes.into().into()))
}

async fn put(store: &File, key: &Key, entry: Entry) {
    assert!(store.put(key, entry, When::Always).await.unwrap());
}

async fn get(store: &File, key: &Key) -> Option<Entry> {
    let found = store.get(std::slice::from_ref(key), None).await.unwrap();
    found.entries.into_iter().next().unwrap()
}

async fn numbers(store: &File, names: &[Tag]) -> Numbers {
    let tags = Tags { space: "s", names };
    store.get(&[], Some(tags)).await.unwrap().numbers.unwrap()
}

async fn raise(store: &File, names: &[Tag]) -> u64 {
    store.raise(Tags { space: "s", names }).await.unwrap()
}

/// Whether this is the process of a role, and which.
fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// The store of the test that started this process.
fn given() -> FileBuilder {
    File::builder(std::env::var(FOLDER).unwrap())
}

/// This binary, for the one test `test`, as `role`.
fn process(test: &str, role: &str, folder: &Folder) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    as_role(&mut command, role, folder);
    command
}

/// The same, begun by a line of shell.
fn process_after(line: &str, test: &str, role: &str, folder: &Folder) -> Command {
    let mut command = Command::new("sh");
    let line = format!("{line}; exec \"$0\" --exact {test} --nocapture");
    command.arg("-c").arg(line);
    command.arg(std::env::current_exe().unwrap());
    as_role(&mut command, role, folder);
    command
}

fn as_role(command: &mut Command, role: &str, folder: &Folder) {
    command.env(ROLE, role).env(FOLDER, &folder.0);
    command.stdout(Stdio::null());
}

fn wait(children: Vec<Child>) {
    for mut child in children {
        assert!(child.wait().unwrap().success(), "a process failed");
    }
}

// --- clears that are under way ----------------------------------------------------------------------

/// The lock of the folder of `key`, which is there: what a process that stands still holds.
fn hold(folder: &Path, key: &Key) -> fs::File {
    let lock = fs::File::open(folder.join(room(key)).join(".lock")).unwrap();
    lock.lock().unwrap();
    lock
}

/// The folder of `key`.
fn room(key: &Key) -> String {
    use sha2::Digest as _;
    format!("{:02x}", sha2::Sha256::digest(key.name().as_bytes())[0])
}

/// The files of clears that are under way, or were.
fn clears(folder: &Path) -> Vec<PathBuf> {
    let folder = folder.join("clearing");
    if folder.exists() {
        all_below(&folder)
    } else {
        Vec::new()
    }
}

async fn until_clearing(folder: &Path) {
    while !clears(folder)
        .iter()
        .any(|path| !name(path).starts_with('.'))
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn lease(store: &File) -> Mark {
    lease_of(store.clock().random())
}

#[tokio::test]
async fn while_a_clear_is_under_way_its_scope_takes_no_lease_and_fetches_hardly_wait() {
    let folder = Folder::new();
    let store = folder.builder().timeout(LONG).open().unwrap();
    let (held, before, other) = (Key::new(":1:k"), Key::new(":1:l"), Key::new("other:1:l"));
    assert_ne!(room(&held), room(&before));
    put(&store, &held, bytes(&store, "v")).await;
    let early = lease(&store);
    assert!(store.mark(&before, None, early).await.unwrap());
    let lock = hold(&folder.0, &held);
    let cache = Cache::new(store.clone());
    let clear = tokio::spawn({
        let cache = cache.clone();
        async move { cache.clear().await.unwrap() }
    });
    until_clearing(&folder.0).await;

    let loaded = bytes(&store, "loaded before");
    let kept = store.put(&before, loaded, When::IfStamp(early.stamp));
    assert!(!kept.await.unwrap());
    let refused = store.mark(&Key::new(":1:m"), None, lease(&store)).await;
    assert!(!refused.unwrap());
    assert!(store.mark(&other, None, lease(&store)).await.unwrap());
    assert!(!cache.ticket("m").await.unwrap().set("read").await.unwrap());
    let began = std::time::Instant::now();
    let load = || async { "loaded".to_owned() };
    assert_eq!(cache.get_or_set("m", load).await.unwrap(), "loaded");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(cache.get::<String>("m").await.unwrap(), None);

    drop(lock);
    clear.await.unwrap();
    assert!(!folder.0.join("clearing").exists());
    assert_eq!(cache.get_or_set("m", load).await.unwrap(), "loaded");
    assert!(cache.has("m").await.unwrap());
}

#[tokio::test]
async fn what_a_dead_process_was_clearing_takes_leases_at_once() {
    const TEST: &str = "what_a_dead_process_was_clearing_takes_leases_at_once";
    if role().is_some() {
        let cache = Cache::new(given().timeout(LONG).open().unwrap());
        return cache.clear().await.unwrap();
    }
    let folder = Folder::new();
    let store = folder.open();
    let key = Key::new(":1:k");
    put(&store, &key, bytes(&store, "v")).await;
    for swept in [false, true] {
        let lock = hold(&folder.0, &key);
        let mut child = process(TEST, "clearer", &folder).spawn().unwrap();
        until_clearing(&folder.0).await;
        let fresh = Key::new(format!(":1:fresh{swept}"));
        assert!(!store.mark(&fresh, None, lease(&store)).await.unwrap());

        child.kill().unwrap();
        child.wait().unwrap();
        drop(lock);
        assert_eq!(clears(&folder.0).len(), 1);

        if swept {
            store.sweep();
            assert!(!folder.0.join("clearing").exists());
        }
        assert!(store.mark(&fresh, None, lease(&store)).await.unwrap());
        assert_eq!(clears(&folder.0), [] as [PathBuf; 0]);
    }
}

#[tokio::test]
async fn a_draft_that_a_clear_left_is_swept_and_hinders_nobody() {
    let folder = Folder::new();
    let store = folder.open();
    let clearing = folder.0.join("clearing");
    fs::create_dir(&clearing).unwrap();
    let [left, live] = ["1", "2"].map(|digit| clearing.join(format!(".tmp-{}", digit.repeat(16))));
    fs::write(&left, ":1:").unwrap();
    let lock = fs::File::create(&live).unwrap();
    lock.lock().unwrap();
    assert!(
        store
            .mark(&Key::new(":1:k"), None, lease(&store))
            .await
            .unwrap()
    );

    store.sweep();

    assert_eq!(clears(&folder.0), [live]);
    drop(lock);
    store.sweep();
    assert!(!clearing.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clears_and_sweeps_side_by_side_do_not_take_each_others_files() {
    let folder = Folder::new();
    let store = folder.open();
    put(&store, &Key::new(":1:k"), bytes(&store, "v")).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let sweeping = std::thread::spawn({
        let (store, is_over) = (store.clone(), is_over.clone());
        move || {
            while !is_over.load(Ordering::Relaxed) {
                store.sweep();
            }
        }
    });

    for _ in 0..50 {
        store.clear(":1:", "s").await.unwrap();
    }

    is_over.store(true, Ordering::Relaxed);
    sweeping.join().unwrap();
    assert!(!folder.0.join("clearing").exists());
}

// --- what is in the files ---------------------------------------------------------------------------

#[tokio::test]
async fn no_cut_and_no_flipped_bit_of_a_slots_file_is_more_than_a_miss() {
    let folder = Folder::new();
    let store = folder.open();
    for key in [":1:plain", ":1:a hashed key"].map(Key::new) {
        let tags = Tagged {
            era: 7,
            good_from: vec![("t".into(), 1)],
        };
        let entry = bytes(&store, "the value").with_tags(tags);
        put(&store, &key, entry.clone()).await;
        let path = folder.slot();
        let whole = fs::read(&path).unwrap();

        let cut = (0..whole.len()).map(|end| whole[..end].to_vec());
        let flipped = (0..whole.len() * 8).map(|bit| {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        let longer = std::iter::once([&whole[..], b"x"].concat());
        for damaged in cut.chain(flipped).chain(longer) {
            fs::write(&path, &damaged).unwrap();
            let found = get(&store, &key).await;
            assert!(
                found.is_none_or(|found| found.value.is_none()),
                "{damaged:?}"
            );
            assert_eq!(
                store.heads(std::slice::from_ref(&key)).await.unwrap(),
                [None]
            );
        }

        fs::write(&path, &whole).unwrap();
        assert_eq!(get(&store, &key).await, Some(entry));
        store.delete(&[key]).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_in_the_place_of_a_slots_file_is_a_miss_and_is_written_over() {
    let folder = Folder::new();
    let cache = Cache::new(folder.open());
    cache.set("k", "value").await.unwrap();
    let path = folder.slot();
    let other = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    cache.set("other", "other's").await.unwrap();
    let others = folder.slot();

    let put_there: [(&str, &dyn Fn()); 5] = [
        ("nothing at all", &|| fs::write(&others, "").unwrap()),
        ("another key's file", &|| {
            fs::write(&others, &other).unwrap();
        }),
        ("digits", &|| fs::write(&others, "12").unwrap()),
        ("a file without end", &|| {
            let file = fs::File::create(&others).unwrap();
            file.set_len(1 << 40).unwrap();
        }),
        ("a pipe that nobody writes to", &|| {
            fs::remove_file(&others).unwrap();
            assert!(
                Command::new("mkfifo")
                    .arg(&others)
                    .status()
                    .unwrap()
                    .success()
            );
        }),
    ];
    for (what, put) in put_there {
        put();
        assert_eq!(cache.get::<String>("other").await.unwrap(), None, "{what}");
        assert!(!cache.has("other").await.unwrap(), "{what}");
        let loaded = cache.get_or_set("other", || async { "loaded".to_owned() });
        assert_eq!(loaded.await.unwrap(), "loaded", "{what}");
        let kept = cache.get::<String>("other").await.unwrap();
        assert_eq!(kept.as_deref(), Some("loaded"), "{what}");
    }

    fs::remove_file(&others).unwrap();
    fs::create_dir(&others).unwrap();
    assert_eq!(cache.get::<String>("other").await.unwrap(), None);
    let refused = cache.set("other", "value").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    cache.clear().await.unwrap();
    assert!(cache.counts().unreadable >= 5);
}

#[tokio::test]
async fn a_damaged_numbers_file_is_a_new_era() {
    let folder = Folder::new();
    let names = ["a".into(), "b".into()];
    let store = folder.open();
    raise(&store, &names[..1]).await;
    raise(&store, &names).await;
    let before = numbers(&store, &names).await;
    let path = folder.files().pop().unwrap();
    assert!(path.starts_with(folder.0.join("numbers")), "{path:?}");
    let whole = fs::read(&path).unwrap();

    for byte in 0..whole.len() {
        for damaged in [whole[..byte].to_vec(), {
            let mut bytes = whole.clone();
            bytes[byte] ^= 1 << (byte % 8);
            bytes
        }] {
            fs::write(&path, damaged).unwrap();
            let fresh = numbers(&folder.open(), &names).await;
            // The generation alone says nothing about the rest.
            let is_generation = (8..16).contains(&byte);
            assert!(
                is_generation || fresh.era != before.era,
                "{byte}: {fresh:?}"
            );
            assert!(
                fresh.era != before.era || fresh == before,
                "{byte}: {fresh:?}"
            );
        }
    }

    fs::remove_file(&path).unwrap();
    assert_ne!(numbers(&store, &names).await.era, before.era);
}

#[tokio::test]
async fn numbers_that_another_process_raised_are_never_read_from_memory() {
    let folder = Folder::new();
    let (here, there) = (folder.open(), folder.open());
    let names = ["a".into()];

    for _ in 0..500 {
        for (raiser, reader) in [(&here, &there), (&there, &here)] {
            let raised = raise(raiser, &names).await;
            assert_eq!(numbers(reader, &names).await.of, [Some(raised)]);
        }
    }
}

#[tokio::test]
async fn a_space_forgets_its_oldest_numbers_under_the_floor() {
    let folder = Folder::new();
    let store = folder.open();
    let names: Vec<Tag> = (0..20_000)
        .map(|number| format!("t{number}").into())
        .collect();

    raise(&store, &names[..1]).await;
    raise(&store, &names[1..10_000]).await;
    raise(&store, &names[10_000..]).await;

    let after = numbers(&store, &names).await;
    assert!(
        (0..names.len()).all(|at| after.at(at) >= 1),
        "none is lowered"
    );
    assert!(after.of[0].is_none() && after.at(0) >= 1);
    assert!(fs::metadata(&folder.files()[0]).unwrap().len() < 1 << 20);
}

#[tokio::test]
async fn what_an_earlier_start_of_the_machine_wrote_is_a_miss() {
    let folder = Folder::new();
    let key = Key::new(":1:k");
    // Trusting means to state no start at all: another one than this machine's.
    let trusting = folder.builder().trust_restarts().open().unwrap();
    put(&trusting, &key, bytes(&trusting, "old")).await;

    assert!(get(&trusting, &key).await.is_some());
    assert_eq!(get(&folder.open(), &key).await, None);
}

// --- whose the folder is ----------------------------------------------------------------------------

#[tokio::test]
async fn files_are_for_their_user_alone_whatever_the_umask() {
    const TEST: &str = "files_are_for_their_user_alone_whatever_the_umask";
    if role().is_some() {
        let cache = Cache::new(given().open().unwrap());
        cache.set("k", "v").tags(["t"]).await.unwrap();
        cache.invalidate(["t"]).await.unwrap();
        cache.set("k", "w").await.unwrap();
        // Held up until this process ends, so that its file is left.
        let _held = hold(
            &PathBuf::from(std::env::var(FOLDER).unwrap()),
            &Key::new(":1:k"),
        );
        let clearing = tokio::spawn(async move { cache.clear().await });
        until_clearing(Path::new(&std::env::var(FOLDER).unwrap())).await;
        clearing.abort();
        std::process::exit(0);
    }
    for umask in ["0", "022", "0277"] {
        let folder = Folder::new();
        let line = format!("umask {umask}");
        let child = process_after(&line, TEST, "writer", &folder).spawn();
        wait(vec![child.unwrap()]);

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&folder.0), 0o700, "umask {umask}");
        for path in all_below(&folder.0) {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), expected, "umask {umask}: {path:?}");
        }
        assert_eq!(clears(&folder.0).len(), 1, "umask {umask}");
    }
}

#[test]
fn a_folder_that_everybody_may_write_in_is_refused() {
    let folder = Folder::new();
    fs::create_dir(&folder.0).unwrap();
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o1777)).unwrap();

    let refused = folder.builder().open().unwrap_err();

    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.hint().is_some());
    File::open(folder.0.join("own")).unwrap();
}

#[test]
fn a_path_that_is_a_file_is_refused() {
    let folder = Folder::new();
    fs::write(&folder.0, "a file").unwrap();

    let refused = folder.builder().open().unwrap_err();
    let below = File::open(folder.0.join("below")).unwrap_err();

    assert!(
        refused.to_string().contains(folder.0.to_str().unwrap()),
        "{refused}"
    );
    assert_eq!(below.kind(), ErrorKind::Unavailable);
    fs::remove_file(&folder.0).unwrap();
}

#[tokio::test]
async fn what_others_put_into_the_folder_stays() {
    let folder = Folder::new();
    let cache = Cache::new(folder.open());
    let other_prefix = Cache::builder(folder.open())
        .prefix("other")
        .build()
        .unwrap();
    for number in 0..20 {
        cache.set(format!("k{number}"), "v").await.unwrap();
    }
    other_prefix.set("k", "v").await.unwrap();
    let room = folder.slots()[0].parent().unwrap().to_owned();
    let foreign = [
        folder.0.join("notes.txt"),
        room.join("notes.txt"),
        room.join("0123456789".repeat(6) + "ab"),
    ];
    for path in &foreign {
        fs::write(path, "not ours").unwrap();
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
    }

    cache.clear().await.unwrap();

    assert!(foreign.iter().all(|path| path.exists()));
    assert_eq!(other_prefix.get("k").await.unwrap(), Some("v".to_owned()));
    assert_eq!(
        folder.slots().len(),
        4,
        "three of others, one of the other prefix"
    );
    folder.builder().max_entries(1).open().unwrap().sweep();
    assert!(foreign.iter().all(|path| path.exists()));
}

// --- what is past its time, and what is too much ----------------------------------------------------

#[tokio::test]
async fn what_has_expired_leaves_without_being_read() {
    let folder = Folder::new();
    let clock = Clock::manual();
    let store = folder.builder().clock(clock.clone()).open().unwrap();
    let second = clock.now().plus(Duration::from_secs(1));
    let brief = bytes(&store, "1").fresh_until(second);
    put(&store, &Key::new(":1:brief"), brief.clone()).await;
    put(&store, &Key::new(":1:graced"), brief.with_grace(LONG)).await;
    put(&store, &Key::new(":1:endless"), bytes(&store, "3")).await;
    let lease = Mark {
        stamp: Stamp::from_number(7),
        state: State::Loading,
        until: second,
    };
    assert!(
        store
            .mark(&Key::new(":1:leased"), None, lease)
            .await
            .unwrap()
    );

    store.sweep();
    assert_eq!(folder.slots().len(), 4);

    clock.advance(Duration::from_secs(1));
    store.sweep();
    assert_eq!(folder.slots().len(), 2);

    clock.advance(LONG);
    store.sweep();
    assert_eq!(folder.slots().len(), 1);
}

#[tokio::test]
async fn a_sweep_keeps_the_limits_and_the_newest() {
    let folder = Folder::new();
    let store = folder.builder().clock(Clock::seeded(1)).max_entries(100);
    let store = store.open().unwrap();
    for number in 0..250 {
        put(
            &store,
            &Key::new(format!(":1:{number}")),
            bytes(&store, "v"),
        )
        .await;
    }
    assert_eq!(
        folder.slots().len(),
        250,
        "a write lists and removes nothing"
    );

    store.sweep();

    assert!((1..=100).contains(&folder.slots().len()));
    assert!(get(&store, &Key::new(":1:249")).await.is_some());
    assert_eq!(get(&store, &Key::new(":1:0")).await, None);

    let by_bytes = folder.builder().max_bytes(1 << 18).open().unwrap();
    for number in 0..50 {
        let entry = bytes(&by_bytes, vec![b'x'; 10_000]);
        put(&by_bytes, &Key::new(format!(":1:large{number}")), entry).await;
    }
    by_bytes.sweep();
    let length = |path: &PathBuf| fs::metadata(path).unwrap().len();
    assert!(folder.slots().iter().map(length).sum::<u64>() <= 1 << 18);
}

#[tokio::test]
async fn writes_past_a_limit_call_for_a_sweep() {
    let folder = Folder::new();
    let store = folder.builder().max_entries(50).open().unwrap();
    let began = std::time::Instant::now();
    for number in 0..1800 {
        let key = Key::new(format!(":1:{number}"));
        put(&store, &key, bytes(&store, "v")).await;
        while number % 30 == 29 && folder.slots().len() > 50 {
            // Who only looks once a second takes nearly a minute for sixty times; who is called takes as
            // long as sixty sweeps of fifty files, also on a machine that is busy.
            let waited = began.elapsed();
            assert!(waited < Duration::from_secs(40), "{number}: nobody sweeps");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_draft_that_its_writer_left_is_swept() {
    let folder = Folder::new();
    let store = folder.open();
    put(&store, &Key::new(":1:k"), bytes(&store, "v")).await;
    raise(&store, &["t".into()]).await;
    let drafts = [
        folder.slot().with_file_name(".tmp-1-0123456789abcdef"),
        folder.0.join("numbers").join(".tmp-1-0123456789abcdef"),
    ];
    for path in &drafts {
        fs::write(path, "half of").unwrap();
    }

    store.sweep();

    assert!(drafts.iter().all(|path| !path.exists()));
    assert_eq!(folder.files().len(), 2);
}

#[tokio::test]
async fn an_entry_too_large_is_refused_and_the_old_one_is_gone() {
    let folder = Folder::new();
    let store = folder.builder().max_bytes(1 << 16).open().unwrap();
    let key = Key::new(":1:k");
    put(&store, &key, bytes(&store, "old")).await;

    let large = bytes(&store, vec![0; 1 << 17]);
    let refused = store.put(&key, large.clone(), When::Always).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(get(&store, &key).await, None);

    let small = bytes(&store, "v");
    let batch = vec![
        (key.clone(), small.clone()),
        (Key::new(":1:l"), large),
        (Key::new(":1:m"), small),
    ];
    assert_eq!(store.put_many(batch).await.unwrap(), [1]);
    assert_eq!(folder.slots().len(), 2);
}

// --- when the disk fails ----------------------------------------------------------------------------

#[tokio::test]
async fn a_write_that_breaks_off_half_way_leaves_neither_the_old_value_nor_a_part() {
    const TEST: &str = "a_write_that_breaks_off_half_way_leaves_neither_the_old_value_nor_a_part";
    if let Some(role) = role() {
        let cache = Cache::builder(given().open().unwrap()).codec(Codec::Raw);
        let cache = cache.build().unwrap();
        cache.set("k", "old").await.unwrap();
        let error = cache.set("k", &vec![b'x'; 1 << 20]).await.unwrap_err();
        let expected = match role.as_str() {
            "limited" => ErrorKind::TooLarge,
            _ => ErrorKind::Unavailable,
        };
        assert_eq!(error.kind(), expected, "{error:?}");
        assert!(error.hint().is_some() && error.to_string().contains("cannot write"));
        assert_eq!(cache.get::<String>("k").await.unwrap(), None);
        // The engine's own: the value is loaded, and nobody waits for what cannot be kept.
        let load = || async { "x".repeat(1 << 20) };
        assert_eq!(cache.get_or_set("l", load).await.unwrap().len(), 1 << 20);
        cache.set("k", "small").await.unwrap();
        assert_eq!(
            cache.get::<String>("k").await.unwrap().as_deref(),
            Some("small")
        );
        return;
    }
    // The write begins, and fails in its middle: by a limit of the process, and on a disk that is full,
    // where one can be mounted.
    let limited = Folder::new();
    let line = "trap '' XFSZ; ulimit -f 64";
    wait(vec![
        process_after(line, TEST, "limited", &limited)
            .spawn()
            .unwrap(),
    ]);
    assert!(
        limited
            .files()
            .iter()
            .all(|path| !name(path).starts_with(".tmp-"))
    );

    let full = Folder::new();
    if let Some(mut writer) = process_on_disk("size=512k", TEST, "full", &full) {
        wait(vec![writer.spawn().unwrap()]);
    }
}

/// This binary, for the one test `test`, as `role`, with a disk of its own in the folder's place;
/// `None`, and a word about it, where this user may not mount.
fn process_on_disk(options: &str, test: &str, role: &str, folder: &Folder) -> Option<Command> {
    let mount = |then: &str| {
        let mount = format!("mount -t tmpfs -o mode=700,{options} none \"${FOLDER}\" && {then}");
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", &mount]);
        command.arg(std::env::current_exe().unwrap());
        as_role(&mut command, role, folder);
        command
    };
    fs::create_dir(&folder.0).unwrap();
    let probe = mount("true").stderr(Stdio::null()).status();
    if probe.is_ok_and(|status| status.success()) {
        return Some(mount(&format!("exec \"$0\" --exact {test} --nocapture")));
    }
    eprintln!("{test}: no disk can be mounted here, so not as `{role}`");
    None
}

/// Loads without an error, and nothing of it is kept.
async fn loads_beside(cache: &Cache, names: [&str; 3]) {
    let load = || async { "loaded".to_owned() };
    assert_eq!(cache.get_or_set(names[0], load).await.unwrap(), "loaded");
    let tagged = cache.get_or_set(names[0], load).tags(["t"]);
    assert_eq!(tagged.await.unwrap(), "loaded");
    let many = |names: Vec<String>| async {
        Ok::<_, Infallible>(names.into_iter().map(|name| (name, 1)).collect())
    };
    let found: HashMap<String, i32> = cache.fetch_many(names, many).await.unwrap();
    assert_eq!(found.len(), 3);
    let ticket = cache.ticket(names[0]).await.unwrap();
    // Where not even a lock can be made, it is an error.
    assert!(!ticket.set("read").await.unwrap_or(false));
    for name in names {
        assert!(!cache.has(name).await.unwrap(), "{name}");
    }
}

#[tokio::test]
async fn on_a_full_disk_loads_run_and_are_not_kept() {
    const TEST: &str = "on_a_full_disk_loads_run_and_are_not_kept";
    let (leased, held) = (Key::new(":1:leased"), lease_of(7));
    if let Some(role) = role() {
        let store = given().clock(Clock::seeded(1)).open().unwrap();
        let cache = Cache::new(store.clone());
        let filler = PathBuf::from(std::env::var(FOLDER).unwrap()).join("filler");
        if role == "full" {
            assert!(store.mark(&leased, None, held).await.unwrap());
            let mut file = fs::File::create(&filler).unwrap();
            while file.write_all(&[0; 4096]).is_ok() {}
        }
        loads_beside(&cache, ["a", "b", "c"]).await;
        if role == "no files" {
            return;
        }

        // The lease that is there is neither renewed nor lost, and one that is nowhere is none.
        let renewed = Mark {
            until: held.until.plus(LONG),
            ..held
        };
        assert!(
            store
                .mark(&leased, Some(held.stamp), renewed)
                .await
                .unwrap()
        );
        let found = get(&store, &leased).await.unwrap();
        assert_eq!(
            (found.stamp, found.state, found.state_until),
            (held.stamp, held.state, held.until)
        );
        let nowhere = lease_of(8);
        let key = Key::new(":1:a");
        assert!(store.mark(&key, None, nowhere).await.unwrap());
        let written = store.put(&key, bytes(&store, ""), When::IfStamp(nowhere.stamp));
        assert!(!written.await.unwrap());
        if role == "full" {
            fs::remove_file(&filler).unwrap();
            let load = || async { "loaded".to_owned() };
            assert_eq!(cache.get_or_set("a", load).await.unwrap(), "loaded");
            assert!(cache.has("a").await.unwrap());
        }
        return;
    }
    // A process that may write no byte meets the same as on a full disk, and can be had everywhere.
    let limited = Folder::new();
    let store = limited.open();
    assert!(store.mark(&leased, None, held).await.unwrap());
    let line = "trap '' XFSZ; ulimit -f 0";
    let child = process_after(line, TEST, "limited", &limited).spawn();
    wait(vec![child.unwrap()]);

    for (role, options) in [("full", "size=512k"), ("no files", "nr_inodes=3")] {
        let disk = Folder::new();
        if let Some(mut child) = process_on_disk(options, TEST, role, &disk) {
            wait(vec![child.spawn().unwrap()]);
        }
    }
}

/// A lease until the year 2096.
fn lease_of(number: u64) -> Mark {
    Mark {
        stamp: Stamp::from_number(number),
        state: State::Loading,
        until: Moment::from_millis(4_000_000_000_000),
    }
}

#[tokio::test]
async fn without_another_file_to_open_what_is_there_stays() {
    const TEST: &str = "without_another_file_to_open_what_is_there_stays";
    if role().is_some() {
        let store = given().clock(Clock::seeded(1)).open().unwrap();
        let cache = Cache::new(store.clone());
        for free in 0..5 {
            cache.set("k", "old").await.unwrap();
            cache.set("n", &1).await.unwrap();
            let mut taken = Vec::new();
            while let Ok(file) = fs::File::open("/dev/null") {
                taken.push(file);
            }
            taken.truncate(taken.len() - free);

            // The lock is a file, and what is to be read another.
            let added = cache.add("k", "new").await;
            let counted = cache.incr("n", 1).await;
            let touched = cache.persist("k").await;
            let load = || async { "loaded".to_owned() };
            let loaded = cache.get_or_set("cold", load).await;

            drop(taken);
            assert!(added.map_or(true, |added| !added), "{free}");
            assert!(touched.map_or(true, |touched| touched), "{free}");
            assert_eq!(loaded.unwrap(), "loaded", "{free}");
            assert_eq!(
                cache.get("k").await.unwrap(),
                Some("old".to_owned()),
                "{free}"
            );
            let counted = counted.map_or(1, |sum| sum);
            assert_eq!(cache.get("n").await.unwrap(), Some(counted), "{free}");
            cache.delete("cold").await.unwrap();
        }
        return;
    }
    let folder = Folder::new();
    let child = process_after("ulimit -n 64", TEST, "writer", &folder).spawn();
    wait(vec![child.unwrap()]);
}

#[tokio::test]
async fn without_its_folder_reads_are_misses_and_writes_are_errors() {
    let folder = Folder::new();
    // By this clock no thread sweeps, which could put a lock where it was just removed.
    let store = folder.builder().clock(Clock::seeded(1)).open().unwrap();
    let cache = Cache::new(store.clone());
    cache.set("k", "old").tags(["t"]).await.unwrap();
    fs::remove_dir_all(&folder.0).unwrap();

    assert_eq!(cache.get::<String>("k").await.unwrap(), None);
    assert!(!cache.has("k").await.unwrap());
    let errors = [
        cache.set("k", "new").await.unwrap_err(),
        cache.delete("k").await.unwrap_err(),
        cache.invalidate(["t"]).await.unwrap_err(),
        cache.clear().await.unwrap_err(),
        cache.incr("k", 1).await.unwrap_err(),
        cache.add("k", "new").await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(
            error.to_string().contains(folder.0.to_str().unwrap()),
            "{error}"
        );
        assert!(
            error.hint().unwrap().contains("the folder is gone"),
            "{error:?}"
        );
    }
    assert!(
        !folder.0.exists(),
        "it may have been a disk that is to be mounted again"
    );
    store.sweep();

    fs::create_dir(&folder.0).unwrap();
    cache.set("k", "new").tags(["t"]).await.unwrap();
    assert_eq!(cache.get("k").await.unwrap(), Some("new".to_owned()));
}

#[tokio::test]
async fn a_lock_that_is_never_given_back_stops_writes_in_time_and_no_reads() {
    let folder = Folder::new();
    let store = folder
        .builder()
        .timeout(Duration::from_millis(50))
        .open()
        .unwrap();
    let key = Key::new(":1:k");
    let old = bytes(&store, "old");
    put(&store, &key, old.clone()).await;
    // What a process that stands still holds.
    let held = fs::File::open(folder.slot().with_file_name(".lock")).unwrap();
    held.lock().unwrap();

    let late = store
        .put(&key, bytes(&store, "late"), When::Always)
        .await
        .unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout);
    assert!(late.hint().unwrap().contains("process"), "{late:?}");
    let dropped = store.put(&key, bytes(&store, "dropped"), When::Always);
    assert!(
        tokio::time::timeout(Duration::from_millis(1), dropped)
            .await
            .is_err()
    );
    assert_eq!(get(&store, &key).await, Some(old.clone()));

    drop(held);
    let lease = Mark {
        stamp: Stamp::from_number(7),
        state: State::Loading,
        until: store.clock().now().plus(LONG),
    };
    assert!(
        store.mark(&key, Some(old.stamp), lease).await.unwrap(),
        "nothing came later"
    );
}

// --- several processes ------------------------------------------------------------------------------

/// A value that shows whether it is whole: one letter, as often as its first two bytes say.
fn whole_value(number: u16) -> Vec<u8> {
    let letter = b'a' + u8::try_from(number % 26).unwrap();
    let mut value = number.to_be_bytes().to_vec();
    value.resize(2 + usize::from(number), letter);
    value
}

#[tokio::test]
async fn writers_that_are_killed_leave_whole_values_only() {
    const TEST: &str = "writers_that_are_killed_leave_whole_values_only";
    let keys = ["a", "b", "c"].map(|name| Key::new(format!(":1:{name}")));
    if role().is_some() {
        let store = given().timeout(LONG).open().unwrap();
        loop {
            for key in &keys {
                let number = u16::try_from(store.clock().random() % 60_000).unwrap();
                put(&store, key, bytes(&store, whole_value(number))).await;
                raise(&store, &["t".into()]).await;
            }
        }
    }
    let folder = Folder::new();
    let store = folder.open();
    let era = numbers(&store, &[]).await.era;
    let (mut seen, mut last) = (0, 0);
    for round in 0..30 {
        let mut child = process(TEST, "writer", &folder).spawn().unwrap();
        let began = numbers(&store, &[]).await.seq;
        while numbers(&store, &[]).await.seq < began + 2 + round {
            assert_eq!(child.try_wait().unwrap(), None, "round {round}");
        }
        child.kill().unwrap();
        child.wait().unwrap();

        for key in &keys {
            let Some(Value::Bytes(value)) = get(&store, key).await.and_then(|it| it.value) else {
                continue;
            };
            let number = u16::from_be_bytes([value[0], value[1]]);
            assert_eq!(value, whole_value(number), "round {round}");
            seen += 1;
        }
        let after = numbers(&store, &[]).await;
        assert!(after.era == era && after.seq >= last, "round {round}");
        last = after.seq;
    }
    assert!(seen >= 30, "{seen}");
    store.sweep();
    assert_eq!(
        folder.files().len(),
        4,
        "three slots and one space: {:?}",
        folder.files()
    );
}

#[tokio::test]
async fn four_processes_count_to_a_thousand() {
    const TEST: &str = "four_processes_count_to_a_thousand";
    if role().is_some() {
        let cache = Cache::new(given().open().unwrap());
        for _ in 0..250 {
            cache.incr("n", 1).await.unwrap();
        }
        return;
    }
    let folder = Folder::new();
    let cache = Cache::new(folder.open());
    cache.set("n", &0).await.unwrap();

    let start = |_| process(TEST, "counter", &folder).spawn().unwrap();
    wait((0..4).map(start).collect());

    assert_eq!(cache.get("n").await.unwrap(), Some(1000));
}

#[tokio::test]
async fn of_four_processes_that_add_a_key_one_wins() {
    const TEST: &str = "of_four_processes_that_add_a_key_one_wins";
    const KEYS: usize = 1500;
    if let Some(role) = role() {
        let cache = Cache::new(given().open().unwrap());
        let mut won = 0;
        for number in 0..KEYS {
            won += i64::from(cache.add(format!("k{number}"), &role).await.unwrap());
        }
        cache.set(format!("won:{role}"), &won).await.unwrap();
        return;
    }
    let folder = Folder::new();
    let cache = Cache::new(folder.open());

    let start = |number: u32| process(TEST, &number.to_string(), &folder).spawn().unwrap();
    wait((0..4).map(start).collect());

    let mut won = 0;
    for number in 0..4 {
        won += cache
            .get::<i64>(format!("won:{number}"))
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(won, 1500);
}

#[tokio::test]
async fn four_processes_make_one_load_of_a_cold_key() {
    const TEST: &str = "four_processes_make_one_load_of_a_cold_key";
    if role().is_some() {
        let cache = Cache::new(given().open().unwrap());
        let callers: Vec<_> = (0..250)
            .map(|_| {
                let (cache, loads) = (cache.clone(), cache.clone());
                let load = move || async move {
                    loads.incr("loads", 1).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    "loaded".to_owned()
                };
                tokio::spawn(async move { cache.get_or_set("cold", load).await.unwrap() })
            })
            .collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), "loaded");
        }
        return;
    }
    let folder = Folder::new();
    let cache = Cache::new(folder.open());
    cache.set("loads", &0).await.unwrap();

    let start = |_| process(TEST, "caller", &folder).spawn().unwrap();
    wait((0..4).map(start).collect());

    assert_eq!(cache.get("loads").await.unwrap(), Some(1));
}
