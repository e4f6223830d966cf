//! The language in which a circuit breaker's condition is written.
//!
//! ```text
//! any        = all { "||" all }
//! all        = one { "&&" one }
//! one        = "!" one | "(" any ")" | measure comparison number
//! measure    = "NetworkErrorRatio" "(" ")"
//!            | "ResponseCodeRatio" "(" from "," to "," from "," to ")"
//!            | "LatencyAtQuantileMS" "(" quantile ")"
//! comparison = ">" | ">=" | "<" | "<=" | "==" | "!="
//! ```

/// Nesting of parentheses and negations.
const DEPTH: usize = 32;

/// A condition over measures.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    Any(Vec<Condition>),
    All(Vec<Condition>),
    Not(Box<Condition>),
    Compare(Measure, Comparison, f64),
}

/// Something that is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Measure {
    /// The share of answers that are 502 or 504, from 0 to 1.
    NetworkErrorRatio,
    /// How many answers have a status from the first up to (not with) the second number, for each one from the third up to
    /// the fourth.
    ResponseCodeRatio([u16; 4]),
    /// The time in milliseconds in which this share (in percent) of answers came.
    LatencyAtQuantileMs(f64),
}

/// How a measure is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
}

impl Condition {
    /// Reads a condition; errors name the place, counted in bytes from 0.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader { text, at: 0 };
        let condition = reader.any(0)?;
        match reader.rest() {
            "" => Ok(condition),
            _ => Err(reader.expected("&&, || or the end")),
        }
    }

    /// Whether it holds, with these measures.
    pub(crate) fn holds(&self, measured: &impl Fn(Measure) -> f64) -> bool {
        match self {
            Self::Any(parts) => parts.iter().any(|part| part.holds(measured)),
            Self::All(parts) => parts.iter().all(|part| part.holds(measured)),
            Self::Not(part) => !part.holds(measured),
            Self::Compare(measure, comparison, number) => {
                let value = measured(*measure);
                match comparison {
                    Comparison::Greater => value > *number,
                    Comparison::GreaterOrEqual => value >= *number,
                    Comparison::Less => value < *number,
                    Comparison::LessOrEqual => value <= *number,
                    Comparison::Equal => value == *number,
                    Comparison::NotEqual => value != *number,
                }
            }
        }
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn any(&mut self, depth: usize) -> Result<Condition, String> {
        let mut parts = vec![self.all(depth)?];
        while self.take("||") {
            parts.push(self.all(depth)?);
        }
        Ok(alone(parts, Condition::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Condition, String> {
        let mut parts = vec![self.one(depth)?];
        while self.take("&&") {
            parts.push(self.one(depth)?);
        }
        Ok(alone(parts, Condition::All))
    }

    fn one(&mut self, depth: usize) -> Result<Condition, String> {
        if depth >= DEPTH {
            return Err(format!("nested too deep at {}", self.at));
        }
        if self.take("!") {
            return Ok(Condition::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take("(") {
            let inner = self.any(depth + 1)?;
            return self.need(")").map(|()| inner);
        }
        let measure = self.measure()?;
        let comparison = self.comparison()?;
        Ok(Condition::Compare(measure, comparison, self.number()?))
    }

    fn measure(&mut self) -> Result<Measure, String> {
        let rest = self.rest();
        let name = &rest[..rest.bytes().take_while(u8::is_ascii_alphabetic).count()];
        if !["NetworkErrorRatio", "ResponseCodeRatio", "LatencyAtQuantileMS"].contains(&name) {
            return Err(self.expected("NetworkErrorRatio(), ResponseCodeRatio(…) or LatencyAtQuantileMS(…)"));
        }
        let begin = self.at;
        self.at += name.len();
        self.need("(")?;
        let mut arguments = Vec::new();
        while !self.take(")") {
            if !arguments.is_empty() {
                self.need(",")?;
            }
            arguments.push(self.number()?);
        }
        let status = |number: f64| (number.fract() == 0.0 && (0.0..=1000.0).contains(&number)).then_some(number as u16);
        match (name, &arguments[..]) {
            ("NetworkErrorRatio", []) => Ok(Measure::NetworkErrorRatio),
            ("LatencyAtQuantileMS", [quantile]) if (0.0..=100.0).contains(quantile) => {
                Ok(Measure::LatencyAtQuantileMs(*quantile))
            }
            ("ResponseCodeRatio", &[a, b, c, d]) => {
                let codes = [status(a), status(b), status(c), status(d)];
                let [Some(a), Some(b), Some(c), Some(d)] = codes else {
                    return Err(format!("ResponseCodeRatio at {begin} needs whole numbers from 0 to 1000"));
                };
                Ok(Measure::ResponseCodeRatio([a, b, c, d]))
            }
            ("NetworkErrorRatio", _) => Err(format!("NetworkErrorRatio at {begin} takes no numbers")),
            ("LatencyAtQuantileMS", _) => Err(format!("LatencyAtQuantileMS at {begin} takes one number from 0 to 100")),
            _ => Err(format!("ResponseCodeRatio at {begin} takes four numbers")),
        }
    }

    fn comparison(&mut self) -> Result<Comparison, String> {
        let signs = [
            (">=", Comparison::GreaterOrEqual),
            ("<=", Comparison::LessOrEqual),
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            (">", Comparison::Greater),
            ("<", Comparison::Less),
        ];
        let found = signs.into_iter().find(|(sign, _)| self.take(sign));
        found.map(|(_, comparison)| comparison).ok_or_else(|| self.expected("a comparison"))
    }

    fn number(&mut self) -> Result<f64, String> {
        let rest = self.rest();
        let len = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let number = rest[..len].parse().map_err(|_| self.expected("a number"))?;
        self.at += len;
        Ok(number)
    }

    fn need(&mut self, sign: &str) -> Result<(), String> {
        if self.take(sign) { Ok(()) } else { Err(self.expected(sign)) }
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    /// What is still to be read, without the white space before it.
    fn rest(&mut self) -> &'t str {
        let rest = &self.text[self.at..];
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    fn expected(&mut self, what: &str) -> String {
        self.rest();
        format!("expected {what} at {}", self.at)
    }
}

fn alone(mut parts: Vec<Condition>, several: fn(Vec<Condition>) -> Condition) -> Condition {
    match parts.len() {
        1 => parts.swap_remove(0),
        _ => several(parts),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn holds(text: &str, errors: f64, codes: f64, latency: f64) -> bool {
        Condition::parse(text).unwrap().holds(&|measure| match measure {
            Measure::NetworkErrorRatio => errors,
            Measure::ResponseCodeRatio(_) => codes,
            Measure::LatencyAtQuantileMs(_) => latency,
        })
    }

    #[test]
    fn conditions_hold_as_they_are_written() {
        assert!(holds("NetworkErrorRatio() > 0.30", 0.31, 0.0, 0.0));
        assert!(!holds("NetworkErrorRatio() > 0.30", 0.3, 0.0, 0.0));
        assert!(holds("ResponseCodeRatio(500, 600, 0, 600) >= 0.25", 0.0, 0.25, 0.0));
        assert!(holds("LatencyAtQuantileMS(50.0) > 100", 0.0, 0.0, 101.0));
        // "and" binds closer than "or".
        let text = "NetworkErrorRatio()>0.5||ResponseCodeRatio(500,600,0,600)>0.5&&LatencyAtQuantileMS(99)>10";
        assert!(holds(text, 1.0, 0.0, 0.0) && holds(text, 0.0, 1.0, 20.0) && !holds(text, 0.0, 1.0, 0.0));
        let text = "(NetworkErrorRatio() > 0.5 || ResponseCodeRatio(500, 600, 0, 600) > 0.5) && LatencyAtQuantileMS(99) > 10";
        assert!(!holds(text, 1.0, 0.0, 0.0) && holds(text, 1.0, 0.0, 20.0));
        assert!(holds("!(NetworkErrorRatio() == 1) && NetworkErrorRatio() != 0", 0.5, 0.0, 0.0));
        assert!(holds("NetworkErrorRatio() < 1 && NetworkErrorRatio() <= 0", 0.0, 0.0, 0.0));
    }

    #[test]
    fn what_is_no_condition_is_refused_with_its_place() {
        for (text, error) in [
            ("", "expected NetworkErrorRatio(), ResponseCodeRatio(…) or LatencyAtQuantileMS(…) at 0"),
            ("NetworkErrorRatio()", "expected a comparison at 19"),
            ("NetworkErrorRatio() >", "expected a number at 21"),
            ("NetworkErrorRatio() > 1 2", "expected &&, || or the end at 24"),
            ("NetworkErrorRatio(1) > 1", "NetworkErrorRatio at 0 takes no numbers"),
            ("ResponseCodeRatio(500) > 1", "ResponseCodeRatio at 0 takes four numbers"),
            ("ResponseCodeRatio(0, 600, 0, 5.5) > 1", "ResponseCodeRatio at 0 needs whole numbers from 0 to 1000"),
            ("LatencyAtQuantileMS(101) > 1", "LatencyAtQuantileMS at 0 takes one number from 0 to 100"),
            ("(NetworkErrorRatio() > 1", "expected ) at 24"),
            ("Sleep(1) > 1", "expected NetworkErrorRatio(), ResponseCodeRatio(…) or LatencyAtQuantileMS(…) at 0"),
        ] {
            assert_eq!(Condition::parse(text).unwrap_err(), error, "{text}");
        }
        assert!(Condition::parse(&"(".repeat(100_000)).unwrap_err().contains("too deep"));
        assert!(Condition::parse(&"!".repeat(100_000)).unwrap_err().contains("too deep"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            drop(Condition::parse(&text));
        }

        #[test]
        fn nothing_like_a_condition_makes_it_panic(parts in prop::collection::vec(prop::sample::select(vec![
            "NetworkErrorRatio", "ResponseCodeRatio", "LatencyAtQuantileMS", "(", ")", ",", "1", ".5", ">", "=", "!", "&&", "||", " ", "é",
        ]), 0..20)) {
            drop(Condition::parse(&parts.concat()));
        }
    }
}
