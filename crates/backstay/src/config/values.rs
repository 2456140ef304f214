//! Values as a person writes them: durations, schedules, addresses.
//!
//! Each reads from text with an error that shows a good example, and prints back
//! as it was written. An address never prints the password inside it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use backstay_model::{ByteRate, ByteSize};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time such as "15m", "5s" or "1h30m".
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct HumanDuration(pub Duration);

const DURATION_UNITS: [(&str, u64); 6] =
    [("ms", 1), ("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a duration such as \"15m\", \"5s\" or \"1h30m\"");
        let mut rest = text.trim();
        let mut total_ms = 0_u64;
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let (unit, ms) =
                DURATION_UNITS.iter().find(|(unit, _)| rest.starts_with(unit)).ok_or_else(wrong)?;
            total_ms =
                number.checked_mul(*ms).and_then(|part| total_ms.checked_add(part)).ok_or_else(wrong)?;
            rest = rest[unit.len()..].trim_start();
        }
        Ok(Self(Duration::from_millis(total_ms)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis() as u64;
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if rest >= ms {
                write!(f, "{}{unit}", rest / ms)?;
                rest %= ms;
            }
        }
        Ok(())
    }
}

/// When something happens by itself, in the five fields of cron: "0 2 * * *".
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct Schedule(String);

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "*,-/#".contains(c);
        let fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() == 5 && fields.iter().all(|field| field.chars().all(allowed)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("{text:?} is not a schedule of five fields such as \"0 2 * * *\""))
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many bytes a second, such as "50MiB".
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct Rate(pub ByteRate);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: backstay_model::rate::RateError| error.to_string())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number of bytes, such as "10GiB".
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct Size(pub ByteSize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: backstay_model::size::SizeError| error.to_string())
    }
}

impl fmt::Display for Size {
    /// As it reads again without a loss.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let bytes = self.0.0;
        let whole = |(_, shift): &&(&str, u32)| bytes > 0 && bytes.is_multiple_of(1 << shift);
        match units.iter().find(whole) {
            Some((unit, shift)) => write!(f, "{}{unit}", bytes >> shift),
            None => write!(f, "{bytes}B"),
        }
    }
}

/// The address of a server or a store. Prints without the password it may hold.
#[derive(Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct Address(String);

impl Address {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where in the text the password of `scheme://user:password@host` lies.
    fn password_range(&self) -> Option<std::ops::Range<usize>> {
        let start = self.0.find("://")? + 3;
        let authority_end = self.0[start..].find(['/', '?']).map_or(self.0.len(), |at| start + at);
        let at = start + self.0[start..authority_end].rfind('@')?;
        let colon = start + self.0[start..at].find(':')?;
        (colon + 1 < at).then_some(colon + 1..at)
    }

    /// Where the value of a `password` parameter lies, in either notation.
    fn parameter_range(&self) -> Option<std::ops::Range<usize>> {
        let at = self
            .0
            .match_indices("password=")
            .map(|(at, _)| at)
            .find(|at| *at == 0 || matches!(self.0.as_bytes()[at - 1], b' ' | b'?' | b'&' | b'\t'))?;
        let start = at + "password=".len();
        let rest = &self.0[start..];
        let end = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.find('\'').map_or(rest.len(), |end| end + 2),
            None => rest.find([' ', '&', '\t']).unwrap_or(rest.len()),
        };
        Some(start..start + end)
    }

    /// Whether a password stands in the text, where it does not belong.
    pub fn holds_password(&self) -> bool {
        self.password_range().is_some() || self.parameter_range().is_some()
    }

    /// The address without `user:password`'s password, and the password.
    pub fn split_password(&self) -> (Address, Option<String>) {
        match self.password_range() {
            None => (self.clone(), None),
            Some(range) => {
                let password = decode_percent(&self.0[range.clone()]);
                let mut bare = self.0.clone();
                bare.replace_range(range.start - 1..range.end, "");
                (Address(bare), Some(password))
            }
        }
    }
}

/// `%40` becomes `@`; what is not an escape stays.
fn decode_percent(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        match escape {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.clone();
        // The later range first, so that the earlier one keeps its place.
        if let Some(range) = self.parameter_range() {
            text.replace_range(range, "****");
        }
        if let Some(range) = self.password_range() {
            text.replace_range(range, "****");
        }
        f.pad(&text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("an address cannot be empty".to_owned());
        }
        Ok(Self(text.trim().to_owned()))
    }
}

macro_rules! text_value {
    ($name:ty) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

text_value!(HumanDuration);
text_value!(Schedule);
text_value!(Rate);
text_value!(Size);
text_value!(Address);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_people_write_them() {
        for (text, seconds, printed) in
            [("15m", 900, "15m"), ("1h30m", 5400, "1h30m"), ("90s", 90, "1m30s"), ("2w", 1_209_600, "14d")]
        {
            let duration: HumanDuration = text.parse().unwrap();
            assert_eq!((duration.0.as_secs(), duration.to_string().as_str()), (seconds, printed));
        }
        assert_eq!("250ms".parse::<HumanDuration>().unwrap().to_string(), "250ms");
        for bad in ["", "15", "m", "15 minutes", "-5s", "1.5h", "99999999999999w"] {
            assert!(bad.parse::<HumanDuration>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_schedule_has_five_fields() {
        assert!("0 4 * * SUN#1".parse::<Schedule>().is_ok());
        for bad in ["", "daily", "0 2 * *", "0 2 * * * *", "0 2 * * $(x)"] {
            assert!(bad.parse::<Schedule>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_address_never_prints_its_password() {
        for (text, printed) in [
            ("postgresql://u:p@db:5432/x", "postgresql://u:****@db:5432/x"),
            ("postgresql://u:p@ss@db/x?a=b", "postgresql://u:****@db/x?a=b"),
            (
                "postgresql:///x?host=/run&password=pw&user=u",
                "postgresql:///x?host=/run&password=****&user=u",
            ),
            ("host=db password='p w' user=u", "host=db password=**** user=u"),
            ("postgresql://u@db:5432/x", "postgresql://u@db:5432/x"),
            ("file:///var/lib/backstay", "file:///var/lib/backstay"),
        ] {
            let address = Address::new(text);
            assert_eq!(format!("{address} {address:?}"), format!("{printed} \"{printed}\""));
            assert_eq!(address.holds_password(), text != printed);
        }
    }

    #[test]
    fn a_password_comes_out_of_an_address_decoded() {
        let (bare, password) = Address::new("postgresql://u:p%40s@db/x").split_password();
        assert_eq!((bare.as_str(), password.as_deref()), ("postgresql://u@db/x", Some("p@s")));
    }
}
