//! Loop file system: a disk of a test's own, in a file, whose power can be cut.
//!
//! ```text
//!     synced file                      unsynced file
//!     written, synced ─► … load … ─► written ─► CUT ─► unmount ─► mount (the journal is replayed)
//!          └──────────── must be there ───────────────────────────┤
//!                                          └──── must be gone ────┘
//! ```
//!
//! A cut loses what the kernel holds in memory. It loses nothing of what the kernel has handed to the disk: a loop device has no
//! cache of its own that forgets.
//!
//! Owns:   the image and its mount, undone when this is dropped, after a panic too; the two files that prove each cut.
//! Never:  leaves a file system frozen.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::power;
use crate::wait::until;

/// How long whoever was killed may keep a file system busy.
const DEADLINE: Duration = Duration::from_secs(30);
/// Larger than any file system keeps within an inode.
static PROOF: [u8; 64 << 10] = [0xa5; 64 << 10];

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext4, as Linux makes it, but for an error, which makes it read-only.
    Ext4,
    /// XFS, with `cp --reflink`.
    Xfs,
}

/// A mounted file system.
#[derive(Debug)]
pub struct LoopFs {
    kind: Kind,
    image: PathBuf,
    at: PathBuf,
    /// Cuts so far.
    cuts: u32,
}

/// A file system that takes no writes for now.
#[derive(Debug)]
pub struct Frozen<'a>(&'a LoopFs);

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    fn make(self, image: &Path) {
        let mut command = Command::new(format!("mkfs.{}", self.name()));
        match self {
            Self::Ext4 => command.args(["-q", "-F"]),
            Self::Xfs => command.args(["-q", "-f", "-m", "reflink=1"]),
        };
        done(command.arg(image));
    }
}

impl LoopFs {
    /// Makes one of `size` bytes (the image is sparse) over the folder `at`; the image lies beside that. [`None`], with a word why, unless
    /// tests may use root's powers here and the tools are there.
    ///
    /// # Panics
    /// If they may and are, but it does not work.
    #[must_use]
    pub fn make(kind: Kind, at: &Path, size: u64) -> Option<Self> {
        if !is_possible(&[&format!("mkfs.{}", kind.name())]) {
            return None;
        }
        let image = at.with_extension("img");
        File::create_new(&image).and_then(|it| it.set_len(size)).expect("a file for the image");
        kind.make(&image);
        Some(Self::of(kind, image, at))
    }

    /// Mounts the image that another one lay on.
    ///
    /// # Panics
    /// If it cannot.
    #[must_use]
    pub fn of(kind: Kind, image: PathBuf, at: &Path) -> Self {
        std::fs::create_dir_all(at).expect("a folder");
        let fs = Self { kind, image, at: at.to_owned(), cuts: 0 };
        fs.mount(&[]);
        fs.write_synced();
        fs
    }

    /// Which one.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Where its image lies.
    #[must_use]
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Cuts the power of all these at the same moment, as nearly as threads can; returns how long that took from the first to the last.
    /// Whoever writes to them is told so by an error.
    ///
    /// # Panics
    /// If it cannot be cut.
    pub fn cut_power(disks: &mut [&mut Self]) -> Duration {
        let barrier = Barrier::new(disks.len());
        let cut = |disk: &mut Self| {
            let directory = File::open(&disk.at).expect("its root");
            // The last thing before: what is old might have been written back.
            let unsynced = File::create_new(disk.proof("unsynced")).and_then(|mut it| it.write_all(&PROOF));
            unsynced.expect("a file");
            barrier.wait();
            power::cut(&directory).expect("LOGLOG_ROOT_TESTS=1 promises that a file system can be shut down");
            disk.cuts += 1;
            Instant::now()
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = disks.iter_mut().map(|disk| scope.spawn(|| cut(disk))).collect();
            let at: Vec<_> = threads.into_iter().map(|it| it.join().expect("it is cut")).collect();
            *at.iter().max().expect("one at least") - *at.iter().min().expect("one at least")
        })
    }

    /// After a cut, and after whoever used it has ended: what a machine finds that is switched on again.
    ///
    /// # Panics
    /// If the cut was none: what was synced before is gone, or what was not is there.
    pub fn power_on(&mut self) {
        self.unmount();
        self.mount(&[]);
        let cut = self.cuts - 1;
        let [synced, unsynced] =
            ["synced", "unsynced"].map(|it| std::fs::read(self.at.join(proof(it, cut))).unwrap_or_default());
        assert!(synced == PROOF, "cut {cut} of {}: what was synced is there", self.at.display());
        assert!(!unsynced.contains(&PROOF[0]), "cut {cut} of {}: what was not is gone", self.at.display());
        for which in ["synced", "unsynced"] {
            let _ = std::fs::remove_file(self.at.join(proof(which, cut)));
        }
        self.write_synced();
    }

    /// Takes no writes until the guard is dropped: they wait.
    ///
    /// # Panics
    /// If it cannot.
    #[must_use]
    pub fn freeze(&self) -> Frozen<'_> {
        // First the guard: a freeze that fails half-way is thawed.
        let frozen = Frozen(self);
        done(Command::new("fsfreeze").arg("-f").arg(&self.at));
        frozen
    }

    /// Has the kernel believe that the file system is damaged: it is read-only from now on. ext4 only.
    ///
    /// # Panics
    /// If it cannot.
    pub fn fail(&self) {
        let found = Command::new("findmnt").args(["-no", "SOURCE"]).arg(&self.at).output().expect("findmnt");
        let device = String::from_utf8(found.stdout).expect("a name");
        let device = device.trim().trim_start_matches("/dev/");
        std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").expect("ext4 takes it");
    }

    /// Unmounts it and mounts it as `options` say.
    ///
    /// # Panics
    /// If it cannot.
    pub fn mount_again(&self, options: &[&str]) {
        self.unmount();
        self.mount(options);
    }

    fn mount(&self, options: &[&str]) {
        let mut all = vec!["loop"];
        match self.kind {
            Kind::Ext4 => all.push("errors=remount-ro"),
            // A copy has the name of what it was copied from.
            Kind::Xfs => all.push("nouuid"),
        }
        all.extend(options);
        done(
            Command::new("mount")
                .args(["-t", self.kind.name(), "-o", &all.join(",")])
                .args([&self.image, &self.at]),
        );
    }

    fn unmount(&self) {
        until("nobody uses it", DEADLINE, || {
            let status = Command::new("umount").arg(&self.at).stderr(Stdio::null()).status();
            status.expect("umount runs").success()
        });
    }

    fn write_synced(&self) {
        let path = self.at.join(self.proof("synced"));
        let write = || {
            let mut file = File::create(path)?;
            file.write_all(&PROOF)?;
            file.sync_all()?;
            File::open(&self.at)?.sync_all()
        };
        write().expect("a file");
    }

    fn proof(&self, which: &str) -> PathBuf {
        self.at.join(proof(which, self.cuts))
    }
}

fn proof(which: &str, cut: u32) -> String {
    format!("{which}-before-cut-{cut}")
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        // Lazily: whoever still uses it is ended soon, and the loop device goes with the last one.
        let _ = Command::new("umount").arg("-l").arg(&self.at).stderr(Stdio::null()).status();
        let _ = std::fs::remove_file(&self.image);
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0.at).stderr(Stdio::null()).status();
    }
}

/// Whether tests may use root's powers here, loop devices and these tools are there; says what is missing.
#[must_use]
pub fn is_possible(tools: &[&str]) -> bool {
    if std::env::var("LOGLOG_ROOT_TESTS").as_deref() != Ok("1") {
        println!("skipped: mounts file systems; run as root with LOGLOG_ROOT_TESTS=1");
        return false;
    }
    if let Some(missing) = tools.iter().find(|tool| !has(tool)) {
        println!("skipped: needs `{missing}`, which is not installed");
        return false;
    }
    let free = Command::new("losetup").arg("-f").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !free.is_ok_and(|it| it.success()) {
        println!("skipped: needs loop devices, and there are none here");
        return false;
    }
    true
}

/// Whether a program of this name can be run.
#[must_use]
pub fn has(tool: &str) -> bool {
    let found = Command::new("sh").args(["-c", r#"command -v "$0""#, tool]).stdout(Stdio::null()).status();
    found.is_ok_and(|it| it.success())
}

fn done(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}, which LOGLOG_ROOT_TESTS=1 promises to work: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
