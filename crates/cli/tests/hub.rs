//! Models by name, fetched from a hub that is made here and has every fault.
#![cfg(feature = "hub")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;
use tempfile::TempDir;

#[cfg(unix)]
use common::on_a_full_disk;
use common::{refused, stdout, text};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS: &str = "model.safetensors";

/// What the hub has, and how it behaves.
#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    /// Who shows no such token sees nothing.
    token: Option<&'static str>,
    /// Who shows no token sees the list, not the files.
    gated: bool,
    /// After how many bytes the next answers with weights break off.
    breaks: Vec<usize>,
    /// Answers nothing but 503 once `breaks` is used up.
    dies: bool,
    /// Sends all where the rest was asked for, so many times.
    deaf: usize,
    /// What was asked, with the range.
    seen: Vec<(String, String)>,
}

/// A hub on this machine.
struct Hub {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || answer(stream, &shared));
            }
        });
        Self { address, state }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("the state"));
    }

    /// The ranges in which the weights themselves were asked for, but for those of one byte.
    fn ranges(&self) -> Vec<String> {
        let state = self.state.lock().expect("the state");
        let weights = state.seen.iter().filter(|(path, range)| path.starts_with("/cdn/") && range != "bytes=0-0");
        weights.map(|(_, range)| range.clone()).collect()
    }

    fn asked(&self) -> usize {
        self.state.lock().expect("the state").seen.len()
    }
}

/// Answers one request.
fn answer(mut stream: TcpStream, state: &Mutex<State>) {
    let mut lines = BufReader::new(stream.try_clone().expect("a copy")).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let headers: BTreeMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_string())))
        .collect();
    let path = first.split(' ').nth(1).unwrap_or("/").to_string();
    let mut state = state.lock().expect("the state");
    let range = headers.get("range").cloned().unwrap_or_default();
    state.seen.push((path.clone(), range.clone()));
    let shown = headers.get("authorization").and_then(|a| a.strip_prefix("Bearer "));
    let failing = state.dies && state.breaks.is_empty();
    let mut plain = |status: &str, more: &str, body: &str| {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n");
        let _gone = stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice());
    };
    if failing {
        return plain("503 Service Unavailable", "", "");
    }
    if let Some(list) = path.strip_prefix("/api/models/") {
        let (name, revision) = list.split('?').next().and_then(|l| l.split_once("/revision/")).expect("a revision");
        if state.token.is_some() && state.token != shown {
            return plain("401 Unauthorized", "X-Error-Code: RepoNotFound\r\n", "");
        }
        if name != "org/tiny" {
            return plain("404 Not Found", "X-Error-Code: RepoNotFound\r\n", "");
        }
        if !["main", "v1", COMMIT].contains(&revision) {
            return plain("404 Not Found", "X-Error-Code: RevisionNotFound\r\n", "");
        }
        let files = state.files.iter().map(|(name, bytes)| json!({"rfilename": name, "size": bytes.len()}));
        let body = json!({"sha": COMMIT, "siblings": files.collect::<Vec<_>>()}).to_string();
        return plain("200 OK", "Content-Type: application/json\r\n", &body);
    }
    if state.gated && shown.is_none() {
        return plain("403 Forbidden", "X-Error-Code: GatedRepo\r\n", "");
    }
    let (at_hub, at_cdn) = (format!("/org/tiny/resolve/{COMMIT}/"), "/cdn/");
    if let Some(name) = path.strip_prefix(&at_hub).filter(|name| name.ends_with(".safetensors")) {
        // Large files lie elsewhere.
        let more = format!("Location: /cdn/{name}\r\nX-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: \"of-{name}\"\r\n");
        let more = more.replace(".safetensors\"", "\"");
        return plain("302 Found", &more.replace("/cdn/", &format!("http://{}/cdn/", headers["host"])), "");
    }
    let name = path.strip_prefix(&at_hub).or_else(|| path.strip_prefix(at_cdn)).expect("a file").to_string();
    let Some(bytes) = state.files.get(&name).cloned() else {
        return plain("404 Not Found", "", "");
    };
    let (begin, end) = range.strip_prefix("bytes=").and_then(|r| r.split_once('-')).unwrap_or(("0", ""));
    let mut begin: usize = begin.parse().expect("a number");
    let end = end.parse::<usize>().map_or(bytes.len(), |last| last + 1);
    if begin >= bytes.len() {
        return plain("416 Range Not Satisfiable", "", "");
    }
    if begin > 0 && state.deaf > 0 {
        (begin, state.deaf) = (0, state.deaf - 1);
    }
    let part = &bytes[begin..end];
    let breaks = path.starts_with(at_cdn) && end == bytes.len() && !state.breaks.is_empty();
    let sent = if breaks { state.breaks.remove(0).min(part.len()) } else { part.len() };
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {begin}-{}/{}\r\nETag: \"of-{name}\"\r\n\
         X-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n",
        part.len(),
        end - 1,
        bytes.len(),
    );
    let _gone = stream.write_all([head.replace(".json\"", "\"").as_bytes(), &part[..sent]].concat().as_slice());
}

/// A small model with what lies beside it, in a folder and as a hub has it.
fn tiny() -> (TempDir, PathBuf, BTreeMap<String, Vec<u8>>) {
    let home = tempfile::tempdir().expect("a folder");
    let dir = common::tiny(home.path());
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for entry in fs::read_dir(&dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        files.insert(path.file_name().expect("a name").to_string_lossy().into(), fs::read(&path).expect("read"));
    }
    files.insert("README.md".into(), b"not wanted".to_vec());
    files.insert("pytorch_model.bin".into(), b"not wanted".to_vec());
    (home, dir, files)
}

/// The binary as a user runs it whose cache is in `home`.
fn command(hub: &str, home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_regrow"));
    for name in ["HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", hub).env("HF_HOME", home);
    command
}

fn run(hub: &Hub, home: &Path, args: &[&str]) -> Output {
    command(&hub.address, home).args(args).output().expect("the binary runs")
}

fn cached(home: &Path, file: &str) -> PathBuf {
    home.join("hub/models--org--tiny/snapshots").join(COMMIT).join(file)
}

#[test]
fn a_name_does_what_its_folder_does() {
    let (home, dir, files) = tiny();
    let hub = Hub::start(files);
    hub.set(|state| state.token = Some("secret"));
    let said = |args: &[&str]| {
        stdout(&command(&hub.address, home.path()).env("HF_TOKEN", "secret").args(args).output().expect("runs"))
    };
    let same = |by_name: &[&str], by_path: &[&str]| assert_eq!(said(by_name), said(by_path));
    same(&["inspect", "org/tiny"], &["inspect", text(&dir)]);
    assert!(!cached(home.path(), "README.md").exists() && !cached(home.path(), "pytorch_model.bin").exists());
    let asked = hub.asked();
    let prompt = ["--prompt", "the old", "--tokens", "4"];
    same(
        &[&["generate", "org/tiny", "--revision", "v1"], &prompt[..]].concat(),
        &[&["generate", text(&dir)], &prompt[..]].concat(),
    );
    assert_eq!(hub.asked(), asked + 1, "only whether there is a newer one");
    let file = home.path().join("text.txt");
    fs::write(&file, "the old man saw a dog in the town ".repeat(8)).expect("written");
    let window = ["--text", text(&file), "--window", "8"];
    same(&[&["eval", "org/tiny"], &window[..]].concat(), &[&["eval", text(&dir)], &window[..]].concat());
    let out = home.path().join("out");
    let said = said(&["prune", "org/tiny", "--revision", COMMIT, "--sparsity", "0.5", "--out", text(&out)]);
    assert!(said.starts_with("sparsity 50.00 %"), "{said}");
    assert!(out.join("tokenizer.json").exists() && out.join("config.json").exists());
}

#[test]
fn shards_and_what_an_index_names() {
    let (home, _, mut files) = tiny();
    let whole = files.remove(WEIGHTS).expect("weights");
    let index = |shard: &str| {
        let tensors = safetensors::SafeTensors::deserialize(&whole).expect("tensors");
        let map: BTreeMap<_, _> = tensors.names().into_iter().map(|name| (name.to_string(), shard)).collect();
        json!({"metadata": {}, "weight_map": map}).to_string().into_bytes()
    };
    files.insert("model.safetensors.index.json".into(), index("model-1.safetensors"));
    files.insert("model-1.safetensors".into(), whole.clone());
    files.insert("consolidated.safetensors".into(), whole.clone());
    let hub = Hub::start(files);
    stdout(&run(&hub, home.path(), &["inspect", "org/tiny"]));
    assert!(cached(home.path(), "model-1.safetensors").exists());
    assert!(!cached(home.path(), "consolidated.safetensors").exists());
    hub.set(|state| {
        state.files.insert("model.safetensors.index.json".into(), index("model-2-of-2.safetensors"));
    });
    let other = tempfile::tempdir().expect("a folder");
    let said = refused(&run(&hub, other.path(), &["inspect", "org/tiny"]));
    assert!(said.contains("model-2-of-2.safetensors"), "{said}");
}

#[test]
fn a_download_that_breaks_off_is_gone_on_with() {
    let (home, _, files) = tiny();
    let whole = files[WEIGHTS].clone();
    let hub = Hub::start(files);
    hub.set(|state| state.breaks = vec![1000, 500]);
    stdout(&run(&hub, home.path(), &["inspect", "org/tiny"]));
    assert_eq!(hub.ranges(), ["bytes=0-", "bytes=1000-", "bytes=1500-"]);
    assert_eq!(fs::read(cached(home.path(), WEIGHTS)).expect("read"), whole);

    // A hub that dies in the middle, and is back for the next run.
    let home = tempfile::tempdir().expect("a folder");
    hub.set(|state| (state.breaks, state.dies, state.seen) = (vec![2000], true, vec![]));
    let said = refused(&run(&hub, home.path(), &["inspect", "org/tiny"]));
    assert!(said.contains("cannot be asked") && said.contains("503"), "{said}");
    assert!(!cached(home.path(), WEIGHTS).exists(), "what is not whole is not seen");
    hub.set(|state| (state.dies, state.seen) = (false, vec![]));
    stdout(&run(&hub, home.path(), &["inspect", "org/tiny"]));
    assert_eq!(hub.ranges(), ["bytes=2000-"]);
    assert_eq!(fs::read(cached(home.path(), WEIGHTS)).expect("read"), whole);
}

#[test]
fn what_is_spoilt_is_begun_anew() {
    let (home, _, files) = tiny();
    let whole = files[WEIGHTS].clone();
    let hub = Hub::start(files);
    // All comes where the rest was asked for: too much in the end.
    hub.set(|state| (state.breaks, state.deaf) = (vec![1000], 1));
    stdout(&run(&hub, home.path(), &["inspect", "org/tiny"]));
    assert_eq!(fs::read(cached(home.path(), WEIGHTS)).expect("read"), whole);
    // Whole but not yet renamed when the last run was killed; then more than there is.
    for spoilt in [whole.clone(), [&whole[..], b"more"].concat()] {
        let home = tempfile::tempdir().expect("a folder");
        let blobs = home.path().join("hub/models--org--tiny/blobs");
        fs::create_dir_all(&blobs).expect("a folder");
        fs::write(blobs.join("of-model.part"), spoilt).expect("written");
        stdout(&run(&hub, home.path(), &["inspect", "org/tiny"]));
        assert_eq!(fs::read(cached(home.path(), WEIGHTS)).expect("read"), whole);
    }
}

#[test]
fn what_cannot_be_had_is_one_line() {
    let (home, _, mut files) = tiny();
    let hub = Hub::start(files.clone());
    let says = |args: &[&str]| refused(&run(&hub, home.path(), args));
    assert!(says(&["inspect", "org/other"]).contains("neither a path here nor a model"));
    assert!(says(&["inspect", "org/tiny", "--revision", "v9"]).contains("has no revision \"v9\""));
    assert!(says(&["inspect", "org/tiny", "--revision", "../v9"]).contains("is no revision"));
    assert!(says(&["inspect", text(home.path()), "--revision", "v1"]).contains("is a path here"));
    assert!(says(&["inspect", "a/b/c", "--revision", "v1"]).contains("is no model's name"));
    let asked = hub.asked();
    assert!(says(&["inspect", "no/such/file"]).contains("no/such/file: "));
    assert!(says(&["inspect", "no/file.safetensors"]).contains("No such file"));
    assert_eq!(hub.asked(), asked, "paths are not asked for");
    hub.set(|state| state.gated = true);
    let said = says(&["inspect", "org/tiny"]);
    assert!(said.contains("gated") && said.contains("HF_TOKEN"), "{said}");
    hub.set(|state| (state.gated, state.token) = (false, Some("secret")));
    assert!(says(&["inspect", "org/tiny"]).contains("private"));
    hub.set(|state| {
        state.token = None;
        state.files.remove(WEIGHTS);
    });
    assert!(says(&["inspect", "org/tiny"]).contains("no weights in safetensors (it has pytorch_model.bin"));
    files.clear();
    hub.set(|state| state.files = files);
    assert!(says(&["inspect", "org/tiny"]).ends_with("no weights in safetensors\n"));
    assert!(!home.path().join("hub/models--org--tiny/refs/main").exists(), "nothing stands for a whole model");
}

#[test]
fn without_a_network_the_cache_is_enough() {
    let (home, _, files) = tiny();
    let hub = Hub::start(files);
    // A port where nobody listens any more.
    let nobody = TcpListener::bind("127.0.0.1:0").map(|l| format!("http://{}", l.local_addr().expect("one")));
    let nobody = nobody.expect("a port");
    let args = ["inspect", "org/tiny"];
    let offline = |hub: &str| command(hub, home.path()).env("HF_HUB_OFFLINE", "1").args(args).output().expect("runs");
    let unplugged = || command(&nobody, home.path()).args(args).output().expect("runs");
    let said = refused(&unplugged());
    assert!(said.contains("not whole in the cache") && said.contains("cannot be asked"), "{said}");
    assert!(refused(&offline(&hub.address)).contains("HF_HUB_OFFLINE"));
    assert_eq!(hub.asked(), 0);
    let online = stdout(&run(&hub, home.path(), &args));
    let asked = hub.asked();
    assert_eq!(stdout(&offline(&hub.address)), online);
    assert_eq!(hub.asked(), asked);
    let output = unplugged();
    assert_eq!(stdout(&output), online);
    let note = String::from_utf8(output.stderr).expect("text");
    assert!(note.contains("taken from the cache") && note.lines().count() == 1, "{note}");
    // A commit is found without a branch's name.
    let pinned = command(&nobody, home.path()).args(args).args(["--revision", COMMIT]).output().expect("runs");
    assert_eq!(stdout(&pinned), online);
    fs::remove_file(cached(home.path(), WEIGHTS)).expect("removed");
    assert!(refused(&offline(&hub.address)).contains("not whole"));
}

#[cfg(unix)]
#[test]
fn a_cache_that_fills_up_is_one_line() {
    let (home, _, files) = tiny();
    let hub = Hub::start(files);
    let regrow = command(&hub.address, home.path());
    let mut limited = Command::new("sh");
    for (name, value) in regrow.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let said = refused(&on_a_full_disk(&mut limited, &["inspect", "org/tiny"]));
    assert!(said.contains(WEIGHTS) && said.contains("large"), "{said}");
    stdout(&run(&hub, home.path(), &["inspect", "org/tiny"]));
    assert!(hub.ranges().len() == 2 && hub.ranges()[1] != "bytes=0-", "{:?}", hub.ranges());
}
