//! Numbers and durations, exact where an integer can be exact.

/// A number as written, without sign.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Int(u64),
    Float(f64),
    /// Nanoseconds.
    Duration(u64),
}

/// Units in nanoseconds; of two that both fit, the longer comes first.
const UNITS: [(&str, u64); 10] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];
const YEAR: u64 = 365 * 86_400_000_000_000;

/// Reads a number or duration at the start of `text` and says how many bytes it took.
pub(crate) fn scan(text: &str) -> Result<(Number, usize), String> {
    let decimal = Decimal::scan(text, 0);
    if unit(text, decimal.end).is_some() {
        return duration(text);
    }
    if let Some(end) = exponent(text, decimal.end) {
        return float(text, end);
    }
    if decimal.has_point {
        return float(text, decimal.end);
    }
    match decimal.whole.parse() {
        Ok(value) => Ok((Number::Int(value), decimal.end)),
        Err(_) => Err(format!("integer is too large: {}", decimal.whole)),
    }
}

/// Digits, maybe with a point; `1.` and `.5` are complete.
struct Decimal<'a> {
    whole: &'a str,
    fraction: &'a str,
    has_point: bool,
    end: usize,
}

impl<'a> Decimal<'a> {
    fn scan(text: &'a str, start: usize) -> Decimal<'a> {
        let (whole, mut end) = digits(text, start);
        let has_point = text.as_bytes().get(end) == Some(&b'.');
        let mut fraction = "";
        if has_point {
            (fraction, end) = digits(text, end + 1);
        }
        Decimal { whole, fraction, has_point, end }
    }
}

fn digits(text: &str, start: usize) -> (&str, usize) {
    let rest = text.get(start..).unwrap_or_default();
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    (rest.get(..length).unwrap_or_default(), start + length)
}

fn exponent(text: &str, at: usize) -> Option<usize> {
    let rest = text.get(at..)?.strip_prefix(['e', 'E'])?;
    let unsigned = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    let start = text.len() - unsigned.len();
    let (digits, end) = digits(text, start);
    (!digits.is_empty()).then_some(end)
}

fn float(text: &str, end: usize) -> Result<(Number, usize), String> {
    let digits = text.get(..end).unwrap_or_default();
    match digits.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok((Number::Float(value), end)),
        _ => Err(format!("float is out of range: {digits}")),
    }
}

fn unit(text: &str, at: usize) -> Option<(u64, usize)> {
    let rest = text.get(at..)?;
    let named = UNITS.iter().find(|(name, _)| rest.starts_with(name));
    named
        .map(|(name, nanos)| (*nanos, at + name.len()))
        .or_else(|| rest.starts_with('y').then_some((YEAR, at + 1)))
}

/// A sum of numbers with units; each is rounded down to nanoseconds.
fn duration(text: &str) -> Result<(Number, usize), String> {
    let mut total = 0u64;
    let mut end = 0;
    loop {
        let decimal = Decimal::scan(text, end);
        let empty = decimal.whole.is_empty() && decimal.fraction.is_empty();
        let Some((nanos, after)) = unit(text, decimal.end).filter(|_| !empty) else {
            break;
        };
        let part = scaled(&decimal, nanos).and_then(|part| total.checked_add(part));
        end = after;
        total = part.ok_or_else(|| {
            format!("duration is too long: {}", text.get(..end).unwrap_or_default())
        })?;
    }
    Ok((Number::Duration(total), end))
}

fn scaled(decimal: &Decimal<'_>, nanos: u64) -> Option<u64> {
    let whole = if decimal.whole.is_empty() { 0 } else { decimal.whole.parse::<u64>().ok()? };
    let mut total = u128::from(whole) * u128::from(nanos);
    // Past 18 digits a fraction of a year is far below a nanosecond.
    let fraction = decimal.fraction.get(..18).unwrap_or(decimal.fraction);
    if !fraction.is_empty() {
        let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
        total += u128::from(fraction.parse::<u64>().ok()?) * u128::from(nanos) / scale;
    }
    u64::try_from(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Number {
        let (number, length) = scan(text).unwrap();
        assert_eq!(length, text.len(), "{text}");
        number
    }

    #[test]
    fn numbers() {
        assert_eq!(all("0"), Number::Int(0));
        assert_eq!(all("18446744073709551615"), Number::Int(u64::MAX));
        assert_eq!(all("1."), Number::Float(1.0));
        assert_eq!(all(".5"), Number::Float(0.5));
        assert_eq!(all("1.5e3"), Number::Float(1500.0));
        assert_eq!(all("1e-7"), Number::Float(1e-7));
        assert_eq!(scan("1-2").unwrap(), (Number::Int(1), 1));
        assert_eq!(scan("1e").unwrap(), (Number::Int(1), 1));
        assert!(scan("18446744073709551616").is_err());
        assert!(scan("1e999").is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(all("1ns"), Number::Duration(1));
        assert_eq!(all("1us"), Number::Duration(1_000));
        assert_eq!(all("1µs"), all("1us"));
        assert_eq!(all("1μs"), all("1us"));
        assert_eq!(all("1ms"), Number::Duration(1_000_000));
        assert_eq!(all("1m"), all("60s"));
        assert_eq!(all("1h15m30.9s"), Number::Duration(4_530_900_000_000));
        assert_eq!(all("1.5h"), all("90m"));
        assert_eq!(all(".5s"), all("500ms"));
        assert_eq!(all("123.456us"), Number::Duration(123_456));
        assert_eq!(all("1d"), all("24h"));
        assert_eq!(all("1w"), all("7d"));
        assert_eq!(all("1y"), all("365d"));
        assert_eq!(all("0.3s"), Number::Duration(300_000_000));
        assert!(scan("99999999999y").is_err());
    }
}
