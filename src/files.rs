//! Files, whole or not at all, and written by one process at a time. A browser has none.

use crate::error::{Error, Result};

/// The largest file, in bytes, that [`read`] takes in: 4 GiB.
const MAX_FILE: u64 = 4 << 30;

/// Reads a file of at most 4 GiB.
///
/// # Errors
///
/// [`Error::Io`] when the file cannot be read; [`Error::Data`] when it is larger.
pub fn read(path: &std::path::Path) -> Result<Vec<u8>> {
    use std::io::Read;

    let too_large = || Error::Data {
        path: path.to_string_lossy().into_owned(),
        message: format!("a file of more than {MAX_FILE} bytes found, expected at most as many"),
    };
    let mut file = std::fs::File::open(path).map_err(Error::io(path))?;
    if file.metadata().map_err(Error::io(path))?.len() > MAX_FILE {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // The size told above may be wrong: a pipe has none, and a file may still grow.
    file.by_ref().take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > MAX_FILE { Err(too_large()) } else { Ok(bytes) }
}

/// The folder that a path lies in: of a name alone, the current one.
pub fn parent(path: &std::path::Path) -> &std::path::Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."))
}

/// What the names of temporary files begin with.
const TEMPORARY: &str = ".lenet-";

/// Removes the temporary files that [`write_atomically`] left in a folder when its process was killed. Nobody may be
/// writing there.
pub fn sweep(folder: &std::path::Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMPORARY)) {
        // What stays is in nobody's way.
        let _ = std::fs::remove_file(entry.path());
    }
}

/// Writes a file so that at any moment there is either the old content or the new, never a part.
///
/// The bytes go to a temporary file beside the target, reach the disk, and take the target's name. A
/// new file gets the permissions that any new file gets, a replaced one keeps its own; a symbolic
/// link stays and its target is replaced. Temporary files are removed on failure.
///
/// # Errors
///
/// [`Error::Io`] when the target is not a regular file, its directory does not exist or cannot be
/// written to, or the disk is full; the old content is then untouched.
pub fn write_atomically(path: &std::path::Path, bytes: &[u8]) -> Result<()> {
    use std::{fs, io, io::Write};

    let replace = || -> io::Result<()> {
        // A rename would replace the link; writing to it is expected to reach what it points to.
        let target = if path.is_symlink() { fs::canonicalize(path)? } else { path.to_path_buf() };
        let old = match fs::metadata(&target) {
            Ok(old) if old.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            // As root, a rename over a device such as /dev/null would destroy it.
            Ok(old) if !old.is_file() => return Err(io::Error::other("is not a regular file")),
            Ok(old) => Some(old.permissions()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let dir = parent(&target);
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // The system takes the umask off, as for any new file; tempfile's own choice is 0600.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let mut file = builder.tempfile_in(dir)?;
        file.write_all(bytes)?;
        if let Some(old) = old {
            file.as_file().set_permissions(old)?;
        }
        file.as_file().sync_all()?;
        file.persist(&target).map_err(|e| e.error)?;
        // The new name has to reach the disk too; not every file system can, and none needs it to be right.
        #[cfg(unix)]
        if let Ok(dir) = fs::File::open(dir) {
            let _ = dir.sync_all();
        }
        Ok(())
    };
    replace().map_err(Error::io(path))
}

/// Opens a file to read and write, from its beginning, and makes it where there is none. Until it is closed, if only
/// by the end of the process, however that comes, no one else gets it from here; reading it stays free to all.
///
/// Who is not asked by the operating system, such as another computer on some network file systems, is not kept out.
///
/// # Errors
///
/// [`Error::Io`] when another has it, or it cannot be opened.
pub fn lock(path: &std::path::Path) -> Result<std::fs::File> {
    use std::io;

    let held = || {
        let source = io::Error::new(io::ErrorKind::ResourceBusy, "another process is writing to it");
        Error::Io { path: path.to_path_buf(), source }
    };
    let mut options = std::fs::File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(windows)]
    {
        use std::os::windows::fs::OpenOptionsExt;
        // Windows keeps readers out of what is locked, but lets a file be opened for others to read only.
        const FILE_SHARE_READ: u32 = 1;
        const ERROR_SHARING_VIOLATION: i32 = 32;
        options.share_mode(FILE_SHARE_READ).open(path).map_err(|error| match error.raw_os_error() {
            Some(ERROR_SHARING_VIOLATION) => held(),
            _ => Error::io(path)(error),
        })
    }
    #[cfg(not(windows))]
    {
        let file = options.open(path).map_err(Error::io(path))?;
        match file.try_lock() {
            Err(std::fs::TryLockError::WouldBlock) => Err(held()),
            // Not every file system has locks, and a run is not to fail for want of one.
            Ok(()) | Err(std::fs::TryLockError::Error(_)) => Ok(file),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_leaves_everything_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"old").unwrap();
        // The target is a directory; its directory is a file; its directory does not exist.
        for target in [path.clone(), path.join("inside/w"), path.join("none/w")] {
            let Error::Io { path, .. } = write_atomically(&target, b"new").unwrap_err() else { panic!() };
            assert_eq!(path, target);
        }
        assert_eq!(fs::read(path.join("inside")).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_without_write_permission_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w");
        fs::write(&path, b"old").unwrap();
        let set = |readonly| {
            let mut permissions = fs::metadata(dir.path()).unwrap().permissions();
            #[allow(clippy::permissions_set_readonly_false)]
            permissions.set_readonly(readonly);
            fs::set_permissions(dir.path(), permissions).unwrap();
        };
        set(true);
        // The superuser may write everywhere, and Windows ignores the mark on a directory.
        let enforced = fs::write(dir.path().join("probe"), b"").is_err();
        let result = write_atomically(&path, b"new");
        set(false);
        if enforced {
            assert!(matches!(result, Err(Error::Io { .. })));
            assert_eq!(fs::read(&path).unwrap(), b"old");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[cfg(unix)]
    #[test]
    fn permissions_and_links_are_those_of_an_ordinary_write() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (ordinary, ours, link) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("c"));
        fs::write(&ordinary, b"").unwrap();
        write_atomically(&ours, b"old").unwrap();
        assert_eq!(mode(&ours), mode(&ordinary));
        fs::set_permissions(&ours, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&ours, &link).unwrap();
        write_atomically(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!((fs::read(&ours).unwrap(), mode(&ours)), (b"new".to_vec(), 0o640));
        assert!(write_atomically(std::path::Path::new("/dev/null"), b"new").is_err());
    }

    #[test]
    fn a_locked_file_is_read_by_all_and_written_by_one() {
        use std::io::Write;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w");
        fs::write(&path, b"old").unwrap();
        let mut file = lock(&path).unwrap();
        file.write_all(b"new").unwrap();
        let error = lock(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: another process is writing to it", path.display()));
        assert_eq!(read(&path).unwrap(), b"new");
        drop(file);
        drop(lock(&path).unwrap());
        assert_eq!(read(&path).unwrap(), b"new");
        assert!(matches!(lock(dir.path()), Err(Error::Io { .. })));
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none");
        let message = read(&path).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{}: ", path.display())), "{message}");
        assert!(read(dir.path()).is_err());
        // A file with a hole is larger than what is allowed without taking any room.
        fs::File::create(&path).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert_eq!(
            read(&path).unwrap_err().to_string(),
            format!(
                "{}: a file of more than 4294967296 bytes found, expected at most as many",
                path.display()
            )
        );
    }
}
