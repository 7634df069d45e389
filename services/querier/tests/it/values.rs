//! Odd values: what finds them and how they are shown, the same from heads and from blocks.

use serde_json::{Value as Json, json};

use crate::cluster::Cluster;
use crate::spans::{Attributes, SECOND, Span, Value, root};

/// Spans in a head, then in a block.
async fn places(spans: &[Span]) -> [Cluster; 2] {
    let place = async |flushed| {
        let cluster = Cluster::new(1);
        cluster.append(0, spans);
        if flushed {
            cluster.shards[0].flush().await.unwrap();
        }
        cluster
    };
    [place(false).await, place(true).await]
}

fn with(trace: u64, attributes: Attributes) -> Span {
    Span { attributes, ..root(trace, trace * 60) }
}

/// The attributes that an answer shows on the first span of the first trace.
fn shown(answer: &Json) -> Json {
    answer["traces"][0]["spanSets"][0]["spans"][0]["attributes"].clone()
}

fn suggested(answer: &Json) -> Vec<(String, String)> {
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    let values = answer["tagValues"].as_array().unwrap().iter();
    values.map(|value| (text(&value["type"]), text(&value["value"]))).collect()
}

#[tokio::test]
async fn numbers_past_the_exact_doubles_are_ordered_exactly() {
    let int = |trace, number| with(trace, vec![("a", Value::Int(number))]);
    let double = with(2, vec![("a", Value::Double(1e18))]);
    for cluster in places(&[int(1, 9_007_199_254_740_991), double, int(3, i64::MIN)]).await {
        for (filter, ids) in [
            ("span.a > 9007199254740993", vec!["2"]),
            ("span.a >= 9007199254740992", vec!["2"]),
            ("span.a > 9007199254740991", vec!["2"]),
            ("span.a > 1e18", vec![]),
            ("span.a >= 1e18", vec!["2"]),
            ("span.a < 1e18", vec!["3", "1"]),
            ("span.a <= 1000000000000000000", vec!["3", "2", "1"]),
            ("span.a < -9007199254740992", vec!["3"]),
            ("span.a > -9007199254740992.0", vec!["2", "1"]),
        ] {
            let found = cluster.search(&format!("{{ {filter} }}"), "").await;
            assert_eq!(found.ids(), ids, "{filter}");
            let beside = cluster.search(&format!("{{ {filter} && span.z = nil }}"), "").await;
            assert_eq!(beside.ids(), ids, "{filter}");
        }
        let within = "%7Bspan.a%3E1e18%7D";
        let values = cluster.get(&format!("/api/v2/search/tag/span.a/values?q={within}")).await;
        assert_eq!(suggested(&values.json()), []);
    }
}

#[tokio::test]
async fn every_suggested_number_finds_its_span() {
    let numbers = [
        Value::Double(9_223_372_036_854_775_808.0),
        Value::Double(-1e300),
        Value::Double(5e-324),
        Value::Double(1_234_567.0),
        Value::Double(0.25),
        Value::Double(f64::NAN),
        Value::Double(f64::INFINITY),
        Value::Double(f64::NEG_INFINITY),
        Value::Int(i64::MIN),
    ];
    let spans: Vec<Span> =
        (1..).zip(&numbers).map(|(n, number)| with(n, vec![("a", number.clone())])).collect();
    for cluster in places(&spans).await {
        let values = suggested(&cluster.get("/api/v2/search/tag/span.a/values").await.json());
        let texts: Vec<&str> = values.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(
            texts,
            [
                "-9223372036854775808",
                "-1e+300",
                "5e-324",
                "0.25",
                "1.234567e+06",
                "9.223372036854776e+18",
            ]
        );
        for text in texts {
            let found = cluster.search(&format!("{{ span.a = {text} }}"), "").await;
            assert_eq!(found.ids().len(), 1, "{text}");
        }
    }
}

#[tokio::test]
async fn durations_and_zeros_are_spelt_as_by_tempo() {
    let span = Span { events: vec![vec![]], ..with(1, vec![("z", Value::Double(-0.0))]) };
    let span = Span { end: span.start + 2_345_678, ..span };
    for cluster in places(&[span]).await {
        let found =
            cluster.search("{ event:timeSinceStart > 1ms } | by(duration)", "").await.json();
        let text = |text: &str| json!({ "stringValue": text });
        let set = &found["traces"][0]["spanSets"][0];
        assert_eq!(
            set["attributes"],
            json!([{ "key": "by(duration)", "value": text("2.345678ms") }])
        );
        let since = json!({ "key": "event:timeSinceStart", "value": text("1.5ms") });
        assert_eq!(shown(&found), json!([since]));
        let found = cluster.search("{ name = `GET /1` } | select(span.z)", "").await;
        assert!(found.text().contains(r#"{"doubleValue":-0.0}"#), "{}", found.text());
    }
}

#[tokio::test]
async fn the_event_that_matched_is_shown() {
    let event = |a, b| vec![("a", Value::Text(a)), ("b", Value::Text(b))];
    let events = vec![event("e1", "b1"), event("e2", "b2"), vec![("b", Value::Text("b3"))]];
    let span = Span { events, ..root(1, 60) };
    for cluster in places(&[span]).await {
        for (query, a, b) in [
            (r#"{ event.a = "e2" } | select(event.b)"#, "e2", "b2"),
            (r#"{ event.b =~ "b2.*" } | select(event.a)"#, "e2", "b2"),
            (r#"{ event.a != nil && event:timeSinceStart > 2ms } | select(event.b)"#, "e2", "b2"),
            // What the event lacks is shown of the first that has it.
            (r#"{ event.b = "b3" } | select(event.a)"#, "e1", "b3"),
            (r#"{ name != "x" } | select(event.a, event.b)"#, "e1", "b1"),
            (r#"{ event.a = "e2" } | by(name) | select(event.b)"#, "e2", "b2"),
            (r#"{ true } && { event.a = "e2" && event.b = "b2" }"#, "e2", "b2"),
        ] {
            let found = cluster.search(query, "").await.json();
            let shown = shown(&found);
            let value = |key: &str| {
                let pair = shown.as_array().unwrap().iter().find(|pair| pair["key"] == key);
                pair.unwrap()["value"]["stringValue"].as_str().unwrap().to_owned()
            };
            assert_eq!((value("a").as_str(), value("b").as_str()), (a, b), "{query}");
        }
    }
}

#[tokio::test]
async fn what_counts_as_absent_on_a_span_is_looked_for_on_its_resource() {
    let span = |trace, own| Span {
        resource: vec![("a", Value::Text("r"))],
        ..with(trace, vec![("a", own)])
    };
    let spans =
        [span(1, Value::Array(&[])), span(2, Value::Bytes(b"r")), span(3, Value::Text("s"))];
    for cluster in places(&spans).await {
        for (filter, ids) in [
            (r#".a = "r""#, vec!["2", "1"]),
            (r#".a != "x""#, vec!["3", "2", "1"]),
            (r#".a = "r" && span.z = nil"#, vec!["2", "1"]),
            (".a != nil", vec!["3", "2", "1"]),
            (".a = nil", vec![]),
            ("span.a = nil", vec!["2", "1"]),
            ("span.a != nil", vec!["3"]),
        ] {
            let found = cluster.search(&format!("{{ {filter} }}"), "").await;
            assert_eq!(found.ids(), ids, "{filter}");
        }
        for filter in [r#".a = "r""#, r#".a = "r" && span.z = nil"#, r#".a =~ "r.*""#] {
            let found = cluster.search(&format!("{{ {filter} }}"), "").await.json();
            assert_eq!(shown(&found)[0], json!({ "key": "a", "value": { "stringValue": "r" } }));
        }
    }
}

#[tokio::test]
async fn values_in_a_range_do_not_depend_on_where_the_spans_lie() {
    let at = |id, at: u64, n| Span {
        id,
        start: at * SECOND,
        end: (at + 1) * SECOND,
        attributes: vec![("n", Value::Int(n))],
        name: "A".to_owned(),
        ..root(1, 0)
    };
    let spans = [at(1, 100, 1), at(2, 1_000, 2), at(3, 3_000, 3)];
    for pieces in [vec![&spans[..]], vec![&spans[..1], &spans[1..2], &spans[2..]]] {
        for flushed in [false, true] {
            let cluster = Cluster::new(1);
            for piece in &pieces {
                cluster.append(0, piece);
                if flushed {
                    cluster.shards[0].flush().await.unwrap();
                }
            }
            for filter in ["%7Bname%3D%22A%22%7D", "%7Bname%3D%22A%22%20%26%26%20.z%3Dnil%7D"] {
                let path =
                    format!("/api/v2/search/tag/span.n/values?q={filter}&start=900&end=2900");
                let values = suggested(&cluster.get(&path).await.json());
                assert_eq!(values, [("int".to_owned(), "2".to_owned())], "{filter} {flushed}");
            }
        }
    }
}
