//! The laws of tables and blocks, checked against a naive model on random traces.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests may fail")]

mod conditions;
mod damage;
mod golden;
mod merge;
mod naive;
mod rare;
mod round_trip;
mod spans;
