//! Names that must not cost an order.

use std::{net::Ipv4Addr, sync::Arc};

use coracle_certs::{AcmeOptions, Certificates, ChallengeKind, PreflightOptions, State};
use coracle_lab::pebble::{HTTP_PORT, Lab, Manners, is_missing};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use crate::{
    acme::{active, reason, status_of, wanted},
    support::edge::Manned as _,
};

/// Something else's web server.
async fn stranger(address: Ipv4Addr) -> JoinSet<()> {
    let listener = TcpListener::bind((address, HTTP_PORT)).await.unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            drop(stream.read(&mut request).await);
            let answer = "HTTP/1.1 301 Moved Permanently\r\nServer: stranger/1.0\r\nLocation: https://elsewhere.example/\r\n\
                          Content-Length: 0\r\nConnection: close\r\n\r\n";
            drop(stream.write_all(answer.as_bytes()).await);
        }
    });
    task
}

fn http_only(lab: &Lab) -> AcmeOptions {
    AcmeOptions { challenges: vec![ChallengeKind::Http01], ..lab.options() }
}

async fn refusal(certificates: &Certificates, name: &str, attempts: u32) -> String {
    let failing = |status: &coracle_certs::CertificateStatus| matches!(&status.state, State::Failing { attempts: made, next_attempt: Some(_), .. } if *made >= attempts);
    let status = status_of(certificates, name, "refused", failing).await;
    reason(&status).to_owned()
}

#[tokio::test]
async fn names_that_lead_elsewhere_cost_no_order_however_often_they_are_tried() {
    if is_missing() {
        return;
    }
    let lab = Lab::start(Manners::default()).await;
    let _stranger = stranger(lab.elsewhere).await;
    let certificates = lab.certificates(http_only(&lab));
    let _edge = lab.edge(&certificates).await;
    let nobody = Ipv4Addr::new(127, lab.address.octets()[1], lab.address.octets()[2], lab.address.octets()[3] + 2);
    lab.point("shop.example", lab.elsewhere).await;
    lab.point("gone.example", nobody).await;
    certificates.set_wanted(wanted(&["shop.example", "gone.example", "printer.local", "intranet"]));

    let told = refusal(&certificates, "shop.example", 4).await;
    for expected in
        [&format!("port {HTTP_PORT} of {}", lab.elsewhere), "something else", "301", "stranger/1.0", &lab.address.to_string()]
    {
        assert!(told.contains(expected), "{told}");
    }
    let told = refusal(&certificates, "gone.example", 4).await;
    assert!(told.contains(&format!("points to {nobody}")) && told.contains("refuses connections"), "{told}");
    assert!(refusal(&certificates, "printer.local", 4).await.contains("no public authority"));
    assert!(refusal(&certificates, "intranet", 4).await.contains("single label"));
    assert_eq!((lab.orders(), lab.asked("GET /dir")), (0, 0), "the authority has heard of nothing");

    // Ten deployments later the name server is told.
    for _ in 0..10 {
        certificates.set_wanted(wanted(&["shop.example"]));
        certificates.settled().await;
        certificates.set_wanted(wanted(&["shop.example", "other.shop.example"]));
        certificates.settled().await;
    }
    lab.point("shop.example", lab.address).await;
    certificates.retry("Shop.Example");
    active(&certificates, "shop.example").await;
}

#[tokio::test]
async fn names_without_an_address_or_with_one_that_is_not_ours_are_refused() {
    if is_missing() {
        return;
    }
    let lab = Lab::start(Manners::default()).await;
    let certificates = lab.certificates(http_only(&lab));
    let _edge = lab.edge(&certificates).await;
    let _stranger = stranger(lab.elsewhere).await;
    lab.tell_dns("add-a", &json!({ "host": "half.example.", "addresses": [lab.address, lab.elsewhere] })).await;
    lab.tell_dns("set-servfail", &json!({ "host": "broken.example." })).await;
    // Without a default everything has an address only if it was given one.
    lab.tell_dns("set-default-ipv4", &json!({ "ip": "" })).await;
    certificates.set_wanted(wanted(&["half.example", "broken.example", "nowhere.example"]));

    assert!(refusal(&certificates, "half.example", 1).await.contains(&lab.elsewhere.to_string()));
    let told = refusal(&certificates, "broken.example", 1).await;
    assert!(told.contains("cannot be looked up"), "{told}");
    let told = refusal(&certificates, "nowhere.example", 1).await;
    assert!(told.contains("no address in DNS") && told.contains(&lab.address.to_string()), "{told}");
    assert_eq!(lab.orders(), 0);
}

#[tokio::test]
async fn caa_records_are_climbed_to_and_obeyed() {
    if is_missing() {
        return;
    }
    let lab = Lab::start(Manners::default()).await;
    let caa = |host: &str, value: &str| json!({ "host": host, "policies": [{ "tag": "issue", "value": value }] });
    lab.tell_dns("add-caa", &caa("one.example.", "other.example")).await;
    lab.tell_dns("add-caa", &caa("two.example.", "other.example")).await;
    lab.tell_dns("add-caa", &caa("shop.two.example.", "pebble.example")).await;
    let certificates = lab.certificates(lab.options());
    let _edge = lab.edge(&certificates).await;
    certificates.set_wanted(wanted(&["a.b.one.example", "shop.two.example"]));
    let told = refusal(&certificates, "a.b.one.example", 2).await;
    assert_eq!(told, "CAA of one.example allows only other.example; add the record: one.example CAA 0 issue \"pebble.example\"");
    active(&certificates, "shop.two.example").await;
    assert_eq!(lab.orders(), 1);
}

#[tokio::test]
async fn each_look_can_be_switched_off() {
    if is_missing() {
        return;
    }
    let lab = Lab::start(Manners::default()).await;
    let preflight = PreflightOptions { public_names: false, dns: false, caa: false, ..lab.options().preflight };
    let certificates: Arc<Certificates> = lab.certificates(AcmeOptions { preflight, ..http_only(&lab) });
    let _edge = lab.edge(&certificates).await;
    let caa = json!({ "host": "shop.internal.", "policies": [{ "tag": "issue", "value": ";" }] });
    lab.tell_dns("add-caa", &caa).await;
    certificates.set_wanted(wanted(&["shop.internal"]));
    active(&certificates, "shop.internal").await;
}
