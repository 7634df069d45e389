//! What a client asks for, read from its parameters: every rule of the Tempo API, each broken one a
//! 400 that names the parameter.

use std::collections::BTreeMap;

use clew_model::{TraceId, UnixNanos};
use clew_proto::tempopb;
use clew_query::Prune;

use super::duration::parse_nanos;
use super::fault::Fault;
use super::logfmt;
use super::query_string::Parameters;
use crate::ask::{SearchAsk, TagNamesAsk, TagScope, TagValuesAsk, TimeRange};
use crate::config::QueryConfig;

/// Parameters of a search that are never taken for tags.
const RESERVED: [&str; 10] = [
    "q",
    "explain",
    "tags",
    "minDuration",
    "maxDuration",
    "limit",
    "spss",
    "start",
    "end",
    "since",
];

const SECOND: u64 = 1_000_000_000;

/// The trace id of a path segment.
pub(crate) fn trace_id(segment: &str) -> Result<TraceId, Fault> {
    TraceId::parse_padded(segment).map_err(|error| Fault::bad(error.to_string()))
}

/// The range of a request for a trace by id: a hint, so one bound alone is fine.
pub(crate) fn trace_range(parameters: &Parameters) -> Result<Option<TimeRange>, Fault> {
    let (start, end) = (seconds(parameters, "start")?, seconds(parameters, "end")?);
    if let (Some(start), Some(end)) = (start, end)
        && end <= start
    {
        return Err(Fault::bad(format!(
            "http parameter start must be before end. received start={start} end={end}"
        )));
    }
    Ok(match (start, end) {
        (None, None) => None,
        (start, end) => Some(TimeRange {
            start: UnixNanos::from_seconds(start.unwrap_or(0)),
            end: end_of(end.unwrap_or(u64::from(u32::MAX))),
        }),
    })
}

/// What of a trace by id is kept; nothing if no filter is given.
pub(crate) fn prune(parameters: &Parameters, limits: &QueryConfig) -> Result<Option<Prune>, Fault> {
    let Some(query) = expression(parameters, &["q"], limits)? else { return Ok(None) };
    if query.trim().is_empty() {
        return Ok(None);
    }
    // What a filter without the hierarchy means for ancestors is not read at all.
    let up = match truth(parameters, "keep_hierarchy")? {
        true => depth(parameters, "ancestor_depth", None)?,
        false => Some(0),
    };
    let down = depth(parameters, "match_depth", Some(0))?;
    Ok(Some(Prune::new(&query, up, down).map_err(|error| Fault::bad(error.to_string()))?))
}

/// Whether a search is to be explained.
pub(crate) fn explain(parameters: &Parameters) -> Result<bool, Fault> {
    truth(parameters, "explain")
}

/// A truth value in the spellings that Go's parser takes.
fn truth(parameters: &Parameters, name: &str) -> Result<bool, Fault> {
    match parameters.get(name) {
        None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some(text) => {
            let text = text.escape_debug();
            Err(Fault::bad(format!("invalid {name}: \"{text}\" is neither true nor false")))
        }
    }
}

/// A number of hops; -1 is any number.
fn depth(parameters: &Parameters, name: &str, default: Option<u32>) -> Result<Option<u32>, Fault> {
    match integer(parameters, name)? {
        None => Ok(default),
        Some(-1) => Ok(None),
        Some(hops) if hops < -1 => {
            Err(Fault::bad(format!("invalid {name}: must be at least -1, found {hops}")))
        }
        Some(hops) => Ok(Some(u32::try_from(hops).unwrap_or(u32::MAX))),
    }
}

/// A search.
pub(crate) fn search(
    parameters: &Parameters,
    limits: &QueryConfig,
    now: UnixNanos,
) -> Result<SearchAsk, Fault> {
    let query = expression(parameters, &["q", "query"], limits)?;
    let tags = search_tags(parameters, query.is_some())?;
    let min_duration_nanos = duration(parameters, "minDuration")?.unwrap_or(0);
    let max_duration_nanos = duration(parameters, "maxDuration")?.unwrap_or(0);
    if max_duration_nanos != 0 && max_duration_nanos < min_duration_nanos {
        return Err(Fault::bad("invalid maxDuration: must be greater than minDuration"));
    }
    let limit = match integer(parameters, "limit")? {
        None => limits.default_limit,
        Some(limit) if limit <= 0 => {
            return Err(Fault::bad("invalid limit: must be a positive number"));
        }
        Some(limit) => u32::try_from(limit).unwrap_or(u32::MAX),
    };
    if limits.limit_max != 0 && limit > limits.limit_max {
        let max = limits.limit_max;
        return Err(Fault::bad(format!("limit {limit} exceeds max limit {max}")));
    }
    let spans_per_spanset = match integer(parameters, "spss")? {
        None => limits.default_spans_per_spanset,
        Some(spss) => u32::try_from(spss)
            .map_err(|_| Fault::bad("invalid spss: must be a non-negative number"))?,
    };
    if limits.spans_per_spanset_max != 0 && spans_per_spanset > limits.spans_per_spanset_max {
        let max = limits.spans_per_spanset_max;
        return Err(Fault::bad(format!("spss {spans_per_spanset} exceeds max spss {max}")));
    }
    let range = match duration(parameters, "since")? {
        Some(since) => Some(TimeRange { start: UnixNanos(now.0.saturating_sub(since)), end: now }),
        None => time_range(parameters)?,
    };
    check_range(range, limits)?;
    let query = query.unwrap_or_default();
    Ok(SearchAsk {
        query,
        tags,
        min_duration_nanos,
        max_duration_nanos,
        range,
        limit,
        spans_per_spanset,
    })
}

fn check_range(range: Option<TimeRange>, limits: &QueryConfig) -> Result<(), Fault> {
    let Some(range) = range else { return Ok(()) };
    let longest = limits.search_range_max;
    let (start, end) = (range.start.as_seconds(), range.end.as_seconds());
    if !longest.0.is_zero() && end.saturating_sub(start) > longest.0.as_secs() {
        return Err(Fault::bad(format!(
            "range specified by start and end exceeds {longest}. received start={start} end={end}"
        )));
    }
    Ok(())
}

fn search_tags(
    parameters: &Parameters,
    has_query: bool,
) -> Result<BTreeMap<String, String>, Fault> {
    if let Some(text) = parameters.get("tags") {
        if has_query {
            return Err(Fault::bad("invalid request: can't specify tags and q in the same query"));
        }
        return logfmt::parse(text).map_err(|error| Fault::bad(format!("invalid tags: {error}")));
    }
    // Clients from before `tags` and `q` send every tag as a parameter of its own.
    if has_query || ["start", "end"].iter().any(|name| parameters.get(name).is_some()) {
        return Ok(BTreeMap::new());
    }
    let mut tags = BTreeMap::new();
    for (name, value) in parameters.iter() {
        if !RESERVED.contains(&name) && name != "query" && !name.is_empty() && !value.is_empty() {
            tags.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    Ok(tags)
}

/// A search that came as a message.
pub(crate) fn from_search(
    request: &tempopb::SearchRequest,
    limits: &QueryConfig,
    now: UnixNanos,
) -> Result<SearchAsk, Fault> {
    let parameters = Parameters::of([
        ("q", request.query.clone()),
        ("limit", unless_zero(request.limit, "")),
        ("spss", unless_zero(request.spans_per_span_set, "")),
        ("minDuration", unless_zero(request.min_duration_ms, "ms")),
        ("maxDuration", unless_zero(request.max_duration_ms, "ms")),
        ("start", unless_zero(request.start, "")),
        ("end", unless_zero(request.end, "")),
    ]);
    if !request.tags.is_empty() && !request.query.is_empty() {
        return Err(Fault::bad("invalid request: can't specify tags and q in the same query"));
    }
    let ask = search(&parameters, limits, now)?;
    Ok(SearchAsk { tags: request.tags.clone(), ..ask })
}

/// A request for names that came as a message.
pub(crate) fn from_tag_names(
    request: &tempopb::SearchTagsRequest,
    limits: &QueryConfig,
) -> Result<TagNamesAsk, Fault> {
    let parameters = Parameters::of([
        ("scope", request.scope.clone()),
        ("q", request.query.clone()),
        ("limit", unless_zero(request.max_tags_per_scope, "")),
        ("start", unless_zero(request.start, "")),
        ("end", unless_zero(request.end, "")),
    ]);
    tag_names(&parameters, limits)
}

/// A request for values that came as a message.
pub(crate) fn from_tag_values(
    request: &tempopb::SearchTagValuesRequest,
    limits: &QueryConfig,
) -> Result<TagValuesAsk, Fault> {
    let parameters = Parameters::of([
        ("q", request.query.clone()),
        ("limit", unless_zero(request.max_tag_values, "")),
        ("start", unless_zero(request.start, "")),
        ("end", unless_zero(request.end, "")),
    ]);
    tag_values(&parameters, request.tag_name.clone(), limits)
}

/// Zero is what a message says for "not given".
fn unless_zero(number: u32, unit: &str) -> String {
    if number == 0 { String::new() } else { format!("{number}{unit}") }
}

/// The names of a tag names request.
pub(crate) fn tag_names(
    parameters: &Parameters,
    limits: &QueryConfig,
) -> Result<TagNamesAsk, Fault> {
    let scope = match parameters.get("scope") {
        None => TagScope::All,
        Some(name) => TagScope::parse(name)
            .ok_or_else(|| Fault::bad(format!("invalid scope: {}", name.escape_debug())))?,
    };
    Ok(TagNamesAsk {
        scope,
        query: expression(parameters, &["q"], limits)?.unwrap_or_default(),
        range: time_range(parameters)?,
        limit: lenient(parameters, "limit"),
    })
}

/// The values of `tag`, a TraceQL attribute.
pub(crate) fn tag_values(
    parameters: &Parameters,
    tag: String,
    limits: &QueryConfig,
) -> Result<TagValuesAsk, Fault> {
    Ok(TagValuesAsk {
        tag,
        query: expression(parameters, &["q"], limits)?.unwrap_or_default(),
        range: time_range(parameters)?,
        limit: lenient(parameters, "limit"),
    })
}

/// The query of a request for series; empty if none is given.
pub(crate) fn metrics_query(
    parameters: &Parameters,
    limits: &QueryConfig,
) -> Result<String, Fault> {
    Ok(expression(parameters, &["q", "query"], limits)?.unwrap_or_default())
}

/// The query of a request for series that came as a message.
pub(crate) fn from_metrics(query: &str, limits: &QueryConfig) -> Result<String, Fault> {
    metrics_query(&Parameters::of([("q", query.to_owned())]), limits)
}

/// The first TraceQL text among `names` that is given.
fn expression(
    parameters: &Parameters,
    names: &[&str],
    limits: &QueryConfig,
) -> Result<Option<String>, Fault> {
    let Some(text) = names.iter().find_map(|name| parameters.get(name)) else { return Ok(None) };
    let longest = limits.expression_bytes_max;
    if text.len() > longest.as_usize() {
        let bytes = text.len();
        return Err(Fault::bad(format!(
            "TraceQL query is too long: {bytes} bytes, at most {longest}"
        )));
    }
    Ok(Some(text.to_owned()))
}

/// The range of `start` and `end`: both or none, and not backwards. Both 0 is none.
fn time_range(parameters: &Parameters) -> Result<Option<TimeRange>, Fault> {
    let start = seconds(parameters, "start")?.unwrap_or(0);
    let end = seconds(parameters, "end")?.unwrap_or(0);
    if start == 0 && end == 0 {
        return Ok(None);
    }
    if start == 0 || end == 0 {
        return Err(Fault::bad("please provide non-zero values for http parameters start and end"));
    }
    if end < start {
        return Err(Fault::bad(format!(
            "http parameter start must be before end. received start={start} end={end}"
        )));
    }
    Ok(Some(TimeRange { start: UnixNanos::from_seconds(start), end: end_of(end) }))
}

/// The last nanosecond of a second that a client names as the end: ranges are in whole seconds.
fn end_of(second: u64) -> UnixNanos {
    UnixNanos(second.saturating_mul(SECOND).saturating_add(SECOND - 1))
}

fn seconds(parameters: &Parameters, name: &str) -> Result<Option<u64>, Fault> {
    let Some(text) = parameters.get(name) else { return Ok(None) };
    let seconds: u32 = text.parse().map_err(|_| {
        let text = text.escape_debug();
        Fault::bad(format!("invalid {name}: \"{text}\" is no number of seconds since 1970"))
    })?;
    Ok(Some(u64::from(seconds)))
}

fn integer(parameters: &Parameters, name: &str) -> Result<Option<i64>, Fault> {
    let Some(text) = parameters.get(name) else { return Ok(None) };
    let number = text.parse().map_err(|_| {
        Fault::bad(format!("invalid {name}: \"{}\" is no integer", text.escape_debug()))
    })?;
    Ok(Some(number))
}

fn duration(parameters: &Parameters, name: &str) -> Result<Option<u64>, Fault> {
    let Some(text) = parameters.get(name) else { return Ok(None) };
    let nanos = parse_nanos(text).ok_or_else(|| {
        let text = text.escape_debug();
        Fault::bad(format!("invalid {name}: \"{text}\" is no duration, use a form like 1.5s"))
    })?;
    Ok(Some(nanos))
}

/// Tag requests read numbers leniently: bad text counts as no limit.
fn lenient(parameters: &Parameters, name: &str) -> u32 {
    parameters.get(name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixNanos = UnixNanos::from_seconds(1_000_000);

    fn ask(query: &str) -> Result<SearchAsk, Fault> {
        search(&Parameters::parse(query).unwrap(), &QueryConfig::default(), NOW)
    }

    #[test]
    fn searches_are_read() {
        let found = ask("q=%7B%7D&limit=7&spss=0&start=10&end=20&minDuration=1ms").unwrap();
        assert_eq!(found.query, "{}");
        assert_eq!((found.limit, found.spans_per_spanset), (7, 0));
        assert_eq!(found.min_duration_nanos, 1_000_000);
        let range = found.range.unwrap();
        assert_eq!((range.start.0, range.end.0), (10 * SECOND, 21 * SECOND - 1));
        let found = ask("").unwrap();
        assert_eq!((found.limit, found.spans_per_spanset, found.range), (20, 3, None));
        assert!(found.query.is_empty() && found.tags.is_empty());
        assert_eq!(ask("start=0&end=0").unwrap().range, None);
        assert!(ask("start=1&end=604801").is_ok());
        let since = ask("since=1h").unwrap().range.unwrap();
        assert_eq!((since.start.as_seconds(), since.end), (1_000_000 - 3_600, NOW));
    }

    #[test]
    fn tags_come_in_two_forms() {
        let tags = |query: &str| ask(query).unwrap().tags.into_iter().collect::<Vec<_>>();
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(tags("tags=a%3Db+c%3D%22d+e%22"), [pair("a", "b"), pair("c", "d e")]);
        assert_eq!(
            tags("service.name=api&limit=5&x=&minDuration=1s&y=1"),
            [pair("service.name", "api"), pair("y", "1")]
        );
        assert_eq!(tags("service.name=api&start=1&end=2"), []);
        assert_eq!(tags("service.name=api&q={}"), []);
    }

    #[test]
    fn every_broken_rule_of_a_search_is_a_400_that_names_it() {
        for (query, part) in [
            ("q={}&tags=a%3Db", "tags and q"),
            ("tags=a%3D1+a%3D2", "a has been set twice"),
            ("tags=%3D", "invalid tags"),
            ("minDuration=abc", "invalid minDuration"),
            ("minDuration=-1s", "invalid minDuration"),
            ("maxDuration=5", "invalid maxDuration"),
            ("minDuration=2s&maxDuration=1s", "invalid maxDuration"),
            ("limit=0", "invalid limit"),
            ("limit=-1", "invalid limit"),
            ("limit=many", "invalid limit"),
            ("limit=1.5", "invalid limit"),
            ("limit=262145", "limit 262145 exceeds max limit 262144"),
            ("limit=99999999999999999999", "invalid limit"),
            ("limit=9999999999", "exceeds max limit"),
            ("spss=-1", "invalid spss"),
            ("spss=x", "invalid spss"),
            ("spss=101", "spss 101 exceeds max spss 100"),
            ("start=1", "start and end"),
            ("end=1", "start and end"),
            ("start=2&end=1", "start=2 end=1"),
            ("start=-1&end=1", "invalid start"),
            ("start=1&end=4294967296", "invalid end"),
            ("start=1.5&end=3", "invalid start"),
            ("start=2025-01-01T00:00:00Z&end=3", "invalid start"),
            ("start=1&end=604802", "exceeds 7d"),
            ("since=8d", "exceeds 7d"),
            ("since=soon", "invalid since"),
        ] {
            let fault = ask(query).expect_err(query);
            assert_eq!(fault.status, 400, "{query}");
            assert!(fault.message.contains(part), "{query}: {}", fault.message);
        }
        let long = format!("q={}", "a".repeat((128 << 10) + 1));
        assert!(ask(&long).unwrap_err().message.contains("too long"));
    }

    #[test]
    fn a_filter_on_a_trace_is_read_with_its_hops() {
        let ask = |query: &str| {
            prune(&Parameters::parse(query).unwrap(), &QueryConfig::default()).map(|p| p.is_some())
        };
        assert_eq!(ask(""), Ok(false));
        assert_eq!(ask("q=+&keep_hierarchy=perhaps"), Ok(false));
        assert_eq!(ask("q={.a}&keep_hierarchy=T&ancestor_depth=-1&match_depth=2"), Ok(true));
        // Only read where the hierarchy is kept.
        assert_eq!(ask("q={.a}&ancestor_depth=-7"), Ok(true));
        for (query, part) in [
            ("q={.a}&keep_hierarchy=perhaps", "invalid keep_hierarchy"),
            ("q={.a}&keep_hierarchy=true&ancestor_depth=-2", "invalid ancestor_depth"),
            ("q={.a}&match_depth=-2", "invalid match_depth"),
            ("q={.a}&match_depth=x", "invalid match_depth"),
            ("q={.a=}", "parse error at line 1"),
            ("q={}|count()>1", "invalid q"),
            ("q={rootName=`a`}", "invalid q"),
        ] {
            let fault = ask(query).expect_err(query);
            assert_eq!(fault.status, 400, "{query}");
            assert!(fault.message.contains(part), "{query}: {}", fault.message);
        }
    }

    #[test]
    fn tag_requests_are_read() {
        let limits = QueryConfig::default();
        let ask = |query: &str| tag_names(&Parameters::parse(query).unwrap(), &limits);
        let found = ask("scope=span&limit=x&q=%7B&start=1&end=2").unwrap();
        assert_eq!((found.scope, found.limit, found.query.as_str()), (TagScope::Span, 0, "{"));
        assert_eq!(ask("scope=none").unwrap().scope, TagScope::All);
        for (query, part) in [
            ("scope=spam", "invalid scope: spam"),
            ("start=1", "start and end"),
            ("start=3&end=2", "start=3 end=2"),
            ("start=x&end=2", "invalid start"),
        ] {
            let fault = ask(query).expect_err(query);
            assert!(fault.message.contains(part), "{query}: {}", fault.message);
        }
        let values = tag_values(&Parameters::parse("limit=5").unwrap(), ".a".to_owned(), &limits);
        assert_eq!(values.unwrap().limit, 5);
    }

    #[test]
    fn a_trace_range_is_a_hint_that_must_not_be_empty() {
        let ask = |query: &str| trace_range(&Parameters::parse(query).unwrap());
        assert_eq!(ask("").unwrap(), None);
        assert_eq!(ask("start=5").unwrap().unwrap().start.as_seconds(), 5);
        assert_eq!(ask("end=5").unwrap().unwrap().start.as_seconds(), 0);
        assert!(ask("start=5&end=5").is_err());
        assert!(ask("start=5&end=4").is_err());
        assert!(ask("start=a").is_err());
        assert!(trace_id("xyz").unwrap_err().message.contains("position 1"));
        assert!(trace_id(&"1".repeat(33)).is_err());
        assert!(trace_id("ABC").is_ok());
    }
}
