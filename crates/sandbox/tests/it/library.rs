//! Images that an operator makes: packages that pip installs, a Docker image that is exported.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use coracle_sandbox::library::{Base, From};
use coracle_sandbox::{ClientError, Execution, Library, LibraryError, Recipe};

use crate::host::{DOCKER_IMAGE, Host, Way, finish, possible};

fn requirements(place: &Path, text: &str) -> From {
    let file = place.join("requirements.txt");
    std::fs::write(&file, text).unwrap();
    From::Requirements { file, python: Some("/usr/bin/python3".into()), source: false }
}

/// A library that pip's user can get at.
fn library() -> (tempfile::TempDir, Library) {
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let library = Library::at(place.path().join("images"));
    (place, library)
}

#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
#[tokio::test]
async fn numpy_works_in_an_image_of_its_own_beside_the_machines_python() {
    if !possible() {
        return;
    }
    let (place, library) = library();
    let recipe = Recipe { from: requirements(place.path(), "numpy\n"), preload: vec!["numpy".to_owned()] };
    let mut told = Vec::new();
    let manifest = match library.build("science", &recipe, &mut |line| told.push(line.to_owned())) {
        Err(LibraryError::Install(why)) if why.contains("Could not find") || why.contains("connection") => {
            eprintln!("NOT TRIED: no registry gives numpy: {why}");
            return;
        }
        built => built.unwrap(),
    };
    assert!(told.iter().any(|line| line.contains("numpy")), "{told:?}");
    assert!(manifest.installed.iter().any(|name| name.starts_with("numpy ")), "{manifest:?}");
    assert_eq!(manifest.requirements, blake3_of("numpy\n"));
    // It is root's and nobody else may write to it, though pip ran as somebody else.
    let packages = place.path().join("images/science/packages/numpy/__init__.py");
    let data = std::fs::metadata(&packages).unwrap();
    assert_eq!((data.uid(), data.mode() & 0o022), (rustix::process::geteuid().as_raw(), 0));
    // The same again, without anything imported ahead, under another name; and one that breaks later.
    copy(&place.path().join("images"), "science", "plain");
    copy(&place.path().join("images"), "science", "broken");
    std::fs::remove_dir_all(place.path().join("images/broken/packages")).unwrap();
    let setting = format!("library={}", place.path().join("images").display());
    for way in [Way::Zygote, Way::Docker, Way::User].into_iter().filter(|way| Way::all().contains(way)) {
        if way == Way::User {
            // A user's daemon is shown what root has made: it may read it.
            std::fs::set_permissions(place.path().join("images"), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let host = Host::start_as(way, &["slots=1", "cores=1000", "patience=60000", &setting]).await;
        for image in ["science", "plain"] {
            let code = "import sys\nahead = 'numpy' in sys.modules\nimport numpy\n\
                        print(ahead, numpy.arange(6).reshape(2, 3).sum(axis=0).tolist(), numpy.linalg.inv(numpy.eye(2)).tolist())\n\
                        print(numpy.random.rand() != 0, numpy.__file__.startswith('/.coracle/packages/0/'))";
            let done = finish(host.sandbox.execute(&Execution::new(image, code)).await.unwrap()).await;
            let ahead = if image == "science" && way != Way::Docker { "True" } else { "False" };
            done.says(&format!("{ahead} [3, 5, 7] [[1.0, 0.0], [0.0, 1.0]]\nTrue True\n"));
            let code = "import numpy, os\npath = os.path.dirname(numpy.__file__) + '/x'\ntry: open(path, 'w')\nexcept OSError as e: print(e.errno in (13, 30))";
            finish(host.sandbox.execute(&Execution::new(image, code)).await.unwrap()).await.says("True\n");
        }
        host.python("try: import numpy\nexcept ImportError: print('no numpy')").await.says("no numpy\n");
        let refused = host.sandbox.execute(&Execution::new("broken", "print(1)")).await.unwrap_err();
        assert!(
            matches!(&refused, ClientError::Refused(refusal) if refusal.message.contains("image broken is broken")),
            "{refused}"
        );
        let refused = host.sandbox.execute(&Execution::new("nosuch", "print(1)")).await.unwrap_err();
        assert!(refused.to_string().contains("science"), "{refused}");
        host.quiet().await;
    }
    library.remove("science").unwrap();
    assert!(library.open("science", 1).unwrap_err().to_string().contains("there is no image science"));
}

fn blake3_of(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

fn copy(images: &Path, from: &str, to: &str) {
    let status = std::process::Command::new("cp").arg("-a").arg(images.join(from)).arg(images.join(to)).status().unwrap();
    assert!(status.success());
    if to == "plain" {
        let path = images.join(to).join("image.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
        manifest["preload"] = serde_json::json!([]);
        std::fs::write(path, manifest.to_string()).unwrap();
    }
}

#[test]
fn packages_that_do_not_exist_are_told_with_pips_own_words() {
    if !possible() {
        return;
    }
    let (place, library) = library();
    let recipe = Recipe { from: requirements(place.path(), "--no-index\ncoracle-no-such-package\n"), preload: Vec::new() };
    let why = library.build("x", &recipe, &mut |_| {}).unwrap_err().to_string();
    assert!(why.contains("coracle-no-such-package") && why.contains("could not be installed"), "{why}");
    assert_eq!(std::fs::read_dir(place.path().join("images")).unwrap().count(), 0, "something is left");
}

#[tokio::test]
async fn a_docker_image_is_exported_once_and_needs_no_engine_any_more() {
    if !Way::all().contains(&Way::Docker) {
        return;
    }
    let (place, library) = library();
    let recipe = Recipe { from: From::Docker { reference: DOCKER_IMAGE.to_owned(), socket: None }, preload: Vec::new() };
    let manifest = library.build("debian", &recipe, &mut |_| {}).unwrap();
    assert!(matches!(&manifest.base, Base::Docker { id, .. } if id.starts_with("sha256:")), "{manifest:?}");
    let setting = format!("library={}", place.path().join("images").display());
    let Some(host) = Host::start(&["slots=1", "docker=/nowhere", &setting]).await else { return };
    let code = "import sys, os\nprint(sys.version_info[0], os.path.exists('/etc/debian_version'), os.path.exists('/usr/share/doc'), os.getuid())\n\
                try: open('/etc/x', 'w')\nexcept OSError as e: print(e.errno in (13, 30))";
    let done = finish(host.sandbox.execute(&Execution::new("debian", code)).await.unwrap()).await;
    let text = done.text();
    assert!(text.starts_with("3 True ") && text.ends_with(" 1000\nTrue\n"), "{}", done.whole());
    host.quiet().await;
}

#[test]
fn a_docker_image_that_is_not_there_and_an_engine_that_is_not_there_are_told_apart() {
    let (_place, library) = library();
    let from = |reference: &str, socket: Option<&str>| Recipe {
        from: From::Docker { reference: reference.to_owned(), socket: socket.map(Into::into) },
        preload: Vec::new(),
    };
    let why = library.build("x", &from("python:3", Some("/nowhere/docker.sock")), &mut |_| {}).unwrap_err().to_string();
    assert!(why.contains("no Docker engine answers: /nowhere/docker.sock"), "{why}");
    if Way::all().contains(&Way::Docker) {
        let why = library.build("x", &from("coracle-no-such-image:1", None), &mut |_| {}).unwrap_err().to_string();
        assert!(why.contains("coracle-no-such-image"), "{why}");
    }
}
