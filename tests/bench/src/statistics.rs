//! Medians, ranges and ratios, and how they are written.

use std::fmt;

/// What several rounds came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Median.
    pub median: f64,
    /// Least.
    pub min: f64,
    /// Greatest.
    pub max: f64,
}

impl Summary {
    /// Of some numbers; none of no numbers.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let numbers: Vec<f64> = numbers.into_iter().collect();
        Some(Self {
            median: quantile(&numbers, 0.5)?,
            min: numbers.iter().copied().reduce(f64::min)?,
            max: numbers.iter().copied().reduce(f64::max)?,
        })
    }
}

/// The median, with the range if there is one.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, min, max] = [self.median, self.min, self.max].map(number);
        if min == max {
            f.write_str(&median)
        } else {
            write!(f, "{median} ({min}–{max})")
        }
    }
}

/// The number below which a share `q` of all is, between neighbours by linear interpolation.
pub fn quantile(numbers: &[f64], q: f64) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = q * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    let share = place - below as f64;
    Some(sorted[below] * (1.0 - share) + sorted[above] * share)
}

/// A number with three significant digits, whole from 100 on.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 99.95 {
        let whole = format!("{value:.0}");
        let digits = whole.trim_start_matches('-').len();
        let mut grouped = String::new();
        for (place, digit) in whole.chars().enumerate() {
            let left = whole.len() - place;
            if digits > 3 && left % 3 == 0 && place > 0 && !grouped.ends_with('-') {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        grouped
    } else if size >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_between_the_two_in_the_middle() {
        assert_eq!(quantile(&[4.0, 1.0, 2.0, 3.0], 0.5), Some(2.5));
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn a_summary_knows_its_range() {
        let summary = Summary::of([3.0, 1.0, 2.0]).expect("numbers");
        assert_eq!((summary.min, summary.median, summary.max), (1.0, 2.0, 3.0));
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        for (value, text) in [
            (0.5, "0.50"),
            (12.34, "12.3"),
            (99.96, "100"),
            (1234.5, "1,234"),
            (23_500_000.0, "23,500,000"),
            (-4321.0, "-4,321"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_range_is_written_where_there_is_one() {
        let shown = |numbers: &[f64]| Summary::of(numbers.iter().copied()).map(|s| s.to_string());
        assert_eq!(
            shown(&[2.0, 3.0, 10.0]).as_deref(),
            Some("3.00 (2.00–10.0)")
        );
        assert_eq!(shown(&[2.0, 2.001]).as_deref(), Some("2.00"));
    }
}
