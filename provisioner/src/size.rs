//! Amounts as people write them: `512M`, `15m`.

use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

/// An amount of memory in MiB, written `512M` or `2G`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mebibytes(pub u32);

/// An amount of storage in GiB, written `20G` or `2T`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gibibytes(pub u32);

impl FromStr for Gibibytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, factor) = match text.strip_suffix(['G', 'T']) {
            Some(number) if text.ends_with('T') => (number, 1024),
            Some(number) => (number, 1),
            None => return Err(format!("`{text}` has no unit; write it like 20G or 2T")),
        };
        let amount = number.parse::<u32>().ok();
        let amount = amount.and_then(|n| n.checked_mul(factor));
        match amount {
            Some(n) if (1..=MOST_GIB).contains(&n) => Ok(Self(n)),
            _ => Err(format!(
                "`{text}` is not an amount of storage from 1G to 16T; write it like 20G or 2T"
            )),
        }
    }
}

/// As large as an ext4 file system of 4 KiB blocks without 64-bit numbers, in GiB.
const MOST_GIB: u32 = 16 * 1024;
/// Less does not boot.
const LEAST: u32 = 256;

impl FromStr for Mebibytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, factor) = match text.strip_suffix(['M', 'G']) {
            Some(number) if text.ends_with('G') => (number, 1024),
            Some(number) => (number, 1),
            None => return Err(format!("`{text}` has no unit; write it like 512M or 2G")),
        };
        let amount = number
            .parse::<u32>()
            .ok()
            .and_then(|n| n.checked_mul(factor));
        match amount {
            Some(n) if n >= LEAST => Ok(Self(n)),
            Some(_) => Err(format!("`{text}` is less than the {LEAST}M a guest needs")),
            None => Err(format!(
                "`{text}` is not an amount of memory; write it like 512M or 2G"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Mebibytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Mebibytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Mebibytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+[MG]$" })
    }
}

/// Reads a time, written `90s`, `15m` or `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let units = [('s', 1), ('m', 60), ('h', 3600)];
    let found = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(*unit)?, factor)));
    found
        .and_then(|(number, factor)| number.parse::<u32>().ok()?.checked_mul(*factor))
        .filter(|seconds| *seconds > 0)
        .map(|seconds| Duration::from_secs(seconds.into()))
        .ok_or_else(|| format!("`{text}` is not a time; write it like 90s, 15m or 1h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_need_their_unit() {
        assert_eq!("512M".parse(), Ok(Mebibytes(512)));
        assert_eq!("2G".parse(), Ok(Mebibytes(2048)));
        for bad in ["512", "64M", "xM", "9999999G", ""] {
            assert!(bad.parse::<Mebibytes>().is_err(), "{bad}");
        }
        assert_eq!("2T".parse(), Ok(Gibibytes(2048)));
        for bad in ["20", "0G", "xG", "17T", "4294967295T", ""] {
            assert!(bad.parse::<Gibibytes>().is_err(), "{bad}");
        }
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        for bad in ["15", "0s", "m", "1d", "9999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
