//! Settings that make no sense.

use coracle_proxy_middleware::State;

use crate::try_chain;

#[test]
fn errors_name_the_middleware_and_the_setting() {
    for (middleware, wanted) in [
        (r#"{"redirect-regex":{"regex":"(","replacement":"x"}}"#, "regex: not a regular expression: unclosed group"),
        (r#"{"redirect-scheme":{"scheme":""}}"#, "scheme: "),
        (r#"{"redirect-scheme":{"scheme":"ht tp"}}"#, "scheme: "),
        (r#"{"canonical-host":{"host":"https://a.test"}}"#, "host: "),
        (r#"{"canonical-host":{"host":""}}"#, "host: "),
        (r#"{"basic-auth":{}}"#, "users: "),
        (r#"{"basic-auth":{"users":["hunter2"]}}"#, "users: "),
        (r#"{"basic-auth":{"users_file":"/nonexistent/users"}}"#, "users_file: "),
        (r#"{"basic-auth":{"users":["a:b"],"realm":"\n"}}"#, "realm: "),
        (r#"{"basic-auth":{"users":["a:b"],"header_field":"X User"}}"#, "header_field: "),
        (r#"{"forward-auth":{"address":"gate.test"}}"#, "address: "),
        (r#"{"forward-auth":{"address":"ftp://gate.test/"}}"#, "address: "),
        (r#"{"forward-auth":{"address":"http:///x"}}"#, "address: "),
        (r#"{"forward-auth":{"address":"http://ann:hunter2@gate.test/"}}"#, "address: "),
        (r#"{"forward-auth":{"address":"http://g/","auth_response_headers":["Content-Length"]}}"#, "auth_response_headers: "),
        (r#"{"forward-auth":{"address":"http://g/","auth_response_headers_regex":"["}}"#, "auth_response_headers_regex: "),
        (r#"{"forward-auth":{"address":"http://g/","timeout_ms":0}}"#, "timeout_ms: "),
        (r#"{"strip-prefix":{"prefixes":[]}}"#, "prefixes: "),
        (r#"{"strip-prefix-regex":{"regex":["/a","*"]}}"#, "regex: "),
        (r#"{"add-prefix":{"prefix":""}}"#, "prefix: "),
        (r#"{"replace-path":{"path":"/%"}}"#, "path: "),
        (r#"{"replace-path":{"path":"/../x"}}"#, "path: "),
        (r#"{"replace-path-regex":{"regex":"(?<","replacement":""}}"#, "regex: "),
        (r#"{"headers":{"custom_request_headers":{"Transfer-Encoding":"chunked"}}}"#, "custom_request_headers: "),
        (r#"{"headers":{"custom_response_headers":{"content-length":""}}}"#, "custom_response_headers: "),
        (r#"{"headers":{"custom_response_headers":{"X":"a\r\nb"}}}"#, "custom_response_headers: "),
        (r#"{"headers":{"custom_request_headers":{"Host":"a b"}}}"#, "custom_request_headers: "),
        (r#"{"headers":{"referrer_policy":"\u0000"}}"#, "referrer_policy: "),
        (r#"{"headers":{"access_control_allow_origin_list_regex":["("]}}"#, "access_control_allow_origin_list_regex: "),
        (r#"{"ip-allow-list":{"source_range":[]}}"#, "source_range: "),
        (r#"{"ip-allow-list":{"source_range":["10.0.0.0/33"]}}"#, "source_range: \"10.0.0.0/33\""),
        (r#"{"ip-allow-list":{"source_range":["10.0.0.1"],"reject_status_code":600}}"#, "reject_status_code: "),
        (r#"{"ip-allow-list":{"source_range":["::1"],"ip_strategy":{"excluded_ips":["x"]}}}"#, "ip_strategy.excluded_ips: "),
        (r#"{"rate-limit":{"average":1,"period_ms":0}}"#, "period_ms: "),
        (
            r#"{"rate-limit":{"average":1,"source_criterion":{"request_host":true,"request_header_name":"X"}}}"#,
            "source_criterion: ",
        ),
        (
            r#"{"rate-limit":{"average":1,"source_criterion":{"request_header_name":"a b"}}}"#,
            "source_criterion.request_header_name: ",
        ),
        (r#"{"rate-limit":{"average":1,"source_criterion":{"ip_strategy":{"ipv6_subnet":129}}}}"#, "ip_strategy.ipv6_subnet: "),
        (r#"{"in-flight-limit":{"amount":0}}"#, "amount: "),
        (r#"{"circuit-breaker":{"expression":"yes"}}"#, "expression: expected NetworkErrorRatio()"),
        (r#"{"error-pages":{"query":"/{status}"}}"#, "query: "),
        (r#"{"error-pages":{"service":"pages","query":"{status}"}}"#, "query: "),
        (r#"{"error-pages":{"service":"pages","query":"/a b"}}"#, "query: "),
        (r#"{"error-pages":{"status_rewrites":{"all":404}}}"#, "status_rewrites: "),
        (r#"{"error-pages":{"status_rewrites":{"404":1000}}}"#, "status_rewrites: "),
        (r#"{"forward-auth":{"address":"https://g/","tls":{"key_file":"/k"}}}"#, "tls: "),
        (r#"{"error-pages":{"status":["200"]}}"#, "status: \"200\""),
        (r#"{"error-pages":{"status":["599-500"]}}"#, "status: "),
        (r#"{"error-pages":{"directory":"/nonexistent"}}"#, "directory: "),
        (r#"{"maintenance":{"allowed_ips":["home"]}}"#, "allowed_ips: "),
        (r#"{"maintenance":{"page":"/nonexistent"}}"#, "page: "),
        (r#"{"static-files":{"root":"public"}}"#, "root: "),
        (r#"{"static-files":{"root":"/srv","index":["../x"]}}"#, "index: "),
        (r#"{"static-files":{"root":"/srv","spa_fallback":"../x"}}"#, "spa_fallback: "),
    ] {
        let error = try_chain(&[middleware], &State::new()).err().unwrap_or_else(|| panic!("{middleware} was taken"));
        assert!(error.starts_with(&format!("middleware \"m0\": {wanted}")), "{middleware}: {error}");
        assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn secrets_are_not_in_debug_output() {
    let auth = r#"{"basic-auth":{"users":["ann:hunter2"]}}"#;
    let headers = r#"{"headers":{"custom_request_headers":{"Authorization":"Bearer hunter2"}}}"#;
    let chain = try_chain(&[auth, headers], &State::new()).unwrap();
    let shown = format!("{chain:?}");
    assert!(shown.contains("BasicAuth") && shown.contains("Authorization") && !shown.contains("hunter2"), "{shown}");
}
