//! The parameters of a query: each is taken once, and one that nobody took is refused.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::error::Refusal;

/// Parameters below a prefix.
#[derive(Debug, Clone, Default)]
pub(super) struct Params {
    prefix: String,
    values: BTreeMap<String, String>,
}

impl Params {
    /// Reads a form. A name that comes twice is refused.
    pub fn parse(form: &[u8]) -> Result<Self, Refusal> {
        let mut values = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(form) {
            if values
                .insert(name.clone().into_owned(), value.into_owned())
                .is_some()
            {
                let text = format!("The parameter {name} is given more than once");
                return Err(Refusal::new("InvalidParameterCombination", text));
            }
        }
        Ok(Self {
            prefix: String::new(),
            values,
        })
    }

    /// Everything, in order, apart from the parameters named.
    pub fn fingerprint(&self, without: &[&str]) -> String {
        let kept = |name: &&String| !without.contains(&name.as_str());
        let names = self.values.keys().filter(kept);
        names
            .map(|name| format!("{name}={}\n", self.values[name]))
            .collect()
    }

    /// Whether any value is `text`.
    pub fn mentions(&self, text: &str) -> bool {
        self.values.values().any(|value| value == text)
    }

    /// Whether there is a parameter of this name.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// A parameter that may be missing.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    /// A parameter that must be there.
    pub fn require(&mut self, name: &str) -> Result<String, Refusal> {
        self.take(name).ok_or_else(|| {
            let text = format!(
                "The request must contain the parameter {}{name}",
                self.prefix
            );
            Refusal::new("MissingParameter", text)
        })
    }

    /// A parameter of another type.
    pub fn parsed<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Refusal> {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        let parsed = text.parse();
        let name = format!("{}{name}", self.prefix);
        parsed
            .map(Some)
            .map_err(|_| Refusal::value(&name, text, "It cannot be read."))
    }

    /// A parameter with few possible values.
    pub fn one_of(&mut self, name: &str, known: &[&str]) -> Result<Option<String>, Refusal> {
        match self.take(name) {
            Some(value) if !known.contains(&value.as_str()) => {
                let why = format!("Valid values: {}.", known.join(", "));
                Err(Refusal::value(name, value, &why))
            }
            value => Ok(value),
        }
    }

    /// The parameters `name.…`.
    pub fn below(&mut self, name: &str) -> Option<Self> {
        let start = format!("{name}.");
        let mut values = BTreeMap::new();
        self.values.retain(|known, value| {
            let rest = known.strip_prefix(&start);
            if let Some(rest) = rest {
                values.insert(rest.to_owned(), std::mem::take(value));
            }
            rest.is_none()
        });
        (!values.is_empty()).then(|| Self {
            prefix: format!("{}{start}", self.prefix),
            values,
        })
    }

    /// The structures `name.1.…`, `name.2.…` and so on.
    pub fn structures(&mut self, name: &str) -> Result<Vec<Self>, Refusal> {
        let Some(mut all) = self.below(name) else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        while let Some(next) = all.below(&(found.len() + 1).to_string()) {
            found.push(next);
        }
        all.finish()?;
        Ok(found)
    }

    /// The values `name.1`, `name.2` and so on.
    pub fn values(&mut self, name: &str) -> Result<Vec<String>, Refusal> {
        let Some(mut all) = self.below(name) else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        while let Some(next) = all.take(&(found.len() + 1).to_string()) {
            found.push(next);
        }
        all.finish()?;
        Ok(found)
    }

    /// Nothing may be left.
    pub fn finish(&self) -> Result<(), Refusal> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(name) => Err(Refusal::new(
                "UnknownParameter",
                format!("The parameter {}{name} is not recognized", self.prefix),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_nobody_took_is_refused_by_its_full_name() {
        let mut params = Params::parse(b"A.1.B=x&A.1.C=y&D=1").expect("a form");
        assert_eq!(params.parsed::<u8>("D"), Ok(Some(1)));
        let mut inner = params.structures("A").expect("one").remove(0);
        assert_eq!(inner.require("B").as_deref(), Ok("x"));
        let error = inner.finish().expect_err("C is left");
        assert_eq!(error.message, "The parameter A.1.C is not recognized");
        params.finish().expect("all taken");
    }

    #[test]
    fn a_list_with_a_gap_is_refused() {
        let mut params = Params::parse(b"Id.1=a&Id.3=b").expect("a form");
        let error = params.values("Id").expect_err("a gap");
        assert_eq!(error.message, "The parameter Id.3 is not recognized");
    }
}
