#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tar::{EntryType, Header};

use super::*;
use crate::ignore::DockerIgnore;

/// A tar stream made by hand, which may hold what no honest packer writes.
#[derive(Default)]
struct Hostile(Vec<u8>);

impl Hostile {
    fn with(mut self, kind: EntryType, name: &[u8], target: &[u8], mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name);
        gnu.linkname[..target.len()].copy_from_slice(target);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str) -> Self {
        self.with(EntryType::Regular, name.as_bytes(), b"", 0o644, b"content")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.with(EntryType::Symlink, name.as_bytes(), target.as_bytes(), 0o777, b"")
    }

    fn hard(self, name: &str, target: &str) -> Self {
        self.with(EntryType::Link, name.as_bytes(), target.as_bytes(), 0o644, b"")
    }

    fn gzip(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        gzip(&self.0)
    }

    /// Unpacks into a directory that lies between others, and answers the error after checking that nothing else changed.
    fn refused(self) -> String {
        let outer = tempfile::tempdir().unwrap();
        let into = outer.path().join("into");
        fs::create_dir(&into).unwrap();
        fs::write(outer.path().join("beside"), "untouched").unwrap();
        let limits = UnpackLimits { bytes: 1 << 20, entries: 100, path: 1024 };
        let result = unpack(self.gzip().as_slice(), &into, limits);
        let mut names: Vec<_> = fs::read_dir(outer.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["beside", "into"]);
        assert_eq!(fs::read(outer.path().join("beside")).unwrap(), b"untouched");
        match result {
            Ok(facts) => panic!("it was unpacked: {facts:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[track_caller]
    fn fails_since(self, because: &str) {
        let error = self.refused();
        assert!(error.contains(because), "{error}");
    }

    fn unpacked(self) -> (tempfile::TempDir, UnpackFacts) {
        let into = tempfile::tempdir().unwrap();
        let facts = unpack(self.gzip().as_slice(), into.path(), UnpackLimits::default()).unwrap();
        (into, facts)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn names_that_lead_out_are_refused() {
    Hostile::default().file("/etc/passwd").fails_since("\"/etc/passwd\" is refused: its name is absolute");
    Hostile::default().file("../beside").fails_since("`..`");
    Hostile::default().file("a/../../beside").fails_since("`..`");
    Hostile::default().file("a/..").fails_since("`..`");
    Hostile::default().file("").fails_since("no name");
    Hostile::default().with(EntryType::Regular, b"a\xff", b"", 0o644, b"").fails_since("not UTF-8");
    let long = [&b"../"[..], &[b'a'; 300]].concat();
    Hostile::default().with(EntryType::GNULongName, b"L", b"", 0, &long).file("x").fails_since("`..`");
    Hostile::default().with(EntryType::GNULongName, b"L", b"", 0, &[b'a'; 300]).file("x").fails_since("too long");
    Hostile::default().with(EntryType::XHeader, b"x", b"", 0, b"18 path=../beside\n").file("x").fails_since("`..`");
    Hostile::default().with(EntryType::XHeader, b"x", b"", 0, b"nonsense").file("x").fails_since("damaged");
    Hostile::default().with(EntryType::XHeader, b"x", b"", 0, b"12 size=999\n").file("x").fails_since("changes the size");
}

#[test]
fn links_that_lead_out_are_refused_directly_and_through_others() {
    for target in ["/etc", "..", "../beside", "a/../../beside", "./..", ""] {
        Hostile::default().link("l", target).fails_since("\"l\" is refused");
    }
    Hostile::default().link("d/l", "../../beside").fails_since("outside of the tree");
    Hostile::default().link("d/l", "..").link("m", "d/l/../beside").fails_since("goes up again");
    Hostile::default().link("l", "d").file("l/x").fails_since("something lies below it");
    Hostile::default().link("l", ".").link("l/m", "..").fails_since("something lies below it");
    Hostile::default().hard("h", "../beside").fails_since("no file of this archive");
    Hostile::default().hard("h", "/etc/passwd").fails_since("no file of this archive");
    Hostile::default().link("l", "x").hard("h", "l").fails_since("no file of this archive");
    Hostile::default().file("a").hard("h", "h").fails_since("no file of this archive");
}

#[test]
fn what_is_no_file_fails_since() {
    for (kind, because) in [
        (EntryType::Char, "device"),
        (EntryType::Block, "device"),
        (EntryType::Fifo, "pipe"),
        (EntryType::GNUSparse, "sparse"),
        (EntryType::Continuous, "unknown kind"),
        (EntryType::new(b'Z'), "unknown kind"),
    ] {
        Hostile::default().with(kind, b"d", b"", 0o644, b"").fails_since(because);
    }
}

#[test]
fn only_files_have_content() {
    Hostile::default().with(EntryType::Directory, b"d/", b"", 0o755, b"x").fails_since("has content");
    Hostile::default().with(EntryType::Symlink, b"l", b"d", 0o755, b"x").fails_since("has content");
}

#[test]
fn two_entries_of_one_name_are_refused_except_folders() {
    Hostile::default().file("a").file("./a").fails_since("another entry of that name");
    Hostile::default().link("a", "b").file("a").fails_since("another entry of that name");
    Hostile::default().file("a").link("a", "b").fails_since("another entry of that name");
    Hostile::default().file("a").file("a/b").fails_since("a file and a folder");
    Hostile::default().file("a/b").file("a").fails_since("another entry of that name");
    let folder = |tar: Hostile| tar.with(EntryType::Directory, b"a/", b"", 0o700, b"");
    let (_into, facts) = folder(folder(Hostile::default().file("a/b"))).unpacked();
    assert_eq!(facts.entries, 2);
}

#[test]
fn limits_are_kept() {
    let many = (0..101).fold(Hostile::default(), |tar, n| tar.file(&format!("f{n}")));
    many.fails_since("more than 100 entries");
    let deep = (0..4).fold(Hostile::default(), |tar, n| tar.file(&format!("{n}/{}f", "d/".repeat(30))));
    deep.fails_since("more than 100 entries");
    Hostile::default().with(EntryType::Regular, b"big", b"", 0o644, &vec![0; (1 << 20) + 1]).fails_since("more than 1 MiB");
    let long = Hostile::default().with(EntryType::GNULongName, b"L", b"", 0, &vec![b'a'; 100_000]);
    long.file("x").fails_since("too long");
    let names = (0..301).fold(Hostile::default(), |tar, _| tar.with(EntryType::XGlobalHeader, b"g", b"", 0, b""));
    names.fails_since("more than 100 entries");
}

#[test]
fn a_header_may_promise_more_than_there_is() {
    let mut tar = Hostile::default().file("a");
    let mut header = Header::from_byte_slice(&tar.0[..512]).clone();
    header.set_size(1 << 19);
    header.set_cksum();
    tar.0[..512].copy_from_slice(header.as_bytes());
    tar.fails_since("damaged");
    let mut tar = Hostile::default().file("a");
    let mut header = Header::from_byte_slice(&tar.0[..512]).clone();
    header.set_size(1 << 62);
    header.set_cksum();
    tar.0[..512].copy_from_slice(header.as_bytes());
    tar.fails_since("more than 1 MiB");
}

#[test]
fn a_bomb_is_stopped_at_the_limit() {
    // A file of zeros that seems endless.
    let mut header = Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_size(1 << 40);
    header.set_cksum();
    let endless = io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(0));
    let mut compressed = Vec::new();
    flate2::read::GzEncoder::new(endless.take(64 << 20), Compression::fast()).read_to_end(&mut compressed).unwrap();
    let into = tempfile::tempdir().unwrap();
    let error = unpack(compressed.as_slice(), into.path(), UnpackLimits::default()).unwrap_err();
    assert!(matches!(error, UnpackError::TooLarge { .. }), "{error}");
    let zeros = flate2::read::GzEncoder::new(io::repeat(0).take(64 << 20), Compression::fast());
    let error = unpack(flate_all(zeros).as_slice(), into.path(), UnpackLimits::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Damaged(_)), "{error}");
}

fn flate_all(mut reader: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_cut_or_changed_archive_is_damaged() {
    let whole = Hostile::default().file("a").file("b").gzip();
    for length in 0..whole.len() {
        let into = tempfile::tempdir().unwrap();
        let error = unpack(&whole[..length], into.path(), UnpackLimits::default()).unwrap_err();
        assert!(matches!(error, UnpackError::Damaged(_)), "{length}: {error}");
    }
    let mut changed = whole.clone();
    let end = changed.len() - 6;
    changed[end] ^= 1;
    let into = tempfile::tempdir().unwrap();
    assert!(matches!(unpack(changed.as_slice(), into.path(), UnpackLimits::default()), Err(UnpackError::Damaged(_))));
    let into = tempfile::tempdir().unwrap();
    assert!(unpack(&b"no archive"[..], into.path(), UnpackLimits::default()).is_err());
}

#[test]
fn a_directory_that_is_not_empty_is_left_alone() {
    let into = tempfile::tempdir().unwrap();
    fs::write(into.path().join("a"), "mine").unwrap();
    assert!(unpack(Hostile::default().file("a").gzip().as_slice(), into.path(), UnpackLimits::default()).is_err());
    assert_eq!(fs::read(into.path().join("a")).unwrap(), b"mine");
}

#[test]
fn honest_links_work_and_dangerous_bits_are_dropped() {
    let tar = Hostile::default()
        .link("early", "d/f")
        .with(EntryType::Regular, b"d/f", b"", 0o6755, b"x")
        .with(EntryType::Regular, b"closed", b"", 0o000, b"x")
        .link("d/up", "../d/./f")
        .link("dangling", "nowhere")
        .hard("second", "./d/f")
        .with(EntryType::XHeader, b"x", b"", 0, b"24 path=\xc3\xa9t\xc3\xa9/long name\n")
        .file("replaced")
        .with(EntryType::XGlobalHeader, b"g", b"", 0, b"16 comment=abcd\n");
    let (into, facts) = tar.unpacked();
    let mode = |name: &str| fs::metadata(into.path().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("d/f"), mode("closed"), mode("d")), (0o755, 0o600, 0o755));
    for name in ["early", "d/up", "second"] {
        assert_eq!(fs::read(into.path().join(name)).unwrap(), b"x", "{name}");
    }
    assert_eq!(fs::read(into.path().join("été/long name")).unwrap(), b"content");
    assert_eq!(facts, UnpackFacts { entries: 9, bytes: 9 });
}

#[test]
fn a_disk_that_is_full_is_named_as_such() {
    let into = tempfile::tempdir().unwrap();
    // /dev/full answers every write with "no space left on device".
    let failed = fs::OpenOptions::new().write(true).open("/dev/full").unwrap().write_all(b"x").unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
    let error = unpack::failed_at(into.path(), "a", failed);
    assert!(matches!(error, UnpackError::DiskFull { .. }), "{error}");
}

#[test]
fn links_out_of_the_tree_are_not_packed() {
    let tree = tempfile::tempdir().unwrap();
    symlink("/usr/bin/python3", tree.path().join("python")).unwrap();
    let error = pack(tree.path(), &DockerIgnore::default(), io::sink()).unwrap_err();
    assert!(error.to_string().contains("python cannot be packed: it links to an absolute path"), "{error}");
    let ignore = DockerIgnore::parse("python", "x").unwrap();
    assert_eq!(pack(tree.path(), &ignore, io::sink()).unwrap(), PackFacts::default());
}

#[test]
fn the_first_ignore_file_found_decides_what_is_source() {
    let tree = tempfile::tempdir().unwrap();
    let ignored = |path: &str| source_ignore(tree.path()).unwrap().ignores(path);
    assert!(ignored("x/node_modules/a.js") && ignored(".git/HEAD") && ignored("a.pyc") && !ignored("app.py"));
    fs::write(tree.path().join(".dockerignore"), "*\n!src\n").unwrap();
    assert!(ignored("app.py") && !ignored("src/a") && !ignored("Procfile") && !ignored("coracle.toml"));
    fs::write(tree.path().join(".coracleignore"), "Procfile\n").unwrap();
    assert!(!ignored("app.py") && ignored("Procfile"));
}

/// A tree as path → (mode, content or target).
type Tree = BTreeMap<String, (u32, String)>;

fn read_tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    for entry in walkdir::WalkDir::new(root).min_depth(1) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let metadata = entry.path().symlink_metadata().unwrap();
        let what = if metadata.is_symlink() {
            (0, format!("-> {}", fs::read_link(entry.path()).unwrap().display()))
        } else if metadata.is_dir() {
            (0o755, "/".to_owned())
        } else {
            (metadata.mode() & 0o7777, format!("{} {}", metadata.mtime(), fs::read_to_string(entry.path()).unwrap()))
        };
        tree.insert(path, what);
    }
    tree
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_packed_is_what_is_unpacked(
        files in prop::collection::btree_map("[a-c](/[a-dé ]{1,3}){0,3}", ("[a-z]{0,2000}", any::<bool>()), 0..8),
        long in "[x-z]{100,200}",
    ) {
        let tree = tempfile::tempdir().unwrap();
        for (path, (content, executable)) in &files {
            let path = tree.path().join(path);
            // A path may be a file in one case and a folder in another; the first one wins.
            if fs::create_dir_all(path.parent().unwrap()).is_ok() && fs::write(&path, content).is_ok() {
                fs::set_permissions(&path, Permissions::from_mode(if *executable { 0o755 } else { 0o640 })).unwrap();
            }
        }
        fs::create_dir(tree.path().join(&long)).unwrap();
        fs::write(tree.path().join(&long).join(&long), "long").unwrap();
        symlink(format!("../{long}/{long}"), tree.path().join(&long).join("link")).unwrap();
        let mut bytes = Vec::new();
        let packed = pack(tree.path(), &DockerIgnore::default(), &mut bytes).unwrap();
        let into = tempfile::tempdir().unwrap();
        let unpacked = unpack(bytes.as_slice(), into.path(), UnpackLimits::default()).unwrap();
        prop_assert_eq!(read_tree(tree.path()), read_tree(into.path()));
        prop_assert_eq!((packed.files, packed.bytes), (unpacked.entries, unpacked.bytes));
    }

    #[test]
    fn nonsense_fails_since_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let outer = tempfile::tempdir().unwrap();
        let into = outer.path().join("into");
        fs::create_dir(&into).unwrap();
        drop(unpack(gzip(&bytes).as_slice(), &into, UnpackLimits::default()));
        prop_assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
    }

    #[test]
    fn so_are_honest_archives_with_a_byte_changed(at in 0..2048_usize, value in any::<u8>()) {
        let outer = tempfile::tempdir().unwrap();
        let into = outer.path().join("into");
        fs::create_dir(&into).unwrap();
        let mut tar = Hostile::default().file("d/a").link("d/l", "../d").0;
        let at = at % tar.len();
        tar[at] = value;
        let header = at / 512 * 512;
        if let Some(block) = tar.get_mut(header..header + 512) {
            let mut fixed = Header::from_byte_slice(block).clone();
            fixed.set_cksum();
            block.copy_from_slice(fixed.as_bytes());
        }
        drop(unpack(Hostile(tar).gzip().as_slice(), &into, UnpackLimits::default()));
        prop_assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_compose_project_is_sent_with_every_build_context_and_its_variables() {
    let tree = tempfile::tempdir().unwrap();
    for (path, text) in
        [("compose.yaml", "services: {}"), (".dockerignore", "client\n.env\n"), (".env", "A=1"), ("client/Dockerfile", "")]
    {
        let path = tree.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let ignore = source_ignore(tree.path()).unwrap();
    assert!(!ignore.ignores("client/Dockerfile") && !ignore.ignores(".env") && ignore.ignores("client/node_modules/x"));
    // A manifest says that the compose file is for something else.
    fs::write(tree.path().join("coracle.toml"), "").unwrap();
    assert!(source_ignore(tree.path()).unwrap().ignores("client/Dockerfile"));
}
