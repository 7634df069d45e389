//! Until when a certificate is valid: the one field that no dependency gives. X.509 in DER as in
//! RFC 5280 section 4.1, as far as the way to `validity.notAfter` goes.

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity, in Unix seconds; nothing if `der` is no certificate.
pub(super) fn not_after(der: &[u8]) -> Option<u64> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (signed, _) = expect(certificate, SEQUENCE)?;
    // Version (optional), serial number, algorithm, issuer.
    let (tag, _, behind_first) = element(signed)?;
    let mut rest = if tag == VERSION { element(behind_first)?.2 } else { behind_first };
    for _ in 0..2 {
        rest = element(rest)?.2;
    }
    let (validity, _) = expect(rest, SEQUENCE)?;
    let (_, _, behind_start) = element(validity)?;
    let (tag, time, _) = element(behind_start)?;
    unix_seconds(tag, time)
}

fn expect(input: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(input)?;
    (tag == wanted).then_some((content, rest))
}

/// The first element of `input`: its tag, its content, and what comes behind it.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The long form: so many bytes hold the length. Certificates need no more than four.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 section 4.1.2.5).
fn unix_seconds(tag: u8, time: &[u8]) -> Option<u64> {
    let digits = time.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0u64, |n, d| n * 10 + u64::from(d - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => match number(&digits[..2]) {
            year @ 50.. => (1900 + year, &digits[2..]),
            year => (2000 + year, &digits[2..]),
        },
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let [month, day, hour, minute, second] =
        [0, 2, 4, 6, 8].map(|at: usize| number(&rest[at..at + 2]));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_before(year, month)?.checked_add(day - 1)?;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days from 1970 to the first of a month of the Gregorian calendar.
fn days_before(year: u64, month: u64) -> Option<u64> {
    // Years are counted from March, so that the leap day is the last of its year.
    let (year, month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5;
    // From 0000-03-01 to 1970-01-01.
    days.checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn times_are_unix_seconds() {
        for (tag, text, seconds) in [
            (UTC_TIME, "700101000000Z", 0),
            (UTC_TIME, "700301000001Z", 59 * 86_400 + 1),
            (UTC_TIME, "000229123456Z", 951_827_696),
            (UTC_TIME, "491231235959Z", 2_524_607_999),
            (GENERALIZED_TIME, "20500101000000Z", 2_524_608_000),
            (GENERALIZED_TIME, "99991231235959Z", 253_402_300_799),
        ] {
            assert_eq!(unix_seconds(tag, text.as_bytes()), Some(seconds), "{text}");
        }
        for text in ["", "Z", "7001010000Z", "701301000000Z", "69123123595xZ", "500101000000"] {
            assert_eq!(unix_seconds(UTC_TIME, text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn any_bytes_have_an_end_or_none() {
        let pem = include_bytes!("../../tests/certificates/ours-2060.pem");
        let mut der = CertificateDer::from_pem_slice(pem).unwrap().to_vec();
        // Behind 2049 times have four digits for the year.
        assert_eq!(not_after(&der), Some(2_840_140_800));
        for at in 0..der.len() {
            assert_eq!(not_after(&der[..at]), None);
        }
        for at in 0..der.len() {
            der[at] ^= 0xff;
            let _ = not_after(&der);
            der[at] ^= 0xff;
        }
    }
}
