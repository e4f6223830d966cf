#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

use super::*;

fn all(_: &str) -> bool {
    true
}

fn here() -> Vec<String> {
    vec![".".to_owned()]
}

/// An archive with entries as nobody honest would write them.
fn archive(path: &Path, gzip: bool, entries: &[(&str, EntryType, &str)]) {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        header.set_mtime(0);
        // The library would refuse some of these names.
        let field = &mut header.as_gnu_mut().unwrap().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        if is_link {
            let field = &mut header.as_gnu_mut().unwrap().linkname;
            field[..content.len()].copy_from_slice(content.as_bytes());
        }
        let content = if is_link { "" } else { content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    let bytes = builder.into_inner().unwrap();
    if gzip {
        let mut encoder = GzEncoder::new(fs::File::create(path).unwrap(), Compression::fast());
        encoder.write_all(&bytes).unwrap();
        encoder.finish().unwrap();
    } else {
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn what_is_packed_comes_out_again_and_the_same_files_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two, out] = ["one", "two", "out"].map(|name| dir.path().join(name));
    for folder in [&one, &two] {
        fs::create_dir_all(folder.join("dist/deep/empty")).unwrap();
        fs::write(folder.join("dist/deep/page.html"), "<p>").unwrap();
        fs::write(folder.join("dist/run"), "#!").unwrap();
        fs::set_permissions(folder.join("dist/run"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::write(folder.join("other"), "not wanted").unwrap();
    }
    let packed = |folder: &Path, to: &str| {
        let wanted = |path: &str| path.starts_with("dist");
        pack(folder, &["dist".to_owned(), "absent/deep".to_owned()], &wanted, &dir.path().join(to), ParcelLimits::default())
    };
    let (first, second) = (packed(&one, "1").unwrap(), packed(&two, "2").unwrap());
    assert_eq!((first.files, first.bytes, &first.left_out), (2, 5, &Vec::new()));
    assert_eq!(first.digest, second.digest);
    assert_eq!(fs::read(dir.path().join("1")).unwrap(), fs::read(dir.path().join("2")).unwrap());
    fs::create_dir(&out).unwrap();
    lay(&dir.path().join("1"), &out, Standing::Stays, ParcelLimits::default()).unwrap();
    assert_eq!(fs::read_to_string(out.join("dist/deep/page.html")).unwrap(), "<p>");
    let mode = |name: &str| out.join(name).symlink_metadata().unwrap().permissions().mode() & 0o7777;
    assert!(out.join("dist/deep/empty").is_dir() && !out.join("other").exists());
    assert_eq!((mode("dist/run") & 0o4100, mode("dist/deep/page.html") & 0o4111), (0o100, 0));
    let again = lay(&dir.path().join("1"), &out, Standing::Stays, ParcelLimits::default()).unwrap_err();
    assert!(matches!(again, ParcelError::Taken(_)), "{again}");
    lay(&dir.path().join("1"), &out, Standing::GivesWay, ParcelLimits::default()).unwrap();
    fs::write(two.join("dist/run"), "#?").unwrap();
    assert_ne!(packed(&two, "3").unwrap().digest, first.digest);
}

#[test]
fn nothing_that_is_no_plain_file_is_packed() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, secret) = (dir.path().join("folder"), dir.path().join("secret"));
    fs::create_dir_all(folder.join("real")).unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(&secret, "mine").unwrap();
    fs::write(dir.path().join("outside/file"), "mine").unwrap();
    fs::write(folder.join("real/file"), "fine").unwrap();
    symlink(&secret, folder.join("absolute")).unwrap();
    symlink("../secret", folder.join("upwards")).unwrap();
    symlink("../outside", folder.join("sideways")).unwrap();
    fs::hard_link(&secret, folder.join("hard")).unwrap();
    fs::write(folder.join("two\nlines"), "x").unwrap();
    let _socket = UnixListener::bind(folder.join("socket")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, folder.join("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let to = dir.path().join("parcel");
    let facts = pack(&folder, &here(), &all, &to, ParcelLimits::default()).unwrap();
    assert_eq!((facts.files, facts.bytes), (1, 4), "{facts:?}");
    assert_eq!(facts.left_out.len(), MOST_NAMED + 1, "{facts:?}");
    // Through a link, a root leads nowhere.
    let roots = ["sideways/file".to_owned(), "sideways".to_owned()];
    let facts = pack(&folder, &roots, &all, &dir.path().join("other"), ParcelLimits::default()).unwrap();
    assert_eq!((facts.files, facts.left_out.as_slice()), (0, ["sideways (a link)".to_owned()].as_slice()));
}

#[test]
fn too_much_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    // A sparse file of a terabyte costs nothing to make.
    fs::File::create(folder.join("bomb")).unwrap().set_len(1 << 40).unwrap();
    let bomb = pack(&folder, &here(), &all, &dir.path().join("1"), ParcelLimits::default()).unwrap_err();
    assert!(matches!(&bomb, ParcelError::TooMuch(what) if what.contains("256")), "{bomb}");
    fs::remove_file(folder.join("bomb")).unwrap();
    (0..50).for_each(|number| fs::write(folder.join(number.to_string()), "").unwrap());
    let few = |entries| ParcelLimits { entries, ..ParcelLimits::default() };
    let many = pack(&folder, &here(), &all, &dir.path().join("2"), few(49)).unwrap_err();
    assert!(matches!(many, ParcelError::TooMuch(_)), "{many}");
    let looked = pack(&folder, &here(), &|_| false, &dir.path().join("3"), few(4)).unwrap_err();
    assert!(matches!(looked, ParcelError::TooMuch(_)), "{looked}");
}

#[test]
fn an_archive_lays_nothing_outside_of_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (over, outside, hostile) = (dir.path().join("over"), dir.path().join("outside"), dir.path().join("hostile"));
    fs::create_dir(&over).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "kept").unwrap();
    // What is there already leads out as well.
    symlink(&outside, over.join("there")).unwrap();
    symlink(outside.join("kept"), over.join("file")).unwrap();
    let up = outside.join("new").display().to_string();
    archive(
        &hostile,
        true,
        &[
            ("../up", EntryType::Regular, "x"),
            (&up, EntryType::Regular, "x"),
            ("a/../../b", EntryType::Regular, "x"),
            ("link", EntryType::Symlink, "../outside"),
            ("link/through", EntryType::Regular, "x"),
            ("hard", EntryType::Link, "../outside/kept"),
            ("there/new", EntryType::Regular, "x"),
            ("file", EntryType::Regular, "mine"),
            ("device", EntryType::Char, ""),
            ("pipe", EntryType::Fifo, ""),
        ],
    );
    let stays = lay(&hostile, &over, Standing::Stays, ParcelLimits::default()).unwrap_err();
    assert!(matches!(&stays, ParcelError::Taken(what) if what.ends_with("over/there")), "{stays}");
    let facts = lay(&hostile, &over, Standing::GivesWay, ParcelLimits::default()).unwrap();
    assert_eq!(facts.files, 3, "{facts:?}");
    let names: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["kept"]);
    assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
    assert!(!dir.path().join("up").exists() && !dir.path().join("b").exists());
    assert_eq!(fs::read_to_string(over.join("there/new")).unwrap(), "x");
    let mode = over.join("file").symlink_metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o777, "no set-user-id bit, and open to all");
}

#[test]
fn what_an_engine_answers_is_sifted_below_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (over, answer) = (dir.path().join("over"), dir.path().join("answer"));
    fs::create_dir(&over).unwrap();
    archive(
        &answer,
        false,
        &[
            ("dist/", EntryType::Directory, ""),
            ("dist/a.js", EntryType::Regular, "a"),
            ("dist/b.css", EntryType::Regular, "b"),
            ("dist/c.js", EntryType::Symlink, "/etc/passwd"),
        ],
    );
    let facts = sift(&answer, "app", &|path| path.ends_with(".js"), &over, ParcelLimits::default()).unwrap();
    assert_eq!((facts.files, facts.left_out), (1, vec!["app/dist/c.js (a link)".to_owned()]));
    assert!(over.join("app/dist/a.js").is_file() && !over.join("app/dist/b.css").exists());
    let small = ParcelLimits { bytes: 1, ..ParcelLimits::default() };
    assert!(matches!(sift(&answer, "", &all, &over, small), Err(ParcelError::TooMuch(_))));
    fs::write(&answer, [1; 700]).unwrap();
    assert!(matches!(sift(&answer, "", &all, &over, small), Err(ParcelError::Damaged(_))));
}
