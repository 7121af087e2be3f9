//! Models by name: downloaded from a hub such as huggingface.co into the cache of Hugging Face's own tools.
//!
//! [`Hub::fetch`] lists the files of a revision and downloads those needed to read the model: configuration, tokenizer,
//! licence, weights in safetensors. An interrupted download is resumed in the same run or the next. If the hub does not
//! answer, a revision that is complete in the cache is used.
//!
//! ```no_run
//! let hub = regrow_lm::hub::Hub::from_env()?;
//! let fetched = hub.fetch("org/name", None, &mut |done, all| eprintln!("{done} of {all} bytes"))?;
//! println!("{}", fetched.folder.display());
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```

mod download;
mod failure;
mod files;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use regrow_checkpoint::Checkpoint;
use regrow_sparse_core::{Error, Result};

use download::Source;
use failure::Failure;
use files::Listing;

/// The default hub.
const USUAL: &str = "https://huggingface.co";
/// How long the hub may take to list a model's files.
const PATIENCE: Duration = Duration::from_secs(60);

/// A hub, its cache, and the user's token.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Its address, without a slash at the end.
    pub endpoint: String,
    /// The folder that holds `models--org--name` and the like.
    pub cache: PathBuf,
    /// The access token, for private and gated models.
    pub token: Option<String>,
    /// Whether to use only the cache.
    pub offline: bool,
}

/// A model in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its directory.
    pub folder: PathBuf,
    /// Its commit.
    pub commit: String,
    /// Why the hub was not asked for a newer commit, if it was not.
    pub unasked: Option<String>,
}

/// Called with bytes downloaded and in total.
pub type Watch<'a> = dyn FnMut(u64, u64) + 'a;

impl Hub {
    /// The hub of `HF_ENDPOINT`, the cache of `HF_HUB_CACHE`, `HF_HOME` or the user's own, the token of `HF_TOKEN` or
    /// of the file where Hugging Face's tools store it; offline with `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// No folder for a cache: no variable names one and the user has no home folder.
    pub fn from_env() -> Result<Self> {
        let set = |name: &str| env::var(name).ok().map(|v| v.trim().to_string()).filter(|v| !v.is_empty());
        let below = |folder: &str, path: &str| set(folder).map(|home| Path::new(&home).join(path));
        let home = set("HF_HOME").map(PathBuf::from).or_else(|| below("XDG_CACHE_HOME", "huggingface"));
        let home = home.or_else(|| env::home_dir().map(|home| home.join(".cache/huggingface")));
        let cache = set("HF_HUB_CACHE").map(PathBuf::from).or_else(|| home.as_ref().map(|home| home.join("hub")));
        let missing = || Error::Argument("no home directory to keep models in: set HF_HOME to a folder".into());
        let kept = home.and_then(|home| fs::read_to_string(home.join("token")).ok());
        let kept = kept.map(|token| token.trim().to_string()).filter(|token| !token.is_empty());
        Ok(Self {
            endpoint: set("HF_ENDPOINT").unwrap_or_else(|| USUAL.into()).trim_end_matches('/').into(),
            cache: cache.ok_or_else(missing)?,
            token: set("HF_TOKEN").or(kept),
            offline: set("HF_HUB_OFFLINE").is_some_and(|v| ["1", "true", "yes", "on"].contains(&&*v.to_lowercase())),
        })
    }

    /// The directory of model `name` (`org/name`) at `revision`, a branch, tag or commit, by default `main`. Missing
    /// files are downloaded; `watch` is called with the progress.
    ///
    /// A name or revision that is invalid or unknown to the hub, a model that is gated or has no weights in
    /// safetensors, a hub that does not answer while the cache lacks part of the model, a cache that cannot be written.
    pub fn fetch(&self, name: &str, revision: Option<&str>, watch: &mut Watch<'_>) -> Result<Fetched> {
        let revision = revision.unwrap_or("main");
        check(name, revision)?;
        let asked = match self.offline {
            true => Err(Failure::Unreachable("HF_HUB_OFFLINE is set".into())),
            false => self.download(name, revision, watch),
        };
        match asked {
            Err(Failure::Unreachable(reason)) => self.cached(name, revision, reason),
            other => other.map_err(|failure| failure.about(self, name, revision)),
        }
    }

    /// Downloads a revision completely into the cache.
    fn download(&self, name: &str, revision: &str, watch: &mut Watch<'_>) -> Result<Fetched, Failure> {
        let api = self.api()?;
        let listing = list(&api.repo(repo(name, revision)))?;
        // By its commit, so that all files are from the same one, even if a branch moves meanwhile.
        let pinned = repo(name, &listing.sha);
        let cache = self.of_cache(&pinned);
        let folder = cache.pointer_path(&listing.sha);
        let source = Source { repo: api.repo(pinned), api, cache, folder: folder.clone() };
        source.bring_model(&listing, watch)?;
        if revision != listing.sha {
            // A branch's name refers only to complete models.
            let named = self.of_cache(&repo(name, revision)).create_ref(&listing.sha);
            named.map_err(|e| Failure::Disk(self.cache.clone(), e))?;
        }
        Ok(Fetched { folder, commit: listing.sha, unasked: None })
    }

    /// The cached revision, if it is complete.
    fn cached(&self, name: &str, revision: &str, reason: String) -> Result<Fetched> {
        let here = self.of_cache(&repo(name, revision));
        // The folder of a branch is found by its reference, that of a commit by its own name.
        let named = here.get("config.json").and_then(|config| config.parent().map(Path::to_path_buf));
        let folder = named.unwrap_or_else(|| here.pointer_path(revision));
        match folder.join("config.json").exists() && Checkpoint::open(&folder).is_ok() {
            true => {
                let commit = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                Ok(Fetched { folder, commit, unasked: Some(reason) })
            }
            false => Err(Failure::Unreachable(reason).about(self, name, revision)),
        }
    }

    fn api(&self) -> Result<Api, Failure> {
        let builder = ApiBuilder::from_cache(Cache::new(self.cache.clone()));
        let builder = builder.with_endpoint(self.endpoint.clone()).with_token(self.token.clone()).with_progress(false);
        let builder = builder.with_user_agent(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        builder.build().map_err(|e| Failure::of(e, &self.cache))
    }

    fn of_cache(&self, repo: &Repo) -> CacheRepo {
        Cache::new(self.cache.clone()).repo(repo.clone())
    }
}

/// Whether `text` looks like `org/name`, a model's name, rather than like a path.
pub fn is_name(text: &str) -> bool {
    text.split('/').count() == 2 && text.split('/').all(is_part) && !text.ends_with(".safetensors")
}

fn is_part(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    part.chars().all(plain) && part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.len() <= 96
}

/// Rejects invalid names and revisions, which would be put into addresses and paths.
fn check(name: &str, revision: &str) -> Result<()> {
    if name.split('/').count() > 2 || !name.split('/').all(is_part) {
        return Err(Error::Argument(format!("{name:?} is no model's name: those look like org/name")));
    }
    if !revision.split('/').all(is_part) {
        return Err(Error::Argument(format!("{revision:?} is no revision: use a branch, tag or commit")));
    }
    Ok(())
}

fn repo(name: &str, revision: &str) -> Repo {
    Repo::with_revision(name.into(), RepoType::Model, revision.into())
}

/// The files of a revision.
fn list(repo: &ApiRepo) -> Result<Listing, Failure> {
    let request = repo.info_request().query("blobs", "true").config();
    let request = request.http_status_as_error(false).timeout_global(Some(PATIENCE)).build();
    let mut answer = request.call()?;
    match answer.status().as_u16() {
        200 => Ok(answer.body_mut().read_json()?),
        status => {
            let code = answer.headers().get("x-error-code").and_then(|code| code.to_str().ok());
            Err(Failure::of_status(status, code))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        for name in ["org/name", "Qwen/Qwen2.5-0.5B", "a/b_c"] {
            assert!(is_name(name) && check(name, "main").is_ok(), "{name}");
        }
        for path in ["name", "./name", "../up", "/a/b", "a/b/c", "a/", "a/b.safetensors", "a/.b", "a b/c", "~/x"] {
            assert!(!is_name(path), "{path}");
        }
        assert!(check("gpt2", "v1.0").is_ok() && check("a/b", "refs/pr/1").is_ok());
        assert!(check("a/b", "../../x").is_err() && check("a/b", "").is_err() && check("a/b/c", "main").is_err());
    }
}
