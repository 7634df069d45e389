//! The parameters of a request target, decoded once and looked up by name.

use percent_encoding::percent_decode;

use super::fault::Fault;

/// The most parameters of one request.
const PARAMETERS_MAX: usize = 1_000;

/// Decoded name and value pairs in the order they came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Decodes a query string; `+` is a space, a `%` that escapes nothing stands for itself.
    pub(crate) fn parse(query: &str) -> Result<Parameters, Fault> {
        let mut pairs = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            if pairs.len() == PARAMETERS_MAX {
                return Err(Fault::bad(format!("more than {PARAMETERS_MAX} parameters")));
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((decode(name)?, decode(value)?));
        }
        Ok(Parameters(pairs))
    }

    /// Parameters that did not come in a request target.
    pub(crate) fn of<const N: usize>(pairs: [(&str, String); N]) -> Parameters {
        Parameters(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// The first value of that name unless it is empty, which counts as not given.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(given, _)| given == name)?;
        (!found.1.is_empty()).then_some(found.1.as_str())
    }

    /// Every pair.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

fn decode(text: &str) -> Result<String, Fault> {
    let spaced = text.replace('+', " ");
    let bytes: Vec<u8> = percent_decode(spaced.as_bytes()).collect();
    String::from_utf8(bytes)
        .map_err(|_| Fault::bad("the query string is not valid UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded() {
        let parameters =
            Parameters::parse("q=%7B+.a+%3D+%22b%26%22+%7D&limit=5&&flag&q=x&e=").unwrap();
        assert_eq!(parameters.get("q"), Some("{ .a = \"b&\" }"));
        assert_eq!(parameters.get("limit"), Some("5"));
        assert_eq!(parameters.get("flag"), None);
        assert_eq!(parameters.get("e"), None);
        assert_eq!(parameters.iter().count(), 5);
        assert_eq!(Parameters::parse("a=100%&b=%zz").unwrap().get("a"), Some("100%"));
    }

    #[test]
    fn hostile_query_strings_are_refused() {
        assert!(Parameters::parse("q=%ff").is_err());
        assert!(Parameters::parse(&"a=1&".repeat(1_001)).is_err());
    }
}
