//! Groups from the outside: one process and its crashes, and clusters whose links can be cut.

mod cluster;
mod rig;
mod single;
