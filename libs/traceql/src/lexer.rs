//! Text to tokens. The one context-free trap of the language lies here: an attribute's name takes
//! every character up to white space or one of a few delimiters, operators included.

use std::sync::Arc;

use crate::error::Fail;
use crate::field::ends_name;
use crate::lexer::number::Number;
use crate::plan::Scope;

mod number;

/// A token with the place it starts at, in bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spanned {
    pub(crate) token: Token,
    pub(crate) start: usize,
}

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// A keyword or unknown word.
    Word(Arc<str>),
    /// A word with a scope and a colon.
    Scoped(Arc<str>),
    /// An attribute.
    Attribute { parent: bool, scope: Option<Scope>, name: Arc<str> },
    /// A number that may be too large for its type unless a minus stands before it.
    Int(u64),
    /// A double; finite.
    Float(f64),
    /// Nanoseconds, without sign like integers.
    Duration(u64),
    /// Text.
    String(Arc<str>),
    /// An operator or bracket.
    Symbol(&'static str),
    /// Something that is no token; only when reading leniently.
    Bad,
    /// The end of the text.
    End,
}

/// Longer ones first, so that the first that fits is the longest.
const SYMBOLS: [&str; 35] = [
    "!>>", "!<<", "&>>", "&<<", "!=", "!~", "!>", "!<", "=~", ">=", ">>", "<=", "<<", "&&", "&>",
    "&<", "&~", "||", "{", "}", "(", ")", ",", "=", ">", "<", "~", "!", "|", "+", "-", "*", "/",
    "%", "^",
];

/// Splits the text. The last token is always `End`.
///
/// A lenient reading turns what is no token into `Bad` and goes on.
pub(crate) fn tokenize(text: &str, lenient: bool) -> Result<Vec<Spanned>, Fail> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        let gap = lexer.skip_blank();
        let start = lexer.at;
        let token = match gap.and_then(|()| lexer.token()) {
            Ok(token) => token,
            Err(_) if lenient => {
                if lexer.at == start {
                    lexer.bump();
                }
                Token::Bad
            }
            Err(fail) => return Err(fail),
        };
        let ended = token == Token::End;
        tokens.push(Spanned { token, start });
        if ended {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    fn eat(&mut self, text: &str) -> bool {
        let eaten = self.rest().starts_with(text);
        if eaten {
            self.at += text.len();
        }
        eaten
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !accept(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// White space and comments.
    fn skip_blank(&mut self) -> Result<(), Fail> {
        loop {
            self.take_while(char::is_whitespace);
            let start = self.at;
            if self.eat("//") {
                self.take_while(|c| c != '\n');
            } else if self.eat("/*") {
                let Some(end) = self.rest().find("*/") else {
                    self.at = self.text.len();
                    return Err(Fail::new(start, "comment is not closed"));
                };
                self.at += end + 2;
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Result<Token, Fail> {
        let mut ahead = self.rest().chars();
        let Some(first) = ahead.next() else {
            return Ok(Token::End);
        };
        let second = ahead.next();
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        match first {
            '"' => self.string(),
            '`' => self.raw_string(),
            '.' if !digit(second) => {
                self.bump();
                self.attribute(false, None)
            }
            '.' | '0'..='9' => self.number(),
            c if c.is_ascii_alphabetic() || c == '_' => self.word(),
            other => match SYMBOLS.iter().find(|symbol| self.rest().starts_with(**symbol)) {
                Some(symbol) => {
                    self.at += symbol.len();
                    Ok(Token::Symbol(symbol))
                }
                None => Err(Fail::new(self.at, format!("unexpected character {other:?}"))),
            },
        }
    }

    fn number(&mut self) -> Result<Token, Fail> {
        let start = self.at;
        let (number, length) =
            number::scan(self.rest()).map_err(|message| Fail::new(start, message))?;
        self.at += length;
        if self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            self.take_while(|c| c.is_alphanumeric() || c == '_');
            let text = self.text.get(start..self.at).unwrap_or_default();
            return Err(Fail::new(start, format!("malformed number or duration: {text}")));
        }
        Ok(match number {
            Number::Int(value) => Token::Int(value),
            Number::Float(value) => Token::Float(value),
            Number::Duration(nanos) => Token::Duration(nanos),
        })
    }

    fn word(&mut self) -> Result<Token, Fail> {
        let start = self.at;
        let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let word = self.take_while(in_word);
        if self.peek() == Some('.') {
            if word == "parent" {
                self.bump();
                let scope = [Scope::Span, Scope::Resource].into_iter().find(|scope| {
                    let after = self.rest().strip_prefix(scope.as_str());
                    after.is_some_and(|after| after.starts_with('.'))
                });
                if let Some(scope) = scope {
                    self.at += scope.as_str().len() + 1;
                }
                return self.attribute(true, scope);
            }
            if let Some(scope) = Scope::from_word(word) {
                self.bump();
                return self.attribute(false, Some(scope));
            }
        }
        if self.rest().starts_with(':') {
            self.bump();
            self.take_while(in_word);
            return Ok(Token::Scoped(Arc::from(self.text.get(start..self.at).unwrap_or_default())));
        }
        Ok(Token::Word(Arc::from(word)))
    }

    /// After the dot: the name, with parts of it in quotes or not.
    fn attribute(&mut self, parent: bool, scope: Option<Scope>) -> Result<Token, Fail> {
        let start = self.at;
        let mut name = String::new();
        while let Some(character) = self.peek() {
            if ends_name(character) {
                break;
            }
            self.bump();
            if character == '"' {
                self.quoted_part(&mut name)?;
            } else {
                name.push(character);
            }
        }
        if name.is_empty() {
            return Err(Fail::new(start, "attribute has no name"));
        }
        Ok(Token::Attribute { parent, scope, name: Arc::from(name) })
    }

    fn quoted_part(&mut self, name: &mut String) -> Result<(), Fail> {
        let start = self.at - 1;
        loop {
            match self.bump() {
                Some('"') => return Ok(()),
                Some('\\') => match self.bump() {
                    Some(escaped @ ('"' | '\\')) => name.push(escaped),
                    _ => {
                        let message = "in a quoted attribute name only \\\" and \\\\ are escapes";
                        return Err(Fail::new(self.at, message));
                    }
                },
                Some(other) => name.push(other),
                None => return Err(Fail::new(start, "quoted attribute name is not closed")),
            }
        }
    }

    fn raw_string(&mut self) -> Result<Token, Fail> {
        let start = self.at;
        self.bump();
        let text = self.take_while(|c| c != '`');
        if self.bump().is_none() {
            return Err(Fail::new(start, "string is not closed"));
        }
        Ok(Token::String(Arc::from(text)))
    }

    fn string(&mut self) -> Result<Token, Fail> {
        let start = self.at;
        self.bump();
        // Bytes, because `\xHH` names one byte of possibly several of a character.
        let mut bytes = Vec::new();
        loop {
            let at = self.at;
            match self.bump() {
                Some('"') => break,
                Some('\\') => self.escape(at, &mut bytes)?,
                Some('\n') | None => {
                    return Err(Fail::new(start, "string is not closed"));
                }
                Some(other) => push_char(&mut bytes, other),
            }
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Token::String(Arc::from(text))),
            Err(_) => Err(Fail::new(start, "string is not valid UTF-8")),
        }
    }

    fn escape(&mut self, at: usize, bytes: &mut Vec<u8>) -> Result<(), Fail> {
        let simple = match self.bump() {
            Some('a') => 0x07,
            Some('b') => 0x08,
            Some('f') => 0x0c,
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('t') => b'\t',
            Some('v') => 0x0b,
            Some('\\') => b'\\',
            Some('"') => b'"',
            Some('x') => self.byte(at, 16, 2, 0)?,
            Some(digit @ '0'..='3') => self.byte(at, 8, 2, digit.to_digit(8).unwrap_or(0))?,
            Some(letter @ ('u' | 'U')) => {
                let code = self.digits(at, 16, if letter == 'u' { 4 } else { 8 }, 0)?;
                let character = char::from_u32(code)
                    .ok_or_else(|| Fail::new(at, "escape sequence is not a character"))?;
                push_char(bytes, character);
                return Ok(());
            }
            _ => {
                let hint = "unknown escape sequence in a string; write \\\\ for a backslash, \
                            or put the string in backquotes";
                return Err(Fail::new(at, hint));
            }
        };
        bytes.push(simple);
        Ok(())
    }

    fn byte(&mut self, at: usize, radix: u32, count: u32, first: u32) -> Result<u8, Fail> {
        let value = self.digits(at, radix, count, first)?;
        u8::try_from(value).map_err(|_| Fail::new(at, "escape sequence is over one byte"))
    }

    fn digits(&mut self, at: usize, radix: u32, count: u32, first: u32) -> Result<u32, Fail> {
        let mut value = first;
        for _ in 0..count {
            let digit = self.peek().and_then(|c| c.to_digit(radix));
            let Some(digit) = digit else {
                return Err(Fail::new(at, "escape sequence is too short"));
            };
            self.bump();
            value = value.wrapping_mul(radix) | digit;
        }
        Ok(value)
    }
}

fn push_char(bytes: &mut Vec<u8>, character: char) {
    let mut buffer = [0; 4];
    bytes.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
}

impl Token {
    /// How an error message calls the token.
    pub(crate) fn describe(&self) -> String {
        match self {
            Token::Word(word) | Token::Scoped(word) => format!("`{word}`"),
            Token::Attribute { name, .. } => format!("attribute `{name}`"),
            Token::Int(value) => format!("`{value}`"),
            Token::Float(value) => format!("`{value:?}`"),
            Token::Duration(_) => "a duration".to_owned(),
            Token::String(_) => "a string".to_owned(),
            Token::Symbol(symbol) => format!("`{symbol}`"),
            Token::Bad => "text that cannot be read".to_owned(),
            Token::End => "end of query".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token> {
        tokenize(text, false).unwrap().into_iter().map(|spanned| spanned.token).collect()
    }

    fn attribute(scope: Option<Scope>, name: &str) -> Token {
        Token::Attribute { parent: false, scope, name: Arc::from(name) }
    }

    #[test]
    fn names_run_to_a_delimiter() {
        assert_eq!(tokens(".a-b+c*d/e:f%g")[0], attribute(None, "a-b+c*d/e:f%g"));
        assert_eq!(tokens(".a=1").len(), 4);
        assert_eq!(tokens("span.\"a b\".c")[0], attribute(Some(Scope::Span), "a b.c"));
        assert_eq!(tokens(".h\"ell\"o_wo\"r\"ld")[0], attribute(None, "hello_world"));
        assert_eq!(tokens(".\"a\\\"b\\\\c\"")[0], attribute(None, "a\"b\\c"));
        assert_eq!(tokens("resource.🎉")[0], attribute(Some(Scope::Resource), "🎉"));
        assert_eq!(tokens(".status")[0], attribute(None, "status"));
        assert_eq!(tokens(".fo\\o.1bar")[0], attribute(None, "fo\\o.1bar"));
    }

    #[test]
    fn parent_scopes() {
        let parent =
            |scope, name: &str| Token::Attribute { parent: true, scope, name: Arc::from(name) };
        assert_eq!(tokens("parent.a")[0], parent(None, "a"));
        assert_eq!(tokens("parent.span.a")[0], parent(Some(Scope::Span), "a"));
        assert_eq!(tokens("parent.resource.a")[0], parent(Some(Scope::Resource), "a"));
        assert_eq!(tokens("parent.spanner")[0], parent(None, "spanner"));
    }

    #[test]
    fn words_symbols_and_comments() {
        assert_eq!(tokens("span:id")[0], Token::Scoped(Arc::from("span:id")));
        assert_eq!(tokens("a // b\n c /* d */ e").len(), 4);
        assert_eq!(
            tokens("!>> !> ! &>> && >= >"),
            ["!>>", "!>", "!", "&>>", "&&", ">=", ">"]
                .map(Token::Symbol)
                .into_iter()
                .chain([Token::End])
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn strings() {
        let string = |text: &str| Token::String(Arc::from(text));
        assert_eq!(tokens(r#""a\"\\\n\t\x41\101\u00e9\U0001F389""#)[0], string("a\"\\\n\tAAé🎉"));
        assert_eq!(tokens("`a\"\\d\nb`")[0], string("a\"\\d\nb"));
        assert_eq!(tokens(r#""\xc3\xa9""#)[0], string("é"));
    }

    #[test]
    fn what_is_no_token_is_refused_where_it_stands() {
        let fails = |text: &str| tokenize(text, false).unwrap_err().offset;
        assert_eq!(fails("  #"), 2);
        assert_eq!(fails("{ \"abc"), 2);
        assert_eq!(fails("\"a\nb\""), 0);
        assert_eq!(fails(r#""ab\d""#), 3);
        assert_eq!(fails(r#""\xff""#), 0);
        assert_eq!(fails("`ab"), 0);
        assert_eq!(fails("span. "), 5);
        assert_eq!(fails(".\"\""), 1);
        assert_eq!(fails(".a\"b"), 2);
        assert_eq!(fails(".\"a\\nb\""), 5);
        assert_eq!(fails("/* a"), 0);
        assert_eq!(fails(".1abc"), 0);
        assert_eq!(fails("1x"), 0);
    }

    #[test]
    fn lenient_reading_goes_on() {
        let read: Vec<Token> = tokenize("# .a = \"x", true)
            .unwrap()
            .into_iter()
            .map(|spanned| spanned.token)
            .collect();
        let expected =
            vec![Token::Bad, attribute(None, "a"), Token::Symbol("="), Token::Bad, Token::End];
        assert_eq!(read, expected);
    }
}
