//! The object store: an address, and the few things that the archive asks of it. Objects are made
//! and deleted, and never changed.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use url::Url;

use crate::error::{Error, Result};
use crate::tasks::blocking;

/// How long a request may take, with its body.
#[cfg(feature = "cloud")]
const REQUEST: &str = "5m";

/// Whether of several that create an object at once only one is told that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Atomicity {
    /// It is so, by the store's documentation, or as it was measured; and which store it is.
    Known(&'static str),
    /// Not known: why.
    Unknown(&'static str),
}

/// A place in an object store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    prefix: Path,
    directory: Option<Directory>,
    url: String,
    atomicity: Atomicity,
}

/// Where a store's files are, if it is a directory.
///
/// It stays the one that was opened. Where it is moved away, or its disk is unmounted, there may be
/// another with its name, or one would be made: what is written there is in no archive.
#[derive(Clone, Debug)]
struct Directory {
    path: PathBuf,
    /// Which it is, where the system says it.
    identity: Option<(u64, u64)>,
}

impl Directory {
    fn open(path: &FilePath) -> io::Result<Directory> {
        Ok(Directory { path: path.to_owned(), identity: Directory::identity(path)? })
    }

    #[cfg(unix)]
    fn identity(path: &FilePath) -> io::Result<Option<(u64, u64)>> {
        use std::os::unix::fs::MetadataExt;
        let found = path.metadata()?;
        Ok(Some((found.dev(), found.ino())))
    }

    #[cfg(not(unix))]
    fn identity(path: &FilePath) -> io::Result<Option<(u64, u64)>> {
        path.metadata().map(|_| None)
    }

    fn is_there(&self) -> io::Result<()> {
        match Directory::identity(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            Ok(_) => Err(io::Error::other("another directory is in its place: mount its disk, or start again if this is it")),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("url", &self.url).field("atomicity", &self.atomicity).finish_non_exhaustive()
    }
}

/// What came of creating an object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// It is there, as it was to be.
    Ours,
    /// Another object has that name.
    Other(Bytes),
}

impl Store {
    /// The store at an address: `s3://bucket/prefix`, `gs://bucket/prefix`,
    /// `az://container/prefix`, `file:///directory`, or a path. Credentials, region and endpoint
    /// come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`,
    /// `AWS_ENDPOINT`, ...), as the crate `object_store` reads them. Asks a server nothing yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an address that is none, or a directory that is not there;
    /// [`Error::Store`].
    pub fn open(url: &str) -> Result<Store> {
        match Store::local_path(url)? {
            Some(path) if !path.is_dir() => {
                let why = format!("there is no such directory: {} (`foreword-archive push --create` makes it)", path.display());
                Err(Error::Invalid { what: "address of the archive", why })
            }
            Some(path) => Store::directory(&path, url),
            None => Store::cloud(&Store::parse(url)?, url),
        }
    }

    /// The same; a directory that is not there is made, with its parents.
    ///
    /// # Errors
    /// As [`open`](Store::open); [`Error::Io`].
    pub fn create(url: &str) -> Result<Store> {
        if let Some(path) = Store::local_path(url)? {
            std::fs::create_dir_all(&path).map_err(|error| Error::io("create the directory", path, error))?;
        }
        Store::open(url)
    }

    fn parse(url: &str) -> Result<Url> {
        Url::parse(url).map_err(|error| Error::Invalid { what: "address of the archive", why: format!("{url}: {error}") })
    }

    /// The directory that an address means, if it means one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an address that is none.
    pub fn local_path(url: &str) -> Result<Option<PathBuf>> {
        if !url.contains("://") {
            return Ok(Some(url.into()));
        }
        let parsed = Store::parse(url)?;
        if parsed.scheme() != "file" {
            return Ok(None);
        }
        let no_path = |()| Error::Invalid { what: "address of the archive", why: format!("{url} is no local path") };
        parsed.to_file_path().map(Some).map_err(no_path)
    }

    fn directory(path: &FilePath, url: &str) -> Result<Store> {
        let inner = LocalFileSystem::new_with_prefix(path).map_err(|error| Error::store("open", url, error))?.with_fsync(true);
        let directory = Directory::open(path).map_err(|error| Error::io("open", path, error))?;
        let atomicity = Atomicity::Known("a directory: hard links are made once");
        Ok(Store { inner: Arc::new(inner), prefix: Path::default(), directory: Some(directory), url: url.to_owned(), atomicity })
    }

    #[cfg(not(feature = "cloud"))]
    fn cloud(_: &Url, url: &str) -> Result<Store> {
        let why = format!("{url} needs the feature `cloud` of foreword-archive, without which it was built");
        Err(Error::Invalid { what: "address of the archive", why })
    }

    #[cfg(feature = "cloud")]
    fn cloud(parsed: &Url, url: &str) -> Result<Store> {
        // One provider of cryptography for the process. If the program has chosen one, that one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let set = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.to_str()?.to_ascii_lowercase(), value.to_str()?.to_owned())))
            .filter(|(name, _)| ["aws_", "google_", "azure_"].iter().any(|of| name.starts_with(of)));
        // By default a request ends after 30 s, with its body: then a slow link would send each
        // chunk anew for ever. (What is set in the environment comes later, and counts.)
        let options: Vec<_> = std::iter::once(("timeout".to_owned(), REQUEST.to_owned())).chain(set).collect();
        let endpoint = options.iter().any(|(name, _)| name.starts_with("aws_endpoint"));
        let (inner, prefix) = object_store::parse_url_opts(parsed, options).map_err(|error| Error::store("open", url, error))?;
        let atomicity = match parsed.scheme() {
            "s3" | "s3a" if !endpoint => Atomicity::Known("Amazon S3 (conditional writes since 2024)"),
            "s3" | "s3a" => Atomicity::Unknown("a server that speaks S3 is not known to create an object once"),
            "gs" => Atomicity::Known("Google Cloud Storage (preconditions)"),
            "az" | "azure" | "abfs" | "abfss" | "adl" => Atomicity::Known("Azure Blob Storage (conditional headers)"),
            _ => Atomicity::Unknown("the store is not known to create an object once"),
        };
        Ok(Store { inner: inner.into(), prefix, directory: None, url: url.to_owned(), atomicity })
    }

    /// A store of the program's own. `name` is what errors call it.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, name: &str, atomicity: Atomicity) -> Store {
        Store { inner, prefix: Path::default(), directory: None, url: name.to_owned(), atomicity }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it is known to create an object only once.
    #[must_use]
    pub fn atomicity(&self) -> &Atomicity {
        &self.atomicity
    }

    fn path(&self, name: &str) -> Path {
        Path::from_iter(self.prefix.parts().chain(Path::from(name).parts()))
    }

    /// Whether the archive's directory is still where it was, if it is one. Like a server that does
    /// not answer: it may come back.
    async fn is_there(&self) -> Result<()> {
        let Some(directory) = self.directory.clone() else { return Ok(()) };
        let gone = |error| object_store::Error::Generic { store: "directory", source: Box::new(error) };
        blocking(move || directory.is_there()).await?.map_err(|error| Error::store("find", &self.url, gone(error)))
    }

    /// Creates an object, unless there is one with that name. An answer that was lost shows as an
    /// object that is there already and has these bytes: give each object some that no other has.
    pub(crate) async fn put(&self, name: &str, bytes: &Bytes) -> Result<Created> {
        self.is_there().await?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.inner.put_opts(&self.path(name), PutPayload::from(bytes.clone()), options).await;
        self.is_there().await?; // Or it was made anew, for this object alone.
        match put {
            Ok(_) => Ok(Created::Ours),
            Err(exists @ object_store::Error::AlreadyExists { .. }) => match self.get(name).await? {
                Some(there) if there == bytes => Ok(Created::Ours),
                Some(there) => Ok(Created::Other(there)),
                // (A conflict with a request that is still under way is said in the same way.)
                None => Err(Error::store("create", name, exists)),
            },
            Err(error) => Err(Error::store("create", name, error)),
        }
    }

    /// An object; `None` if it is not there.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        self.is_there().await?;
        let read = async { self.inner.get(&self.path(name)).await?.bytes().await };
        found(read.await, name)
    }

    /// A part of an object.
    pub(crate) async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        self.is_there().await?;
        let read = self.inner.get_range(&self.path(name), range.clone()).await;
        match &read {
            Ok(bytes) if bytes.len() as u64 == range.end - range.start => {}
            Err(object_store::Error::NotFound { .. }) => {}
            // Stores say this in many ways.
            _ if self.inner.head(&self.path(name)).await.is_ok_and(|meta| meta.size < range.end) => {
                return Err(Error::damaged(name, "it is shorter than was written"));
            }
            _ => {}
        }
        found(read, name)
    }

    /// Whether there is an object in a folder whose name comes behind this one.
    pub(crate) async fn has_behind(&self, folder: &str, name: &str) -> Result<bool> {
        self.is_there().await?;
        let mut list = self.inner.list_with_offset(Some(&self.path(folder)), &self.path(name));
        let next = list.try_next().await.map_err(|error| Error::store("list", folder, error))?;
        Ok(next.is_some())
    }

    pub(crate) async fn exists(&self, name: &str) -> Result<bool> {
        self.is_there().await?;
        match self.inner.head(&self.path(name)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            // (Only what has a body says why.)
            Err(object_store::Error::PermissionDenied { .. }) => Ok(self.get(name).await?.is_some()),
            Err(error) => Err(Error::store("look for", name, error)),
        }
    }

    /// Deletes an object, if it is there.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.delete_all([name.to_owned()]).await
    }

    /// Deletes objects, if they are there: many by one request, where the store can.
    pub(crate) async fn delete_all(&self, names: impl IntoIterator<Item = String>) -> Result<()> {
        self.is_there().await?;
        let paths: Vec<_> = names.into_iter().map(|name| Ok(self.path(&name))).collect();
        let mut deleted = self.inner.delete_stream(stream::iter(paths).boxed());
        while let Some(deleted) = deleted.next().await {
            match deleted {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(Error::store("delete", self.url(), error)),
            }
        }
        Ok(())
    }

    /// The names of all objects in a folder, in any order.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.is_there().await?;
        let at = self.path(folder);
        let skip = self.prefix.parts().count();
        let name = |path: Path| path.parts().skip(skip).map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
        let list = self.inner.list(Some(&at)).map(|meta| meta.map(|meta| name(meta.location)));
        list.try_collect().await.map_err(|error| Error::store("list", folder, error))
    }
}

impl Store {
    /// Files that a process which was killed has left in a directory: an object is written under
    /// another name first. They are no objects, and no list of objects has them. Those that were
    /// changed within this time may be under way, and are left out.
    pub(crate) fn leftovers(&self, young: Duration) -> Result<Vec<PathBuf>> {
        let (mut leftovers, mut folders) =
            (Vec::new(), Vec::from_iter(self.directory.as_ref().map(|directory| directory.path.clone())));
        while let Some(folder) = folders.pop() {
            let failed = |error| Error::io("list", &folder, error);
            for entry in std::fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                if entry.file_type().map_err(failed)?.is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                let name = entry.file_name();
                let staged = name.to_str().and_then(|name| name.rsplit_once('#'));
                let staged = staged.is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|digit| digit.is_ascii_digit()));
                // (What is gone by now was under way.)
                let changed = entry.metadata().and_then(|meta| meta.modified()).ok();
                if staged && changed.is_some_and(|at| at.elapsed().is_ok_and(|age| age >= young)) {
                    leftovers.push(entry.path());
                }
            }
        }
        leftovers.sort();
        Ok(leftovers)
    }
}

fn found(read: object_store::Result<Bytes>, name: &str) -> Result<Option<Bytes>> {
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(Error::store("read", name, error)),
    }
}
