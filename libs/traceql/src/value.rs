//! Values as TraceQL sees them: literals in a query and attribute values on a span.

use std::cmp::Ordering;
use std::fmt::{self, Display, Write};
use std::sync::Arc;

/// Span status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// `unset`
    Unset,
    /// `ok`
    Ok,
    /// `error`
    Error,
}

/// Span kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `unspecified`
    Unspecified,
    /// `internal`
    Internal,
    /// `server`
    Server,
    /// `client`
    Client,
    /// `producer`
    Producer,
    /// `consumer`
    Consumer,
}

/// A value without a type error in it.
#[derive(Debug, Clone, PartialEq)]
pub enum Static {
    /// Absent.
    Nil,
    /// A 64-bit integer.
    Int(i64),
    /// A double.
    Float(f64),
    /// Text, compared bytewise.
    String(Arc<str>),
    /// True or false.
    Bool(bool),
    /// Nanoseconds.
    Duration(i64),
    /// A status word.
    Status(Status),
    /// A kind word.
    Kind(Kind),
    /// An array attribute; elements are scalars, possibly of several types.
    Array(Vec<Static>),
}

/// The comparisons that need no regular expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompareOp {
    /// `=`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

impl Status {
    /// Every status.
    pub const ALL: [Status; 3] = [Status::Unset, Status::Ok, Status::Error];

    /// The word TraceQL uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Unset => "unset",
            Status::Ok => "ok",
            Status::Error => "error",
        }
    }

    /// The status of that word.
    pub fn from_word(word: &str) -> Option<Status> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 6] = [
        Kind::Unspecified,
        Kind::Internal,
        Kind::Server,
        Kind::Client,
        Kind::Producer,
        Kind::Consumer,
    ];

    /// The word TraceQL uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Unspecified => "unspecified",
            Kind::Internal => "internal",
            Kind::Server => "server",
            Kind::Client => "client",
            Kind::Producer => "producer",
            Kind::Consumer => "consumer",
        }
    }

    /// The kind of that word.
    pub fn from_word(word: &str) -> Option<Kind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl CompareOp {
    /// Every operator.
    pub const ALL: [CompareOp; 6] =
        [CompareOp::Eq, CompareOp::Ne, CompareOp::Lt, CompareOp::Le, CompareOp::Gt, CompareOp::Ge];

    /// The operator as written.
    pub const fn as_str(self) -> &'static str {
        match self {
            CompareOp::Eq => "=",
            CompareOp::Ne => "!=",
            CompareOp::Lt => "<",
            CompareOp::Le => "<=",
            CompareOp::Gt => ">",
            CompareOp::Ge => ">=",
        }
    }

    /// The operator that gives the same answer with the operands exchanged.
    pub const fn flipped(self) -> CompareOp {
        match self {
            CompareOp::Lt => CompareOp::Gt,
            CompareOp::Le => CompareOp::Ge,
            CompareOp::Gt => CompareOp::Lt,
            CompareOp::Ge => CompareOp::Le,
            same => same,
        }
    }

    /// Whether the operator asks for more than equality.
    pub const fn is_ordering(self) -> bool {
        !matches!(self, CompareOp::Eq | CompareOp::Ne)
    }

    /// Whether operands in this order satisfy the operator; `None` is unordered (not a number).
    const fn holds(self, order: Option<Ordering>) -> bool {
        match (self, order) {
            (CompareOp::Ne, None) => true,
            (_, None) => false,
            (CompareOp::Eq, Some(order)) => order.is_eq(),
            (CompareOp::Ne, Some(order)) => order.is_ne(),
            (CompareOp::Lt, Some(order)) => order.is_lt(),
            (CompareOp::Le, Some(order)) => order.is_le(),
            (CompareOp::Gt, Some(order)) => order.is_gt(),
            (CompareOp::Ge, Some(order)) => order.is_ge(),
        }
    }
}

/// Compares two scalars. `None`: their types do not compare under this operator (nil and arrays
/// never do; booleans, statuses and kinds have no order).
///
/// Int, float and duration compare by value without loss of precision; a duration counts as its
/// nanoseconds. Not-a-number differs from everything and is ordered against nothing.
pub fn compare(op: CompareOp, left: &Static, right: &Static) -> Option<bool> {
    if let (Some(left), Some(right)) = (left.number(), right.number()) {
        return Some(op.holds(left.order(right)));
    }
    match (left, right) {
        (Static::String(left), Static::String(right)) => {
            Some(op.holds(Some(left.as_bytes().cmp(right.as_bytes()))))
        }
        _ if op.is_ordering() => None,
        (Static::Bool(left), Static::Bool(right)) => Some(op.holds(Some(left.cmp(right)))),
        (Static::Status(left), Static::Status(right)) => Some(op.holds(Some(left.cmp(right)))),
        (Static::Kind(left), Static::Kind(right)) => Some(op.holds(Some(left.cmp(right)))),
        _ => None,
    }
}

/// Compares two values of which at most one is an array. Values that do not compare give false.
///
/// An array passes if any element does; `!=` passes only if some element is comparable and no
/// element is equal. Array against array is false.
pub fn compare_any(op: CompareOp, left: &Static, right: &Static) -> bool {
    match (left, right) {
        (Static::Array(_), Static::Array(_)) => false,
        (Static::Array(elements), scalar) => compare_elements(op, elements, scalar),
        (scalar, Static::Array(elements)) => compare_elements(op.flipped(), elements, scalar),
        (left, right) => compare(op, left, right) == Some(true),
    }
}

fn compare_elements(op: CompareOp, elements: &[Static], scalar: &Static) -> bool {
    let mut verdicts = elements.iter().filter_map(|element| compare(op, element, scalar));
    if op != CompareOp::Ne {
        return verdicts.any(|passes| passes);
    }
    let mut comparable = false;
    verdicts.all(|differs| {
        comparable = true;
        differs
    }) && comparable
}

/// A number whose value is compared across types.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    fn order(self, other: Number) -> Option<Ordering> {
        match (self, other) {
            (Number::Int(left), Number::Int(right)) => Some(left.cmp(&right)),
            (Number::Float(left), Number::Float(right)) => left.partial_cmp(&right),
            (Number::Int(left), Number::Float(right)) => order_int_float(left, right),
            (Number::Float(left), Number::Int(right)) => {
                order_int_float(right, left).map(Ordering::reverse)
            }
        }
    }
}

/// Orders an integer against a double exactly: above 2^53 a conversion of the integer would round.
fn order_int_float(int: i64, float: f64) -> Option<Ordering> {
    const TWO_63: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() {
        return None;
    }
    if float >= TWO_63 {
        return Some(Ordering::Less);
    }
    if float < -TWO_63 {
        return Some(Ordering::Greater);
    }
    let whole = float.trunc();
    #[allow(clippy::cast_possible_truncation, reason = "whole and within the range of i64")]
    let by_whole = int.cmp(&(whole as i64));
    Some(by_whole.then_with(|| 0.0f64.total_cmp(&(float - whole + 0.0))))
}

impl Static {
    /// Text.
    pub fn string(text: &str) -> Static {
        Static::String(Arc::from(text))
    }

    /// The name the Tempo API gives this type of value.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Static::Nil => "nil",
            Static::Int(_) => "int",
            Static::Float(_) => "float",
            Static::String(_) => "string",
            Static::Bool(_) => "bool",
            Static::Duration(_) => "duration",
            Static::Status(_) | Static::Kind(_) => "keyword",
            Static::Array(_) => "array",
        }
    }

    /// Whether there is no value.
    pub const fn is_nil(&self) -> bool {
        matches!(self, Static::Nil)
    }

    pub(crate) const fn number(&self) -> Option<Number> {
        match self {
            Static::Int(value) | Static::Duration(value) => Some(Number::Int(*value)),
            Static::Float(value) => Some(Number::Float(*value)),
            _ => None,
        }
    }
}

impl Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Display for CompareOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Prints the value as a TraceQL literal that parses to the same value. Arrays, infinities and
/// not-a-number have no literal; they print for people only.
impl Display for Static {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Static::Nil => f.write_str("nil"),
            Static::Int(i64::MIN) => f.write_str("minInt"),
            Static::Int(value) => write!(f, "{value}"),
            Static::Float(value) => write!(f, "{value:?}"),
            Static::String(text) => write_quoted(f, text),
            Static::Bool(value) => write!(f, "{value}"),
            Static::Duration(nanos) => write_duration(f, *nanos),
            Static::Status(status) => f.write_str(status.as_str()),
            Static::Kind(kind) => f.write_str(kind.as_str()),
            Static::Array(elements) => {
                f.write_char('[')?;
                for (at, element) in elements.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{element}")?;
                }
                f.write_char(']')
            }
        }
    }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            control if control.is_control() => write!(f, "\\u{:04x}", u32::from(control))?,
            other => f.write_char(other)?,
        }
    }
    f.write_char('"')
}

/// As Go prints durations, which is what Tempo answers: `1h2m3.5s`, `2.345678ms`, `100µs`. Exact, so
/// that it parses to the same duration.
fn write_duration(f: &mut fmt::Formatter<'_>, nanos: i64) -> fmt::Result {
    const SECOND: u64 = 1_000_000_000;
    if nanos < 0 {
        f.write_char('-')?;
    }
    let nanos = nanos.unsigned_abs();
    match nanos {
        0 => return f.write_str("0s"),
        1..1_000 => return write!(f, "{nanos}ns"),
        1_000..1_000_000 => return write_decimal(f, nanos, 1_000, "µs"),
        1_000_000..SECOND => return write_decimal(f, nanos, 1_000_000, "ms"),
        _ => {}
    }
    let minutes = nanos / (60 * SECOND);
    if minutes >= 60 {
        write!(f, "{}h", minutes / 60)?;
    }
    if minutes > 0 {
        write!(f, "{}m", minutes % 60)?;
    }
    write_decimal(f, nanos % (60 * SECOND), SECOND, "s")
}

/// A number of units, a power of ten of nanoseconds each, without zeros at the end.
fn write_decimal(f: &mut fmt::Formatter<'_>, nanos: u64, size: u64, unit: &str) -> fmt::Result {
    write!(f, "{}", nanos / size)?;
    let rest = nanos % size;
    if rest > 0 {
        let width = size.ilog10() as usize;
        let digits = format!("{rest:0width$}");
        write!(f, ".{}", digits.trim_end_matches('0'))?;
    }
    f.write_str(unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_compare_by_value_across_types() {
        let big = (1i64 << 53) + 1;
        #[allow(clippy::cast_precision_loss, reason = "the rounding is the point")]
        let rounded = big as f64;
        assert_eq!(compare(CompareOp::Eq, &Static::Int(500), &Static::Float(500.0)), Some(true));
        assert_eq!(compare(CompareOp::Eq, &Static::Int(big), &Static::Float(rounded)), Some(false));
        assert_eq!(compare(CompareOp::Gt, &Static::Int(big), &Static::Float(rounded)), Some(true));
        assert_eq!(compare(CompareOp::Lt, &Static::Float(0.5), &Static::Int(1)), Some(true));
        assert_eq!(compare(CompareOp::Lt, &Static::Float(-0.5), &Static::Int(0)), Some(true));
        assert_eq!(compare(CompareOp::Eq, &Static::Float(-0.0), &Static::Int(0)), Some(true));
        assert_eq!(compare(CompareOp::Eq, &Static::Duration(5), &Static::Int(5)), Some(true));
        assert_eq!(
            compare(CompareOp::Lt, &Static::Int(i64::MAX), &Static::Float(9.3e18)),
            Some(true)
        );
        assert_eq!(compare(CompareOp::Ne, &Static::Float(f64::NAN), &Static::Int(1)), Some(true));
        assert_eq!(compare(CompareOp::Eq, &Static::Float(f64::NAN), &Static::Int(1)), Some(false));
    }

    #[test]
    fn types_that_do_not_compare_give_no_answer() {
        for op in CompareOp::ALL {
            assert_eq!(compare(op, &Static::Int(1), &Static::string("1")), None);
            assert_eq!(compare(op, &Static::Nil, &Static::Nil), None);
        }
        assert_eq!(compare(CompareOp::Lt, &Static::Bool(false), &Static::Bool(true)), None);
        assert_eq!(
            compare(CompareOp::Lt, &Static::Status(Status::Ok), &Static::Status(Status::Error)),
            None
        );
    }

    #[test]
    fn arrays_pass_by_any_element_and_differ_by_none() {
        let array = Static::Array(vec![Static::string("a"), Static::Int(3)]);
        assert!(compare_any(CompareOp::Eq, &array, &Static::string("a")));
        assert!(compare_any(CompareOp::Gt, &array, &Static::Int(2)));
        assert!(compare_any(CompareOp::Lt, &Static::Int(2), &array));
        assert!(!compare_any(CompareOp::Ne, &array, &Static::string("a")));
        assert!(compare_any(CompareOp::Ne, &array, &Static::string("b")));
        assert!(!compare_any(CompareOp::Ne, &array, &Static::Bool(true)));
        assert!(!compare_any(CompareOp::Ne, &Static::Array(vec![]), &Static::Int(1)));
        assert!(!compare_any(CompareOp::Eq, &array, &array));
    }

    #[test]
    fn durations_print_as_in_go() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (-999, "-999ns"),
            (1_100, "1.1µs"),
            (100_000, "100µs"),
            (2_200_000, "2.2ms"),
            (2_345_678, "2.345678ms"),
            (1_500_000_000, "1.5s"),
            (3_300_000_001, "3.300000001s"),
            (60_000_000_000, "1m0s"),
            (245_000_000_000, "4m5s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_723_500_000_000, "1h2m3.5s"),
            (18_367_001_000_000, "5h6m7.001s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(Static::Duration(nanos).to_string(), text);
        }
    }

    proptest! {
        #[test]
        #[allow(clippy::cast_possible_truncation, reason = "clamped first")]
        fn an_integer_and_a_double_order_as_exact_rationals(int: i64, float: f64) {
            prop_assume!(float.is_finite());
            // Independent: compare the integer with floor and ceiling in i128.
            let floor = float.floor().clamp(-1e20, 1e20) as i128;
            let ceil = float.ceil().clamp(-1e20, 1e20) as i128;
            let wide = i128::from(int);
            let less = wide < ceil;
            let greater = wide > floor;
            let is = |op| compare(op, &Static::Int(int), &Static::Float(float)).unwrap();
            prop_assert_eq!(is(CompareOp::Lt), less);
            prop_assert_eq!(is(CompareOp::Gt), greater);
            prop_assert_eq!(is(CompareOp::Eq), !less && !greater);
        }

        #[test]
        #[allow(clippy::cast_possible_truncation, reason = "a whole number in range")]
        fn near_integers_order_exactly(int in -(1i64 << 55)..(1i64 << 55), off in -3i64..=3) {
            let float = (int + off) as f64;
            let exact = float as i128;
            let order = i128::from(int).cmp(&exact);
            for op in CompareOp::ALL {
                prop_assert_eq!(
                    compare(op, &Static::Int(int), &Static::Float(float)),
                    Some(op.holds(Some(order)))
                );
            }
        }
    }
}
