//! Text to tree: recursive descent with a bound on nesting, so that no query overflows the stack.
//!
//! Types are checked while the tree is built, because only here the place of an error is known.

use std::sync::Arc;

use crate::ast::{Body, FieldExpr, Hint, Query};
use crate::check;
use crate::error::{Fail, QueryError};
use crate::field::FieldRef;
use crate::lexer::{Spanned, Token, tokenize};
use crate::parser::pipeline::Node;
use crate::pattern::Pattern;
use crate::value::Static;

mod field;
mod metrics;
mod pipeline;

/// The longest query, in bytes.
pub const QUERY_BYTES_MAX: usize = 128 * 1024;
/// The deepest nesting of parentheses, signs and mixed operators.
pub const DEPTH_MAX: usize = 128;
/// The most regular expressions in a query: compiled, each may take a mebibyte.
pub const PATTERNS_MAX: usize = 64;

/// Parses and checks a query.
///
/// # Errors
/// The query is too long, malformed, ill-typed, or uses what is not supported yet; the error says
/// where and why.
pub fn parse(text: &str) -> Result<Query, QueryError> {
    run(text, Mode::Checked, Parser::query)
}

/// Parses a query without checking types, so that it may mean nothing.
///
/// # Errors
/// The query is too long or malformed, or holds an invalid regular expression.
pub fn parse_unchecked(text: &str) -> Result<Query, QueryError> {
    run(text, Mode::Unchecked, Parser::query)
}

/// Parses a single field, such as `resource.service.name` or `span:kind`.
///
/// # Errors
/// The text is not exactly one field.
pub fn parse_field(text: &str) -> Result<FieldRef, QueryError> {
    run(text, Mode::Checked, |parser| {
        let field = parser.field_ref()?;
        parser.expect_end()?;
        Ok(field)
    })
}

/// Parses one filter in braces, turning every term that cannot be read or does not type-check into
/// the literal true.
pub(crate) fn parse_lenient_filter(text: &str) -> Result<FieldExpr, QueryError> {
    run(text, Mode::Lenient, |parser| {
        let filter = parser.braced_filter()?;
        parser.expect_end()?;
        Ok(filter)
    })
}

fn run<T>(
    text: &str,
    mode: Mode,
    read: impl FnOnce(&mut Parser) -> Parsed<T>,
) -> Result<T, QueryError> {
    if text.len() > QUERY_BYTES_MAX {
        let message = format!("query is longer than {QUERY_BYTES_MAX} bytes: {}", text.len());
        return Err(QueryError { line: 1, col: 1, message });
    }
    let tokens = tokenize(text, mode == Mode::Lenient).map_err(|fail| fail.in_text(text))?;
    let mut parser = Parser { tokens, at: 0, depth: 0, patterns: 0, mode };
    read(&mut parser).map_err(|fail| fail.in_text(text))
}

type Parsed<T> = Result<T, Fail>;

/// How strictly to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Checked,
    Unchecked,
    Lenient,
}

struct Parser {
    tokens: Vec<Spanned>,
    at: usize,
    depth: usize,
    patterns: usize,
    mode: Mode,
}

/// A tree with its height, which bounds the recursion of everything that walks it.
struct Tall<T> {
    tree: T,
    height: usize,
}

/// How tightly operators bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// `&& ||`, equal by design of the language.
    Logic,
    /// Comparisons and structural operators.
    Compare,
    /// `+ -`
    Sum,
    /// `* / %`; a sign's operand starts here.
    Product,
    /// `^`, from right to left.
    Power,
    /// Nothing binds tighter.
    Tightest,
}

impl Level {
    fn tighter(self) -> Level {
        match self {
            Level::Logic => Level::Compare,
            Level::Compare => Level::Sum,
            Level::Sum => Level::Product,
            Level::Product => Level::Power,
            Level::Power | Level::Tightest => Level::Tightest,
        }
    }

    /// The level of an operator, for fields and spansets alike.
    fn of(symbol: &str) -> Option<Level> {
        match symbol {
            "&&" | "||" => Some(Level::Logic),
            "=" | "!=" | "<" | "<=" | ">" | ">=" | "=~" | "!~" | ">>" | "<<" | "~" | "!>>"
            | "!<<" | "!>" | "!<" | "&>>" | "&<<" | "&>" | "&<" | "&~" => Some(Level::Compare),
            "+" | "-" => Some(Level::Sum),
            "*" | "/" | "%" => Some(Level::Product),
            "^" => Some(Level::Power),
            _ => None,
        }
    }
}

impl Parser {
    fn query(&mut self) -> Parsed<Query> {
        if *self.peek() == Token::End {
            return Err(self.fail("query is empty"));
        }
        let start = self.offset();
        let body = match self.pipeline()?.tree {
            Node::Search(pipeline) => Body::Search(pipeline),
            Node::Spanset(spanset) => Body::Search(spanset.into_pipeline()),
            Node::ScalarFilter(filter) => Body::Search(pipeline::scalar_stage(filter)),
            Node::Metrics(metrics) => Body::Metrics(metrics),
            Node::Scalar(_) => {
                let message = "a number or aggregate alone is no query; compare it, as in \
                               `count() > 2`";
                return Err(Fail::new(start, message));
            }
        };
        let mut hints = Vec::new();
        while self.eat_word("with") {
            self.hints(&mut hints)?;
        }
        self.expect_end()?;
        Ok(Query { body, hints })
    }

    fn hints(&mut self, hints: &mut Vec<Hint>) -> Parsed<()> {
        self.expect("(")?;
        loop {
            let Token::Word(name) = self.peek().clone() else {
                return Err(self.unexpected("a hint's name"));
            };
            self.advance();
            self.expect("=")?;
            let value = self.literal()?;
            hints.push(Hint { name, value });
            if !self.eat(",") {
                return self.expect(")");
            }
        }
    }

    /// A constant with its sign.
    fn literal(&mut self) -> Parsed<Static> {
        let negative = self.eat("-");
        let offset = self.offset();
        let value = match self.peek().clone() {
            Token::Int(value) => Static::Int(signed(value, negative, offset)?),
            Token::Duration(value) => Static::Duration(signed(value, negative, offset)?),
            Token::Float(value) => Static::Float(if negative { -value } else { value }),
            _ if negative => return Err(self.unexpected("a number after `-`")),
            Token::String(text) => Static::String(text),
            Token::Word(word) => match word_literal(&word) {
                Some(value) => value,
                None => return Err(self.unexpected("a constant")),
            },
            _ => return Err(self.unexpected("a constant")),
        };
        self.advance();
        Ok(value)
    }

    /// A field and nothing else.
    fn field_ref(&mut self) -> Parsed<FieldRef> {
        let field = self.field_token()?;
        let Some(field) = field else {
            return Err(self.unexpected("an attribute or intrinsic"));
        };
        let offset = self.offset();
        self.advance();
        self.check(offset, || check::field(&field))?;
        Ok(field)
    }

    /// The field the next token names, if it names one; the token stays.
    fn field_token(&self) -> Parsed<Option<FieldRef>> {
        Ok(match self.peek() {
            Token::Attribute { parent, scope, name } => {
                Some(FieldRef::Attribute { parent: *parent, scope: *scope, name: Arc::clone(name) })
            }
            Token::Scoped(text) => match crate::plan::Intrinsic::from_scoped(text) {
                Some(intrinsic) => Some(FieldRef::Intrinsic { intrinsic, short: false }),
                None => return Err(self.fail(format!("unknown intrinsic: {text}"))),
            },
            Token::Word(word) if &**word == "parent" => Some(FieldRef::Parent),
            Token::Word(word) => crate::plan::Intrinsic::from_short(word)
                .map(|intrinsic| FieldRef::Intrinsic { intrinsic, short: true }),
            _ => None,
        })
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |spanned| &spanned.token)
    }

    fn peek_symbol(&self) -> Option<&'static str> {
        match self.peek() {
            Token::Symbol(symbol) => Some(symbol),
            _ => None,
        }
    }

    fn peek_word(&self) -> Option<&str> {
        match self.peek() {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    fn offset(&self) -> usize {
        let last = self.tokens.last().map_or(0, |spanned| spanned.start);
        self.tokens.get(self.at).map_or(last, |spanned| spanned.start)
    }

    fn advance(&mut self) {
        self.at += 1;
    }

    fn eat(&mut self, symbol: &str) -> bool {
        let eaten = self.peek_symbol() == Some(symbol);
        self.at += usize::from(eaten);
        eaten
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let eaten = self.peek_word() == Some(word);
        self.at += usize::from(eaten);
        eaten
    }

    fn expect(&mut self, symbol: &str) -> Parsed<()> {
        if self.eat(symbol) { Ok(()) } else { Err(self.unexpected(&format!("`{symbol}`"))) }
    }

    /// `()`
    fn expect_no_arguments(&mut self) -> Parsed<()> {
        self.expect("(")?;
        self.expect(")")
    }

    fn expect_end(&mut self) -> Parsed<()> {
        match self.peek() {
            Token::End => Ok(()),
            _ => Err(self.unexpected("end of query")),
        }
    }

    fn fail(&self, message: impl Into<String>) -> Fail {
        Fail::new(self.offset(), message)
    }

    fn unexpected(&self, wanted: &str) -> Fail {
        self.fail(format!("unexpected {}, expected {wanted}", self.peek().describe()))
    }

    /// Runs a check unless types are not to be checked.
    fn check(&self, offset: usize, check: impl FnOnce() -> Result<(), String>) -> Parsed<()> {
        if self.mode == Mode::Unchecked {
            return Ok(());
        }
        check().map_err(|message| Fail::new(offset, message))
    }

    /// Runs `read` one level deeper.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Parser) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEPTH_MAX {
            return Err(self.fail(format!("query is nested deeper than {DEPTH_MAX} levels")));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// A tree of these children; refused if it gets too high.
    fn grown<T>(&self, offset: usize, tree: T, child: usize) -> Parsed<Tall<T>> {
        let height = child + 1;
        if height > DEPTH_MAX {
            let message = format!("query is nested deeper than {DEPTH_MAX} levels");
            return Err(Fail::new(offset, message));
        }
        Ok(Tall { tree, height })
    }

    fn pattern(&mut self) -> Parsed<Pattern> {
        let Token::String(source) = self.peek().clone() else {
            return Err(self.unexpected("a string as regular expression"));
        };
        if self.patterns >= PATTERNS_MAX {
            return Err(self.fail(format!("more than {PATTERNS_MAX} regular expressions")));
        }
        let pattern = Pattern::new(&source).map_err(|error| self.fail(error.to_string()))?;
        self.patterns += 1;
        self.advance();
        Ok(pattern)
    }
}

/// An integer token with its sign: only under a minus it may be one larger than the largest.
fn signed(value: u64, negative: bool, offset: usize) -> Parsed<i64> {
    let wide = i128::from(value);
    i64::try_from(if negative { -wide } else { wide })
        .map_err(|_| Fail::new(offset, format!("integer is too large: {value}")))
}

/// The constant a word stands for.
fn word_literal(word: &str) -> Option<Static> {
    use crate::value::{Kind, Status};
    match word {
        "true" => Some(Static::Bool(true)),
        "false" => Some(Static::Bool(false)),
        "nil" => Some(Static::Nil),
        "minInt" => Some(Static::Int(i64::MIN)),
        "maxInt" => Some(Static::Int(i64::MAX)),
        _ => Status::from_word(word)
            .map(Static::Status)
            .or_else(|| Kind::from_word(word).map(Static::Kind)),
    }
}
