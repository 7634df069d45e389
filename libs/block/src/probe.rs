//! A test of a query, turned into the ranges of terms that can pass it.

use std::ops::Bound;
use std::sync::Arc;

use clew_traceql::plan::Test;
use clew_traceql::value::Static;
use regex::Regex;

use crate::term::{
    LONG_STRING_BYTES, STRING_BYTES_MAX, code, encode_float, encode_int, long_string,
};

/// Up to here every integer is a double.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// How far apart an integer beyond [`EXACT_MAX`] and the double nearest to it can be, doubled.
const ROUNDING: i64 = 2048;

/// What has to be looked up for a test.
#[derive(Debug, Clone)]
pub(crate) enum Plan {
    /// The index cannot help.
    Unknown,
    /// The key has any value.
    Exists,
    /// Some term of the key is admitted by one of these.
    Probes(Vec<Probe>),
}

/// A range of terms of one type.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// The type code.
    pub(crate) code: u8,
    /// The terms' values.
    pub(crate) values: Values,
    /// Must match too, if given.
    pub(crate) pattern: Option<Arc<Regex>>,
    /// Whether every admitted value passes the test.
    pub(crate) exact: bool,
}

/// The values of a probe, as term bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    /// One.
    One(Vec<u8>),
    /// Those between two bounds.
    Between(Bound<Vec<u8>>, Bound<Vec<u8>>),
}

impl Probe {
    /// Whether a term of the probe's key is admitted.
    pub(crate) fn admits(&self, code: u8, value: &[u8]) -> bool {
        code == self.code && self.values.contain(value) && self.matches(value)
    }

    /// Whether a value within the range also matches the pattern.
    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        self.pattern
            .as_ref()
            .is_none_or(|regex| std::str::from_utf8(value).is_ok_and(|text| regex.is_match(text)))
    }
}

impl Values {
    pub(crate) fn contain(&self, value: &[u8]) -> bool {
        match self {
            Values::One(one) => one == value,
            Values::Between(low, high) => {
                let above = match low {
                    Bound::Unbounded => true,
                    Bound::Included(low) => value >= low.as_slice(),
                    Bound::Excluded(low) => value > low.as_slice(),
                };
                above
                    && match high {
                        Bound::Unbounded => true,
                        Bound::Included(high) => value <= high.as_slice(),
                        Bound::Excluded(high) => value < high.as_slice(),
                    }
            }
        }
    }
}

/// Collects probes for scalars; every one is doubled for array elements.
#[derive(Default)]
struct Probes(Vec<Probe>);

impl Probes {
    fn add(&mut self, code: u8, values: Values, exact: bool) {
        self.push(Probe { code, values, pattern: None, exact });
    }

    fn push(&mut self, probe: Probe) {
        let element = Probe { code: probe.code | code::ARRAY, ..probe.clone() };
        self.0.push(probe);
        self.0.push(element);
    }
}

/// The plan for `test` on values of attributes, names and messages.
pub(crate) fn plan(test: &Test) -> Plan {
    let mut probes = Probes::default();
    match test {
        Test::Exists => return Plan::Exists,
        Test::Equals(Static::String(text)) => equal_text(&mut probes, text.as_bytes()),
        Test::Equals(Static::Bool(truth)) => {
            probes.add(code::BOOL, Values::One(vec![u8::from(*truth)]), true);
        }
        Test::Equals(Static::Int(number) | Static::Duration(number)) => {
            equal_int(&mut probes, *number);
        }
        Test::Equals(Static::Float(number)) => equal_float(&mut probes, *number),
        // No attribute holds a status or a kind.
        Test::Equals(Static::Status(_) | Static::Kind(_)) => {}
        Test::Equals(Static::Nil | Static::Array(_)) => return Plan::Unknown,
        Test::NumberRange(low, high) => {
            if [low, high].into_iter().any(|bound| is_nan(*bound)) {
                return Plan::Unknown;
            }
            ints_between(&mut probes, *low, *high);
            floats_between(&mut probes, *low, *high);
        }
        Test::StringRange(low, high) => {
            texts_between(&mut probes, &text_bound(low), &text_bound(high));
        }
        Test::Matches(regex) => {
            let all = || Values::Between(Bound::Unbounded, Bound::Unbounded);
            probes.push(Probe {
                code: code::STRING,
                values: all(),
                pattern: Some(Arc::clone(regex)),
                exact: true,
            });
            probes.add(code::LONG_STRING, all(), false);
        }
    }
    Plan::Probes(probes.0)
}

/// A probe for one value of one type, not for arrays.
pub(crate) fn one(code: u8, value: &[u8]) -> Probe {
    Probe { code, values: Values::One(value.to_vec()), pattern: None, exact: true }
}

fn equal_text(probes: &mut Probes, text: &[u8]) {
    if text.len() <= STRING_BYTES_MAX {
        probes.add(code::STRING, Values::One(text.to_vec()), true);
    } else {
        probes.add(code::LONG_STRING, Values::One(long_string(text).to_vec()), false);
    }
}

#[allow(clippy::cast_precision_loss, reason = "the loss is what is accounted for")]
fn equal_int(probes: &mut Probes, number: i64) {
    let double = number as f64;
    if double.abs() < EXACT_MAX {
        probes.add(code::INT, Values::One(encode_int(number).to_vec()), true);
        probes.add(code::FLOAT, Values::One(encode_float(double).to_vec()), true);
    } else {
        near_int(probes, number);
        let range = Values::Between(
            Bound::Included(encode_float(double.next_down()).to_vec()),
            Bound::Included(encode_float(double.next_up()).to_vec()),
        );
        probes.add(code::FLOAT, range, false);
    }
}

#[allow(clippy::cast_possible_truncation, reason = "saturates, which widens the range")]
fn equal_float(probes: &mut Probes, number: f64) {
    if number.is_nan() {
        return;
    }
    probes.add(code::FLOAT, Values::One(encode_float(number).to_vec()), true);
    if number.abs() >= EXACT_MAX {
        near_int(probes, number as i64);
    } else if number.fract() == 0.0 {
        probes.add(code::INT, Values::One(encode_int(number as i64).to_vec()), true);
    }
}

fn near_int(probes: &mut Probes, number: i64) {
    let low = encode_int(number.saturating_sub(ROUNDING)).to_vec();
    let high = encode_int(number.saturating_add(ROUNDING)).to_vec();
    probes.add(code::INT, Values::Between(Bound::Included(low), Bound::Included(high)), false);
}

const fn is_nan(bound: Bound<f64>) -> bool {
    match bound {
        Bound::Unbounded => false,
        Bound::Included(number) | Bound::Excluded(number) => number.is_nan(),
    }
}

/// The smallest and the largest integer that can lie within the bounds, and whether all between
/// them do. `None`: no integer does.
#[allow(clippy::cast_possible_truncation, reason = "saturates, which widens the range")]
pub(crate) fn int_bounds(low: Bound<f64>, high: Bound<f64>) -> Option<(i64, i64, bool)> {
    let (smallest, low_exact) = match low {
        Bound::Unbounded => (i64::MIN, true),
        Bound::Included(low) if low.abs() < EXACT_MAX => (low.ceil() as i64, true),
        Bound::Excluded(low) if low.abs() < EXACT_MAX => (low.floor() as i64 + 1, true),
        Bound::Included(low) | Bound::Excluded(low) => {
            ((low as i64).saturating_sub(ROUNDING), false)
        }
    };
    let (largest, high_exact) = match high {
        Bound::Unbounded => (i64::MAX, true),
        Bound::Included(high) if high.abs() < EXACT_MAX => (high.floor() as i64, true),
        Bound::Excluded(high) if high.abs() < EXACT_MAX => (high.ceil() as i64 - 1, true),
        Bound::Included(high) | Bound::Excluded(high) => {
            ((high as i64).saturating_add(ROUNDING), false)
        }
    };
    (smallest <= largest).then_some((smallest, largest, low_exact && high_exact))
}

fn ints_between(probes: &mut Probes, low: Bound<f64>, high: Bound<f64>) {
    if let Some((smallest, largest, exact)) = int_bounds(low, high) {
        let range = Values::Between(
            Bound::Included(encode_int(smallest).to_vec()),
            Bound::Included(encode_int(largest).to_vec()),
        );
        probes.add(code::INT, range, exact);
    }
}

fn floats_between(probes: &mut Probes, low: Bound<f64>, high: Bound<f64>) {
    let encode = |bound: Bound<f64>, open: f64| match bound {
        Bound::Unbounded => Bound::Included(encode_float(open).to_vec()),
        Bound::Included(number) => Bound::Included(encode_float(number).to_vec()),
        Bound::Excluded(number) => Bound::Excluded(encode_float(number).to_vec()),
    };
    let range = Values::Between(encode(low, f64::NEG_INFINITY), encode(high, f64::INFINITY));
    // A bound out there stands for a literal beside it, or for one that is itself excluded.
    let exact = [low, high].into_iter().all(|bound| match bound {
        Bound::Unbounded => true,
        Bound::Included(number) | Bound::Excluded(number) => number.abs() < EXACT_MAX,
    });
    probes.add(code::FLOAT, range, exact);
}

fn text_bound(bound: &Bound<Arc<str>>) -> Bound<Vec<u8>> {
    bound.as_ref().map(|text| text.as_bytes().to_vec())
}

fn texts_between(probes: &mut Probes, low: &Bound<Vec<u8>>, high: &Bound<Vec<u8>>) {
    probes.add(code::STRING, Values::Between(low.clone(), high.clone()), true);
    // A long value is compared by its beginning, so a bound is cut and becomes inclusive.
    let cut = |text: &Vec<u8>| text[..text.len().min(STRING_BYTES_MAX)].to_vec();
    let low = match low {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Included(text) | Bound::Excluded(text) => Bound::Included(cut(text)),
    };
    let high = match high {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Included(text) | Bound::Excluded(text) => {
            let mut text = cut(text);
            if text.len() == STRING_BYTES_MAX {
                text.resize(LONG_STRING_BYTES, 0xff);
            }
            Bound::Included(text)
        }
    };
    probes.add(code::LONG_STRING, Values::Between(low, high), false);
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use clew_model::otlp::AnyValueView;
    use clew_traceql::plan::Prefilter;
    use clew_traceql::value::{CompareOp, compare as compare_values};
    use proptest::prelude::*;

    use super::*;
    use crate::term::{value_terms, with_bytes};

    /// Whether `value` is admitted and whether that is certain.
    fn admitted(test: &Test, value: &AnyValueView<'_>) -> Option<bool> {
        let Plan::Probes(probes) = plan(test) else { return Some(false) };
        let mut found = None;
        value_terms(value, &mut |code, bytes| {
            with_bytes(&bytes, |bytes| {
                for probe in &probes {
                    if probe.admits(code, bytes) {
                        found = Some(found.unwrap_or(true) && probe.exact);
                    }
                }
            });
        })
        .unwrap();
        found
    }

    fn check(test: &Test, value: &AnyValueView<'_>, passes: bool) -> Result<(), TestCaseError> {
        match admitted(test, value) {
            None => prop_assert!(!passes, "{test:?} lost {value:?}"),
            Some(true) => prop_assert!(passes, "{test:?} wrongly admits {value:?}"),
            Some(false) => {}
        }
        Ok(())
    }

    #[allow(clippy::cast_possible_truncation, reason = "it is small and whole")]
    fn compare(int: i64, float: f64) -> Option<Ordering> {
        // i128 holds every i64 and the whole part of any double this is called with.
        if float.abs() > 1e30 {
            return 0.0.partial_cmp(&float);
        }
        float.partial_cmp(&0.0)?;
        let whole = float.floor();
        let order = i128::from(int).cmp(&(whole as i128));
        Some(order.then(if float > whole { Ordering::Less } else { Ordering::Equal }))
    }

    fn bound() -> impl Strategy<Value = Bound<f64>> {
        let number = prop_oneof![
            any::<f64>(),
            (-10i32..10).prop_map(f64::from),
            (-10i32..10).prop_map(|n| f64::from(n) / 2.0),
            (-3i64..3).prop_map(|n| EXACT_MAX + n as f64),
        ];
        prop_oneof![
            Just(Bound::Unbounded),
            number.clone().prop_map(Bound::Included),
            number.prop_map(Bound::Excluded)
        ]
    }

    fn int() -> impl Strategy<Value = i64> {
        prop_oneof![any::<i64>(), -12i64..12, (1i64 << 53) - 3..(1i64 << 53) + 3]
    }

    /// Integers and doubles on and around the places where a double stops being exact.
    #[allow(clippy::cast_possible_truncation, reason = "saturates, which is as good a place")]
    fn number() -> impl Strategy<Value = Static> {
        let places = vec![0.0, EXACT_MAX, EXACT_MAX * 2.0, 1e18, 2f64.powi(63), 1e300];
        let place = (prop::sample::select(places), any::<bool>())
            .prop_map(|(place, negative)| if negative { -place } else { place });
        (place, -3i64..=3, any::<bool>()).prop_map(|(place, off, whole)| {
            if whole {
                Static::Int((place as i64).saturating_add(off))
            } else {
                let step = if off < 0 { f64::next_down } else { f64::next_up };
                Static::Float((0..off.abs()).fold(place, |number, _| step(number)))
            }
        })
    }

    fn within(low: Bound<f64>, high: Bound<f64>, order: impl Fn(f64) -> Option<Ordering>) -> bool {
        let above = match low {
            Bound::Unbounded => true,
            Bound::Included(low) => order(low).is_some_and(Ordering::is_ge),
            Bound::Excluded(low) => order(low).is_some_and(Ordering::is_gt),
        };
        above
            && match high {
                Bound::Unbounded => true,
                Bound::Included(high) => order(high).is_some_and(Ordering::is_le),
                Bound::Excluded(high) => order(high).is_some_and(Ordering::is_lt),
            }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn number_ranges_lose_nothing(low in bound(), high in bound(), int in int(), float: f64) {
            let test = Test::NumberRange(low, high);
            let passes = within(low, high, |bound| compare(int, bound));
            check(&test, &AnyValueView::Int(int), passes)?;
            // An evaluator may as well compare as doubles.
            let rounded = within(low, high, |bound| (int as f64).partial_cmp(&bound));
            prop_assert!(!rounded || admitted(&test, &AnyValueView::Int(int)).is_some());
            if !float.is_nan() {
                let passes = within(low, high, |bound| float.partial_cmp(&bound));
                check(&test, &AnyValueView::Double(float), passes)?;
            }
        }

        #[test]
        fn what_is_certain_passes_the_comparison(
            op in prop::sample::select(
                CompareOp::ALL.into_iter().filter(|op| *op != CompareOp::Ne).collect::<Vec<_>>(),
            ),
            literal in number(),
            value in number(),
        ) {
            let filter = clew_traceql::tag_filter(&format!("{{ span.a {op} {literal} }}")).unwrap();
            let Prefilter::Condition(condition) = clew_traceql::plan::prefilter(&filter) else {
                return Err(TestCaseError::fail("no condition"));
            };
            let view = match value {
                Static::Int(int) => AnyValueView::Int(int),
                Static::Float(float) => AnyValueView::Double(float),
                _ => return Err(TestCaseError::fail("no number")),
            };
            let passes = compare_values(op, &value, &literal) == Some(true);
            check(&condition.test, &view, passes)?;
        }

        #[test]
        fn numbers_equal_across_types(int in int(), other in int(), float: f64) {
            let equals = Test::Equals(Static::Int(int));
            check(&equals, &AnyValueView::Int(other), int == other)?;
            check(&equals, &AnyValueView::Int(int), true)?;
            let near = other as f64;
            check(&equals, &AnyValueView::Double(near), compare(int, near) == Some(Ordering::Equal))?;
            let equals = Test::Equals(Static::Float(near));
            check(&equals, &AnyValueView::Int(int), compare(int, near) == Some(Ordering::Equal))?;
            check(&equals, &AnyValueView::Double(float), near == float)?;
        }

        #[test]
        fn text_ranges_lose_nothing(
            low in "[ab]{0,3}", high in "[ab]{0,3}", value in "[ab]{0,3}",
            stretch in prop_oneof![Just(0usize), 254usize..260], inclusive: bool,
        ) {
            let stretched = |text: &str| "a".repeat(stretch) + text;
            let (low, high, value) = (stretched(&low), stretched(&high), stretched(&value));
            let (test, passes) = if inclusive {
                let test = Test::StringRange(
                    Bound::Included(low.as_str().into()), Bound::Included(high.as_str().into()));
                (test, value >= low && value <= high)
            } else {
                let test = Test::StringRange(
                    Bound::Excluded(low.as_str().into()), Bound::Excluded(high.as_str().into()));
                (test, value > low && value < high)
            };
            check(&test, &AnyValueView::String(&value), passes)?;
            let equals = Test::Equals(Static::String(low.as_str().into()));
            check(&equals, &AnyValueView::String(&value), low == value)?;
        }
    }

    #[test]
    fn patterns_are_tried_on_short_text_and_assumed_on_long() {
        let test = Test::Matches(Arc::new(Regex::new("^(?s:a.*)$").unwrap()));
        assert_eq!(admitted(&test, &AnyValueView::String("abc")), Some(true));
        assert_eq!(admitted(&test, &AnyValueView::String("bc")), None);
        assert_eq!(admitted(&test, &AnyValueView::String(&"b".repeat(300))), Some(false));
        assert_eq!(admitted(&test, &AnyValueView::Int(1)), None);
    }
}
