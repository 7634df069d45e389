//! Names of fields: what the words of the language mean, and how they are written back.

use std::fmt::{self, Display, Write};
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::plan::{Field, Intrinsic, Scope};

/// What is known of a value before a span is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// An attribute: any type.
    Any,
    /// The literal nil.
    Nil,
    /// An integer, a float or a duration.
    Number,
    /// Text.
    String,
    /// True or false.
    Bool,
    /// A status word.
    Status,
    /// A kind word.
    Kind,
}

impl ValueType {
    /// How error messages call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ValueType::Any => "attribute",
            ValueType::Nil => "nil",
            ValueType::Number => "number",
            ValueType::String => "string",
            ValueType::Bool => "boolean",
            ValueType::Status => "status",
            ValueType::Kind => "kind",
        }
    }
}

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 5] =
        [Scope::Span, Scope::Resource, Scope::Event, Scope::Link, Scope::Instrumentation];

    /// The word before the dot.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Span => "span",
            Scope::Resource => "resource",
            Scope::Event => "event",
            Scope::Link => "link",
            Scope::Instrumentation => "instrumentation",
        }
    }

    /// The scope of that word.
    pub fn from_word(word: &str) -> Option<Scope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }
}

/// One intrinsic: its scoped spelling, its short spelling, its type.
struct Spelling {
    intrinsic: Intrinsic,
    scoped: &'static str,
    short: &'static str,
    value: ValueType,
}

const fn spelling(
    intrinsic: Intrinsic,
    scoped: &'static str,
    short: &'static str,
    value: ValueType,
) -> Spelling {
    Spelling { intrinsic, scoped, short, value }
}

/// An empty spelling means there is none.
const SPELLINGS: [Spelling; 21] = [
    spelling(Intrinsic::Duration, "span:duration", "duration", ValueType::Number),
    spelling(Intrinsic::Name, "span:name", "name", ValueType::String),
    spelling(Intrinsic::Status, "span:status", "status", ValueType::Status),
    spelling(Intrinsic::StatusMessage, "span:statusMessage", "statusMessage", ValueType::String),
    spelling(Intrinsic::Kind, "span:kind", "kind", ValueType::Kind),
    spelling(Intrinsic::SpanId, "span:id", "", ValueType::String),
    spelling(Intrinsic::ParentId, "span:parentID", "", ValueType::String),
    spelling(Intrinsic::ChildCount, "span:childCount", "", ValueType::Number),
    spelling(Intrinsic::TraceDuration, "trace:duration", "traceDuration", ValueType::Number),
    spelling(Intrinsic::RootName, "trace:rootName", "rootName", ValueType::String),
    spelling(Intrinsic::RootService, "trace:rootService", "rootServiceName", ValueType::String),
    spelling(Intrinsic::TraceId, "trace:id", "", ValueType::String),
    spelling(Intrinsic::EventName, "event:name", "", ValueType::String),
    spelling(Intrinsic::EventTimeSinceStart, "event:timeSinceStart", "", ValueType::Number),
    spelling(Intrinsic::LinkTraceId, "link:traceID", "", ValueType::String),
    spelling(Intrinsic::LinkSpanId, "link:spanID", "", ValueType::String),
    spelling(Intrinsic::InstrumentationName, "instrumentation:name", "", ValueType::String),
    spelling(Intrinsic::InstrumentationVersion, "instrumentation:version", "", ValueType::String),
    spelling(Intrinsic::NestedSetLeft, "", "nestedSetLeft", ValueType::Number),
    spelling(Intrinsic::NestedSetRight, "", "nestedSetRight", ValueType::Number),
    spelling(Intrinsic::NestedSetParent, "", "nestedSetParent", ValueType::Number),
];

impl Intrinsic {
    /// Every intrinsic.
    pub fn all() -> impl Iterator<Item = Intrinsic> {
        SPELLINGS.iter().map(|row| row.intrinsic)
    }

    /// The spelling with a scope, such as `span:name`, if it has one.
    pub fn scoped_name(self) -> Option<&'static str> {
        self.row().map(|row| row.scoped).filter(|name| !name.is_empty())
    }

    /// The spelling without a scope, such as `name`, if it has one.
    pub fn short_name(self) -> Option<&'static str> {
        self.row().map(|row| row.short).filter(|name| !name.is_empty())
    }

    /// The intrinsic of that scoped spelling.
    pub fn from_scoped(text: &str) -> Option<Intrinsic> {
        Self::all().find(|intrinsic| intrinsic.scoped_name() == Some(text))
    }

    /// The intrinsic of that short spelling.
    pub fn from_short(text: &str) -> Option<Intrinsic> {
        Self::all().find(|intrinsic| intrinsic.short_name() == Some(text))
    }

    /// The type of its values.
    pub fn value_type(self) -> ValueType {
        self.row().map_or(ValueType::Any, |row| row.value)
    }

    /// Whether the value is that of the whole trace, so that one fragment of it cannot tell.
    pub const fn is_trace_level(self) -> bool {
        matches!(
            self,
            Intrinsic::TraceDuration
                | Intrinsic::RootName
                | Intrinsic::RootService
                | Intrinsic::ChildCount
                | Intrinsic::NestedSetLeft
                | Intrinsic::NestedSetRight
                | Intrinsic::NestedSetParent
        )
    }

    /// For an identifier, its length in hex digits: literals compared with it are padded to that.
    pub const fn hex_digits(self) -> Option<usize> {
        match self {
            Intrinsic::TraceId | Intrinsic::LinkTraceId => Some(32),
            Intrinsic::SpanId | Intrinsic::ParentId | Intrinsic::LinkSpanId => Some(16),
            _ => None,
        }
    }

    fn row(self) -> Option<&'static Spelling> {
        SPELLINGS.iter().find(|row| row.intrinsic == self)
    }
}

impl Field {
    /// Whether a span has one value per event.
    pub const fn is_event(&self) -> bool {
        matches!(
            self,
            Field::Attribute(Scope::Event, _)
                | Field::Intrinsic(Intrinsic::EventName | Intrinsic::EventTimeSinceStart)
        )
    }

    /// Whether a span has one value per link.
    pub const fn is_link(&self) -> bool {
        matches!(
            self,
            Field::Attribute(Scope::Link, _)
                | Field::Intrinsic(Intrinsic::LinkTraceId | Intrinsic::LinkSpanId)
        )
    }
}

/// A field as the query names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FieldRef {
    /// An attribute.
    Attribute {
        /// Of the parent span (`parent.`).
        parent: bool,
        /// The scope written, if any.
        scope: Option<Scope>,
        /// The name without scope and quotes.
        name: Arc<str>,
    },
    /// An intrinsic.
    Intrinsic {
        /// Which one.
        intrinsic: Intrinsic,
        /// Written without its scope, as in `name`.
        short: bool,
    },
    /// The word `parent` alone.
    Parent,
}

impl FieldRef {
    /// An attribute of the span itself; no scope means span, then resource.
    pub fn attribute(scope: Option<Scope>, name: &str) -> FieldRef {
        FieldRef::Attribute { parent: false, scope, name: Arc::from(name) }
    }

    /// An intrinsic, in its short spelling if it has one.
    pub fn intrinsic(intrinsic: Intrinsic) -> FieldRef {
        FieldRef::Intrinsic { intrinsic, short: intrinsic.short_name().is_some() }
    }

    /// The places the value can be in, first wins: span and resource for an unscoped attribute,
    /// nothing for fields of the parent.
    pub fn fields(&self) -> SmallVec<[Field; 2]> {
        match self {
            FieldRef::Attribute { parent: true, .. } | FieldRef::Parent => smallvec![],
            FieldRef::Attribute { scope: Some(scope), name, .. } => {
                smallvec![Field::Attribute(*scope, Arc::clone(name))]
            }
            FieldRef::Attribute { scope: None, name, .. } => smallvec![
                Field::Attribute(Scope::Span, Arc::clone(name)),
                Field::Attribute(Scope::Resource, Arc::clone(name)),
            ],
            FieldRef::Intrinsic { intrinsic, .. } => smallvec![Field::Intrinsic(*intrinsic)],
        }
    }

    /// The key under which a search answer shows the value: an attribute's name without scope, an
    /// intrinsic's shortest spelling.
    pub fn key(&self) -> &str {
        match self {
            FieldRef::Attribute { name, .. } => name,
            FieldRef::Intrinsic { intrinsic, .. } => {
                intrinsic.short_name().or_else(|| intrinsic.scoped_name()).unwrap_or_default()
            }
            FieldRef::Parent => "parent",
        }
    }

    /// What is known of the values.
    pub fn value_type(&self) -> ValueType {
        match self {
            FieldRef::Intrinsic { intrinsic, .. } => intrinsic.value_type(),
            FieldRef::Attribute { .. } | FieldRef::Parent => ValueType::Any,
        }
    }

    /// Whether the field is of the parent span.
    pub const fn is_parent(&self) -> bool {
        matches!(self, FieldRef::Parent | FieldRef::Attribute { parent: true, .. })
    }
}

/// Characters that end an unquoted attribute name.
pub(crate) fn ends_name(character: char) -> bool {
    character.is_whitespace()
        || matches!(
            character,
            '{' | '}' | '(' | ')' | '=' | '~' | '!' | '<' | '>' | '&' | '|' | '^' | ','
        )
}

/// Prints the field so that it parses to the same field.
impl Display for FieldRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldRef::Parent => f.write_str("parent"),
            FieldRef::Intrinsic { intrinsic, short } => {
                let spelled = if *short { intrinsic.short_name() } else { intrinsic.scoped_name() };
                f.write_str(spelled.unwrap_or_else(|| self.key()))
            }
            FieldRef::Attribute { parent, scope, name } => {
                if *parent {
                    f.write_str("parent")?;
                }
                if let Some(scope) = scope {
                    write!(f, "{}{}", if *parent { "." } else { "" }, scope.as_str())?;
                }
                f.write_char('.')?;
                write_name(f, name, *parent && scope.is_none())
            }
        }
    }
}

/// Quotes a name that the lexer would cut, or read as something else.
fn write_name(f: &mut fmt::Formatter<'_>, name: &str, after_parent: bool) -> fmt::Result {
    let cut = name.chars().any(|c| ends_name(c) || c == '"' || c == '\\');
    let number = name.starts_with(|c: char| c.is_ascii_digit());
    let scope = after_parent && (name.starts_with("span.") || name.starts_with("resource."));
    if !(cut || number || scope || name.is_empty()) {
        return f.write_str(name);
    }
    f.write_char('"')?;
    for character in name.chars() {
        if matches!(character, '"' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(character)?;
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_intrinsic_has_one_row_and_its_spellings_lead_back() {
        for intrinsic in Intrinsic::all() {
            assert_eq!(SPELLINGS.iter().filter(|row| row.intrinsic == intrinsic).count(), 1);
            assert!(intrinsic.scoped_name().is_some() || intrinsic.short_name().is_some());
            if let Some(name) = intrinsic.scoped_name() {
                assert_eq!(Intrinsic::from_scoped(name), Some(intrinsic));
            }
            if let Some(name) = intrinsic.short_name() {
                assert_eq!(Intrinsic::from_short(name), Some(intrinsic));
            }
            assert_ne!(intrinsic.value_type(), ValueType::Any);
        }
        assert_eq!(Intrinsic::from_scoped("trace:name"), None);
        assert_eq!(Intrinsic::from_short(""), None);
    }

    #[test]
    fn names_are_quoted_only_where_needed() {
        let printed = |scope, name| FieldRef::attribute(scope, name).to_string();
        assert_eq!(printed(None, "a.b-c"), ".a.b-c");
        assert_eq!(printed(Some(Scope::Span), "a b"), "span.\"a b\"");
        assert_eq!(printed(None, "1a"), ".\"1a\"");
        assert_eq!(printed(None, "q\"\\"), ".\"q\\\"\\\\\"");
        assert_eq!(FieldRef::intrinsic(Intrinsic::RootService).to_string(), "rootServiceName");
        assert_eq!(FieldRef::intrinsic(Intrinsic::SpanId).to_string(), "span:id");
    }
}
