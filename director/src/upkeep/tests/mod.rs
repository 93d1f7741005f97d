//! Passes over tables: laid out by hand, against a model, under real concurrency. How long they take: `cargo xtask bench upkeep`.

mod by_hand;
mod carry;
mod loads;
mod model;
mod races;
mod random;
mod tables;
mod templates;
