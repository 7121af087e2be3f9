//! Models by name: fetched from a hub such as huggingface.co into the cache that its own tools use.
//!
//! [`Hub::fetch`] asks which files a revision has and takes those that a model is read from:
//! configuration, tokenizer, licence, weights in safetensors. A download that breaks off is gone on
//! with where it stopped, in the same run or the next. Where the hub does not answer, a revision that
//! the cache holds whole is taken from there.
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

/// The hub that is asked unless another is named.
const USUAL: &str = "https://huggingface.co";
/// How long the hub may take to list a model's files.
const PATIENCE: Duration = Duration::from_secs(60);

/// A hub, the cache for what it has, and who asks.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Its address, without a slash at the end.
    pub endpoint: String,
    /// The folder that holds `models--org--name` and the like.
    pub cache: PathBuf,
    /// The token to show, for private and gated models.
    pub token: Option<String>,
    /// Whether to take everything from the cache.
    pub offline: bool,
}

/// A model in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its directory.
    pub folder: PathBuf,
    /// The commit that it is of.
    pub commit: String,
    /// Why the hub was not asked whether there is a newer one.
    pub unasked: Option<String>,
}

/// Called with bytes downloaded and in total.
pub type Watch<'a> = dyn FnMut(u64, u64) + 'a;

impl Hub {
    /// The hub of `HF_ENDPOINT`, the cache of `HF_HUB_CACHE`, `HF_HOME` or the user's own, the token of
    /// `HF_TOKEN` or of the file that Hugging Face's tools keep it in; offline with `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// No folder for a cache: neither a variable names one nor does the user have a home.
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

    /// The directory of model `name` (`org/name`) at `revision`, a branch, tag or commit, `main` without
    /// one. What the cache lacks is downloaded; `watch` is told of it.
    ///
    /// # Errors
    /// A name or revision that is none or that the hub does not know, a model that is gated or has no
    /// weights in safetensors, a hub that does not answer while the cache has not the whole model, a cache
    /// that cannot be written.
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

    /// What the hub has, made complete in the cache.
    fn download(&self, name: &str, revision: &str, watch: &mut Watch<'_>) -> Result<Fetched, Failure> {
        let api = self.api()?;
        let listing = list(&api.repo(repo(name, revision)))?;
        // By its commit, so that all files are of one and a branch that moves meanwhile changes nothing.
        let pinned = repo(name, &listing.sha);
        let cache = self.of_cache(&pinned);
        let folder = cache.pointer_path(&listing.sha);
        let source = Source { repo: api.repo(pinned), api, cache, folder: folder.clone() };
        source.bring_model(&listing, watch)?;
        if revision != listing.sha {
            // Only a whole model is what a branch's name leads to.
            let named = self.of_cache(&repo(name, revision)).create_ref(&listing.sha);
            named.map_err(|e| Failure::Disk(self.cache.clone(), e))?;
        }
        Ok(Fetched { folder, commit: listing.sha, unasked: None })
    }

    /// What the cache has of a revision, if that is whole.
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

/// Refuses what can be no name or revision, and would be put into addresses and paths.
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
