//! Resumable downloads into the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::slice;
use std::thread;
use std::time::Duration;

use hf_hub::CacheRepo;
use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiRepo};

use super::Watch;
use super::failure::Failure;
use super::files::{Listing, Wanted, Weights};

/// Consecutive attempts without progress before giving up.
const TRIES: u32 = 5;
/// The wait before the second attempt; it doubles with each.
const WAIT: Duration = Duration::from_millis(200);

/// A model of one commit on the hub, and its place in the cache.
pub(super) struct Source {
    pub api: Api,
    pub repo: ApiRepo,
    pub cache: CacheRepo,
    /// The folder where its files appear.
    pub folder: PathBuf,
}

/// Counts the downloaded bytes of a file.
struct Count<'a> {
    here: u64,
    watch: &'a mut dyn FnMut(u64),
}

impl Progress for Count<'_> {
    fn init(&mut self, _size: usize, _file: &str) {
        self.here = 0;
    }

    fn update(&mut self, bytes: usize) {
        self.here += bytes as u64;
        (self.watch)(self.here);
    }

    fn finish(&mut self) {}
}

impl Source {
    /// Downloads every wanted file that is missing.
    pub fn bring_model(&self, listing: &Listing, watch: &mut Watch<'_>) -> Result<(), Failure> {
        let mut wanted = listing.companions();
        match listing.weights()? {
            Weights::Single(file) => wanted.push(file),
            Weights::Sharded(index) => {
                self.bring(slice::from_ref(&index), &mut |_, _| {})?;
                let path = self.folder.join(&index.path);
                let text = fs::read(&path).map_err(|e| Failure::Disk(path, e))?;
                wanted.extend(listing.shards(&text)?);
            }
        }
        self.bring(&wanted, watch)
    }

    fn bring(&self, wanted: &[Wanted], watch: &mut Watch<'_>) -> Result<(), Failure> {
        let missing: Vec<&Wanted> = wanted.iter().filter(|file| !self.has(file)).collect();
        let all: u64 = missing.iter().filter_map(|file| file.size).sum();
        let mut before = 0;
        for file in missing {
            before += self.persist(file, &mut |here| watch(before + here, all.max(before + here)))?;
        }
        Ok(())
    }

    /// Whether a file is present in its full length.
    fn has(&self, file: &Wanted) -> bool {
        fs::metadata(self.folder.join(&file.path)).is_ok_and(|found| file.size.is_none_or(|size| size == found.len()))
    }

    /// Downloads one file, retrying as long as attempts make progress; returns its length.
    fn persist(&self, file: &Wanted, watch: &mut dyn FnMut(u64)) -> Result<u64, Failure> {
        let (mut tries, mut most) = (0, 0);
        loop {
            let mut here = 0;
            let tried = self.once(file, &mut |bytes| {
                here = bytes;
                watch(bytes);
            });
            let Err(failure) = tried else { return Ok(here) };
            if let Failure::Spoilt(_) = failure {
                self.begin_anew(file);
            }
            tries = if here > most { 1 } else { tries + 1 };
            most = most.max(here);
            if !failure.passes() || tries >= TRIES {
                return Err(failure);
            }
            thread::sleep(WAIT * 2u32.pow(tries - 1));
        }
    }

    /// Downloads the missing part of one file.
    fn once(&self, file: &Wanted, watch: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        let path = self.folder.join(&file.path);
        let downloaded = self.repo.download_with_progress(&file.path, Count { here: 0, watch });
        downloaded.map_err(|e| match Failure::of(e, &path) {
            // The hub lists the file but refuses access.
            Failure::Unknown => Failure::Gated,
            other => other,
        })?;
        match self.has(file) {
            true => Ok(()),
            false => {
                let length = fs::metadata(&path).map_or(0, |found| found.len());
                let size = file.size.unwrap_or(0);
                Err(Failure::Spoilt(format!("{} came with {length} bytes instead of {size}", file.path)))
            }
        }
    }

    /// Removes an unusable file: its complete or partial data, and the link to it.
    fn begin_anew(&self, file: &Wanted) {
        let link = self.folder.join(&file.path);
        let blob = self.api.metadata(&self.repo.url(&file.path)).map(|m| self.cache.blob_path(m.etag()));
        let blobs: Vec<PathBuf> = blob.into_iter().flat_map(|blob| [blob.with_extension("part"), blob]).collect();
        for path in blobs.iter().map(PathBuf::as_path).chain(slice::from_ref(&link).iter().map(Path::new)) {
            let _not_there = fs::remove_file(path);
        }
    }
}
