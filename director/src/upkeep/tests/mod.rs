//! Passes over tables: laid out by hand, against a model, under real concurrency, and how long they take.

mod by_hand;
mod carry;
mod loads;
mod model;
mod races;
mod random;
mod speed;
mod tables;
mod templates;
