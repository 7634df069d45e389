//! Defects that a test switches on, to see that its oracle notices them. A test that passes with one
//! of these tests nothing. Not there unless built for tests.

/// Whether the defect `name` is switched on.
pub fn planted(name: &str) -> bool {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(name, |_| true);
    let _ = name;
    false
}
