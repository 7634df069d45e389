//! Expressions over one span: what stands between braces.

use super::{Level, Mode, Parsed, Parser, Tall, signed, word_literal};
use crate::ast::{ArithmeticOp, FieldExpr};
use crate::check;
use crate::error::Fail;
use crate::field::FieldRef;
use crate::lexer::Token;
use crate::value::{CompareOp, Static};

type Expr = Tall<FieldExpr>;

impl Parser {
    /// `{ expr }` or `{}`.
    pub(super) fn braced_filter(&mut self) -> Parsed<FieldExpr> {
        self.expect("{")?;
        if self.eat("}") {
            return Ok(FieldExpr::TRUE);
        }
        let offset = self.offset();
        let filter = self.field_expr()?.tree;
        self.check(offset, || check::filter(&filter))?;
        if self.mode == Mode::Lenient && *self.peek() == Token::End {
            return Ok(filter);
        }
        self.expect("}")?;
        Ok(filter)
    }

    /// A whole expression: terms joined by `&&` and `||`.
    pub(super) fn field_expr(&mut self) -> Parsed<Expr> {
        let start = self.offset();
        let mut left = self.term()?;
        let mut joined = false;
        while let Some(symbol @ ("&&" | "||")) = self.peek_symbol() {
            let offset = self.offset();
            self.advance();
            if !joined {
                self.check_term(start, &mut left)?;
                joined = true;
            }
            let right_start = self.offset();
            let mut right = self.term()?;
            self.check_term(right_start, &mut right)?;
            left = self.join(offset, symbol == "&&", left, right)?;
        }
        Ok(left)
    }

    /// A term of a conjunction or disjunction must be boolean.
    fn check_term(&self, offset: usize, term: &mut Expr) -> Parsed<()> {
        match self.check(offset, || check::term(&term.tree)) {
            Err(_) if self.mode == Mode::Lenient => {
                term.tree = FieldExpr::TRUE;
                Ok(())
            }
            verdict => verdict,
        }
    }

    fn join(&self, offset: usize, all: bool, left: Expr, right: Expr) -> Parsed<Expr> {
        // A chain of one operator stays flat, so that a list of any length is allowed.
        let flat = |tree: &FieldExpr| match tree {
            FieldExpr::And(_) => all,
            FieldExpr::Or(_) => !all,
            _ => false,
        };
        let under = |expr: &Expr| if flat(&expr.tree) { expr.height - 1 } else { expr.height };
        let height = under(&left).max(under(&right));
        let tree = match (left.tree, right.tree) {
            // Extended in place: rebuilding the list for every term would be quadratic.
            (FieldExpr::And(mut terms), right) if all => {
                match right {
                    FieldExpr::And(inner) => terms.extend(inner),
                    other => terms.push(other),
                }
                FieldExpr::And(terms)
            }
            (FieldExpr::Or(mut terms), right) if !all => {
                match right {
                    FieldExpr::Or(inner) => terms.extend(inner),
                    other => terms.push(other),
                }
                FieldExpr::Or(terms)
            }
            (left, right) if all => FieldExpr::and([left, right]),
            (left, right) => FieldExpr::or([left, right]),
        };
        self.grown(offset, tree, height)
    }

    /// One term. Read leniently, a term that is cut off or wrong is true.
    fn term(&mut self) -> Parsed<Expr> {
        if self.mode != Mode::Lenient {
            return self.operators(Level::Compare);
        }
        let (start, depth) = (self.at, self.depth);
        let term = self.operators(Level::Compare);
        self.depth = depth;
        let complete = matches!(self.peek(), Token::Symbol("&&" | "||" | ")" | "}") | Token::End);
        match term {
            Ok(term) if complete => Ok(term),
            _ => {
                self.at = start;
                self.skip_term();
                Ok(Tall { tree: FieldExpr::TRUE, height: 1 })
            }
        }
    }

    /// Goes to the end of a term that makes no sense.
    fn skip_term(&mut self) {
        let mut open = 0usize;
        loop {
            match self.peek() {
                Token::End | Token::Symbol("}") => return,
                Token::Symbol("&&" | "||") if open == 0 => return,
                Token::Symbol("(") => open += 1,
                Token::Symbol(")") if open > 0 => open -= 1,
                Token::Symbol(")") if self.depth > 0 => return,
                _ => {}
            }
            self.advance();
        }
    }

    /// Operators that bind at least as tightly as `least`.
    fn operators(&mut self, least: Level) -> Parsed<Expr> {
        let start = self.offset();
        let mut left = self.prefix()?;
        while let Some(symbol) = self.peek_symbol() {
            let Some(level) = Level::of(symbol).filter(|l| *l >= least && *l > Level::Logic) else {
                break;
            };
            let offset = self.offset();
            self.advance();
            left = if let "=~" | "!~" = symbol {
                self.matching(start, symbol == "!~", left)?
            } else if level == Level::Compare {
                self.comparison(offset, symbol, left)?
            } else {
                self.arithmetic(offset, level, symbol, left)?
            };
        }
        Ok(left)
    }

    fn matching(&mut self, start: usize, negated: bool, left: Expr) -> Parsed<Expr> {
        let pattern = self.pattern()?;
        self.check(start, || check::matching(&left.tree))?;
        let tree = FieldExpr::Match { negated, value: Box::new(left.tree), pattern };
        self.grown(start, tree, left.height)
    }

    fn comparison(&mut self, offset: usize, symbol: &str, left: Expr) -> Parsed<Expr> {
        let Some(op) = CompareOp::ALL.into_iter().find(|op| op.as_str() == symbol) else {
            let message = format!("operator `{symbol}` does not compare fields");
            return Err(Fail::new(offset, message));
        };
        let right = self.nested(|parser| parser.operators(Level::Compare.tighter()))?;
        self.check(offset, || check::comparison(op, &left.tree, &right.tree))?;
        let height = left.height.max(right.height);
        let (left, right) = (Box::new(left.tree), Box::new(right.tree));
        self.grown(offset, FieldExpr::Compare { op, left, right }, height)
    }

    fn arithmetic(
        &mut self,
        offset: usize,
        level: Level,
        symbol: &str,
        left: Expr,
    ) -> Parsed<Expr> {
        let Some(op) = ArithmeticOp::ALL.into_iter().find(|op| op.as_str() == symbol) else {
            return Err(Fail::new(offset, format!("unexpected `{symbol}`")));
        };
        let least = if level == Level::Power { level } else { level.tighter() };
        let right = self.nested(|parser| parser.operators(least))?;
        self.check(offset, || check::arithmetic(op, &left.tree, &right.tree))?;
        let height = left.height.max(right.height);
        let (left, right) = (Box::new(left.tree), Box::new(right.tree));
        self.grown(offset, FieldExpr::Arithmetic { op, left, right }, height)
    }

    fn prefix(&mut self) -> Parsed<Expr> {
        let offset = self.offset();
        match self.peek_symbol() {
            Some("!") => {
                self.advance();
                let inner = self.nested(|parser| parser.operators(Level::Product))?;
                self.check(offset, || check::not(&inner.tree))?;
                self.grown(offset, FieldExpr::Not(Box::new(inner.tree)), inner.height)
            }
            Some("-") => {
                self.advance();
                self.negative(offset)
            }
            Some("(") => {
                self.advance();
                let inner = self.nested(Parser::field_expr)?;
                if self.mode != Mode::Lenient || !self.is_cut_off() {
                    self.expect(")")?;
                }
                Ok(inner)
            }
            _ => self.primary(),
        }
    }

    /// Whether the text ends before open parentheses are closed.
    fn is_cut_off(&self) -> bool {
        matches!(self.peek(), Token::End | Token::Symbol("}"))
    }

    fn negative(&mut self, offset: usize) -> Parsed<Expr> {
        // The smallest integer has no positive counterpart that a token could become first.
        const SMALLEST: u64 = i64::MIN.unsigned_abs();
        let smallest = match self.peek() {
            Token::Int(SMALLEST) => Some(Static::Int(i64::MIN)),
            Token::Duration(SMALLEST) => Some(Static::Duration(i64::MIN)),
            _ => None,
        };
        if let Some(value) = smallest {
            self.advance();
            return Ok(Tall { tree: FieldExpr::Literal(value), height: 1 });
        }
        let inner = self.nested(|parser| parser.operators(Level::Product))?;
        self.check(offset, || check::negate(&inner.tree))?;
        self.grown(offset, inner.tree.negate(), inner.height)
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let offset = self.offset();
        if let Some(field) = self.field_token()? {
            self.advance();
            self.check(offset, || check::field(&field))?;
            return Ok(Tall { tree: FieldExpr::Field(field), height: 1 });
        }
        let value = match self.peek().clone() {
            Token::Int(value) => Static::Int(signed(value, false, offset)?),
            Token::Duration(value) => Static::Duration(signed(value, false, offset)?),
            Token::Float(value) => Static::Float(value),
            Token::String(text) => Static::String(text),
            Token::Word(word) => match word_literal(&word) {
                Some(value) => value,
                None => {
                    let message = format!(
                        "unknown identifier: {word}; attributes are written `.{word}`, \
                         `span.{word}` or `resource.{word}`"
                    );
                    return Err(self.fail(message));
                }
            },
            _ => return Err(self.unexpected("a field, a constant or `(`")),
        };
        self.advance();
        Ok(Tall { tree: FieldExpr::Literal(value), height: 1 })
    }

    /// `(expr)` as the argument of a function.
    pub(super) fn argument(&mut self) -> Parsed<FieldExpr> {
        self.expect("(")?;
        let expr = self.field_expr()?.tree;
        self.expect(")")?;
        Ok(expr)
    }

    /// Fields up to the closing parenthesis.
    pub(super) fn field_list(&mut self) -> Parsed<Vec<FieldRef>> {
        self.expect("(")?;
        let mut fields = vec![self.field_ref()?];
        while self.eat(",") {
            fields.push(self.field_ref()?);
        }
        self.expect(")")?;
        Ok(fields)
    }
}
