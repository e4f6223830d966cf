//! Input that means harm, or is merely wrong: a clear problem, and nothing changes.

use coracle_api::{DeployOptions, Outcome, Phase, ProblemKind, Source};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Env, PATIENCE, all, app, archive, outcome, tree};

fn entry(kind: tar::EntryType, path: &str, link: &str) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    // The library refuses to write such paths, so they are written past it.
    header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(0);
    header.set_cksum();
    header
}

#[tokio::test]
async fn names_that_are_none_are_refused_before_anything_is_read() {
    let env = Env::start().await;
    for name in ["..%2Fetc", "shop;rm", "sh%C3%B6p", "%FF", "Shop", "a%00b", "%20", "..", "a%0Ab", &"a".repeat(300)] {
        for (method, path) in [("GET", ""), ("DELETE", ""), ("POST", "/deployments"), ("GET", "/config"), ("POST", "/run")] {
            let (status, answer) = env.raw(method, &format!("/v1/apps/{name}{path}"), &[], b"").await;
            assert_eq!(status, 400, "{method} {name}{path}: {answer}");
            assert!(answer.contains("application/problem+json"), "{answer}");
        }
    }
    for id in ["0x1", "-1", "d", "99999999999999999999", "..%2F1"] {
        assert_eq!(env.raw("GET", &format!("/v1/deployments/{id}"), &[], b"").await.0, 400, "{id}");
    }
    assert!(env.client.apps().await.unwrap().is_empty());
}

#[tokio::test]
async fn archives_that_mean_harm_leave_nothing() {
    let env = Env::start().await;
    let outside = env.dir.path().join("outside");
    let hostile = [
        entry(tar::EntryType::Regular, "../outside", ""),
        entry(tar::EntryType::Regular, outside.to_str().unwrap(), ""),
        entry(tar::EntryType::Regular, "a/../../../outside", ""),
        entry(tar::EntryType::Symlink, "link", "/etc/passwd"),
        entry(tar::EntryType::Symlink, "link", "../../outside"),
        entry(tar::EntryType::Link, "link", "/etc/passwd"),
        entry(tar::EntryType::Char, "null", ""),
        entry(tar::EntryType::Fifo, "pipe", ""),
    ];
    for header in hostile {
        let shown = String::from_utf8_lossy(&header.path_bytes()).into_owned();
        let bytes = archive(|tar| tar.append(&header, std::io::empty()).unwrap());
        let error = env.client.deploy(&app("shop"), &DeployOptions::default(), Source::from_bytes(bytes)).await.unwrap_err();
        assert_eq!(error.kind(), Some(ProblemKind::Invalid), "{shown}: {error:?}");
        assert!(error.hint().is_some(), "{shown}: {error:?}");
    }
    assert!(!outside.exists());
    assert!(env.incoming_is_empty());
    assert!(env.client.apps().await.unwrap().is_empty());
}

#[tokio::test]
async fn archives_that_are_too_much_are_413() {
    let env = Env::start().await;
    let many = archive(|tar| {
        for number in 0..5_000 {
            tar.append(&entry(tar::EntryType::Regular, &format!("f{number}"), ""), std::io::empty()).unwrap();
        }
    });
    let error = env.client.deploy(&app("shop"), &DeployOptions::default(), Source::from_bytes(many)).await.unwrap_err();
    assert_eq!(error.problem().map(|it| it.status), Some(413), "{error:?}");

    // Announced, and not announced.
    let noise: Vec<u8> = (0_u32..6 << 20).map(|number| blake3_like(number) as u8).collect();
    let large = archive(|tar| {
        let mut header = tar::Header::new_gnu();
        header.set_size(noise.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "noise", noise.as_slice()).unwrap();
    });
    let error = env.client.deploy(&app("shop"), &DeployOptions::default(), Source::from_bytes(large.clone())).await.unwrap_err();
    assert_eq!(error.kind(), Some(ProblemKind::TooLarge), "{error:?}");
    let pieces: Vec<_> = large.chunks(100_000).map(|piece| Ok(bytes::Bytes::copy_from_slice(piece))).collect();
    let source = Source::from_stream(futures::stream::iter(pieces));
    let error = env.client.deploy(&app("shop"), &DeployOptions::default(), source).await.unwrap_err();
    assert_eq!(error.kind(), Some(ProblemKind::TooLarge), "{error:?}");
    assert!(env.incoming_is_empty());
}

/// Bytes that do not compress.
fn blake3_like(number: u32) -> u32 {
    let mut x = number.wrapping_mul(0x9E37_79B9);
    x ^= x >> 16;
    x = x.wrapping_mul(0x85EB_CA6B);
    x ^ (x >> 13)
}

#[tokio::test]
async fn what_is_no_archive_is_refused() {
    let env = Env::start().await;
    for bytes in [&b"hello"[..], b"", b"\x1f\x8b\x08\x00garbage"] {
        let source = Source::from_bytes(bytes.to_vec());
        let error = env.client.deploy(&app("shop"), &DeployOptions::default(), source).await.unwrap_err();
        assert_eq!(error.kind(), Some(ProblemKind::Invalid), "{bytes:?}: {error:?}");
    }
    let headers = [("Content-Type", "application/json")];
    let (status, answer) = env.raw("POST", "/v1/apps/shop/deployments", &headers, b"{}").await;
    assert_eq!(status, 400, "{answer}");
    assert!(env.incoming_is_empty());
}

#[tokio::test]
async fn manifests_that_are_wrong_say_where() {
    let env = Env::start().await;
    let wrong = [
        ("[deploy]\nstrateggy = \"x\"\n", "strategy"),
        ("app = \"other\"\n", "other"),
        ("app = \"../x\"\n", "app"),
        ("app = 3\n", "app"),
        ("[deploy\n", "coracle.toml"),
        ("secrets = [\"A-B\"]\n", "secrets"),
    ];
    for (manifest, wanted) in wrong {
        let error = env.begin("shop", manifest, &DeployOptions::default()).await.unwrap_err();
        let problem = error.problem().unwrap_or_else(|| panic!("{manifest}: {error:?}"));
        assert_eq!(problem.status, 422, "{manifest}: {problem:?}");
        let told = format!("{problem:?}");
        assert!(told.contains(wanted), "{manifest}: {told}");
    }
    let long = format!("# {}\n", "x".repeat(1 << 20));
    let error = env.begin("shop", &long, &DeployOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), Some(ProblemKind::Invalid), "{error:?}");
    let unknown = DeployOptions { environment: Some("nowhere".into()), ..DeployOptions::default() };
    let error = env.begin("shop", "", &unknown).await.unwrap_err();
    assert_eq!(error.kind(), Some(ProblemKind::Invalid), "{error:?}");
    assert!(env.incoming_is_empty());
    assert!(env.client.apps().await.unwrap().is_empty());
}

#[tokio::test]
async fn missing_secrets_refuse_before_the_build() {
    let env = Env::start().await;
    let events = all(env.begin("shop", "secrets = [\"SECRET_KEY\"]\n", &DeployOptions::default()).await.unwrap()).await;
    let Some(Outcome::Failed { phase: Phase::Validate, cause, .. }) = outcome(&events) else { panic!("{events:#?}") };
    assert!(cause.contains("SECRET_KEY"), "{cause}");
    assert!(env.machine.inventory().is_empty());
}

#[tokio::test]
async fn requests_that_are_wrong_are_told_how() {
    let env = Env::start().await;
    let json = [("Content-Type", "application/json")];
    let big = format!("{{\"argv\":[\"{}\"]}}", "x".repeat(2 << 20));
    let wrong: [(&str, &str, &[u8], u16); 9] = [
        ("GET", "/v1/nothing", b"", 404),
        ("GET", "/", b"", 404),
        ("PUT", "/v1/apps", b"", 405),
        ("GET", "/v1/apps/shop/logs?tail=-1", b"", 400),
        ("GET", "/v1/apps/shop/logs?since=yesterday", b"", 400),
        ("GET", "/v1/apps/shop/logs?colour=red", b"", 400),
        ("POST", "/v1/apps/shop/run", b"{\"argv\":", 400),
        ("POST", "/v1/apps/shop/run", b"{\"argv\":[]}", 400),
        ("POST", "/v1/apps/shop/run", big.as_bytes(), 413),
    ];
    for (method, path, body, expected) in wrong {
        let (status, answer) = env.raw(method, path, &json, body).await;
        assert_eq!(status, expected, "{method} {path}: {}", &answer[..answer.len().min(400)]);
        assert!(answer.contains("application/problem+json"), "{method} {path}");
    }
    let commit = DeployOptions { commit: Some("$(reboot)".into()), ..DeployOptions::default() };
    assert_eq!(env.begin("shop", "", &commit).await.unwrap_err().kind(), Some(ProblemKind::BadRequest));
}

#[tokio::test]
async fn what_is_no_http_does_no_harm() {
    let env = Env::start().await;
    let endless_head = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(200_000));
    for bytes in [endless_head.as_bytes(), b"\x16\x03\x01\x02\x00", b"\r\n\r\n\r\n", &[0; 4096]] {
        let mut socket = tokio::net::UnixStream::connect(env.state_dir().join("api.sock")).await.unwrap();
        // The server may hang up before it has read it all.
        socket.write_all(bytes).await.ok();
        socket.shutdown().await.ok();
        let mut answer = Vec::new();
        let hung_up = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
        assert!(hung_up.is_ok(), "the connection stays open after {:?}", &bytes[..20.min(bytes.len())]);
        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
    }
    assert_eq!(env.client.version().await.unwrap().api, "v1");
}

#[tokio::test]
async fn the_tree_of_a_refused_deployment_is_removed() {
    let env = Env::start().await;
    let bytes = tree(&[("README", "nothing that could be built")]);
    let result = env.client.deploy(&app("shop"), &DeployOptions::default(), Source::from_bytes(bytes)).await;
    match result {
        Ok(events) => drop(all(events).await),
        Err(error) => assert_eq!(error.problem().unwrap().status, 422, "{error:?}"),
    }
    env.eventually("it is removed", async |env| env.incoming_is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_refusal_reaches_whoever_is_still_sending() {
    let env = Env::start_with(|options| options.api_tcp = Some("127.0.0.1:0".parse().unwrap())).await;
    let large = vec![0x1f_u8; 3 << 20];
    let gzip = [("Content-Type", "application/gzip")];
    for (path, expected) in [("/v1/apps/Bad/deployments", 400), ("/v1/nothing", 404), ("/v1/apps/shop/deployments?x=1", 400)] {
        let (status, answer) = env.raw("POST", path, &gzip, &large).await;
        assert_eq!(status, expected, "{path}: {answer}");
    }
    let stream = tokio::net::TcpStream::connect(env.api_tcp.unwrap()).await.unwrap();
    let (status, _) = crate::harness::raw_over(stream, "POST", "/v1/apps/shop/deployments", &gzip, &large).await;
    assert_eq!(status, 401);
}

/// A file system of a few megabytes.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &std::path::Path) -> Result<Self, rustix::io::Errno> {
        std::fs::create_dir_all(at).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", at, "tmpfs", flags, Some(c"size=4m,mode=0700"))?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).ok();
    }
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "what is skipped is said aloud")]
async fn a_full_disk_is_507_and_leaves_nothing() {
    let mut disk = None;
    let env = Env::start_with(|options| disk = Some(SmallDisk::mount(&options.state_dir))).await;
    let _disk = match disk.unwrap() {
        Ok(disk) => disk,
        Err(error) if !rustix::process::geteuid().is_root() && std::env::var_os("CI").is_none() => {
            return eprintln!("skipped: mounting needs root ({error})");
        }
        Err(error) => panic!("{error}"),
    };
    let zeros = vec![0_u8; 8 << 20];
    let bytes = archive(|tar| {
        let mut header = tar::Header::new_gnu();
        header.set_size(zeros.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "zeros", zeros.as_slice()).unwrap();
    });
    let error = env.client.deploy(&app("shop"), &DeployOptions::default(), Source::from_bytes(bytes)).await.unwrap_err();
    assert_eq!(error.problem().map(|problem| (problem.status, problem.kind)), Some((507, ProblemKind::DiskFull)), "{error:?}");
    assert!(error.hint().unwrap().contains("free some space"));
    assert!(env.incoming_is_empty());
    env.deploy("shop").await;
}
