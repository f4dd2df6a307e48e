//! Replays the corpus through the fuzz targets.

use std::path::Path;

/// Runs a target on every file of its corpus, in order, and on each of their beginnings.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        println!("{}", file.display());
        let data = std::fs::read(file).unwrap();
        (0..=data.len()).for_each(|end| run(&data[..end]));
    }
}

/// Keys and prefixes hold what they promise on the corpus.
#[test]
fn names() {
    replay("names", slipring_fuzz::names);
}

/// Subjects and patterns hold what they promise on the corpus.
#[test]
fn subjects() {
    replay("subjects", slipring_fuzz::subjects);
}

/// Headers hold what they promise on the corpus.
#[test]
fn headers() {
    replay("headers", slipring_fuzz::headers);
}

/// The store holds what it promises on the corpus.
#[test]
fn store() {
    replay("store", slipring_fuzz::store);
}

/// Records hold what they promise on the corpus.
#[test]
fn records() {
    replay("records", slipring_fuzz::records);
}

/// The mirror recovers from all that is in the corpus.
#[test]
fn mirror() {
    replay("mirror", slipring_fuzz::mirror);
}

/// The decoder of the link writes again what it reads, for all that is in the corpus.
#[test]
fn link_frames() {
    replay("link_frames", slipring_fuzz::link_frames);
}

/// Connections end as they should, whatever the peer in the corpus says.
#[test]
fn link_connection() {
    replay("link_connection", slipring_fuzz::link_connection);
}
