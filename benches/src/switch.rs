//! How soon requests go elsewhere: from telling the proxy a new table to its word that every later request follows it,
//! checked each time by a request that must reach the new target.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use coracle_proxy_table::{Admission, Route, Service, ServiceId, Table, Target};
use coracle_tests::{Proxy, browser, proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Somebody who answers every request with the same word, on a connection for each.
async fn backend(word: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                // Whoever hangs up without a request gets no answer.
                if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{word}", word.len());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

/// So many apps, all of them answered by one target.
fn table(apps: usize, generation: u64, target: &str, address: SocketAddr) -> Table {
    let id = |app: usize| ServiceId(format!("app-{app}"));
    let route = |app| Route::new(format!("app-{app}"), format!("Host(`app-{app}.localhost`)"), id(app));
    let service = |app| {
        let target = Target::new(format!("app-{app}.{target}"), address);
        (id(app), Service::new(Admission::Open, vec![target]))
    };
    let services: BTreeMap<_, _> = (0..apps).map(service).collect();
    Table { generation, routes: (0..apps).map(route).collect(), services, ..Table::default() }
}

/// Switches all apps over so many times; how long each took.
pub async fn switches(apps: usize, times: u64) -> Vec<Duration> {
    let directory = tempfile::tempdir().unwrap();
    let http = proxy::free_address();
    let arguments = ["--http".to_owned(), http.to_string()];
    let proxy = Proxy::start(directory.path(), &[], &arguments).await.unwrap();
    let backends = [("blue", backend("blue").await), ("green", backend("green").await)];
    let mut took = Vec::new();
    for generation in 1..=times {
        let (word, address) = backends[(generation % 2) as usize];
        let table = table(apps, generation, word, address);
        let begun = Instant::now();
        proxy.publish(&table).await.unwrap().unwrap();
        took.push(begun.elapsed());
        let host = format!("app-{}.localhost", generation as usize % apps);
        browser::get(http, &host, "/").await.unwrap().says(word);
    }
    drop(proxy);
    took
}
