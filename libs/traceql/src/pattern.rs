//! Regular expressions: RE2's dialect, which users of TraceQL write, on the `regex` crate.
//!
//! The two differ in small ways that change what matches: RE2's `\d \s \w \b` know only ASCII, its
//! classes have no set operations, it quotes with `\Q...\E`, and a brace that is no repetition
//! stands for itself. The translation spells these out; everything else passes through.

use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

/// The most memory one compiled expression may take, in bytes.
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// The deepest nesting of groups and repetitions.
const NEST_MAX: u32 = 100;
/// RE2's bound on a counted repetition.
const REPEAT_MAX: u32 = 1000;

/// A compiled expression, anchored at both ends, in which a dot matches newlines too.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: Arc<str>,
    regex: Arc<Regex>,
}

/// An expression that is not valid, or too large.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid regular expression: {reason}")]
pub struct PatternError {
    reason: String,
}

impl PatternError {
    fn new(reason: impl Into<String>) -> PatternError {
        PatternError { reason: reason.into() }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.source == other.source
    }
}

impl Pattern {
    /// Compiles an expression in RE2's syntax.
    ///
    /// # Errors
    /// The expression is malformed, uses what RE2 does not have, or compiles to more than 1 MiB.
    pub fn new(source: &str) -> Result<Pattern, PatternError> {
        let translated = Translator::new(source).run()?;
        let regex = RegexBuilder::new(&format!("\\A(?s:{translated})\\z"))
            .size_limit(COMPILED_BYTES_MAX)
            .dfa_size_limit(COMPILED_BYTES_MAX)
            .nest_limit(NEST_MAX)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => PatternError::new("it compiles to too much"),
                other => PatternError::new(last_line(&other.to_string())),
            })?;
        Ok(Pattern { source: Arc::from(source), regex: Arc::new(regex) })
    }

    /// The expression as the user wrote it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The compiled, anchored expression.
    pub fn regex(&self) -> &Arc<Regex> {
        &self.regex
    }

    /// Whether the whole text matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// The reason without the picture of the (translated) expression that the crate puts before it.
fn last_line(message: &str) -> String {
    let line = message.lines().last().unwrap_or(message);
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

struct Translator<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
}

impl<'a> Translator<'a> {
    fn new(source: &'a str) -> Translator<'a> {
        Translator { rest: source.chars().peekable(), out: String::with_capacity(source.len() + 8) }
    }

    fn run(mut self) -> Result<String, PatternError> {
        let mut repeated = false;
        while let Some(character) = self.rest.next() {
            let mut repeats = false;
            match character {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '{' => repeats = self.brace()?,
                '}' | ']' => self.literal(character),
                '(' => self.group()?,
                '*' | '+' | '?' => {
                    repeats = true;
                    self.out.push(character);
                }
                other => self.out.push(other),
            }
            if repeats && repeated {
                let reason = format!("invalid nested repetition operator: {character}");
                return Err(PatternError::new(reason));
            }
            // A question mark right behind makes it lazy.
            if repeats && self.rest.next_if_eq(&'?').is_some() {
                self.out.push('?');
            }
            repeated = repeats;
        }
        Ok(self.out)
    }

    fn literal(&mut self, character: char) {
        let mut buffer = [0; 4];
        self.out.push_str(&regex_syntax::escape(character.encode_utf8(&mut buffer)));
    }

    /// After `(`: passes RE2's group openers, refuses look-around and unknown flags.
    fn group(&mut self) -> Result<(), PatternError> {
        self.out.push('(');
        if self.rest.next_if_eq(&'?').is_none() {
            return Ok(());
        }
        self.out.push('?');
        let named = self.rest.next_if_eq(&'P').is_some();
        if self.rest.next_if_eq(&'<').is_some() {
            if matches!(self.rest.peek(), Some('=' | '!')) {
                return Err(PatternError::new("look-behind is not supported"));
            }
            self.out.push_str("P<");
            return Ok(());
        }
        if named {
            return Err(PatternError::new("a named group is written (?P<name>...)"));
        }
        loop {
            match self.rest.next() {
                Some(end @ (':' | ')')) => {
                    self.out.push(end);
                    return Ok(());
                }
                Some(flag @ ('i' | 'm' | 's' | 'U' | '-')) => self.out.push(flag),
                Some('=' | '!') => return Err(PatternError::new("look-ahead is not supported")),
                Some(other) => {
                    return Err(PatternError::new(format!("unknown flag in a group: {other}")));
                }
                None => return Err(PatternError::new("missing closing )")),
            }
        }
    }

    /// After `{`: a repetition if it looks like one, which it tells, else the character itself.
    fn brace(&mut self) -> Result<bool, PatternError> {
        let inside: String = self.rest.clone().take_while(|c| *c != '}').take(16).collect();
        let closed = self.rest.clone().nth(inside.chars().count()) == Some('}');
        let (low, high) = inside.split_once(',').unwrap_or((&inside, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !closed || low.is_empty() || !digits(low) || !digits(high) {
            self.literal('{');
            return Ok(false);
        }
        let bounded = |text: &str| text.parse::<u32>().map_or(text.is_empty(), |n| n <= REPEAT_MAX);
        if !bounded(low) || !bounded(high) {
            return Err(PatternError::new(format!("repetition over {REPEAT_MAX}: {{{inside}}}")));
        }
        self.out.push('{');
        self.copy(inside.chars().count() + 1);
        Ok(true)
    }

    fn copy(&mut self, count: usize) {
        self.out.extend(self.rest.by_ref().take(count));
    }

    /// After a backslash outside a class.
    fn escape(&mut self) -> Result<(), PatternError> {
        match self.rest.peek() {
            Some('Q') => {
                self.rest.next();
                self.quoted();
                Ok(())
            }
            Some('A' | 'z') => {
                self.out.push('\\');
                self.copy(1);
                Ok(())
            }
            Some('b' | 'B') => {
                self.out.push_str("(?-u:\\");
                self.copy(1);
                self.out.push(')');
                Ok(())
            }
            Some('E') => {
                // An end without a beginning is ignored.
                self.rest.next();
                Ok(())
            }
            _ => {
                let atom = self.escaped_atom()?;
                self.push_atom(&atom);
                Ok(())
            }
        }
    }

    /// After `\Q`: everything up to `\E` or the end stands for itself.
    fn quoted(&mut self) {
        while let Some(character) = self.rest.next() {
            if character == '\\' && self.rest.next_if_eq(&'E').is_some() {
                return;
            }
            self.literal(character);
        }
    }

    fn push_atom(&mut self, atom: &Atom) {
        match atom {
            Atom::Char(character) => self.literal(*character),
            Atom::Set(text) => self.out.push_str(text),
        }
    }

    /// After a backslash: what may stand in a class as well as outside.
    fn escaped_atom(&mut self) -> Result<Atom, PatternError> {
        let Some(character) = self.rest.next() else {
            return Err(PatternError::new("trailing backslash"));
        };
        let set = |text: &str| Ok(Atom::Set(text.to_owned()));
        match character {
            'd' => set("[0-9]"),
            'D' => set("[^0-9]"),
            'w' => set("[0-9A-Za-z_]"),
            'W' => set("[^0-9A-Za-z_]"),
            's' => set("[\\t\\n\\x0C\\r ]"),
            'S' => set("[^\\t\\n\\x0C\\r ]"),
            'p' | 'P' => self.property(character == 'P'),
            'a' => Ok(Atom::Char('\x07')),
            'f' => Ok(Atom::Char('\x0C')),
            't' => Ok(Atom::Char('\t')),
            'n' => Ok(Atom::Char('\n')),
            'r' => Ok(Atom::Char('\r')),
            'v' => Ok(Atom::Char('\x0B')),
            'x' => self.hex(),
            '0'..='7' => self.octal(character),
            other if other.is_ascii_punctuation() => Ok(Atom::Char(other)),
            other => Err(PatternError::new(format!("unknown escape sequence: \\{other}"))),
        }
    }

    fn property(&mut self, negated: bool) -> Result<Atom, PatternError> {
        let missing = || PatternError::new("a character property has no name");
        let first = self.rest.next().ok_or_else(missing)?;
        let mut negated = negated;
        let mut name = String::new();
        if first == '{' {
            if self.rest.next_if_eq(&'^').is_some() {
                negated = !negated;
            }
            loop {
                match self.rest.next() {
                    Some('}') if !name.is_empty() => break,
                    Some(c) if c.is_ascii_alphanumeric() || c == '_' => name.push(c),
                    _ => return Err(missing()),
                }
            }
        } else if first.is_ascii_alphabetic() {
            name.push(first);
        } else {
            return Err(missing());
        }
        let letter = if negated { 'P' } else { 'p' };
        Ok(Atom::Set(format!("\\{letter}{{{name}}}")))
    }

    fn hex(&mut self) -> Result<Atom, PatternError> {
        let braced = self.rest.next_if_eq(&'{').is_some();
        let mut code = 0u32;
        let mut digits = 0;
        while let Some(digit) = self.rest.peek().and_then(|c| c.to_digit(16)) {
            if digits == if braced { 8 } else { 2 } {
                break;
            }
            self.rest.next();
            code = code << 4 | digit;
            digits += 1;
        }
        let closed = if braced { self.rest.next() == Some('}') } else { digits == 2 };
        match char::from_u32(code) {
            Some(character) if closed && digits > 0 => Ok(Atom::Char(character)),
            _ => Err(PatternError::new("malformed \\x escape")),
        }
    }

    fn octal(&mut self, first: char) -> Result<Atom, PatternError> {
        let mut code = first.to_digit(8).unwrap_or(0);
        let mut digits = 1;
        while let Some(digit) = self.rest.peek().and_then(|c| c.to_digit(8)) {
            if digits == 3 {
                break;
            }
            self.rest.next();
            code = code << 3 | digit;
            digits += 1;
        }
        if first != '0' && digits == 1 {
            return Err(PatternError::new(format!("back-references are not supported: \\{first}")));
        }
        char::from_u32(code).map(Atom::Char).ok_or_else(|| PatternError::new("malformed octal"))
    }

    /// After `[`: RE2's classes know ranges, escapes and `[:name:]`, nothing else.
    fn class(&mut self) -> Result<(), PatternError> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let low = match self.rest.next() {
                None => return Err(PatternError::new("missing closing ]")),
                Some(']') if !first => break,
                Some('[') if self.rest.peek() == Some(&':') => self.posix()?,
                Some('\\') => self.escaped_atom()?,
                Some(other) => Atom::Char(other),
            };
            first = false;
            self.class_item(low)?;
        }
        self.out.push(']');
        Ok(())
    }

    /// A range if a dash and another end follow, else the item alone.
    fn class_item(&mut self, low: Atom) -> Result<(), PatternError> {
        let mut ahead = self.rest.clone();
        let is_range = ahead.next() == Some('-') && !matches!(ahead.next(), Some(']') | None);
        let Atom::Char(from) = low else {
            self.push_atom(&low);
            return Ok(());
        };
        if !is_range {
            self.class_char(from);
            return Ok(());
        }
        self.rest.next();
        let high = match self.rest.next() {
            Some('\\') => self.escaped_atom()?,
            Some(other) => Atom::Char(other),
            None => return Err(PatternError::new("missing closing ]")),
        };
        match high {
            Atom::Char(to) if from <= to => {
                self.class_char(from);
                self.out.push('-');
                self.class_char(to);
                Ok(())
            }
            _ => Err(PatternError::new("invalid character class range")),
        }
    }

    fn class_char(&mut self, character: char) {
        let _infallible = write!(self.out, "\\x{{{:x}}}", u32::from(character));
    }

    /// After `[` before `:`, inside a class.
    fn posix(&mut self) -> Result<Atom, PatternError> {
        let name: String = self.rest.clone().skip(1).take_while(|c| *c != ']').take(12).collect();
        let valid = name.strip_suffix(':').is_some_and(|name| {
            let bare = name.strip_prefix('^').unwrap_or(name);
            !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_lowercase())
        });
        if !valid {
            return Ok(Atom::Char('['));
        }
        for _ in 0..name.len() + 2 {
            self.rest.next();
        }
        Ok(Atom::Set(format!("[:{name}]")))
    }
}

/// One item of an expression or class.
enum Atom {
    Char(char),
    Set(String),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_match(source: &str, text: &str) -> bool {
        Pattern::new(source).unwrap().is_match(text)
    }

    #[test]
    fn both_ends_are_anchored_and_a_dot_takes_newlines() {
        assert!(is_match("a.c", "a\nc"));
        assert!(!is_match("a", "ab"));
        assert!(!is_match("b", "ab"));
        assert!(is_match("a|bc", "bc"));
        assert!(!is_match("a|bc", "abc"));
        assert!(is_match("^a$", "a"));
        assert!(is_match("(?i)GET .*", "get /x"));
    }

    #[test]
    fn perl_classes_are_ascii() {
        assert!(is_match(r"\d+", "123"));
        assert!(!is_match(r"\d", "٣"));
        assert!(!is_match(r"\w", "é"));
        assert!(is_match(r"[^\w]", "é"));
        assert!(is_match(r"[\W]", "é"));
        assert!(!is_match(r"\s", "\u{a0}"));
        assert!(is_match(r".*\bfoo\b.*", "a foo b"));
        assert!(is_match(r"a\Bb", "ab"));
    }

    #[test]
    fn classes_have_no_set_operations() {
        assert!(is_match("[a[b]", "["));
        assert!(is_match("[a&&b]", "&"));
        assert!(is_match("[]a]", "]"));
        assert!(is_match("[a-]", "-"));
        assert!(is_match("[+--]", ","));
        assert!(is_match("[[:digit:]x]+", "1x"));
        assert!(is_match("[^[:^digit:]]", "1"));
        assert!(is_match("[a~~b]", "~"));
    }

    #[test]
    fn braces_quotes_and_escapes() {
        assert!(is_match("a{2}", "aa"));
        assert!(is_match("a{,5}", "a{,5}"));
        assert!(is_match("{x}", "{x}"));
        assert!(is_match(r"\Qa.b*\E+", "a.b**"));
        assert!(is_match(r"/api/v\d/\{id\}", "/api/v1/{id}"));
        assert!(is_match(r"\x41\x{42}\103", "ABC"));
        assert!(is_match(r"\<\/\>", "</>"));
        assert!(is_match(r"\p{Greek}\PN", "αa"));
        assert!(is_match(r"\p{^Greek}", "a"));
        assert!(is_match(r"(?P<n>a)(?<m>b)(?:c)(?i:D)", "abcd"));
    }

    #[test]
    fn what_re2_lacks_is_refused() {
        for source in [
            "(",
            ")",
            "[a",
            "a*b(",
            r"\C",
            r"\1",
            r"\Z",
            "(?=a)",
            "(?!a)",
            "(?<=a)",
            "(?x) a",
            "a{1001}",
            "[z-a]",
            r"\",
            r"\x4",
            "*",
            r"\p{Nope}",
            "(?P=n)",
            r"[\Q]",
        ] {
            assert!(Pattern::new(source).is_err(), "{source}");
        }
    }

    #[test]
    fn repetitions_are_not_stacked() {
        for source in ["a**", "x*+", "a++", "a???", "a{2}*", "a*{2}", "a{2}{3}", "a+?+"] {
            let refused = Pattern::new(source).unwrap_err().to_string();
            assert!(refused.contains("invalid nested repetition operator"), "{source}: {refused}");
        }
        assert!(is_match("a*?b+?c??d{1,2}?", "aabcd"));
        assert!(is_match("(?:a*)*", "aaa"));
        assert!(is_match(r"a+\++", "a++"));
        assert!(is_match("a*[*]*", "a**"));
    }

    #[test]
    fn size_is_bounded() {
        assert!(Pattern::new(r"((\pL{1000}){1000}){1000}").is_err());
        assert!(Pattern::new(&"(".repeat(200)).is_err());
        assert!(Pattern::new(&format!("{}a{}", "(".repeat(200), ")".repeat(200))).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_accepted_or_refused(source in ".{0,40}") {
            let _verdict = Pattern::new(&source);
        }

        #[test]
        fn class_heavy_text_is_accepted_or_refused(source in r"[\\\[\]{}()^$|?*+.,:\-&~a0dpPQE]{0,24}") {
            let _verdict = Pattern::new(&source);
        }

        #[test]
        fn quoted_text_matches_itself_only(text in "[^\\\\]{0,20}", other in ".{0,20}") {
            let pattern = Pattern::new(&format!("\\Q{text}\\E")).unwrap();
            prop_assert!(pattern.is_match(&text));
            prop_assert_eq!(pattern.is_match(&other), other == text);
        }
    }
}
