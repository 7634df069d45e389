//! Durations as Go prints and parses them (`1h15m30.918s`), exact to the nanosecond.

/// The nanoseconds that `text` spells, if it is such a duration and not negative.
///
/// Units are ns, us, µs, ms, s, m, h and, beyond Go, d and w. A bare `0` needs no unit.
pub(crate) fn parse_nanos(text: &str) -> Option<u64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        total = total.checked_add(scaled(number, unit_nanos(unit)?)?)?;
        rest = after;
    }
    Some(total)
}

fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // U+00B5, the micro sign, and U+03BC, the Greek letter, look the same.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        "w" => 604_800_000_000_000,
        _ => return None,
    })
}

/// `number`, digits with at most one point, times `unit`, cut to whole nanoseconds.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(unit)?;
    let mut place = u128::from(unit) * 1_000_000_000_000_000_000;
    let mut below: u128 = 0;
    for digit in fraction.bytes() {
        place /= 10;
        below += place * u128::from(digit - b'0');
    }
    nanos = nanos.checked_add(u64::try_from(below / 1_000_000_000_000_000_000).ok()?)?;
    Some(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_exact() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("1ns", 1),
            ("100ms", 100_000_000),
            ("1.5h", 5_400_000_000_000),
            ("1h15m30.918273645s", 4_530_918_273_645),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("+3us", 3_000),
            ("2\u{b5}s", 2_000),
            ("0.1ns", 0),
            ("1d", 86_400_000_000_000),
        ] {
            assert_eq!(parse_nanos(text), Some(nanos), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "5", "s", ".s", "-1s", "1 s", "1x", "1..5s", "1.2.3s", "99999999999999h", "1s-"]
        {
            assert_eq!(parse_nanos(text), None, "{text}");
        }
    }
}
