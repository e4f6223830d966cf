//! Lengths of time and sizes, as people write them.

/// Milliseconds of `250ms`, `30s`, `5m`, `1h30m`, `365d`.
pub fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        let after = rest[digits..].trim_start();
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let factor = match after[..letters].to_ascii_lowercase().as_str() {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" if number == 0 && total == 0 && after.is_empty() => 1,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = after[letters..].trim_start();
    }
    // A century is more than anybody means, and all arithmetic on it is safe.
    (!text.trim().is_empty() && total <= 100 * 366 * 86_400_000).then_some(total)
}

/// Bytes of `512`, `64KB`, `1.5 MiB`, `2G`: in powers of 1024, as memory is counted.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().ok()?;
    if part.len() > 6 || (number.contains('.') && part.is_empty()) {
        return None;
    }
    let millionths: u64 = format!("{part:0<6}").parse().ok()?;
    whole.checked_mul(factor)?.checked_add(u64::try_from(u128::from(millionths) * u128::from(factor) / 1_000_000).ok()?)
}

#[cfg(test)]
mod tests {
    use super::{bytes, milliseconds};

    #[test]
    fn lengths_of_time() {
        let cases = [
            ("250ms", 250),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            (" 1 h 5 min ", 3_900_000),
            ("365d", 31_536_000_000),
            ("0", 0),
            ("0s", 0),
        ];
        for (text, expected) in cases {
            assert_eq!(milliseconds(text), Some(expected), "{text}");
        }
        for text in ["", "30", "s", "1.5h", "-1s", "5 parsecs", "99999999999999999999s", "999999999999d", "1s2", "é"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        let cases = [("512", 512), ("1KB", 1024), ("1.5 MiB", 1_572_864), ("2g", 2 << 30), ("0", 0), ("0.25k", 256)];
        for (text, expected) in cases {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in ["", "MB", "1.", "1.2.3k", "-1", "1e3", "99999999999999999999", "99999999999T", "1 xb", "é"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
