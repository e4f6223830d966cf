//! What a program cannot reach: the kernel's sharper tools, the machine, its network, its neighbours.

use std::time::Duration;

use coracle_sandbox::{Execution, Reason};

use crate::host::{Host, finish, mounts, until_said};

/// Calls a system call by its number and prints its answer: an error's name, or `!` and the result.
const CALL: &str = r"
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *args):
    ctypes.set_errno(0)
    got = libc.syscall(ctypes.c_long(number), *args)
    print(name, errno.errorcode.get(ctypes.get_errno(), '?') if got == -1 else '! %d' % got, flush=True)
";

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn forbidden_calls_answer_with_an_error_and_have_no_effect() {
    let Some(host) = Host::start(&["slots=2", "cores=1000"]).await else { return };
    forbidden_calls(&host).await;
}

/// Every call that is kept out, by its number.
#[cfg(target_arch = "x86_64")]
pub async fn forbidden_calls(host: &Host) {
    let zero = "0, 0, 0, 0, 0, 0";
    let calls: &[(&str, i64, &str)] = &[
        ("unshare-user", 272, "0x10000000"),
        ("unshare-net", 272, "0x40000000"),
        ("clone-newuser", 56, "0x10000000 | 17, 0, 0, 0, 0"),
        ("clone-newpid", 56, "0x20000000 | 17, 0, 0, 0, 0"),
        ("clone3", 435, zero),
        ("setns", 308, "0, 0"),
        ("mount", 165, "b'none', b'/tmp', b'tmpfs', 0, 0"),
        ("umount2", 166, "b'/tmp', 2"),
        ("fsopen", 430, "b'tmpfs', 0"),
        ("open_tree", 428, "-100, b'/', 1"),
        ("move_mount", 429, zero),
        ("mount_setattr", 442, zero),
        ("pivot_root", 155, "b'/tmp', b'/tmp'"),
        ("chroot", 161, "b'/tmp'"),
        ("ptrace", 101, "0, 0, 0, 0"),
        ("process_vm_readv", 310, zero),
        ("process_vm_writev", 311, zero),
        ("bpf", 321, zero),
        ("perf_event_open", 298, zero),
        ("io_uring_setup", 425, "8, 0"),
        ("io_uring_enter", 426, zero),
        ("userfaultfd", 323, "0"),
        ("keyctl", 250, "0, -3, 0"),
        ("add_key", 248, "b'user', b'x', b'y', 1, -3"),
        ("request_key", 249, zero),
        ("kexec_load", 246, zero),
        ("init_module", 175, zero),
        ("finit_module", 313, zero),
        ("delete_module", 176, "b'x', 0"),
        ("open_by_handle_at", 304, zero),
        ("name_to_handle_at", 303, zero),
        ("personality-set", 135, "0x0040000"),
        ("reboot", 169, "0xfee1dead, 672274793, 0, 0"),
        ("swapon", 167, "b'/tmp/x', 0"),
        ("syslog", 103, "3, 0, 0"),
        ("acct", 163, "0"),
        ("quotactl", 179, zero),
        ("sethostname", 170, "b'x', 1"),
        ("settimeofday", 164, zero),
        ("clock_settime", 227, zero),
        ("adjtimex", 159, zero),
        ("iopl", 172, "3"),
        ("ioperm", 173, "0, 1, 1"),
        ("modify_ldt", 154, "0, 0, 0"),
        ("fanotify_init", 300, "0, 0"),
        ("kcmp", 312, zero),
        ("pidfd_getfd", 438, zero),
        ("process_madvise", 440, zero),
        ("migrate_pages", 256, zero),
        ("move_pages", 279, zero),
        ("vhangup", 153, ""),
        ("lookup_dcookie", 212, zero),
        ("seccomp", 317, zero),
        ("capset", 126, zero),
        ("setgroups", 116, "0, 0"),
        ("memfd_secret", 447, "0"),
        ("landlock", 444, zero),
        ("ioctl-TIOCSTI", 16, "0, 0x5412, b'x'"),
        ("ioctl-TIOCLINUX", 16, "0, 0x541c, b'x'"),
        ("prctl-seccomp", 157, "22, 0, 0, 0, 0"),
        ("prctl-dumpable", 157, "4, 1, 0, 0, 0"),
        ("socket-netlink", 41, "16, 3, 0"),
        ("socket-packet", 41, "17, 3, 0"),
        ("socket-alg", 41, "38, 5, 0"),
        ("socket-vsock", 41, "40, 1, 0"),
        ("socket-inet-raw", 41, "2, 3, 1"),
        ("socket-inet", 41, "2, 1, 0"),
        ("socket-inet6", 41, "10, 2, 0"),
        ("socket-high-bits", 41, "0x100000002, 1, 0"),
        ("inotify_init1", 294, "0"),
        ("inotify_init", 253, ""),
        ("inotify_add_watch", 254, "0, b'/usr', 1"),
        ("fcntl-dnotify", 72, "0, 1026, 1"),
        ("fcntl-lease", 72, "0, 1024, 0"),
        ("vmsplice", 278, zero),
        ("clone-parent", 56, "0x8000 | 17, 0, 0, 0, 0"),
        ("set-core-limit", 160, "4, 0"),
        ("prlimit-core", 302, "0, 4, 1, 0"),
        ("io_setup", 206, zero),
        ("mq_open", 240, zero),
        ("mbind", 237, zero),
        ("set_mempolicy", 238, zero),
        ("remap_file_pages", 216, zero),
        ("kexec_file_load", 320, zero),
        ("fsmount", 432, zero),
        ("fspick", 433, "-100, b'/', 0"),
        ("fsconfig", 431, zero),
        ("fanotify_mark", 301, zero),
        ("process_mrelease", 448, zero),
        ("sysfs", 139, "3, 0, 0"),
        ("x32", 0x4000_0000 + 39, ""),
        ("no-such-call", 9999, ""),
    ];
    let mut code = CALL.to_owned();
    for (name, number, arguments) in calls {
        let arguments: String =
            arguments.split(", ").filter(|one| !one.is_empty()).map(|one| format!(", {}", long(one))).collect();
        code.push_str(&format!("call({name:?}, {number}{arguments})\n"));
    }
    let before = (mounts(), rustix::system::uname().nodename().to_owned());
    let done = host.python(&code).await;
    done.is(Reason::Ok);
    let text = done.text();
    for ((name, _, _), line) in calls.iter().zip(text.lines()) {
        let expected = match *name {
            "clone3" | "io_uring_setup" => "ENOSYS",
            name if name.starts_with("socket") => "EAFNOSUPPORT",
            _ => "EPERM",
        };
        assert_eq!(line, format!("{name} {expected}"));
    }
    assert_eq!(text.lines().count(), calls.len(), "{text}");
    assert!(before.0 == mounts(), "the machine's mounts have changed");
    assert_eq!(before.1, rustix::system::uname().nodename());
    host.quiet().await;
}

/// An argument as a machine word, unless it is bytes.
fn long(argument: &str) -> String {
    if argument.starts_with("b'") { argument.to_owned() } else { format!("ctypes.c_long({argument})") }
}

/// Another mode of the processor has other numbers for its calls; whoever uses it is killed.
#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn the_32_bit_door_is_closed() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    // mov eax, 20 (getpid); int 0x80; ret
    let code = "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(b'\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3')\n\
                f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\nprint(f())";
    let done = host.python(code).await;
    assert!(done.end.signal.is_some() && done.out.is_empty(), "{}", done.whole());
}

#[tokio::test]
async fn there_is_no_privilege_and_no_way_back_to_one() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    let code = "import os, subprocess\n\
                s = dict(l.split(':\\t', 1) for l in open('/proc/self/status').read().splitlines() if ':\\t' in l)\n\
                print(s['CapEff'], s['CapPrm'], s['CapBnd'], s['CapAmb'], s['NoNewPrivs'], s['Seccomp'], s['Uid'].split(), s['Groups'].split())\n\
                print(os.getuid(), os.geteuid(), os.getgid(), os.getgroups(), os.getpid())\n\
                for call in (lambda: os.setuid(0), lambda: os.seteuid(0), lambda: os.setgid(0)):\n    try: call(); print('became root')\n    except OSError: pass\n\
                open('/work/x', 'w').write('#!/bin/sh\\nid -u\\n')\nos.chmod('/work/x', 0o6755)\nprint(subprocess.run(['/work/x'], capture_output=True).stdout)\n\
                for su in ('/usr/bin/su', '/usr/bin/passwd', '/bin/mount'):\n    if os.path.exists(su):\n        r = subprocess.run([su, '--help'], capture_output=True)\n\
                print(open('/proc/self/uid_map').read().split()[0], os.stat('/usr').st_uid)\n\
                for p in ('/', '/usr', '/etc', '/bin', '/dev', '/proc', '/.coracle', '/dev/null', '/etc/passwd'):\n    try:\n        (open(p, 'r+') if os.path.isfile(p) else open(p + '/x', 'w')); print('wrote', p)\n    except OSError: pass\n\
                for kind, major, minor in ((0o60000, 254, 0), (0o20000, 1, 1)):\n    try: os.mknod('/work/d', kind | 0o666, os.makedev(major, minor)); print('made a device')\n    except OSError: pass";
    let done = host.python(code).await;
    let lines: Vec<String> = done.text().lines().map(str::to_owned).collect();
    let none = "0000000000000000";
    assert_eq!(lines[0], format!("{none} {none} {none} {none} 1 2 ['1000', '1000', '1000', '1000'] []"), "{}", done.whole());
    assert_eq!(&lines[1..], ["1000 1000 1000 [] 2", "b'1000\\n'", "1000 65534"], "{}", done.whole());
}

#[tokio::test]
async fn the_machine_is_not_to_be_seen() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    let secret = tempfile::tempdir().unwrap();
    std::fs::write(secret.path().join("secret"), "machine-secret").unwrap();
    let code = format!(
        "import os, socket\n\
         print(sorted(p for p in os.listdir('/proc') if p.isdigit()))\n\
         print(socket.gethostname(), open('/proc/self/cgroup').read().count('coracle'))\n\
         print([p for p in ('/sys', '/run', '/var', '/home', '/root', '/boot', '/opt', '/mnt', '/var/run/docker.sock', '/proc/sys', '/proc/kcore', '/proc/cmdline', '/proc/1/environ', '/proc/1/root', {secret:?}) if os.path.exists(p)])\n\
         print(sorted(os.environ))\n\
         print(sorted(os.listdir('/proc/self/fd')))\n\
         print(sorted(os.listdir('/dev')))\n\
         import glob\nfound = []\n\
         for p in glob.glob('/proc/*/environ') + glob.glob('/proc/*/cmdline') + ['/proc/self/mountinfo', '/proc/self/maps']:\n    try: found.append(open(p, errors='replace').read())\n    except OSError: pass\n\
         text = ''.join(found)\n\
         print([word for word in ('daemon-secret', 'machine-secret', 'socket', 'sandbox daemon', '/work/main/', 'target') if word in text])\n",
        secret = secret.path().join("secret")
    );
    let done = host.python(&code).await;
    let text = done.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "['2']",
            "sandbox 0",
            "[]",
            "['HOME', 'LANG', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'PATH', 'PYTHONDONTWRITEBYTECODE', 'PYTHONIOENCODING', 'TMPDIR', 'USER']",
            "['0', '1', '2', '3']",
            "['fd', 'full', 'null', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'urandom', 'zero']",
            "[]",
        ],
        "{}",
        done.whole()
    );
}

#[tokio::test]
async fn nothing_is_reached_over_any_network() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    no_network(&host).await;
}

/// Listens on the machine, and nobody comes.
pub async fn no_network(host: &Host) {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let datagrams = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    datagrams.set_nonblocking(true).unwrap();
    let udp = datagrams.local_addr().unwrap().port();
    let code = format!(
        "import socket, urllib.request\n\
         for address in ('127.0.0.1', '::1', '169.254.169.254', '172.17.0.1', '1.1.1.1', 'localhost', 'example.com'):\n    \
             try: socket.create_connection((address, {port}), 0.2); print('connected', address)\n    except OSError: pass\n    \
             try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (address, {udp})); print('sent', address)\n    except OSError: pass\n\
         try: socket.getaddrinfo('example.com', 80); print('resolved')\nexcept OSError: pass\n\
         try: urllib.request.urlopen('http://127.0.0.1:{port}/', timeout=0.2); print('fetched')\nexcept OSError: pass\n\
         for path in ('/var/run/docker.sock', {socket:?}):\n    \
             try: s = socket.socket(socket.AF_UNIX); s.connect(path); print('connected', path)\n    except OSError: pass\n\
         print('done')",
        socket = host.directory().join("socket")
    );
    host.python(&code).await.says("done\n");
    assert!(listener.accept().is_err(), "somebody has connected");
    assert!(datagrams.recv(&mut [0; 8]).is_err(), "a datagram has come");
}

#[tokio::test]
async fn neighbours_do_not_see_each_other() {
    let Some(host) = Host::start(&["slots=3"]).await else { return };
    neighbours(&host).await;
}

/// Two at the same time, and one after the other.
pub async fn neighbours(host: &Host) {
    let stays = "import socket, os, time, fcntl\nfrom multiprocessing import shared_memory\n\
                 s = socket.socket(socket.AF_UNIX); s.bind('\\0neighbour'); s.listen()\n\
                 m = shared_memory.SharedMemory('neighbour', create=True, size=4096)\n\
                 import ctypes; k = ctypes.CDLL(None).shmget(4242, 4096, 0o1666); print(k >= 0)\n\
                 open('/tmp/neighbour', 'w').write('x'); open('/work/neighbour', 'w').write('x')\n\
                 print('on', flush=True)\ntime.sleep(100)";
    let mut running = host.sandbox.execute(&Execution::new("default", stays)).await.unwrap();
    until_said(&mut running, "True\non").await;
    let looks = "import socket, os, ctypes\nfrom multiprocessing import shared_memory\n\
                 try: socket.socket(socket.AF_UNIX).connect('\\0neighbour'); print('socket')\nexcept OSError: pass\n\
                 try: shared_memory.SharedMemory('neighbour'); print('memory')\nexcept OSError: pass\n\
                 if ctypes.CDLL(None).shmget(4242, 4096, 0) >= 0: print('segment')\n\
                 print(os.listdir('/tmp'), os.listdir('/work'), os.listdir('/dev/shm'))\n\
                 for pid in range(2, 400):\n    try: os.kill(pid, 0); print('saw', pid) if pid != os.getpid() else None\n    except ProcessLookupError: pass\n    except PermissionError: pass";
    for _ in 0..3 {
        host.python(looks).await.says("[] ['main.py'] []\n");
    }
    running.cancel().await.unwrap();
    finish(running).await.is(Reason::Cancelled);
    host.quiet().await;
    // Nor what the one before has left, in whichever seat.
    for _ in 0..8 {
        host.python(looks).await.says("[] ['main.py'] []\n");
    }
}

#[tokio::test]
async fn nobody_writes_to_cgroups_or_stops_the_clock() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    let code = "import glob, os\nprint(glob.glob('/sys/fs/cgroup*'), [l for l in open('/proc/self/mountinfo') if 'cgroup' in l])\n\
                try: os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'-1000')\nexcept OSError as e: print(e.errno)\n\
                try: os.nice(-5)\nexcept OSError as e: print(e.errno)\n\
                try: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(5))\nexcept OSError as e: print(e.errno)\n\
                import time; time.sleep(30)";
    let mut execution = Execution::new("default", code);
    execution.limits.wall = Some(Duration::from_millis(500));
    let done = host.run(&execution).await;
    done.is(Reason::Timeout);
    let text = done.text();
    assert!(text.starts_with("[] []\n13\n") && text.ends_with("1\n1\n"), "{text}");
}
