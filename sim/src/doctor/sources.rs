use std::path::Path;
use std::{fs, io};

use super::{Finding, scan};

/// Directories that are no part of what runs in a world.
const PASSED_OVER: [&str; 4] = ["target", "tests", "benches", "examples"];

/// The leaks in all files `*.rs` in and below a directory, or in one file, in the order of their names and
/// lines. Hidden directories and those named `target`, `tests`, `benches` and `examples` are passed over, and so
/// are `build.rs` and links.
///
/// # Errors
/// What cannot be read, with its name; and a file that is not Rust, as [`scan`] says it.
pub fn scan_tree(path: &Path) -> io::Result<Vec<Finding>> {
    let read =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()));
    if path.is_file() {
        let text = fs::read_to_string(path).map_err(read)?;
        return scan(path, &text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()));
    }
    let mut inside = Vec::new();
    for entry in fs::read_dir(path).map_err(read)? {
        let entry = entry.map_err(read)?;
        let (name, kind) =
            (entry.file_name().to_string_lossy().into_owned(), entry.file_type().map_err(read)?);
        let directory = kind.is_dir() && !name.starts_with('.') && !PASSED_OVER.contains(&name.as_str());
        if directory || (kind.is_file() && name.ends_with(".rs") && name != "build.rs") {
            inside.push(entry.path());
        }
    }
    inside.sort();
    let found = inside.iter().map(|path| scan_tree(path)).collect::<io::Result<Vec<_>>>()?;
    Ok(found.concat())
}
