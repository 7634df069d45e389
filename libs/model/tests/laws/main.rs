//! The laws of the model, checked on generated requests and on hostile bytes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod generate;
mod hostile;
mod json;
mod request;
mod trace;
