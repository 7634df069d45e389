//! The legacy `tags` parameter: `key=value key="a value"` lines as logfmt writes them.

use std::collections::BTreeMap;

/// What is wrong with a `tags` parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogfmtError {
    /// A character where it cannot stand.
    #[error("unexpected {found:?} at pos {at}")]
    Unexpected {
        /// The character.
        found: char,
        /// Its place in characters, from 1.
        at: usize,
    },
    /// A quoted value without its end.
    #[error("unterminated quoted value starting at pos {at}")]
    Unterminated {
        /// The place of the opening quote in characters, from 1.
        at: usize,
    },
    /// A backslash followed by something that cannot be escaped.
    #[error("invalid escape at pos {at}")]
    Escape {
        /// The place of the backslash in characters, from 1.
        at: usize,
    },
    /// The same key again.
    #[error("tag {key} has been set twice")]
    Twice {
        /// The key.
        key: String,
    },
}

/// The pairs in `text`; a key without `=` has an empty value.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, String>, LogfmtError> {
    let mut scanner = Scanner { rest: text, at: 1 };
    let mut tags = BTreeMap::new();
    loop {
        scanner.take_while(char::is_whitespace);
        let Some(first) = scanner.peek() else { return Ok(tags) };
        if first == '=' || first == '"' {
            return Err(LogfmtError::Unexpected { found: first, at: scanner.at });
        }
        let key = scanner.take_while(is_bare).to_owned();
        let mut value = String::new();
        match scanner.peek() {
            Some('=') => {
                scanner.next();
                value = scanner.value()?;
            }
            Some(found) if !found.is_whitespace() => {
                return Err(LogfmtError::Unexpected { found, at: scanner.at });
            }
            _ => {}
        }
        if tags.contains_key(&key) {
            return Err(LogfmtError::Twice { key });
        }
        tags.insert(key, value);
    }
}

fn is_bare(c: char) -> bool {
    !c.is_whitespace() && c != '=' && c != '"'
}

struct Scanner<'a> {
    rest: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        self.at += 1;
        Some(next)
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.at += taken.chars().count();
        self.rest = rest;
        taken
    }

    fn value(&mut self) -> Result<String, LogfmtError> {
        if self.peek() != Some('"') {
            let value = self.take_while(is_bare).to_owned();
            return match self.peek() {
                Some(found) if !found.is_whitespace() => {
                    Err(LogfmtError::Unexpected { found, at: self.at })
                }
                _ => Ok(value),
            };
        }
        let opened = self.at;
        self.next();
        let mut value = String::new();
        loop {
            let at = self.at;
            match self.next() {
                None => return Err(LogfmtError::Unterminated { at: opened }),
                Some('"') => break,
                Some('\\') => value.push(self.escaped(at)?),
                Some(c) => value.push(c),
            }
        }
        match self.peek() {
            Some(found) if !found.is_whitespace() => {
                Err(LogfmtError::Unexpected { found, at: self.at })
            }
            _ => Ok(value),
        }
    }

    fn escaped(&mut self, at: usize) -> Result<char, LogfmtError> {
        match self.next() {
            Some(c @ ('"' | '\\' | '/' | '\'')) => Ok(c),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('u') => {
                let digits = self.rest.get(..4).ok_or(LogfmtError::Escape { at })?;
                let all_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
                let code = u32::from_str_radix(digits, 16).ok().filter(|_| all_hex);
                let c = code.and_then(char::from_u32).ok_or(LogfmtError::Escape { at })?;
                self.rest = self.rest.get(4..).unwrap_or("");
                self.at += 4;
                Ok(c)
            }
            _ => Err(LogfmtError::Escape { at }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().collect()
    }

    #[test]
    fn pairs_are_read() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(
            pairs(r#" service.name=api  http.url="/a b\"c\"" x.y/z=é "#),
            [pair("http.url", "/a b\"c\""), pair("service.name", "api"), pair("x.y/z", "é")]
        );
        assert_eq!(pairs("error flag="), [pair("error", ""), pair("flag", "")]);
        assert_eq!(pairs(r#"a="\u00e9\n\\""#), [pair("a", "é\n\\")]);
        assert_eq!(pairs(""), []);
    }

    #[test]
    fn bad_pairs_name_the_place() {
        for (text, message) in [
            ("=a", "unexpected '=' at pos 1"),
            ("a==b", "unexpected '=' at pos 3"),
            ("a=b=c", "unexpected '=' at pos 4"),
            (r#"a"b"#, "unexpected '\"' at pos 2"),
            (r#"é="b"#, "unterminated quoted value starting at pos 3"),
            (r#"a="b"c"#, "unexpected 'c' at pos 6"),
            (r#"a="\q""#, "invalid escape at pos 4"),
            (r#"a="\ud800""#, "invalid escape at pos 4"),
            ("a=1 a=2", "tag a has been set twice"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[a=\"\\\\ué \\n]{0,12}|.{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn quoted_values_survive(value in ".{0,20}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(parse(&format!("k=\"{quoted}\"")).unwrap()["k"].clone(), value);
        }
    }
}
