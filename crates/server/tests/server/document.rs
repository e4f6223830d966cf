//! The description of the API is committed; a change of the API shows in it.

#[test]
fn the_committed_document_describes_this_api() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let now = coracle_server::openapi_json();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == now,
        "docs/openapi.json does not describe the API any more; run `UPDATE=1 cargo nextest run -p coracle-server document` and look at the diff"
    );
}

#[tokio::test]
async fn the_server_hands_it_out() {
    let env = crate::harness::Env::start().await;
    let document = env.client.openapi().await.unwrap();
    let paths = document["paths"].as_object().unwrap();
    for path in ["/v1/apps", "/v1/apps/{app}/deployments", "/v1/deployments/{id}/events", "/v1/apps/{app}/config"] {
        assert!(paths.contains_key(path), "{path} is missing in {:?}", paths.keys());
    }
}

#[test]
fn every_operation_has_a_name_of_its_own() {
    let document: serde_json::Value = serde_json::from_str(&coracle_server::openapi_json()).unwrap();
    let operations = document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
    let mut names: Vec<_> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert!(count >= 21 && names.len() == count, "{names:?}");
}
