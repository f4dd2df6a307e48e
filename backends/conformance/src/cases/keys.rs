//! What a read returns.

use bytes::Bytes;
use futures_util::future::{join, try_join_all};
use slipring_core::{Discovery, DiscoveryExt, Entry, Key, Prefix, Range, Revision, Txn};

use crate::failure::{ensure, ensure_eq};
use crate::trial::{applied, bytes, can, revision, too_large};
use crate::{Failure, Trial, Verdict};

async fn fill(store: &dyn Discovery, trial: &Trial, names: &[&str]) -> Verdict {
    for name in names {
        store.put(trial.key(name), bytes(*name), None).await?;
    }
    Ok(())
}

async fn names(store: &dyn Discovery, range: Range) -> Result<Vec<Key>, Failure> {
    Ok(store.read(range).await?.entries.into_iter().map(|entry| entry.key).collect())
}

/// A snapshot is in the order of the keys' bytes, whatever the order of the writes.
pub async fn snapshot_is_in_key_order(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    fill(&*store, trial, &["b", "é", "a/z", "B", "a", "a-b", "~", "10", "9"]).await?;
    let expected: Vec<_> =
        ["10", "9", "B", "a", "a-b", "a/z", "b", "~", "é"].map(|name| trial.key(name)).into();
    ensure_eq!(names(&*store, trial.prefix().into()).await?, expected, "the keys of the snapshot");
    Ok(())
}

/// The prefix `a/b/` holds neither `a/b`, nor `a/bc`, nor anything before or after.
pub async fn prefix_ends_where_a_name_ends(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    fill(&*store, trial, &["a/b", "a/b.", "a/b/", "a/b/1", "a/b/c/d", "a/b0", "a/bc", "a/bc/1", "a/c"])
        .await?;
    let prefix = Prefix::new(trial.key("a/b/").as_str())?;
    let expected = ["a/b/", "a/b/1", "a/b/c/d"].map(|name| trial.key(name)).to_vec();
    ensure_eq!(names(&*store, prefix.into()).await?, expected, "the keys below a/b/");

    fill(&*store, trial, &["e:1", "e:1f", "e;", "e9", "ee:1", "e"]).await?;
    let prefix = Prefix::new(trial.key("e:").as_str())?;
    let expected = ["e:1", "e:1f"].map(|name| trial.key(name)).to_vec();
    ensure_eq!(names(&*store, prefix.into()).await?, expected, "the keys below e:");
    Ok(())
}

/// The range of one key holds that key alone.
pub async fn key_range_is_one_key(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    fill(&*store, trial, &["k", "k/", "k/1", "k:", "kk"]).await?;
    let key = trial.key("k");
    ensure_eq!(names(&*store, key.clone().into()).await?, vec![key], "the keys of the range of one key");
    Ok(())
}

/// The range of all keys holds what was written, in order.
pub async fn all_is_everything(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    fill(&*store, trial, &["2", "1"]).await?;
    let all = names(&*store, Range::All).await?;
    ensure!(all.is_sorted(), "not in key order: {all:?}");
    let prefix: Range = trial.prefix().into();
    let mine: Vec<_> = all.into_iter().filter(|key| prefix.contains(key)).collect();
    ensure_eq!(mine, vec![trial.key("1"), trial.key("2")], "this run's keys among all");
    Ok(())
}

/// Reading what does not exist is no error, and still says at which revision.
pub async fn absent_reads_as_empty(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let written = store.put(trial.key("there"), Bytes::new(), None).await?;
    for range in [Range::from(trial.key("absent")), Prefix::new(trial.key("absent/").as_str())?.into()] {
        let snapshot = store.read(range).await?;
        ensure_eq!(snapshot.entries, vec![], "the entries of an empty range");
        ensure!(
            snapshot.revision >= written,
            "a snapshot at {} after a write at {written}",
            snapshot.revision
        );
    }
    Ok(())
}

/// An empty value is a value, not an absence.
pub async fn empty_value_is_a_value(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let key = trial.key("empty");
    let modified = store.put(key.clone(), Bytes::new(), None).await?;
    let expected = Entry { key: key.clone(), value: Bytes::new(), modified, lease: None };
    ensure_eq!(store.entry(&key).await?, Some(expected), "the entry with the empty value");
    Ok(())
}

/// Values are bytes: each of the 256 comes back.
pub async fn values_are_bytes(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let value: Bytes = (0..=u8::MAX).collect();
    store.put(trial.key("bytes"), value.clone(), None).await?;
    let read = store.entry(&trial.key("bytes")).await?.map(|entry| entry.value);
    ensure_eq!(read, Some(value), "the value");
    Ok(())
}

/// Whatever a key may be called, it is found under that name and no other.
pub async fn odd_names_are_kept_apart(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let long = "l".repeat(Key::BYTES_MAX - trial.key("l").as_str().len() + 1);
    let odd = [
        "a|b",
        "a/b",
        "a//b",
        "a:b",
        "a.b",
        "a b",
        " a",
        "a ",
        "A/b",
        "%2F",
        "a%b",
        "*",
        ">",
        "a_b",
        "a-b",
        "\"quoted\"",
        "back\\slash",
        "名前/部品",
        "e\u{301}",
        "é",
        "\u{10ffff}",
        "=",
        "$x",
        "{}",
        &long,
    ];
    for name in odd {
        store.put(trial.key(name), bytes(name), None).await?;
    }
    for name in odd {
        let value = store.entry(&trial.key(name)).await?.map(|entry| entry.value);
        ensure_eq!(value, Some(bytes(name)), "the value under {name:?}");
    }
    ensure_eq!(store.list(&trial.prefix()).await?.len(), odd.len(), "the number of keys");
    Ok(())
}

/// A value of exactly the limit is kept whole; one byte more is refused with both figures, and nothing is
/// written.
pub async fn value_limit_is_exact(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let limit = can(&*store).await?.value_bytes_max;
    let (fits, over) = (trial.key("fits"), trial.key("over"));
    store.put(fits.clone(), vec![b'x'; limit].into(), None).await?;
    let read = store.entry(&fits).await?.map(|entry| entry.value.len());
    ensure_eq!(read, Some(limit), "the size of the value at the limit");
    too_large(store.put(over.clone(), vec![b'x'; limit + 1].into(), None).await, limit, limit + 1)?;
    ensure_eq!(store.entry(&over).await?, None, "what a refused value left behind");
    Ok(())
}

/// An entry says at which revision it was last written, and holds the last value.
pub async fn last_write_wins(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let key = trial.key("k");
    let mut last = store.put(key.clone(), bytes("first"), None).await?;
    for value in ["second", "second", "third"] {
        let modified = store.put(key.clone(), bytes(value), None).await?;
        ensure!(modified > last, "a write at {modified} after one at {last}");
        let entry = Entry { key: key.clone(), value: bytes(value), modified, lease: None };
        ensure_eq!(store.entry(&key).await?, Some(entry), "the entry");
        last = modified;
    }
    Ok(())
}

/// A deleted key is gone, and its neighbours are not.
pub async fn delete_removes_one_key(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    fill(&*store, trial, &["k", "k/1", "k0"]).await?;
    store.delete(trial.key("k")).await?;
    let expected = vec![trial.key("k/1"), trial.key("k0")];
    ensure_eq!(names(&*store, trial.prefix().into()).await?, expected, "what is left");
    Ok(())
}

/// A read is of all entries, however many, and at one revision.
pub async fn many_entries_are_read_whole(trial: &Trial) -> Verdict {
    const ENTRIES: usize = 3000;
    const IN_FLIGHT: usize = 64;
    let store = trial.discovery().await?;
    let batch = can(&*store).await?.atomic_keys_max.min(100);
    let keys: Vec<_> = (0..ENTRIES).map(|number| trial.key(format!("{number:06}"))).collect();
    let txns: Vec<_> = keys
        .chunks(batch)
        .map(|some| {
            some.iter().cloned().fold(Txn::new(), |txn, key| {
                let value = bytes(key.as_str());
                txn.put(key, value, None)
            })
        })
        .collect();
    for some in txns.chunks(IN_FLIGHT) {
        for commit in try_join_all(some.iter().map(|txn| store.commit(txn.clone()))).await? {
            applied(commit)?;
        }
    }
    ensure!(
        names(&*store, trial.prefix().into()).await? == keys,
        "not exactly the {ENTRIES} entries in order"
    );
    Ok(())
}

/// K1: what one handle was told is written, another sees at once.
pub async fn k1_acknowledged_writes_are_read(trial: &Trial) -> Verdict {
    let (writer, reader) = (trial.discovery().await?, trial.discovery().await?);
    let key = trial.key("k");
    for number in 0..50 {
        let value = bytes(number.to_string());
        let modified = writer.put(key.clone(), value.clone(), None).await?;
        let entry = Entry { key: key.clone(), value, modified, lease: None };
        ensure_eq!(reader.entry(&key).await?, Some(entry), "what the other handle reads");
    }
    writer.delete(key.clone()).await?;
    ensure_eq!(reader.entry(&key).await?, None, "what the other handle reads after the deletion");
    Ok(())
}

/// K11: what a handle reads never goes back in time, while others write.
pub async fn k11_reads_never_go_back(trial: &Trial) -> Verdict {
    const WRITES: u32 = 200;
    let (writer, reader) = (trial.discovery().await?, trial.discovery().await?);
    let key = trial.key("k");
    let write = async {
        for number in 0..WRITES {
            writer.put(key.clone(), bytes(number.to_string()), None).await?;
            tokio::task::yield_now().await;
        }
        Ok::<_, Failure>(())
    };
    let read = async {
        let mut last = revision(&*reader, trial).await?;
        let mut modified = Revision::default();
        for _ in 0..WRITES {
            let snapshot = reader.read(key.clone().into()).await?;
            ensure!(snapshot.revision >= last, "read at {last}, then at {}", snapshot.revision);
            last = snapshot.revision;
            if let Some(entry) = snapshot.entries.first() {
                ensure!(entry.modified <= last, "an entry from beyond the snapshot at {last}: {entry:?}");
                ensure!(entry.modified >= modified, "read {modified}, then {entry:?}");
                modified = entry.modified;
            }
            tokio::task::yield_now().await;
        }
        Ok::<_, Failure>(())
    };
    let (wrote, read) = join(write, read).await;
    wrote.and(read)
}

/// A snapshot is of one revision: two keys that are always written together are never seen apart.
pub async fn snapshot_is_of_one_revision(trial: &Trial) -> Verdict {
    const WRITES: u32 = 100;
    let (writer, reader) = (trial.discovery().await?, trial.discovery().await?);
    let write = async {
        for number in 0..WRITES {
            let value = bytes(number.to_string());
            let both = Txn::new().put(trial.key("a"), value.clone(), None).put(trial.key("b/c"), value, None);
            applied(writer.commit(both).await?)?;
            tokio::task::yield_now().await;
        }
        Ok::<_, Failure>(())
    };
    let read = async {
        for _ in 0..WRITES {
            let entries = reader.list(&trial.prefix()).await?;
            let same =
                entries.iter().all(|e| e.value == entries[0].value && e.modified == entries[0].modified);
            ensure!(same && matches!(entries.len(), 0 | 2), "a transaction seen in part: {entries:?}");
            tokio::task::yield_now().await;
        }
        Ok::<_, Failure>(())
    };
    let (wrote, read) = join(write, read).await;
    wrote.and(read)
}
