//! What is known about turmoil, and how it is coped with.

mod conformance;
mod traps;
