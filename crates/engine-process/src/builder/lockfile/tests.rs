#![allow(clippy::unwrap_used)]

use super::*;

const UV: &str = r#"
version = 1
requires-python = ">=3.11"

[[package]]
name = "shop"
version = "0.1.0"
source = { virtual = "." }
dependencies = [
    { name = "flask" },
    { name = "uvicorn", extra = ["standard"] },
    { name = "pywin32", marker = "sys_platform == 'win32'" },
]
[package.dev-dependencies]
dev = [{ name = "pytest" }]

[[package]]
name = "flask"
version = "3.0.0"
source = { registry = "https://index.example/simple" }
dependencies = [{ name = "colorama", marker = "platform_system == 'Windows'" }, { name = "click" }]
sdist = { url = "https://x/flask.tar.gz", hash = "sha256:aa", size = 1 }
wheels = [{ url = "https://x/flask.whl", hash = "sha256:bb", size = 1 }]

[[package]]
name = "click"
version = "8.1.7"
source = { registry = "https://index.example/simple" }
wheels = [{ url = "https://x/click.whl", hash = "sha256:cc" }]

[[package]]
name = "colorama"
version = "0.4.6"
source = { registry = "https://index.example/simple" }
wheels = [{ url = "https://x/colorama.whl", hash = "sha256:dd" }]

[[package]]
name = "uvicorn"
version = "0.30.0"
source = { registry = "https://index.example/simple" }
wheels = [{ url = "https://x/uvicorn.whl", hash = "sha256:ee" }]
[package.optional-dependencies]
standard = [{ name = "httptools" }]

[[package]]
name = "httptools"
version = "0.6.1"
source = { registry = "https://index.example/simple" }
wheels = [{ url = "https://x/httptools.whl", hash = "sha256:ff" }]

[[package]]
name = "pywin32"
version = "306"
source = { registry = "https://index.example/simple" }
wheels = [{ url = "https://x/pywin32.whl", hash = "sha256:01" }]

[[package]]
name = "pytest"
version = "8.0.0"
source = { registry = "https://index.example/simple" }
wheels = [{ url = "https://x/pytest.whl", hash = "sha256:02" }]
"#;

#[test]
fn a_uv_lock_gives_what_the_project_needs_with_conditions_and_hashes() {
    let text = from_uv(UV).unwrap();
    let expected = "click==8.1.7 \\\n    --hash=sha256:cc\n\
        colorama==0.4.6 ; (platform_system == 'Windows') \\\n    --hash=sha256:dd\n\
        flask==3.0.0 \\\n    --hash=sha256:bb \\\n    --hash=sha256:aa\n\
        httptools==0.6.1 \\\n    --hash=sha256:ff\n\
        pywin32==306 ; (sys_platform == 'win32') \\\n    --hash=sha256:01\n\
        uvicorn==0.30.0 \\\n    --hash=sha256:ee\n";
    assert_eq!(text, expected);
}

#[test]
fn a_package_from_git_turns_hashes_off_for_all() {
    let lock = UV.replace(
        "source = { registry = \"https://index.example/simple\" }\nwheels = [{ url = \"https://x/click.whl\", hash = \"sha256:cc\" }]",
        "source = { git = \"https://github.com/pallets/click?rev=main#0123abc\" }",
    );
    let text = from_uv(&lock).unwrap();
    assert!(text.contains("click @ git+https://github.com/pallets/click@0123abc\n"), "{text}");
    assert!(!text.contains("--hash"), "{text}");
}

#[test]
fn a_poetry_2_lock_names_its_groups() {
    let lock = r#"
[[package]]
name = "Flask"
version = "3.0.0"
optional = false
groups = ["main"]
files = [{ file = "flask.whl", hash = "sha256:aa" }]
[[package]]
name = "colorama"
version = "0.4.6"
optional = false
groups = ["main", "dev"]
markers = { main = "platform_system == \"Windows\"", dev = "sys_platform == \"win32\"" }
files = [{ file = "colorama.whl", hash = "sha256:bb" }]
[[package]]
name = "pytest"
version = "8.0.0"
optional = false
groups = ["dev"]
files = [{ file = "pytest.whl", hash = "sha256:cc" }]
[metadata]
lock-version = "2.1"
"#;
    let expected =
        "Flask==3.0.0 \\\n    --hash=sha256:aa\ncolorama==0.4.6 ; platform_system == \"Windows\" \\\n    --hash=sha256:bb\n";
    assert_eq!(from_poetry(lock, "").unwrap(), expected);
}

#[test]
fn a_poetry_1_lock_is_walked_from_the_main_dependencies() {
    let lock = r#"
[[package]]
name = "flask"
version = "3.0.0"
optional = false
files = [{ file = "flask.whl", hash = "sha256:aa" }]
[package.dependencies]
Werkzeug = ">=3"
asgiref = {version = ">=3.2", optional = true, markers = "extra == \"async\""}
[[package]]
name = "werkzeug"
version = "3.0.1"
optional = false
files = [{ file = "werkzeug.whl", hash = "sha256:bb" }]
[[package]]
name = "asgiref"
version = "3.8.0"
optional = true
files = [{ file = "asgiref.whl", hash = "sha256:cc" }]
[[package]]
name = "pytest"
version = "8.0.0"
optional = false
files = [{ file = "pytest.whl", hash = "sha256:dd" }]
"#;
    let pyproject =
        "[tool.poetry.dependencies]\npython = \"^3.11\"\nflask = \"^3\"\n[tool.poetry.group.dev.dependencies]\npytest = \"*\"\n";
    let expected = "flask==3.0.0 \\\n    --hash=sha256:aa\nwerkzeug==3.0.1 \\\n    --hash=sha256:bb\n";
    assert_eq!(from_poetry(lock, pyproject).unwrap(), expected);
}

#[test]
fn a_pipfile_lock_gives_its_default_section() {
    let lock = r#"{"_meta": {}, "default": {
        "flask": {"version": "==3.0.0", "hashes": ["sha256:aa", "sha256:bb"]},
        "colorama": {"version": "==0.4.6", "hashes": ["sha256:cc"], "markers": "platform_system == 'Windows'"}
    }, "develop": {"pytest": {"version": "==8.0.0"}}}"#;
    let expected = "colorama==0.4.6 ; platform_system == 'Windows' \\\n    --hash=sha256:cc\n\
        flask==3.0.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n";
    assert_eq!(from_pipfile(lock).unwrap(), expected);
}

#[test]
fn what_is_no_toml_is_damaged() {
    assert!(matches!(from_uv("not toml"), Err(LockError::Damaged(_))));
}
