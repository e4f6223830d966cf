//! Files in and out, with programs that would like the machine to read others.

use coracle_sandbox::{Collected, Execution, InputFile, Mode, Reason};

use crate::host::Host;

fn names(files: &[Collected]) -> Vec<String> {
    files.iter().map(|file| String::from_utf8_lossy(&file.path).into_owned()).collect()
}

#[tokio::test]
async fn files_go_in_and_come_back() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    for mode in [Mode::Zygote, Mode::Exec] {
        let mut execution = Execution::new(
            "default",
            "import os\nopen('out/b.bin', 'wb').write(open('in/a', 'rb').read()[::-1])\nopen('unasked', 'w')",
        );
        execution.mode = mode;
        let content: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        execution.files = vec![
            InputFile { path: "in/a".to_owned(), content: content.clone() },
            InputFile { path: "out/keep.txt".to_owned(), content: b"kept".to_vec() },
        ];
        execution.collect = vec!["out/**".to_owned(), "nosuch/*".to_owned()];
        let done = host.run(&execution).await;
        done.is(Reason::Ok);
        assert_eq!(names(&done.files), ["out/b.bin", "out/keep.txt"]);
        assert!(done.files[0].content.iter().eq(content.iter().rev()));
        assert!(!done.end.truncated.files);
    }
    host.quiet().await;
}

#[tokio::test]
async fn nothing_of_the_machine_comes_back() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    nothing_of_the_machine(&host).await;
}

/// Everything that a path can be besides a file of one's own, all of it asked for.
pub async fn nothing_of_the_machine(host: &Host) {
    let secret = host.directory().join("secret");
    std::fs::write(&secret, "machine-secret").unwrap();
    let code = format!(
        "import os, socket\n\
         os.symlink('/etc/passwd', 'passwd'); os.symlink({secret:?}, 'secret'); os.symlink('/', 'root'); os.symlink('../../../..', 'up')\n\
         os.symlink('/proc/self/root', 'proc'); os.symlink('loop', 'loop'); os.symlink('dir', 'dirlink')\n\
         os.mkdir('dir'); open('dir/real', 'w').write('real')\n\
         os.mkfifo('fifo'); s = socket.socket(socket.AF_UNIX); s.bind('sock')\n\
         for i in range(100): os.symlink('/etc/passwd', 'l%d' % i)\n\
         try: os.link('/etc/passwd', 'hard')\nexcept OSError: pass\n\
         os.link('dir/real', 'hardlink')\n\
         open(b'bad\\xff\\n\\x1b[2J', 'w').write('x')\n\
         f = open('sparse', 'wb'); f.truncate(60 << 20)\n\
         os.mkdir('closed'); open('closed/x', 'w').write('closed'); os.chmod('closed', 0)\n\
         d = 'deep'\n\
         for _ in range(500):\n    os.mkdir('deep'); os.chdir('deep')\n\
         open('bottom', 'w').write('x')\n\
         print('made')"
    );
    let mut execution = Execution::new("default", code);
    execution.collect = vec!["**".to_owned(), "/etc/passwd".to_owned(), "../**".to_owned(), "secret".to_owned()];
    let done = host.run(&execution).await;
    done.says("made\n");
    assert_eq!(names(&done.files), ["bad\u{fffd}\n\u{1b}[2J", "closed/x", "dir/real", "hardlink"], "{}", done.whole());
    assert_eq!(done.files[0].path, b"bad\xff\n\x1b[2J");
    assert!(done.end.truncated.files, "the sparse file and the deep one are missing");
    assert!(done.files.iter().all(|file| !file.content.windows(5).any(|window| window == b"root:" || window == b"machi")));
    host.quiet().await;
}

#[tokio::test]
async fn files_come_back_also_from_a_program_that_was_ended() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    let mut execution = Execution::new(
        "default",
        "import os\nopen('a', 'w').write('1')\nif os.fork() == 0:\n    while True: open('b', 'a').write('x')\nwhile True: os.rename('a', 'c'); os.rename('c', 'a')",
    );
    execution.limits.wall = Some(std::time::Duration::from_millis(500));
    execution.collect = vec!["[ac]".to_owned()];
    let done = host.run(&execution).await;
    done.is(Reason::Timeout);
    assert_eq!(done.files.len(), 1, "{:?}", done.files);
    assert_eq!(done.files[0].content, "1");
}

#[tokio::test]
async fn files_that_have_no_place_are_told_and_hurt_nobody() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    let mut execution = Execution::new("default", "print('ran')");
    execution.files = vec![InputFile { path: "big".to_owned(), content: vec![0; 30 << 20] }; 3];
    for (number, file) in execution.files.iter_mut().enumerate() {
        file.path = format!("big{number}");
        file.content.truncate(10 << 20);
    }
    host.run(&execution).await.says("ran\n");
    execution.files =
        vec![InputFile { path: "x/y".to_owned(), content: vec![] }, InputFile { path: "x".to_owned(), content: vec![] }];
    let done = host.run(&execution).await;
    assert_eq!(done.end.exit_code, Some(125), "{}", done.whole());
    assert!(String::from_utf8_lossy(&done.err).contains("could not place its files"), "{}", done.whole());
    host.quiet().await;
}
