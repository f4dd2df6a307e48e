//! Looks for what makes runs of one seed differ: reads source code for the usual leaks, and joins what it finds
//! with the first event in which two runs differ.
//!
//! ```
//! use std::path::Path;
//!
//! let source = "use std::collections::HashMap;\nfn f() { std::thread::spawn(|| {}); }";
//! let found = slipring_sim::doctor::scan(Path::new("src/worker.rs"), source).unwrap();
//! assert_eq!(found[0].to_string(), "src/worker.rs:1: std::collections::HashMap: \
//!     its order differs from run to run; use BTreeMap or IndexMap");
//! assert_eq!(found[1].line, 2);
//! ```
//!
//! # What is not found
//! A leak is found by its name. A name that comes through another crate, or through a module of one's own that
//! exports it again, is not; nor is what a dependency does.
//!
//! # What is no finding
//! Comments, texts, what stands in `#[cfg(test)]`, and what has been decided: a line with a comment
//! `// doctor: allow(the reason)`, or the line after it, and an item with an attribute that allows or expects
//! `clippy::disallowed_methods` or `clippy::disallowed_types` and gives a `reason`.

mod difference;
mod imports;
mod leaks;
mod scan;
mod sources;

pub use self::difference::{Difference, compare};
pub use self::leaks::Symptom;
pub use self::scan::scan;
pub use self::sources::scan_tree;

use std::fmt;
use std::path::PathBuf;

/// A place in source code at which runs of one seed may come to differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1.
    pub line: usize,
    /// What stands there, with its whole path.
    pub what: String,
    /// What differs because of it.
    pub leaks: &'static str,
    /// What to use instead.
    pub instead: &'static str,
    /// How its differences look in a trace.
    pub symptoms: &'static [Symptom],
}

/// `file:line: what: what differs; what to use`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, what, leaks, instead, .. } = self;
        write!(f, "{}:{line}: {what}: {leaks}; use {instead}", file.display())
    }
}
