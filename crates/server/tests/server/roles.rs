//! What each role may do: every route of the API, asked by everybody.

use std::net::SocketAddr;

use coracle_api::{
    ChangeOptions, Client, ConfigChange, ConfigPatch, DeployOptions, Endpoint, ForgeRequest, LogOptions, NewKey, NewPerson,
    NewRegistryLogin, OriginKind, Outcome, ProblemKind, PromotionRequest, RoleChange, RoleIn, Source, TokenRequest,
};
use coracle_engine::fake::{Script, Which};
use coracle_model::{EngineKind, PersonName, Role, Secret};
use futures::StreamExt;
use tokio::net::TcpStream;

use crate::harness::{Env, QUICK, all, app, outcome, raw_over, tree};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti ana@laptop";

/// What a deployer may ask, beside what everybody may; an owner may ask the second list as well; the rest is the administrator's.
const SOMEBODY: &[&str] = &["show_version", "show_local_authority", "list_apps", "list_domains"];
const DEPLOYER: &[&str] = &[
    "show_app",
    "list_releases",
    "list_deployments",
    "deploy_app",
    "plan_deployment",
    "show_deployment",
    "follow_deployment",
    "cancel_deployment",
    "rollback_app",
    "restart_app",
    "promote_app",
    "plan_promotion",
    "list_config",
    "read_logs",
    "show_forge",
    "deploy_from_forge",
    "list_runs",
    "show_run",
    "read_run_log",
    "download_artifacts",
    "show_deploy_branch",
    "list_previews",
    "remove_preview",
    "extend_preview",
];
const OWNER: &[&str] = &[
    "approve_deployment",
    "reject_deployment",
    "scale_app",
    "change_config",
    "run_program",
    "exec_program",
    "connect_forge",
    "disconnect_forge",
    "list_app_registries",
    "login_app_registry",
    "logout_app_registry",
    "set_deploy_branch",
    "destroy_app",
];

async fn serving() -> Env {
    Env::start_with(|options| options.api_tcp = Some("127.0.0.1:0".parse().unwrap())).await
}

fn person(name: &str) -> PersonName {
    name.parse().unwrap()
}

/// Adds a person with a role in these apps, and a client by a token of that person's.
async fn person_with(env: &Env, name: &str, roles: &[(Option<&str>, Role)]) -> (Client, String) {
    let roles = roles.iter().map(|(in_app, role)| RoleIn { app: in_app.map(app), role: *role }).collect();
    env.client.add_person(&NewPerson { name: person(name), roles, keys: Vec::new() }).await.unwrap();
    let token = env.client.create_token(&person(name), &TokenRequest { label: "test".to_owned() }).await.unwrap().token;
    let url = format!("http://{}", env.api_tcp.unwrap());
    (Client::new(Endpoint::Tcp { url, token: token.clone() }), token.expose().to_owned())
}

/// Every operation of the document: its name, its method and its path. Those that end an app come last.
fn operations() -> Vec<(String, String, String)> {
    let document: serde_json::Value = serde_json::from_str(&coracle_server::openapi_json()).unwrap();
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            all.push((operation["operationId"].as_str().unwrap().to_owned(), method.to_uppercase(), path.clone()));
        }
    }
    all.sort_by_key(|(name, ..)| name == "destroy_app");
    all
}

async fn status(address: SocketAddr, method: &str, path: &str, token: &str) -> u16 {
    let stream = TcpStream::connect(address).await.unwrap();
    let token = format!("Bearer {token}");
    // Nothing that is asked here is meant to be well-formed: it is about getting as far as being told so.
    raw_over(stream, method, path, &[("Authorization", &token)], b"{}").await.0
}

#[tokio::test]
async fn every_route_is_open_to_those_alone_whose_role_allows_it() {
    let env = serving().await;
    env.deploy("shop").await;
    env.deploy("other").await;
    let address = env.api_tcp.unwrap();
    let (_, deployer) = person_with(&env, "deployer", &[(Some("shop"), Role::Deployer)]).await;
    let (_, owner) = person_with(&env, "owner", &[(Some("shop"), Role::Owner)]).await;
    let (_, stranger) = person_with(&env, "stranger", &[(Some("other"), Role::Owner)]).await;
    let (_, nobody) = person_with(&env, "nobody", &[]).await;
    let deployment = env.client.deployments(&app("shop")).await.unwrap()[0].id;

    for (name, method, path) in operations() {
        let place = path.replace("{app}", "shop").replace("{id}", &deployment.0.to_string()).replace("{person}", "zoe");
        let place = place.replace("{host}", "registry.example.com");
        let allowed = |lists: &[&[&str]]| lists.iter().any(|list| list.contains(&name.as_str()));
        let callers = [
            ("nobody", &nobody, allowed(&[SOMEBODY])),
            ("a stranger", &stranger, allowed(&[SOMEBODY])),
            ("a deployer", &deployer, allowed(&[SOMEBODY, DEPLOYER])),
            ("an owner", &owner, allowed(&[SOMEBODY, DEPLOYER, OWNER])),
        ];
        for (who, token, may) in callers {
            let status = status(address, &method, &place, token).await;
            // Others' deployments are not even known to be there.
            let kept_out = matches!(status, 401 | 403) || (status == 404 && place.contains("/deployments/"));
            assert_eq!(!kept_out, may, "{name} ({method} {place}) by {who}: {status}");
        }
    }
    // Git's routes are not in the document.
    for (method, path) in [
        ("GET", "info/refs?service=git-upload-pack"),
        ("GET", "info/refs?service=git-receive-pack"),
        ("GET", "info/refs?service=git%2Dreceive-pack"),
        ("POST", "git-upload-pack"),
        ("POST", "git-receive-pack"),
    ] {
        let place = format!("/git/other.git/{path}");
        for (token, may) in [(&nobody, false), (&deployer, false), (&owner, false), (&stranger, true)] {
            assert_eq!(status(address, method, &place, token).await != 403, may, "{method} {place}");
        }
    }
    // The owner's last request has ended the app, and with it the roles in it.
    assert_eq!(status(address, "GET", "/v1/apps/shop", &owner).await, 403);
    assert!(env.client.person(&person("owner")).await.unwrap().roles.is_empty());
}

#[tokio::test]
async fn a_tree_that_is_still_coming_when_its_app_is_destroyed_makes_it_not_anew() {
    let env = serving().await;
    env.deploy("shop").await;
    let (ana, _) = person_with(&env, "ana", &[(Some("shop"), Role::Deployer)]).await;
    let (go_on, goes_on) = tokio::sync::oneshot::channel::<()>();
    let tree = tree(&[("Procfile", "web: serve\n"), ("coracle.toml", QUICK)]);
    let (head, rest) = (tree[..10].to_vec(), tree[10..].to_vec());
    let pieces = futures::stream::once(async move { Ok(head.into()) }).chain(futures::stream::once(async move {
        goes_on.await.unwrap();
        Ok(rest.into())
    }));
    let options = DeployOptions { wait: true, ..DeployOptions::default() };
    let sending = tokio::spawn(async move { ana.deploy(&app("shop"), &options, Source::from_stream(pieces)).await.map(drop) });
    env.eventually("a tree is coming", async |env| (!env.incoming_is_empty()).then_some(())).await;
    env.client.destroy(&app("shop")).await.unwrap();
    go_on.send(()).unwrap();
    let refused = sending.await.unwrap().unwrap_err();
    assert_eq!(refused.problem().map(|problem| problem.kind), Some(ProblemKind::Forbidden), "{refused}");
    assert!(env.client.apps().await.unwrap().is_empty());
}

#[tokio::test]
async fn promotion_takes_a_role_in_both_apps_and_brings_nothing_of_the_firsts_configuration() {
    let address = |options: &mut coracle_server::ServerOptions| options.api_tcp = Some("127.0.0.1:0".parse().unwrap());
    let env = Env::start_on_with(EngineKind::Docker, address).await;
    env.deploy("staging").await;
    env.deploy("production").await;
    let change = ConfigChange { name: "KEY".parse().unwrap(), value: Some("of-staging".to_owned()), secret: true };
    let patch = ConfigPatch { changes: vec![change], no_deploy: true };
    env.client.set_config(&app("staging"), &patch, ChangeOptions::default()).await.unwrap();
    let (staging, production) = ((Some("staging"), Role::Deployer), (Some("production"), Role::Owner));
    let (of_staging, _) = person_with(&env, "ana", &[staging]).await;
    let (of_production, _) = person_with(&env, "ben", &[production]).await;
    let (of_both, _) = person_with(&env, "eve", &[staging, production]).await;
    let promotion = PromotionRequest { from: app("staging"), release: None, recreate_services: None };
    let to = app("production");
    for client in [&of_staging, &of_production] {
        let promoted = client.promote(&to, &promotion, ChangeOptions::default()).await.map(drop);
        let planned = client.plan_promotion(&to, &promotion).await.map(drop);
        for refused in [promoted, planned] {
            assert_eq!(refused.unwrap_err().problem().map(|problem| problem.kind), Some(ProblemKind::Forbidden));
        }
    }
    let planned = of_both.plan_promotion(&to, &promotion).await.unwrap();
    assert!(planned.steps.iter().any(|step| step.contains("runs what staging v1 runs")), "{planned:#?}");
    let events = all(of_both.promote(&to, &promotion, ChangeOptions::default()).await.unwrap()).await;
    assert_eq!(outcome(&events), Some(&Outcome::Succeeded), "{events:#?}");
    let last = env.client.releases(&to).await.unwrap().pop().unwrap();
    assert_eq!((last.origin, last.description.as_str()), (OriginKind::Promotion, "promoted from staging v1"));
    assert!(env.client.config(&to).await.unwrap().is_empty());
    assert_eq!(env.machine.built().len(), 2, "something was built for it");
    // What is one app's login is not another's to see, and what is refused is not kept.
    let login = NewRegistryLogin { host: "a.b".parse().unwrap(), username: "ana".to_owned(), password: "x".into() };
    let kinds = [of_staging.login_registry(Some(&to), &login).await.map(drop), of_both.registries(None).await.map(drop)];
    for refused in kinds {
        assert_eq!(refused.unwrap_err().problem().map(|problem| problem.kind), Some(ProblemKind::Forbidden));
    }
    assert!(of_both.login_registry(Some(&to), &login).await.is_err());
    assert!(of_both.registries(Some(&to)).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_servers_own_login_pushes_for_nobody_who_was_not_given_it() {
    let address = |options: &mut coracle_server::ServerOptions| options.api_tcp = Some("127.0.0.1:0".parse().unwrap());
    let mut env = Env::start_on_with(EngineKind::Docker, address).await;
    env.deploy("shop").await;
    env.stop().await;
    let store = coracle_store::Store::open(&env.state_dir()).await.unwrap();
    let login = coracle_model::RegistryLogin { username: "ci".to_owned(), password: Secret::new("x") };
    store.set_registry_login(None, &"a.b".parse().unwrap(), &login).await.unwrap();
    store.close().await;
    drop(store);
    env.serve(address).await;
    let (ana, _) = person_with(&env, "ana", &[(Some("shop"), Role::Owner)]).await;
    let manifest = format!("{QUICK}[registry]\npush = \"a.b/team/others\"\n");
    let tree = || Source::from_bytes(tree(&[("Procfile", "web: serve\n"), ("coracle.toml", &manifest)]));
    let refused = ana.plan(&app("shop"), &DeployOptions::default(), tree()).await.unwrap_err();
    let problem = refused.problem().unwrap();
    assert_eq!(problem.kind, ProblemKind::Forbidden, "{problem:?}");
    assert!(problem.detail.contains("images pushed to a.b/team/others with the server's login"), "{problem:?}");
    assert!(env.client.plan(&app("shop"), &DeployOptions::default(), tree()).await.is_ok());
}

#[tokio::test]
async fn the_servers_own_token_and_socket_may_do_everything() {
    let env = serving().await;
    env.deploy("shop").await;
    let token = std::fs::read_to_string(env.state_dir().join("token")).unwrap();
    for (name, method, path) in operations() {
        let place = path.replace("{app}", "shop").replace("{id}", "1").replace("{person}", "zoe");
        let status = status(env.api_tcp.unwrap(), &method, &place, token.trim()).await;
        assert!(!matches!(status, 401 | 403), "{name}: {status}");
    }
    assert!(env.client.apps().await.unwrap().is_empty());
}

#[tokio::test]
async fn people_see_their_own_apps_and_make_those_that_name_them() {
    let env = serving().await;
    env.deploy("shop").await;
    env.deploy("other").await;
    let (ana, _) = person_with(&env, "ana", &[(Some("shop"), Role::Deployer), (Some("blog"), Role::Deployer)]).await;
    let (ben, _) = person_with(&env, "ben", &[(None, Role::Owner)]).await;
    let names =
        async |client: &Client| -> Vec<String> { client.apps().await.unwrap().iter().map(|app| app.name.to_string()).collect() };
    assert_eq!(names(&ana).await, ["shop"]);
    assert_eq!(names(&ben).await, ["other", "shop"]);
    assert!(ana.domains().await.unwrap().iter().all(|domain| domain.app == app("shop")));

    let deploy = async |client: &Client, name: &str| {
        let tree = tree(&[("Procfile", "web: serve\n"), ("coracle.toml", QUICK)]);
        client.deploy(&app(name), &DeployOptions::default(), Source::from_bytes(tree)).await
    };
    let made = all(deploy(&ana, "blog").await.unwrap()).await;
    assert_eq!(outcome(&made), Some(&Outcome::Succeeded));
    for (client, name) in [(&ana, "mine"), (&ben, "mine"), (&ana, "other")] {
        let refused = deploy(client, name).await.unwrap_err();
        assert_eq!(refused.kind(), Some(ProblemKind::Forbidden), "{name}: {refused:?}");
        assert!(refused.hint().unwrap().contains("coracle people role"), "{refused:?}");
    }
    assert_eq!(names(&env.client).await, ["blog", "other", "shop"]);
    // Taking over what runs on the machine is nobody's but the administrator's; data is the owner's.
    let options = DeployOptions { import: Some("x".to_owned()), ..DeployOptions::default() };
    let refused = ben.deploy(&app("shop"), &options, Source::from_bytes(tree(&[]))).await.unwrap_err();
    assert_eq!(refused.kind(), Some(ProblemKind::Forbidden));
    let options = DeployOptions { recreate_services: Some("*".to_owned()), ..DeployOptions::default() };
    let refused = ana.deploy(&app("shop"), &options, Source::from_bytes(tree(&[]))).await.unwrap_err();
    assert_eq!(refused.kind(), Some(ProblemKind::Forbidden));
}

#[tokio::test]
async fn a_role_in_an_app_does_not_come_to_the_machine() {
    let env = Env::start_on_with(EngineKind::Docker, |options| options.api_tcp = Some("127.0.0.1:0".parse().unwrap())).await;
    let (ana, _) = person_with(&env, "ana", &[(Some("shop"), Role::Owner)]).await;
    let compose = "services:\n  web:\n    image: shop\n    ports: ['127.0.0.1::80']\n    volumes: ['${PLACE:-/srv}:/host']\n";
    let deploy = async |client: &Client| {
        let tree = tree(&[("compose.yaml", compose)]);
        let options = DeployOptions { force: true, ..DeployOptions::default() };
        client.deploy(&app("shop"), &options, Source::from_bytes(tree)).await
    };
    let refused = deploy(&ana).await.unwrap_err();
    assert_eq!(refused.kind(), Some(ProblemKind::Forbidden), "{refused:?}");
    assert!(refused.to_string().contains("web: of the machine's files /srv"), "{refused}");
    // What the administrator gave is kept, and no more can be had by configuration.
    let given = all(deploy(&env.client).await.unwrap()).await;
    assert_eq!(outcome(&given), Some(&Outcome::Succeeded), "{given:#?}");
    let kept = all(deploy(&ana).await.unwrap()).await;
    assert_eq!(outcome(&kept), Some(&Outcome::Succeeded), "{kept:#?}");
    let change = ConfigChange { name: "PLACE".parse().unwrap(), value: Some("/".to_owned()), secret: false };
    let patch = ConfigPatch { changes: vec![change], no_deploy: false };
    let refused = ana.set_config(&app("shop"), &patch, ChangeOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), Some(ProblemKind::Forbidden), "{refused:?}");
}

#[tokio::test]
async fn a_role_in_an_app_does_not_lead_the_server_into_its_own_network() {
    let env = serving().await;
    let (ana, _) = person_with(&env, "ana", &[(Some("shop"), Role::Owner)]).await;
    let (ben, _) = person_with(&env, "ben", &[(Some("shop"), Role::Deployer)]).await;
    let request = |url: &str| ForgeRequest {
        url: url.to_owned(),
        kind: Some("github".to_owned()),
        branch: None,
        token: Some("hunter2".to_owned()),
        api: None,
        plain_http: true,
        new_secret: false,
    };
    let elsewhere = ForgeRequest { api: Some("https://127.0.0.1".to_owned()), ..request("https://192.0.2.1/ana/shop") };
    let inside = [
        "https://127.0.0.1/a/b",
        "https://[::1]/a/b",
        "git@localhost:a/b.git",
        "http://192.0.2.1/a/b",
        "https://169.254.169.254/a",
    ];
    for request in inside.map(request).into_iter().chain([elsewhere]) {
        for client in [&ana, &ben] {
            let refused = client.connect_forge(&app("shop"), &request).await.unwrap_err();
            assert_eq!(refused.kind(), Some(ProblemKind::Forbidden), "{request:?}: {refused:?}");
        }
    }
    for bad in ["file:///etc", "ext::sh -c touch% x", "https://u:p@host/a", "https://-x/a", "--upload-pack=x"] {
        let refused = env.client.connect_forge(&app("shop"), &request(bad)).await.unwrap_err();
        assert_eq!(refused.kind(), Some(ProblemKind::Invalid), "{bad}: {refused:?}");
    }
    assert!(env.client.apps().await.unwrap().is_empty(), "what is refused makes no app");
    // The administrator may; and what is secret comes out once, and for nobody else.
    let connected = env.client.connect_forge(&app("shop"), &request("https://127.0.0.1/ana/shop")).await.unwrap();
    let secret = connected.secret.unwrap();
    let shown = format!("{:?}", ben.forge(&app("shop")).await.unwrap());
    assert!(!shown.contains("hunter2") && !shown.contains(secret.expose()), "{shown}");
    assert!(env.client.connect_forge(&app("shop"), &request("https://127.0.0.1/ana/shop")).await.unwrap().secret.is_none());
    assert_eq!(ben.disconnect_forge(&app("shop")).await.unwrap_err().kind(), Some(ProblemKind::Forbidden));
    ana.disconnect_forge(&app("shop")).await.unwrap();
    assert_eq!(ana.forge(&app("shop")).await.unwrap_err().kind(), Some(ProblemKind::NotFound));
}

#[tokio::test]
async fn what_is_revoked_opens_nothing_and_ends_what_goes_on_by_it() {
    let env = serving().await;
    env.deploy("shop").await;
    let (ana, token) = person_with(&env, "ana", &[(Some("shop"), Role::Deployer)]).await;
    let (ben, _) = person_with(&env, "ben", &[(Some("shop"), Role::Deployer)]).await;
    env.machine.script(Which::release(2), Script::never_listens());
    let tree = tree(&[("Procfile", "web: serve\n"), ("coracle.toml", QUICK)]);
    let mut deploying = ana.deploy(&app("shop"), &DeployOptions::default(), Source::from_bytes(tree)).await.unwrap();
    let id = crate::harness::until(&mut deploying, crate::harness::began).await;
    let follow = LogOptions { follow: true, ..LogOptions::default() };
    let mut others = ben.logs(&app("shop"), &follow).await.unwrap();

    let credential = env.client.person(&person("ana")).await.unwrap().credentials[0].id;
    env.client.revoke(&person("ana"), credential).await.unwrap();
    let broken_off = async {
        while let Some(event) = deploying.next().await {
            if event.is_err() {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(crate::harness::PATIENCE, broken_off).await.expect("it goes on"));
    let ended = env.eventually("it is called off", async |env| env.client.deployment(id).await.unwrap().outcome).await;
    assert!(matches!(ended, Outcome::Cancelled { .. }), "{ended:?}");
    assert_eq!(status(env.api_tcp.unwrap(), "GET", "/v1/apps/shop", &token).await, 401);
    assert_eq!(env.client.app(&app("shop")).await.unwrap().release.unwrap().number.get(), 1);

    // Ben's does not end by it, but by his own role.
    ben.app(&app("shop")).await.unwrap();
    let none = RoleChange { app: Some(app("shop")), role: None };
    env.client.change_role(&person("ben"), &none).await.unwrap();
    let ends = async { while let Some(Ok(_)) = others.next().await {} };
    tokio::time::timeout(crate::harness::PATIENCE, ends).await.expect("the logs go on");
    assert_eq!(ben.app(&app("shop")).await.unwrap_err().kind(), Some(ProblemKind::Forbidden));
    ben.version().await.unwrap();
}

#[tokio::test]
async fn tokens_are_shown_once_and_keys_are_checked() {
    let env = serving().await;
    let ana = person("ana");
    let new = NewPerson { name: ana.clone(), roles: Vec::new(), keys: vec![KEY.to_owned()] };
    let added = env.client.add_person(&new).await.unwrap();
    assert_eq!(added.credentials[0].label, "ana@laptop");
    assert!(added.credentials[0].fingerprint.as_ref().unwrap().starts_with("SHA256:"));
    // All of a person, or nothing.
    let twice = NewPerson { name: person("ben"), ..new.clone() };
    assert_eq!(env.client.add_person(&twice).await.unwrap_err().kind(), Some(ProblemKind::Conflict));
    assert_eq!(env.client.person(&person("ben")).await.unwrap_err().kind(), Some(ProblemKind::NotFound));
    for bad in ["", "ssh-ed25519 AAAA", "-----BEGIN OPENSSH PRIVATE KEY-----"] {
        let refused = env.client.add_key(&ana, &NewKey { key: bad.to_owned() }).await.unwrap_err();
        assert_eq!(refused.kind(), Some(ProblemKind::Invalid), "{bad}");
    }
    let made = env.client.create_token(&ana, &TokenRequest::default()).await.unwrap();
    let token: &Secret = &made.token;
    let listed = serde_json::to_string(&env.client.people().await.unwrap()).unwrap();
    assert!(!listed.contains(token.expose()) && !listed.contains("digest"), "{listed}");
    for entry in ["coracle.db", "coracle.db-wal"] {
        let bytes = std::fs::read(env.state_dir().join(entry)).unwrap();
        assert!(!bytes.windows(token.expose().len()).any(|window| window == token.expose().as_bytes()), "{entry}");
    }
}
