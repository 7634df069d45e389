"""TraceQL filters and what they must find in `dataset`.

An expectation is the names of the traces found (one span each unless `name:count` says otherwise),
or a predicate over spans, which also fixes the spans that match.
"""

from dataset import (
    CLIENT, CONSUMER, DURATIONS, ERROR, INTERNAL, MS, ODD_NAMES, OK, PRODUCER, SECOND, SERVER,
    STRINGS, TRACES, UNSET, UNSPECIFIED, VALUES,
)


def everything(_span):
    return True


def nothing(_span):
    return False


def values(accept):
    """Traces `v-…` whose value is accepted."""
    return " ".join(f"v-{key}" for key, value in VALUES.items() if accept(value))


def strings(accept):
    return " ".join(f"s-{key}" for key, value in STRINGS.items() if accept(value))


def durations(accept):
    return " ".join(key for key, value in DURATIONS.items() if accept(value))


def numbers(accept):
    return " ".join(f"n-{n}" for n in range(6) if accept(n))


def service(name):
    return lambda span: span.service == name


def quoted(name):
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


ALL_STRINGS = strings(lambda s: True)
PRESENT = " ".join(f"v-{key}" for key in VALUES) + " v-both"

LEXICAL = [
    ("{}", everything),
    ("{ }", everything),
    ("  {  }  ", everything),
    ("{ true }", everything),
    ("{ false }", nothing),
    ("{\n\tspan.s\n=\n\"foo\"\n}", "s-foo"),
    ('{span.s="foo"}', "s-foo"),
    ("{ span.s = `foo` }", "s-foo"),
    ('{ span.s = "a\\"b" }', "s-quote"),
    ('{ span.s = `a"b` }', "s-quote"),
    ('{ span.s = "a\\\\b" }', "s-slash"),
    ("{ span.s = `a\\b` }", "s-slash"),
    ('{ span.s = "foo\\nbar" }', "s-lines"),
    ('{ span.s = "a\\tb" }', "s-tab"),
    ('{ span.s = "a`b" }', "s-tick"),
    ('{ span.s = "üñï" }', "s-umlaut"),
    ('{ span.s = "🚀" }', "s-rocket"),
    ('{ span.s = "\\u00fc\\u00f1\\u00ef" }', "s-umlaut"),
    ('{ span.s = "" }', "s-empty"),
    ("{ span.v = .5e1 }", values(lambda v: number(v) and v == 5) + " v-arrint v-arrmixed"),
    ("{ span.v = 5. }", values(lambda v: number(v) and v == 5) + " v-arrint v-arrmixed"),
    ("{ span.v > .5 && span.v < 5.6 }",
     "v-int5 v-float5 v-float5h v-arrint v-arrfloat v-arrmixed"),
    ("{ span.v = maxInt }", "v-max"),
    ("{ span.v = minInt }", "v-min"),
    ("{ span.v = 9223372036854775807 }", "v-max"),
    ("{ span.v = -9223372036854775808 }", "v-min"),
    ("{ span.v = 9007199254740993 }", "v-big"),
    ("{ span.v = 9007199254740992 }", nothing),
    ("{ duration = 1ns }", "d1ns"),
    ("{ duration = 1us }", "d1us"),
    ("{ duration = 1µs }", "d1us"),
    ("{ duration = 1000ns }", "d1us"),
    ("{ duration = 1.5s }", "d1.5s"),
    ("{ duration = 1s500ms }", "d1.5s"),
    ("{ duration = 1500ms }", "d1.5s"),
    ("{ duration = 1m }", "d1m"),
    ("{ duration = 1h30m }", "d1h30m"),
    ("{ duration = 1.5h }", "d1h30m"),
    ("{ duration = 1h15m900s }", "d1h30m"),
    ("{ duration = 2d }", "d2d"),
    ("{ duration = 48h }", "d2d"),
    ("{ duration < 1w && duration > 1d }", "d2d"),
    ("{ duration > 1y }", nothing),
    ("{ duration > 1h29m59.9s && duration < 1h30m0.1s }", "d1h30m"),
    ("{ duration = 60000000000 }", "d1m"),
    ("{ status = ok }", lambda s: s.status == OK),
    ("{ status = error }", lambda s: s.status == ERROR),
    ("{ status = unset }", lambda s: s.status == UNSET),
    ("{ kind = unspecified }", lambda s: s.kind == UNSPECIFIED),
    ("{ kind = internal }", lambda s: s.kind == INTERNAL),
    ("{ kind = server }", lambda s: s.kind == SERVER),
    ("{ kind = client }", lambda s: s.kind == CLIENT),
    ("{ kind = producer }", lambda s: s.kind == PRODUCER),
    ("{ kind = consumer }", lambda s: s.kind == CONSUMER),
    # Hints that mean nothing here are ignored.
    ('{ span.s = "foo" } with (most_recent=true)', "s-foo"),
    ('{ span.s = "foo" } with(most_recent=true, nonsense=1)', "s-foo"),
]

# Every odd name, quoted; and bare where the rules of 3.1 let it stand bare.
DELIMITERS = set('{}()=~!<>&|^,"\\')
NAMES = [(f"{{ span.{quoted(name)} = `is {name}` }}", "names") for name in ODD_NAMES]
NAMES += [
    (f"{{ span.{name} = `is {name}` }}", "names") for name in ODD_NAMES
    if not any(c in DELIMITERS or c.isspace() for c in name)
    and not name.startswith(("0", "."))
]
NAMES += [
    ('{ span."dotted".name = "is dotted.name" }', "names"),
    ('{ span.dotted."name" = "is dotted.name" }', "names"),
    ('{ .emoji🚀 = "is emoji🚀" }', "names"),
    ('{ ."a b" = "is a b" }', "names"),
    ('{ .status = "is status" }', "names"),
    ('{ .name = "is name" && name = "op" }', "names"),
    ('{ span.duration = "is duration" && duration < 1s }', "names"),
    ('{ span.with-minus = "is with-minus" }', "names"),
    ('{ span.nil != nil }', "names"),
]

INTRINSICS = [
    ('{ name = "charge" }', "cart"),
    ('{ span:name = "charge" }', "cart"),
    ('{ name != "op" && resource.service.name = "shop" }', service("shop")),
    ('{ name =~ "POST.*" }', "cart"),
    ("{ duration > 2d }", nothing),
    ("{ span:duration >= 2d }", "d2d"),
    ("{ span:status = error }", lambda s: s.status == ERROR),
    ("{ status != unset }", lambda s: s.status != UNSET),
    ("{ status != error && status != unset }", lambda s: s.status == OK),
    ('{ statusMessage = "card refused" }', "cart"),
    ('{ span:statusMessage = "no funds" }', "cart"),
    ('{ statusMessage =~ ".*refused|no funds" }', "cart:2"),
    ("{ span:kind = server }", lambda s: s.kind == SERVER),
    ("{ kind != internal }", lambda s: s.kind != INTERNAL),
    ("{ (kind = producer || kind = consumer) && status = unset }", "batch:2"),
    ("{ span:id = \"%s\" }" % TRACES["cart"].spans[1].id, "cart"),
    ("{ span:parentID = \"%s\" }" % TRACES["cart"].spans[0].id, "cart"),
    # 3.9.4: as 16 digits, shorter ones padded.
    ('{ span:id = "00000000000000ff" }', "idzero"),
    ('{ span:id = "ff" }', "idzero"),
    ('{ span:id = "ab00000000cd00" }', "idzero"),
    ('{ span:id = "00ab00000000cd00" }', "idzero"),
    ('{ span:parentID = "00000000000000ff" }', "idzero"),
    ('{ span:parentID = "ff" }', "idzero"),
    ('{ span:id = "ab00000000cd" }', nothing),
    ("{ span:id =~ \"%s.*\" }" % TRACES["cart"].spans[1].id[:8], "cart"),
    ("{ span:childCount = 4 }", "fan"),
    ("{ span:childCount > 1 }", lambda s: len(s.children) > 1),
    ("{ span:childCount = 1 && resource.service.name = \"shop\" }", "cart:2 browse"),
    ("{ trace:duration = 2d }", "d2d"),
    ("{ traceDuration > 1h && traceDuration < 1d }", "d1h30m"),
    ("{ trace:duration = 3s && resource.service.name = \"batch\" }", service("batch")),
    ("{ trace:duration = 200ms }", "early:2"),
    ('{ rootName = "GET /cart" }', "cart:3"),
    ('{ trace:rootName = "nightly" }', "batch:3"),
    ('{ rootServiceName = "shop" }', "cart:3 browse:2"),
    ('{ trace:rootService = "shop" && resource.service.name = "pay" }', "cart"),
    ('{ trace:rootService = "shop" && resource.service.name != "shop" }', "cart"),
    ('{ rootServiceName =~ "sh.p|batch" && kind = consumer }', "batch"),
    ("{ trace:id = \"%s\" }" % TRACES["cart"].id, "cart:3"),
    ('{ trace:id = "00000000000000000000000000000abc" }', "idzero:2"),
    ('{ trace:id = "abc" }', "idzero:2"),
    ('{ trace:id = "0abc" }', "idzero:2"),
    ('{ trace:id != "abc" && resource.service.name = "tree" && name = "z1" }', nothing),
    ("{ trace:id = \"%s\" || trace:id = \"abc\" }" % TRACES["fan"].id, "fan:5 idzero:2"),
    ('{ event:name = "exception" }', "evexc"),
    ('{ event:name = "one" }', "ev1 ev2"),
    ('{ event:name =~ "o.e|two" }', "ev1 ev2"),
    ("{ event:timeSinceStart > 100ms }", "ev1"),
    ("{ event:timeSinceStart = 20ms }", "ev2"),
    ("{ event:timeSinceStart < 15ms && event:timeSinceStart > 5ms }", "ev2"),
    ('{ event:name = "one" && event:timeSinceStart < 15ms }', "ev2"),
    ("{ link:traceID = \"%s\" }" % TRACES["cart"].id, "ln1 ln2"),
    ("{ link:spanID = \"%s\" }" % TRACES["cart"].spans[1].id, "ln1"),
    ("{ link:traceID = \"%s\" && link:spanID = \"%s\" }"
     % (TRACES["cart"].id, TRACES["browse"].spans[0].id), nothing),
    ("{ link:traceID = \"%s\" && link:spanID = \"%s\" }"
     % (TRACES["browse"].id, TRACES["browse"].spans[0].id), "ln2"),
    ('{ instrumentation:name = "lib.http" }', lambda s: s.scope[0] == "lib.http"),
    ('{ instrumentation:version = "2.0.0" }', "cart"),
    ('{ instrumentation:name = "lib.http" && instrumentation:version != "1.2.3" }', "cart"),
    ('{ instrumentation:name =~ "lib[.].*" }', lambda s: s.scope[0].startswith("lib.")),
    ('{ instrumentation:name = "my lib" }', "scoped"),
    # Nested sets of a chain have only one form: 1 (2 (3 4) 5) 6.
    ('{ name = "c1" && nestedSetLeft = 1 && nestedSetRight = 6 && nestedSetParent = -1 }', "chain"),
    ('{ name = "c2" && nestedSetLeft = 2 && nestedSetRight = 5 && nestedSetParent = 1 }', "chain"),
    ('{ name = "c3" && nestedSetLeft = 3 && nestedSetRight = 4 && nestedSetParent = 2 }', "chain"),
    ('{ nestedSetParent < 0 && resource.service.name = "shop" }', "cart browse"),
    ('{ nestedSetParent = -1 && name = "f1" }', "fan"),
    ('{ nestedSetParent = 1 && name =~ "f1." }', "fan:4"),
    ('{ nestedSetLeft = 0 && nestedSetRight = 0 && nestedSetParent = 0 && name =~ "n[123]" }',
     "noroot:3"),
    ("{ nestedSetParent < 0 && kind = server }", "cart browse"),
    ("{ name != nil }", everything),
    ("{ duration != nil && nil != status }", everything),
    ('{ rootName = "z1" && span:id != "ff" }', "idzero"),
]

SCOPES = [
    ("{ span.v = 5 }", "v-int5 v-float5 v-arrint v-arrmixed"),
    ("{ resource.v = 5 }", "v-res"),
    ("{ .v = 5 }", "v-int5 v-float5 v-arrint v-arrmixed v-res"),
    ('{ .v = "span" }', "v-both"),
    # The span's value hides the resource's.
    ('{ .v = "res" }', nothing),
    ('{ resource.v = "res" }', "v-both"),
    ('{ .region = "eu" }', lambda s: (s.attrs.get("region") or s.resource.get("region")) == "eu"),
    ('{ resource.region = "eu" }', lambda s: s.resource.get("region") == "eu"),
    ('{ .region = "span-wins" }', "cart"),
    ('{ .region = "us" || .region = "span-wins" }', "cart:2"),
    ('{ .service.name = "pay" }', "cart"),
    ('{ resource.service.name = "pay" }', "cart"),
    ('{ span.service.name = "pay" }', nothing),
    ("{ resource.replicas = 3 }", service("shop")),
    ("{ resource.replicas >= 3.0 }", service("shop")),
    ("{ resource.canary }", "cart"),
    ("{ resource.canary = true }", "cart"),
    ('{ resource.deployment.environment = "prod" && span.http.status_code = 402 }', "cart:2"),
    ('{ event.type = "x" }', "ev1 ev2"),
    ("{ event.code = 2 }", "ev1 ev2"),
    ('{ event.exception.type = "ValueError" }', "evexc"),
    ('{ event.exception.message =~ "card .*" }', "evexc"),
    ("{ event.exception.escaped }", "evexc"),
    ("{ event.exception.escaped = true }", "evexc"),
    ("{ event.tries = 2 }", "evexc"),
    ("{ event.tries != 2 }", nothing),
    ("{ event.tries != 4 }", "evexc"),
    ("{ event.share < 1 }", "evexc"),
    ("{ event.on }", "evflag"),
    ("{ event.on = false }", "evflag"),
    # Same event for every condition of a conjunction.
    ('{ event.type = "x" && event.code = 1 }', "ev2"),
    ('{ event.type = "x" && event.code = 2 }', "ev1"),
    ('{ event.type = "y" && event.code = 1 }', nothing),
    ('{ event:name = "two" && event.code = 2 }', "ev2"),
    ('{ event:name = "two" && event.type = "x" }', nothing),
    ('{ event.type = "x" || event.type = "y" }', "ev1 ev2"),
    ('{ event.type != "x" }', "ev2"),
    ('{ event.code > 1 && event:timeSinceStart > 100ms }', "ev1"),
    ('{ link.why = "cause" }', "ln1 ln2"),
    ('{ link.why = "follows" }', "ln2"),
    ('{ link.why = "cause" && link.n = 1 }', "ln1"),
    ('{ link.why = "cause" && link.n = 2 }', "ln2"),
    ('{ link.why = "follows" && link.n = 2 }', nothing),
    ("{ link.n >= 2 }", "ln2 evln"),
    ("{ event.code = 7 && link.n = 7 }", "evln"),
    ('{ instrumentation.lang = "py" }', lambda s: s.scope[2].get("lang") == "py"),
    ("{ instrumentation.level = 2 }", lambda s: s.scope[2].get("level") == 2),
    ('{ instrumentation.lang != "py" }', "cart"),
    ("{ instrumentation.flag }", "scoped"),
    ("{ instrumentation.ratio > 2 }", "scoped"),
    ('{ instrumentation.tags = "q" }', "scoped"),
    ('{ span.type = "x" }', nothing),
    ('{ resource.why = "cause" }', nothing),
    ("{ span.key.42 = 42 }", "many"),
    ("{ span.key.99 = 99 && span.key.0 = 0 }", "many"),
    ("{ span.key.100 = 100 }", nothing),
    ("{ span.after = 1 }", "nested"),
]

NIL = [
    ("{ span.v != nil }", PRESENT),
    ("{ nil != span.v }", PRESENT),
    ('{ span.v = nil && resource.service.name = "values" }', "v-none v-res"),
    ('{ nil = span.v && resource.service.name = "values" }', "v-none v-res"),
    ('{ .v = nil && resource.service.name = "values" }', "v-none"),
    ("{ .v != nil }", PRESENT + " v-res"),
    ("{ resource.v != nil }", "v-res v-both"),
    ("{ span.absent != nil }", nothing),
    ("{ span.absent = nil }", everything),
    ("{ nil = nil }", nothing),
    ("{ nil != nil }", nothing),
    ("{ resource.service.name != nil && resource.region = \"eu\" }",
     lambda s: s.service is not None and s.resource.get("region") == "eu"),
    ('{ resource.region = nil && resource.service.name =~ "batch|odd" }',
     lambda s: s.service in ("batch", "odd")),
    # True for a span with an event that lacks it; a span without events has none to lack it.
    ("{ event.type = nil }", "evbare evexc evln evflag"),
    ("{ event.code = nil }", "evbare evexc evflag"),
    ("{ event.type != nil }", "ev1 ev2"),
    ("{ link.why = nil }", "lnbare evln"),
    ("{ link.why != nil }", "ln1 ln2"),
    ("{ instrumentation.level != nil }", lambda s: "level" in s.scope[2]),
    ('{ instrumentation.level = nil && instrumentation:name = "lib.http" }', "cart"),
    # An absent attribute makes every comparison false.
    ('{ span.absent != "x" }', nothing),
    ('{ span.absent !~ "x" }', nothing),
    ("{ span.absent != 1 }", nothing),
    ("{ span.absent > 1 || span.absent <= 1 }", nothing),
    ("{ span.absent }", nothing),
    ("{ span.absent = span.other }", nothing),
    ("{ span.absent != span.other }", nothing),
    ('{ span.http.method != "POST" }', "cart browse"),
    ('{ span.http.method !~ "P.*" }', "cart browse"),
    ('{ !(span.http.method = "GET") && resource.service.name = "shop" }', "cart browse"),
]

COMPARISONS = [
    # 3.9.2: int, float and duration compare by value.
    ("{ span.v = 5.0 }", "v-int5 v-float5 v-arrint v-arrmixed"),
    ("{ span.v = 5.5 }", "v-float5h v-arrfloat"),
    ("{ span.v > 4.5 && span.v < 5.2 }", "v-int5 v-float5 v-arrint v-arrmixed v-arrfloat"),
    ("{ span.v >= 10 }", "v-int10 v-big v-max"),
    ("{ span.v > 10 }", "v-big v-max"),
    ("{ span.v <= -7 }", "v-neg v-min"),
    ("{ span.v < 0 }", "v-neg v-min"),
    ("{ span.v = 0 }", "v-zero"),
    ("{ span.v = -0.0 }", "v-zero"),
    ("{ span.v = 5ns }", "v-int5 v-float5 v-arrint v-arrmixed"),
    ("{ span.v > 6ns && span.v < 20ns }", "v-int10 v-arrint"),
    ("{ span.http.status_code = 402.0 }", "cart:2"),
    ("{ span.http.status_code > 401.5 }", "cart:3"),
    ("{ span.http.status_code >= 200 && span.http.status_code < 300 }", "browse"),
    ("{ duration = 1500000000 }", "d1.5s"),
    ("{ duration > 1.4e9 && duration < 1.6e9 }", "d1.5s"),
    ("{ span.v > 9.2e18 }", "v-max"),
    ("{ span.v < -9.2e18 }", "v-min"),
    # 3.9.1: a literal on the left.
    ("{ 1h < duration }", "d1h30m d2d"),
    ("{ 400 < span.http.status_code }", "cart:3"),
    ("{ 402 >= span.http.status_code }", "cart:2 browse"),
    ("{ 5 = span.v }", "v-int5 v-float5 v-arrint v-arrmixed"),
    ('{ "hello" = span.v }', "v-hello"),
    ('{ "charge" = name }', "cart"),
    ("{ error = status }", lambda s: s.status == ERROR),
    # Types that do not compare: false, no error.
    ('{ span.v = "5" }', "v-str5"),
    ('{ span.v != "5" }', "v-hello v-both v-arrstr v-arrmixed v-arrone"),
    ("{ span.v = true }", "v-yes v-arrbool"),
    ("{ span.v != true }", "v-no"),
    ("{ span.v = false }", "v-no v-arrbool"),
    ("{ span.v }", "v-yes"),
    ("{ span.v != 5 }", values(lambda v: number(v) and v != 5) + " v-arrfloat"),
    ('{ span.v > "a" }', "v-hello v-both v-arrstr"),
    ('{ span.v >= "a" }', "v-hello v-both v-arrstr v-arrmixed v-arrone"),
    ('{ span.v < "a" }', "v-str5"),
    ('{ span.v = "hello" || span.v = 10 }', "v-hello v-int10"),
    # Arrays: some element for everything but != and !~, which need every one.
    ('{ span.v = "a" }', "v-arrstr v-arrmixed v-arrone"),
    ('{ span.v = "b" }', "v-arrstr"),
    ('{ span.v != "a" && span.v != "hello" && span.v != "span" }', "v-str5"),
    ('{ span.v !~ "a|hello|span" }', "v-str5"),
    ('{ span.v =~ "[ab]" }', "v-arrstr v-arrmixed v-arrone"),
    ('{ span.v =~ "b|hello" }', "v-arrstr v-hello"),
    ("{ span.v = 9 }", "v-arrint"),
    ("{ 9 = span.v }", "v-arrint"),
    ("{ span.v != 9 && span.v < 2 && span.v > 0 }", "v-arrfloat"),
    ("{ span.v > 8 && span.v < 10 }", "v-arrint"),
    ("{ 8 < span.v && 10 > span.v }", "v-arrint"),
    ("{ 9 != span.v && 1 = span.v }", nothing),
    # 3.9.5: judged per value.
    ('{ span.v !~ "z.*" }', "v-str5 v-hello v-both v-arrstr v-arrmixed v-arrone"),
    # Field against field.
    ("{ span.half < span.n }", "n-1 n-2 n-3 n-4 n-5"),
    ("{ span.half = span.n }", "n-0"),
    ("{ span.n != span.neg }", numbers(lambda n: n != 0)),
    ('{ span.v = resource.v }', nothing),
    ('{ span.v != resource.v }', "v-both"),
    ('{ resource.region != span.region }', "cart"),
    # Text: bytewise, and regular expressions anchored at both ends.
    ('{ span.s = "foo" }', "s-foo"),
    ('{ span.s != "foo" }', strings(lambda s: s != "foo")),
    ('{ span.s = "FOO" }', nothing),
    ('{ span.s < "Z" }', strings(lambda s: s.encode() < b"Z")),
    ('{ span.s <= "foo" }', strings(lambda s: s.encode() <= b"foo")),
    ('{ span.s > "zz" }', strings(lambda s: s.encode() > b"zz")),
    ('{ span.s >= "🚀" }', "s-rocket"),
    ('{ span.s =~ "foo" }', "s-foo"),
    ('{ span.s =~ "fo" }', nothing),
    ('{ span.s =~ "foo.*" }', "s-foo s-foobar s-lines"),
    ('{ span.s =~ "foo.bar" }', "s-lines"),
    ('{ span.s =~ "o|foo" }', "s-foo"),
    ('{ span.s =~ "(?i)foo" }', "s-foo s-Foo"),
    ('{ span.s =~ "[Ff]oo" }', "s-foo s-Foo"),
    ('{ span.s =~ "^foo$" }', "s-foo"),
    ('{ span.s =~ "" }', "s-empty"),
    ('{ span.s =~ ".*" }', ALL_STRINGS),
    ('{ span.s =~ ".+" }', strings(lambda s: s != "")),
    ('{ span.s !~ ".+" }', "s-empty"),
    ('{ span.s !~ "foo.*" }', strings(lambda s: not s.startswith("foo"))),
    ('{ span.s =~ "a.b" }', "s-quote s-slash s-tick s-tab s-dots"),
    ('{ span.s =~ "a\\\\.b" }', "s-dots"),
    ("{ span.s =~ `a\\.b` }", "s-dots"),
    ("{ span.s =~ `\\d{3}` }", "s-digits"),
    ("{ span.s =~ `\\pL{3}` }", "s-foo s-Foo s-umlaut s-zed"),
    ("{ span.s = 500 }", nothing),
    ('{ span.s =~ "." }', "s-rocket"),
    ('{ span.n =~ "1" }', nothing),
]

OPERATORS = [
    ("{ span.n + 1 = 3 }", "n-2"),
    ("{ span.n - 1 = 3 }", "n-4"),
    ("{ span.n * 2 = 4 }", "n-2"),
    ("{ span.n / 2 = 2 }", "n-4 n-5"),
    ("{ span.n / 2.0 = 2.5 }", "n-5"),
    ("{ span.n % 2 = 1 }", "n-1 n-3 n-5"),
    ("{ span.n + span.n = 4 }", "n-2"),
    ("{ span.half * 2 = span.n }", numbers(lambda n: True)),
    ("{ span.n + span.neg = 0 }", numbers(lambda n: True)),
    ("{ span.n ^ 2 = 9 }", "n-3"),
    ("{ 2 ^ span.n = 8 }", "n-3"),
    ("{ 2 ^ 3 = 8 && 2.0 ^ 0.5 > 1.41 }", everything),
    ("{ -2 ^ 2 = -4 }", everything),
    ("{ maxInt ^ 2 = maxInt && minInt - 1 = minInt && maxInt * 2 = maxInt }", everything),
    ("{ span.n + maxInt = maxInt }", numbers(lambda n: True)),
    ("{ -span.n = span.neg }", numbers(lambda n: True)),
    ("{ -span.n = -3 }", "n-3"),
    ("{ -(span.n + 1) = -3 }", "n-2"),
    ("{ 2 * span.n + 1 = 7 }", "n-3"),
    ("{ 2 * (span.n + 1) = 8 }", "n-3"),
    ("{ 10 - span.n - 1 = 6 }", "n-3"),
    ("{ 12 / span.half = 12 && span.half = 1 }", "n-2"),
    ("{ span.half / 0 > 1 }", nothing),
    ("{ span.n * 1.5 > 5 }", "n-4 n-5"),
    ("{ span.absent + 1 = 1 }", nothing),
    ("{ span.absent + 1 != 7 }", nothing),
    ("{ span.s + 1 = 2 }", nothing),
    ("{ duration * 2 = 3s }", "d1.5s"),
    ("{ duration + 500ms = 2s }", "d1.5s"),
    ("{ duration - 1m = 0s && duration > 1s }", "d1m"),
    ("{ duration / 2 = 750ms }", "d1.5s"),
    ("{ duration > 1h + 1h }", "d2d"),
    ("{ 1 + 1 = 2 }", everything),
    ("{ 2 * 3 + 4 = 10 }", everything),
    ("{ 2 + 3 * 4 = 14 }", everything),
    ("{ (2 + 3) * 4 = 20 }", everything),
    ("{ 7 % 4 = 3 && 7 / 2 = 3 }", everything),
    ("{ 1 > 2 }", nothing),
    ("{ 1 = 1.0 && 1s = 1000ms && 1ns = 1 }", everything),
    ('{ "a" < "b" }', everything),
    ("{ maxInt + 1 = maxInt }", everything),
    ("{ true && false }", nothing),
    ("{ true || false }", everything),
    ("{ !false }", everything),
    ("{ !true }", nothing),
    ("{ !!true }", everything),
    ("{ ! ! span.v }", "v-yes"),
    ("{ 1 = 2 || span.v = 10 }", "v-int10"),
    ("{ 1 = 1 && span.v = 10 }", "v-int10"),
    ('{ !(span.s = "foo") && span.s =~ "foo.*" }', "s-foobar s-lines"),
    ('{ !(span.s =~ "foo.*") && span.s != nil }', strings(lambda s: not s.startswith("foo"))),
    ('{ span.s = "foo" && span.s = "foobar" }', nothing),
    ('{ span.s = "foo" || span.s = "foobar" }', "s-foo s-foobar"),
    ('{ span.s = "foo" || span.s = "foobar" || span.s = "Foo" }', "s-foo s-foobar s-Foo"),
    ('{ (span.s = "foo" || span.s = "zzz") && duration > 0s }', "s-foo s-zed"),
    ('{ (resource.service.name = "shop" && status = error) || span.v = 10 }', "cart v-int10"),
    ('{ resource.service.name = "shop" && (status = error || kind = server) }', "cart:2 browse"),
    ("{ ((((((span.v = 10)))))) }", "v-int10"),
    ("{ (duration > 1m) = true && duration != nil }", "d1h30m d2d"),
    ('{ status = error && kind = client && resource.service.name = "shop" && name = "charge" '
     '&& duration = 40ms && statusMessage =~ "card.*" && span.http.status_code = 402 }', "cart"),
    # && and || bind alike, from the left (3.4).
    ("{ true || true && false }", nothing),
    ("{ false && true || true }", everything),
    ("{ 1 + 1 = 2 && 2 = 4 / 2 }", everything),
    ("{ !(1 = 2) && true }", everything),
]

SHAPES = [
    ('{ resource.service.name = "tree" }', service("tree")),
    ('{ resource.service.name = "batch" }', service("batch")),
    ('{ name =~ "[ty][0-9]" }', "tworoots:3 cycle:2"),
    ('{ name = "x1" }', "selfish"),
    ('{ resource.service.name = "durations" }', durations(lambda d: True)),
    ("{ duration = 0s }", "d0"),
    ("{ duration > 1m && traceDuration > 1m }", "d1h30m d2d"),
    ('{ resource.service.name = "lists" && duration = 1s }', "ev1 ev2"),
    ("{ duration >= %dns && resource.service.name = \"shop\" }" % (40 * MS), "cart:2"),
    ("{ traceDuration >= %dns && kind = producer }" % (3 * SECOND), "batch"),
    ('{ name = "lonely" }', "noservice"),
    ('{ name = "mystery" }', "unspec"),
]

GROUPS = {
    "lexical": LEXICAL, "names": NAMES, "intrinsics": INTRINSICS, "scopes": SCOPES, "nil": NIL,
    "comparisons": COMPARISONS, "operators": OPERATORS, "shapes": SHAPES,
}
