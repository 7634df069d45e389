"""What pipelines of TraceQL must find in `dataset`: slow and simple, straight from the rules.

A query is built from `Filter`, `Both`, `Related`, `Steps`; each prints itself as TraceQL and judges a
whole trace by itself.
"""

import dataclasses


@dataclasses.dataclass
class Set:
    """Spans of one trace, in the order of their start and id, and what is said of them."""

    spans: list
    said: dict = dataclasses.field(default_factory=dict)


def ordered(trace, spans):
    kept = {span.id for span in spans}
    return [span for span in sorted(trace.spans, key=lambda s: (s.at, s.id)) if span.id in kept]


def parent_of(span):
    """The parent span, if it arrived."""
    found = [each for each in span.trace.spans if each.key == span.parent]
    return found[0] if found and found[0] is not span else None


def ancestors(span):
    """From the parent to the root; None for a span that no root leads to."""
    chain = []
    while span.parent:
        span = parent_of(span)
        if span is None or span in chain:
            return None
        chain.append(span)
    return chain


def related(relation, left, right):
    """Whether the right-side span is what the operator says of the left-side one."""
    above_left, above_right = ancestors(left), ancestors(right)
    if above_left is None or above_right is None:
        return False
    return {
        ">>": left in above_right,
        "<<": right in above_left,
        ">": above_right[:1] == [left],
        "<": above_left[:1] == [right],
        "~": left is not right and above_left[:1] == above_right[:1],
    }[relation]


@dataclasses.dataclass
class Filter:
    text: str
    accept: object

    def sets(self, trace, within):
        spans = [span for span in within.spans if self.accept(span)]
        return [Set(spans, dict(within.said))] if spans else []


@dataclasses.dataclass
class Binary:
    operator: str
    left: object
    right: object

    @property
    def text(self):
        return f"{self.left.text} {self.operator} {self.right.text}"

    def sets(self, trace, within):
        left = self.united(self.left, trace, within)
        right = self.united(self.right, trace, within)
        relation = self.operator.lstrip("!&")
        if self.operator == "&&":
            spans = left + right if left and right else []
        elif self.operator == "||":
            spans = left + right
        else:
            of_right = [r for r in right if any(related(relation, l, r) for l in left)]
            of_left = [l for l in left if any(related(relation, l, r) for r in right)]
            if self.operator.startswith("!"):
                spans = [r for r in right if r not in of_right]
            elif self.operator.startswith("&"):
                spans = of_left + of_right
            else:
                spans = of_right
        spans = ordered(trace, spans)
        return [Set(spans, dict(within.said))] if spans else []

    @staticmethod
    def united(side, trace, within):
        return [span for found in side.sets(trace, within) for span in found.spans]


@dataclasses.dataclass
class Steps:
    """Stages joined by `|`, in parentheses."""

    steps: list

    @property
    def text(self):
        return "(" + " | ".join(step.text for step in self.steps) + ")"

    def sets(self, trace, within):
        sets = [within]
        for step in self.steps:
            sets = step.all(trace, sets) if hasattr(step, "all") else [
                found for each in sets for found in step.sets(trace, each)]
        return sets


@dataclasses.dataclass
class By:
    field: str
    value: object

    @property
    def text(self):
        return f"by({self.field})"

    def sets(self, trace, within):
        groups = {}
        for span in within.spans:
            value = self.value(span)
            shown = "nil" if value is None else value
            said = {**within.said, self.text: shown}
            groups.setdefault((type(value), value), Set([], said)).spans.append(span)
        return list(groups.values())


class Coalesce:
    text = "coalesce()"

    def all(self, trace, sets):
        return [Set(ordered(trace, [span for each in sets for span in each.spans]))] if sets else []


@dataclasses.dataclass
class Select:
    fields: str

    @property
    def text(self):
        return f"select({self.fields})"

    def sets(self, trace, within):
        return [within]


@dataclasses.dataclass
class Scalar:
    """`aggregate operator literal`; `number` works the aggregate out from spans."""

    aggregate: str
    number: object
    operator: str
    literal: str
    bound: float

    @property
    def text(self):
        return f"{self.aggregate} {self.operator} {self.literal}"

    def sets(self, trace, within):
        value = self.number(within.spans)
        if value is None:
            return []
        holds = {
            ">": value > self.bound, ">=": value >= self.bound, "<": value < self.bound,
            "<=": value <= self.bound, "=": value == self.bound, "!=": value != self.bound,
        }[self.operator]
        return [Set(within.spans, {**within.said, self.aggregate: value})] if holds else []


def judge(query, trace):
    """The spansets that the query leaves of a whole trace."""
    return query.sets(trace, Set(ordered(trace, trace.spans)))
