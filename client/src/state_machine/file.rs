//! Snapshot file: a state on disk, whole or not there.
//!
//! ```text
//!     zeros, body ─► NAME.tmp ─► header, sync ─► rename to NAME ─► sync of the directory
//! ```
//!
//! Owns:   the file, its temporary name, and the lock that keeps other replicas away from both.
//! Keeps:  under its name lies, at every moment, a whole snapshot: the last one or the one before. The header, which alone makes a file a
//!         snapshot, is written last; the body is never held in memory.
//! Never:  gives out a byte of a body that is not all what was written.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use loglog_proto::{ClusterId, Length, crc32c_append};

use super::error::SnapshotError;
use super::header::{HEADER, Header, Place, Wrong};

/// The file under which a replica keeps its snapshot.
#[derive(Debug)]
pub(super) struct SnapshotFile {
    path: PathBuf,
    /// Beside it, since the file itself is replaced.
    _lock: File,
}

/// A snapshot that has been checked.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) header: Header,
    /// The body.
    pub(super) body: io::Take<BufReader<File>>,
}

impl SnapshotFile {
    /// Takes the name for this replica. The directory must be there.
    pub(super) fn lock(path: PathBuf) -> Result<Self, SnapshotError> {
        let lock = beside(&path, ".lock");
        let failed = |what, source| SnapshotError::Io { what, path: lock.clone(), source };
        let options = File::options().create(true).truncate(false).write(true).open(&lock);
        let file = options.map_err(|source| failed("open", source))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, _lock: file }),
            Err(TryLockError::WouldBlock) => Err(SnapshotError::InUse { path }),
            Err(TryLockError::Error(source)) => Err(failed("lock", source)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the snapshot; durable at return.
    pub(super) fn write(
        &self,
        cluster: ClusterId,
        place: Place,
        body: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), SnapshotError> {
        let written = self.prepare(cluster, place, body).and_then(|()| self.publish());
        if written.is_err() {
            // It may be what fills the disk. If it cannot be removed, the next snapshot overwrites it.
            let _ = fs::remove_file(self.temporary());
        }
        written
    }

    /// Writes and syncs it, under the temporary name.
    pub(super) fn prepare(
        &self,
        cluster: ClusterId,
        place: Place,
        body: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), SnapshotError> {
        let path = self.temporary();
        let failed = |what| {
            let path = path.clone();
            move |source| SnapshotError::Io { what, path, source }
        };
        let file = File::create(&path).map_err(failed("create"))?;
        let mut to = Summing { to: BufWriter::new(file), crc: 0, length: 0 };
        to.to.write_all(&[0; HEADER]).map_err(failed("write"))?;
        body(&mut to).map_err(|source| SnapshotError::Write { path: self.path.clone(), source })?;
        let Summing { to, crc: body_crc, length } = to;
        let mut file = to.into_inner().map_err(|error| failed("write")(error.into_error()))?;
        let header = Header { cluster, place, body_crc, body_length: Length::new(length) };
        file.seek(SeekFrom::Start(0)).map_err(failed("write"))?;
        file.write_all(&header.encode()).map_err(failed("write"))?;
        file.sync_all().map_err(failed("sync"))
    }

    /// Gives what was prepared its name.
    fn publish(&self) -> Result<(), SnapshotError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| SnapshotError::Io { what, path, source }
        };
        fs::rename(self.temporary(), &self.path).map_err(failed("rename to", &self.path))?;
        let dir = match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
    }

    /// The snapshot, if there is one, all of it checked.
    pub(super) fn read(&self) -> Result<Option<Snapshot>, SnapshotError> {
        let failed = |source| SnapshotError::Io { what: "read", path: self.path.clone(), source };
        let damaged = |what: String| SnapshotError::Damaged { path: self.path.clone(), what };
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let found = file.metadata().map_err(failed)?.len();
        let mut bytes = [0; HEADER];
        match file.read_exact(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(damaged(format!("it has {found} bytes, not even a header's")));
            }
            read => read.map_err(failed)?,
        }
        let header = Header::decode(&bytes).map_err(|wrong| match wrong {
            Wrong::Version(found) => SnapshotError::Version { path: self.path.clone(), found },
            Wrong::Damaged(what) => damaged(what.to_owned()),
        })?;
        let length = header.body_length.get();
        if found.checked_sub(HEADER as u64) != Some(length) {
            let should = length.saturating_add(HEADER as u64);
            return Err(damaged(format!("it has {found} bytes instead of {should}")));
        }
        // Once to check all of it, and again for the state machine: it must not see what is wrong.
        let mut body = BufReader::new(file).take(length);
        let mut sum = Summing { to: io::sink(), crc: 0, length: 0 };
        io::copy(&mut body, &mut sum).map_err(failed)?;
        if (sum.length, sum.crc) != (length, header.body_crc) {
            return Err(damaged("its content does not match its checksum".to_owned()));
        }
        let mut file = body.into_inner();
        file.seek(SeekFrom::Start(HEADER as u64)).map_err(failed)?;
        Ok(Some(Snapshot { header, body: file.take(length) }))
    }

    pub(super) fn temporary(&self) -> PathBuf {
        beside(&self.path, ".tmp")
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Counts and sums what is written through it.
struct Summing<W> {
    to: W,
    crc: u32,
    length: u64,
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.crc = crc32c_append(self.crc, &bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
