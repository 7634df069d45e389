//! Laws of the two JSON forms.

use bytes::Bytes;
use clew_model::Trace;
use clew_model::otlp::{
    IdStyle, ScanLimits, any_value_to_json, json_to_protobuf, write_resource_spans_json,
    write_resource_spans_json_as,
};
use proptest::prelude::*;
use serde_json::Value as Json;

use crate::generate::{Span, otlp_json, protobuf, request, span, span_json, value_json};

fn printed(trace: &Trace, ids: IdStyle) -> String {
    let mut out = String::new();
    write_resource_spans_json_as(trace, ids, &mut out).unwrap();
    out
}

/// The same with every number as a double: 1 and 1.0 are one number in JSON.
fn with_doubles(json: &Json) -> Json {
    match json {
        Json::Number(number) => Json::from(number.as_f64().unwrap()),
        Json::Array(items) => items.iter().map(with_doubles).collect(),
        Json::Object(members) => {
            members.iter().map(|(key, value)| (key.clone(), with_doubles(value))).collect()
        }
        other => other.clone(),
    }
}

/// The same without empty keys and lists, which the search form prints and protobuf-JSON does not.
fn without_empties(json: &Json) -> Json {
    match json {
        Json::Array(items) => items.iter().map(without_empties).collect(),
        Json::Object(members) => members
            .iter()
            .filter(|(name, value)| match name.as_str() {
                "key" => **value != "",
                "values" => **value != Json::Array(Vec::new()),
                _ => true,
            })
            .map(|(name, value)| (name.clone(), without_empties(value)))
            .collect(),
        other => other.clone(),
    }
}

fn one_span(span: &Span) -> Trace {
    let request = [crate::generate::Resource {
        attributes: Vec::new(),
        dropped: 0,
        schema_url: String::new(),
        scopes: vec![crate::generate::Scope {
            name: String::new(),
            attributes: Vec::new(),
            schema_url: String::new(),
            spans: vec![span.clone()],
        }],
    }];
    Trace::decode(&Bytes::from(protobuf(&request))).unwrap().remove(0)
}

/// The same request as other senders write it: original names, numbers for numbers and enums, ids
/// in upper case, fields nobody knows, nulls for what is absent.
fn in_other_words(json: &Json) -> Json {
    match json {
        Json::Array(items) => items.iter().map(in_other_words).collect(),
        Json::Object(members) => {
            let mut out = serde_json::Map::new();
            out.insert("nobodyKnows".to_owned(), serde_json::json!([{ "a": [null, 1.5, "x"] }]));
            for (key, value) in members {
                let value = match (key.as_str(), value) {
                    ("traceId" | "spanId" | "parentSpanId", Json::String(hex)) => {
                        Json::from(hex.to_uppercase())
                    }
                    ("intValue", Json::String(digits)) => {
                        Json::from(digits.parse::<i64>().unwrap())
                    }
                    (key, Json::String(digits)) if key.ends_with("UnixNano") => {
                        Json::from(digits.parse::<u64>().unwrap())
                    }
                    ("kind", Json::String(name)) => Json::from(match name.as_str() {
                        "SPAN_KIND_INTERNAL" => 1,
                        "SPAN_KIND_SERVER" => 2,
                        "SPAN_KIND_CLIENT" => 3,
                        "SPAN_KIND_PRODUCER" => 4,
                        _ => 5,
                    }),
                    ("code", Json::String(name)) => {
                        Json::from(if name == "STATUS_CODE_OK" { 1 } else { 2 })
                    }
                    (_, value) => in_other_words(value),
                };
                out.insert(snake(key), value);
            }
            if !members.contains_key("traceState") && members.contains_key("traceId") {
                out.insert("traceState".to_owned(), Json::Null);
            }
            Json::Object(out)
        }
        other => other.clone(),
    }
}

fn snake(key: &str) -> String {
    let mut out = String::new();
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

proptest! {
    #[test]
    fn json_becomes_the_protobuf_of_the_same_request(request in request()) {
        let json = otlp_json(&request);
        let expected = protobuf(&request);
        let limits = ScanLimits::default();
        prop_assert_eq!(&json_to_protobuf(json.to_string().as_bytes(), &limits).unwrap(), &expected);
        let other = in_other_words(&json).to_string();
        prop_assert_eq!(json_to_protobuf(other.as_bytes(), &limits).unwrap(), expected);
    }

    #[test]
    fn a_span_is_printed_as_protobuf_json(span in span()) {
        let text = printed(&one_span(&span), IdStyle::Hex);
        let json: Json = serde_json::from_str(&text).unwrap();
        let found = &json[0]["scopeSpans"][0]["spans"][0];
        prop_assert_eq!(with_doubles(found), with_doubles(&span_json(&span)));
    }

    #[test]
    fn printing_and_reading_gives_the_same_trace(request in request()) {
        for trace in Trace::decode(&Bytes::from(protobuf(&request))).unwrap() {
            let text = format!("{{\"resourceSpans\":{}}}", printed(&trace, IdStyle::Hex));
            let bytes = json_to_protobuf(text.as_bytes(), &ScanLimits::default()).unwrap();
            let read = Trace::decode(&Bytes::from(bytes)).unwrap();
            prop_assert_eq!(Trace::merge(read), Trace::merge([trace]));
        }
    }

    #[test]
    fn id_styles_differ_only_in_ids(span in span()) {
        let trace = one_span(&span);
        let mut base64 = String::new();
        write_resource_spans_json(&trace, &mut base64).unwrap();
        let mut hex: Json = serde_json::from_str(&printed(&trace, IdStyle::Hex)).unwrap();
        let mut base64: Json = serde_json::from_str(&base64).unwrap();
        for json in [&mut hex, &mut base64] {
            let span = &mut json[0]["scopeSpans"][0]["spans"][0];
            prop_assert!(span["traceId"].is_string() && span["spanId"].is_string());
            let links = span["links"].as_array_mut().map(std::mem::take).unwrap_or_default();
            prop_assert!(links.iter().all(|link| link["traceId"].is_string()));
            for id in ["traceId", "spanId", "parentSpanId"] {
                span[id] = Json::Null;
            }
        }
        prop_assert_eq!(hex, base64);
    }

    #[test]
    fn values_for_search_are_those_of_the_span(span in span()) {
        let bytes = span.protobuf();
        let view = clew_model::otlp::SpanView::parse(&bytes).unwrap();
        for (found, sent) in view.attributes().zip(&span.attributes) {
            let found = found.unwrap();
            prop_assert_eq!(found.key, &sent.key);
            let found = without_empties(&any_value_to_json(found.value));
            prop_assert_eq!(found, without_empties(&value_json(&sent.value)));
        }
    }
}
