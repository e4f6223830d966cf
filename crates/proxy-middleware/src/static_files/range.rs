//! Parts of a file (RFC 9110, section 14).

/// Which part of a file is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it: no range, one that cannot be read, or several, which nobody has to answer.
    Whole,
    /// From the first byte to the last one, both within the file.
    Bytes { first: u64, last: u64 },
    /// None of it is there.
    Unsatisfiable,
}

/// Reads `Range` for a file of so many bytes.
pub(crate) fn part(range: &str, len: u64) -> Part {
    let Some((unit, set)) = range.split_once('=') else { return Part::Whole };
    let Some((first, last)) = set.trim().split_once('-').filter(|_| unit.trim().eq_ignore_ascii_case("bytes")) else {
        return Part::Whole;
    };
    match (number(first), number(last)) {
        (Number::None, Number::Some(suffix)) => match suffix.min(len) {
            0 => Part::Unsatisfiable,
            suffix => Part::Bytes { first: len - suffix, last: len - 1 },
        },
        (Number::Some(first), Number::None) if first < len => Part::Bytes { first, last: len - 1 },
        (Number::Some(first), Number::Some(last)) if first <= last && first < len => {
            Part::Bytes { first, last: last.min(len - 1) }
        }
        (Number::Some(first), Number::Some(last)) if first > last => Part::Whole,
        (Number::Some(_), Number::None | Number::Some(_)) => Part::Unsatisfiable,
        _ => Part::Whole,
    }
}

enum Number {
    None,
    Some(u64),
    Bad,
}

/// Digits only; more of them than fit are a number beyond every file.
fn number(text: &str) -> Number {
    match text.trim() {
        "" => Number::None,
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => Number::Some(text.parse().unwrap_or(u64::MAX)),
        _ => Number::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_ranges_are_read_and_others_ignored() {
        let bytes = |first, last| Part::Bytes { first, last };
        for (range, len, wanted) in [
            ("bytes=0-0", 10, bytes(0, 0)),
            ("bytes=2-5", 10, bytes(2, 5)),
            ("bytes=2-", 10, bytes(2, 9)),
            ("bytes=-3", 10, bytes(7, 9)),
            ("bytes=-30", 10, bytes(0, 9)),
            ("bytes=5-99999999999999999999999", 10, bytes(5, 9)),
            ("Bytes = 1-2", 10, bytes(1, 2)),
            ("bytes=10-", 10, Part::Unsatisfiable),
            ("bytes=10-12", 10, Part::Unsatisfiable),
            ("bytes=-0", 10, Part::Unsatisfiable),
            ("bytes=-1", 0, Part::Unsatisfiable),
            ("bytes=0-", 0, Part::Unsatisfiable),
            ("bytes=5-2", 10, Part::Whole),
            ("bytes=0-1,3-4", 10, Part::Whole),
            ("bytes=-", 10, Part::Whole),
            ("bytes=a-b", 10, Part::Whole),
            ("bytes=+1-2", 10, Part::Whole),
            ("lines=1-2", 10, Part::Whole),
            ("nonsense", 10, Part::Whole),
        ] {
            assert_eq!(part(range, len), wanted, "{range}");
        }
    }
}
