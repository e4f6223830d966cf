//! Whether CAA records allow an authority (RFC 8659), an account and a challenge (RFC 8657).

use hickory_resolver::proto::rr::rdata::CAA;

use crate::ChallengeKind;

/// Properties that, critical or not, say nothing about certificates for a name that is not a wildcard.
const OTHERS: &[&str] = &["issuewild", "iodef", "contactemail", "contactphone", "issuemail", "issuevmc"];

/// The challenges that remain; or what to change in `owner`'s records.
pub(crate) fn judge(
    owner: &str,
    records: &[CAA],
    identities: &[String],
    account: &str,
    kinds: Vec<ChallengeKind>,
) -> Result<Vec<ChallengeKind>, String> {
    let is = |record: &CAA, tag: &str| record.tag.eq_ignore_ascii_case(tag);
    let unknown = |record: &&CAA| record.issuer_critical && !is(record, "issue") && !OTHERS.iter().any(|tag| is(record, tag));
    if let Some(record) = records.iter().find(unknown) {
        let tag: String = record.tag.chars().filter(char::is_ascii_alphanumeric).take(30).collect();
        return Err(format!(
            "the CAA records of {owner} have the critical property {tag:?}, which no authority may pass over; remove it"
        ));
    }
    let issue: Vec<Issue> =
        records.iter().filter(|record| is(record, "issue")).map(|record| Issue::parse(&record.value)).collect();
    if issue.is_empty() {
        return Ok(kinds);
    }
    let ours: Vec<&Issue> =
        issue.iter().filter(|issue| identities.iter().any(|id| id.eq_ignore_ascii_case(&issue.domain))).collect();
    let wanted = identities.first().map(String::as_str).unwrap_or_default();
    if ours.is_empty() {
        let allowed: Vec<&str> = issue.iter().map(|issue| issue.domain.as_str()).filter(|domain| !domain.is_empty()).collect();
        let allowed = if allowed.is_empty() { "no authority at all".to_owned() } else { format!("only {}", allowed.join(", ")) };
        return Err(format!("CAA of {owner} allows {allowed}; add the record: {owner} CAA 0 issue \"{wanted}\""));
    }
    let ours: Vec<&Issue> = ours.into_iter().filter(|issue| issue.account().is_none_or(|named| named == account)).collect();
    if ours.is_empty() {
        return Err(format!(
            "CAA of {owner} allows {wanted} for another account only; add accounturi={account} or remove that parameter"
        ));
    }
    let remaining: Vec<ChallengeKind> =
        kinds.iter().copied().filter(|kind| ours.iter().any(|issue| issue.allows(*kind))).collect();
    if remaining.is_empty() {
        let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        return Err(format!(
            "CAA of {owner} allows {wanted} by other validation methods only; add {} to validationmethods",
            kinds.join(",")
        ));
    }
    Ok(remaining)
}

/// The value of an `issue` property (RFC 8659, section 4.2): `ca.example; account=1; validationmethods=http-01`.
struct Issue {
    domain: String,
    parameters: Vec<(String, String)>,
}

impl Issue {
    /// What cannot be read allows nobody, as the standard has it.
    fn parse(value: &[u8]) -> Self {
        let text: String = String::from_utf8_lossy(value).chars().filter(|c| !c.is_control()).collect();
        let mut parts = text.split(';').map(str::trim);
        let domain = parts.next().unwrap_or_default().trim_end_matches('.').to_owned();
        let parameters = parts.filter_map(|part| part.split_once('='));
        let parameters = parameters.map(|(key, value)| (key.trim().to_ascii_lowercase(), value.trim().to_owned()));
        Self { domain, parameters: parameters.collect() }
    }

    fn parameter(&self, key: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn account(&self) -> Option<&str> {
        self.parameter("accounturi")
    }

    fn allows(&self, kind: ChallengeKind) -> bool {
        let methods = self.parameter("validationmethods");
        methods.is_none_or(|methods| methods.split(',').any(|method| method.trim().eq_ignore_ascii_case(kind.as_str())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const KINDS: [ChallengeKind; 2] = [ChallengeKind::Http01, ChallengeKind::TlsAlpn01];

    fn record(critical: bool, tag: &str, value: &str) -> CAA {
        let mut record = CAA::new_issue(critical, None, Vec::new());
        record.tag = tag.to_owned();
        record.value = value.as_bytes().to_vec();
        record
    }

    fn check(records: &[(bool, &str, &str)]) -> Result<Vec<ChallengeKind>, String> {
        let records: Vec<CAA> = records.iter().map(|(critical, tag, value)| record(*critical, tag, value)).collect();
        judge(
            "example.org",
            &records,
            &["ca.example".to_owned(), "ca2.example".to_owned()],
            "https://ca.example/acct/1",
            KINDS.to_vec(),
        )
    }

    #[test]
    fn records_allow_what_they_say() {
        for allowed in [
            vec![(false, "issue", "ca.example")],
            vec![(false, "ISSUE", " CA2.example ; policy=ev")],
            vec![(false, "issue", "other.example"), (true, "issue", "ca.example")],
            vec![(false, "iodef", "mailto:a@example.org")],
            vec![(false, "issuewild", ";"), (true, "iodef", "mailto:a@example.org")],
            vec![(false, "unheardof", "x")],
            vec![(false, "issue", "ca.example; accounturi=https://ca.example/acct/1")],
        ] {
            assert_eq!(check(&allowed).unwrap(), KINDS, "{allowed:?}");
        }
        let narrowed = check(&[(false, "issue", "ca.example; validationmethods=dns-01,tls-alpn-01")]);
        assert_eq!(narrowed.unwrap(), [ChallengeKind::TlsAlpn01]);
    }

    #[test]
    fn records_that_do_not_allow_it_say_what_to_change() {
        for (records, expected) in [
            (
                vec![(false, "issue", "other.example")],
                "allows only other.example; add the record: example.org CAA 0 issue \"ca.example\"",
            ),
            (vec![(false, "issue", ";")], "no authority at all"),
            (vec![(false, "issue", "")], "no authority at all"),
            (vec![(true, "unheardof", "x"), (false, "issue", "ca.example")], "critical property \"unheardof\""),
            (vec![(false, "issue", "ca.example; accounturi=https://ca.example/acct/2")], "another account"),
            (vec![(false, "issue", "ca.example; validationmethods=dns-01")], "http-01,tls-alpn-01"),
            (vec![(false, "issue", "ca.example.evil")], "allows only ca.example.evil"),
        ] {
            let reason = check(&records).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
