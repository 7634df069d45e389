//! Defects that a test switches on, to see that its oracle notices them. Not there unless built for
//! tests: a replica that has one would not agree with the others.

/// Whether the defect `name` is switched on.
pub(crate) fn planted(name: &str) -> bool {
    fail::fail_point!(name, |_| true);
    let _ = name;
    false
}
