//! Which bytes of one timeline are there.

use super::LogSpan;

/// The union of spans: in ascending order, none touching the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(Vec<LogSpan>);

impl FromIterator<LogSpan> for Coverage {
    fn from_iter<I: IntoIterator<Item = LogSpan>>(spans: I) -> Self {
        let mut spans: Vec<LogSpan> = spans.into_iter().collect();
        spans.sort_unstable();
        let mut union: Vec<LogSpan> = Vec::new();
        for span in spans {
            match union.last_mut() {
                Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
                _ => union.push(span),
            }
        }
        Coverage(union)
    }
}

impl Coverage {
    pub fn spans(&self) -> &[LogSpan] {
        &self.0
    }

    /// What lies between the first byte that is there and the last, and is not.
    pub fn holes(&self) -> Vec<LogSpan> {
        self.0.windows(2).filter_map(|pair| LogSpan::new(pair[0].end, pair[1].start)).collect()
    }

    /// Behind the last byte.
    pub fn end(&self) -> Option<u64> {
        self.0.last().map(|span| span.end)
    }

    /// How far one gets from this byte on without a hole; `None` when it is not there.
    /// Behind the very last byte of a span one is there, and gets no further.
    pub fn reach(&self, from: u64) -> Option<u64> {
        let at = self.0.partition_point(|span| span.start <= from);
        let span = self.0.get(at.checked_sub(1)?)?;
        (from <= span.end).then_some(span.end)
    }

    /// The span around this byte.
    pub fn around(&self, position: u64) -> Option<LogSpan> {
        let at = self.0.partition_point(|span| span.start <= position);
        self.0.get(at.checked_sub(1)?).copied().filter(|span| position < span.end)
    }

    pub fn contains(&self, span: &LogSpan) -> bool {
        self.around(span.start).is_some_and(|around| span.end <= around.end)
    }

    /// What of a span is not there.
    pub fn missing(&self, of: &LogSpan) -> Vec<LogSpan> {
        let mut missing = Vec::new();
        let mut from = of.start;
        for span in &self.0 {
            if span.end <= from {
                continue;
            }
            if span.start >= of.end {
                break;
            }
            missing.extend(LogSpan::new(from, span.start));
            from = span.end;
        }
        missing.extend(LogSpan::new(from, of.end));
        missing
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn coverage(spans: &[(u64, u64)]) -> Coverage {
        spans.iter().filter_map(|(start, end)| LogSpan::new(*start, *end)).collect()
    }

    #[test]
    fn spans_that_touch_or_overlap_are_one_and_what_is_between_is_a_hole() {
        let there = coverage(&[(30, 40), (0, 10), (10, 20), (35, 50), (60, 61)]);
        assert_eq!(there, coverage(&[(0, 20), (30, 50), (60, 61)]));
        assert_eq!(there.holes(), coverage(&[(20, 30), (50, 60)]).spans());
        assert_eq!(
            (there.reach(5), there.reach(20), there.reach(25), there.reach(60)),
            (Some(20), Some(20), None, Some(61))
        );
        assert_eq!((there.reach(61), there.reach(62)), (Some(61), None));
        assert_eq!(
            there.missing(&LogSpan { start: 15, end: 65 }),
            coverage(&[(20, 30), (50, 60), (61, 65)]).spans()
        );
        assert!(
            there.contains(&LogSpan { start: 31, end: 50 })
                && !there.contains(&LogSpan { start: 31, end: 51 })
        );
        assert_eq!((Coverage::default().end(), Coverage::default().reach(0)), (None, None));
    }

    proptest! {
        #[test]
        fn a_coverage_is_the_set_of_its_bytes(
            spans in prop::collection::vec((0u64..60, 0u64..60), 0..12),
            of in (0u64..60, 1u64..30),
        ) {
            let there = coverage(&spans);
            let has = |byte: u64| spans.iter().any(|(start, end)| (*start..*end).contains(&byte));
            for byte in 0..60 {
                prop_assert_eq!(there.around(byte).is_some(), has(byte));
                let reach = (byte..).find(|next| !has(*next)).filter(|_| has(byte));
                if let Some(reach) = reach {
                    prop_assert_eq!(there.reach(byte), Some(reach));
                }
            }
            let of = LogSpan { start: of.0, end: of.0 + of.1 };
            let missing = there.missing(&of);
            for byte in of.start..of.end {
                prop_assert_eq!(missing.iter().any(|span| (span.start..span.end).contains(&byte)), !has(byte));
            }
            prop_assert_eq!(there.contains(&of), missing.is_empty());
        }
    }
}
