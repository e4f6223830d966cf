"""The zygote: a warm interpreter that makes waiting copies of itself, one per execution.

It is started by the maker inside the image's root, in its own mount and network namespace, as the machine's root, and never
runs a line of anybody's program. Descriptor 3 is a SOCK_SEQPACKET socket to the daemon:

  first    the two seccomp programs, each a u32 length and an array of struct sock_filter
  hello    the interpreter's name and version, when it is warm
  then     {u32 id} with descriptors: PID 1 of the slot, control, stdin, stdout, stderr, and the doors of its cgroup
  answer   {u32 id, i64 pid or -errno}

A copy (the worker) is the daemon's child, not the zygote's (CLONE_PARENT), so the daemon learns from the kernel how it ends.
It joins the slot, gives up everything, runs a small program to touch the pages that any program touches, writes one byte to
`control` and waits there for its job, as `Job` reads it. If something fails before, the byte is `!` and a text follows.
Nothing is ever read from `control` by the daemon after that byte.

With the byte goes the descriptor at which the kernel tells the daemon of the worker's last call (see `leave`), where the
kernel has one to give.

argv: the user and group inside, `groups-stay` where the kernel lets nobody drop groups, then modules to import ahead.
"""
from struct import unpack_from
from _socket import socket, AF_UNIX, CMSG_SPACE, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET

CLONE_PARENT, CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x8000, 0x200000, 0x1000000
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
SIGCHLD = 17
MSG_CMSG_CLOEXEC = 0x40000000
PR_SET_DUMPABLE, PR_CAPBSET_DROP = 4, 24
ANSWER = Struct("<Iq")

syscall = libc.syscall
syscall.argtypes = [ctypes.c_long] * 6
syscall.restype = ctypes.c_long
# The same with two arguments, for what is done forty times.
prctl_short = libc["prctl"]
prctl_short.argtypes = [ctypes.c_int, ctypes.c_ulong]
setns = libc.setns
unshare = libc.unshare
before_fork, after_fork_parent, after_fork_child = (
    getattr(ctypes.pythonapi, name) for name in ("PyOS_BeforeFork", "PyOS_AfterFork_Parent", "PyOS_AfterFork_Child")
)
for function in (before_fork, after_fork_parent, after_fork_child):
    function.restype = None

X86 = os.uname().machine == "x86_64"
SYS_CLONE, SYS_CAPSET, SYS_EXIT_GROUP, SYS_SECCOMP = (56, 126, 231, 317) if X86 else (220, 91, 94, 277)
SYS_CLOSE_RANGE = 436
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER = 1, 8
# In the upper half of an exit code, of which the kernel passes on nothing: what the filter tells the daemon of.
FAREWELL = 0x66617265 << 32


def thread_id_address():
    """Where the C library keeps the number of its thread, so that the kernel can put the copy's own there, as for fork(3)."""
    own = os.getpid()
    libc.pthread_self.restype = ctypes.c_ulong
    start = libc.pthread_self()
    words = (ctypes.c_int * 512).from_address(start)
    found = [index for index, word in enumerate(words) if word == own]
    return start + 4 * found[0] if len(found) == 1 else 0


class Zygote:
    def __init__(self, argv):
        self.user, self.group, self.groups_stay = int(argv[1]), int(argv[2]), argv[3] == "groups-stay"
        self.socket = socket(fileno=3)
        programs = self.socket.recv(1 << 17)
        self.list, self.last = filters(programs)
        self.cap_header = ctypes.create_string_buffer(Struct("<Ii").pack(0x20080522, 0))
        self.cap_none = ctypes.create_string_buffer(24)
        self.last_cap = next(cap for cap in range(64) if prctl(23, cap, 0, 0, 0) < 0)
        self.thread_id = thread_id_address()
        self.flags = CLONE_PARENT | SIGCHLD
        if self.thread_id:
            self.flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
        self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.environ = dict(os.environb)

    def serve(self):
        # The copies inherit it, which saves each of them the kernel's long look at it.
        self.list.install()
        name = sys.implementation.name
        self.socket.send(("%s %d.%d.%d" % ((name,) + sys.version_info[:3])).encode())
        space = CMSG_SPACE(4 * 32)
        while True:
            data, ancillary, _, _ = self.socket.recvmsg(4, space, MSG_CMSG_CLOEXEC)
            if not data:
                os._exit(0)
            packed = ancillary[0][2]
            descriptors = unpack_from("<%di" % (len(packed) // 4), packed)
            answer = self.clone(descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            self.socket.send(ANSWER.pack(U32.unpack(data)[0], answer))

    def clone(self, descriptors):
        if setns(descriptors[0], CLONE_NEWPID) < 0:
            return -ctypes.get_errno()
        before_fork()
        # The order of the last two arguments differs between machines; both are the same here.
        pid = syscall(SYS_CLONE, self.flags, 0, 0, self.thread_id, self.thread_id if not X86 else 0)
        if pid == 0:
            after_fork_child()
            self.become_worker(descriptors)
        code = ctypes.get_errno()
        after_fork_parent()
        return pid if pid > 0 else -code

    def become_worker(self, descriptors):
        control = descriptors[1]
        try:
            self.enter_slot(descriptors)
            listener = self.give_up()
            reseed()
            main = warm_up(self.null)
            # None is overwritten before it is copied: 3 and 4 are the zygote's own socket and the null device.
            for number, descriptor in enumerate((*descriptors[2:5], control, main)):
                os.dup2(descriptor, number)
            control, main = 3, 4
            if listener >= 0:
                listener = os.dup2(listener, 5)
            if syscall(SYS_CLOSE_RANGE, 6 if listener >= 0 else 5, 0xFFFFFFFF, 0, 0, 0) < 0:
                refused("close what is left")
            say_ready(control, listener)
        except BaseException as error:
            os.write(control, b"!" + str(error).encode("utf-8", "replace"))
            os._exit(125)
        job = receive(control, AHEAD)
        if job is None:
            os._exit(0)
        os.close(control)
        perform(job, main)

    def enter_slot(self, descriptors):
        # Before anything else, so that what is touched from here on is on this execution's account.
        for door in descriptors[5:]:
            os.write(door, b"0")
        if unshare(CLONE_NEWCGROUP) < 0:
            refused("unshare the cgroup namespace")
        everything = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET
        if setns(descriptors[0], everything) < 0:
            refused("join the slot")
        os.chdir("/work")

    def give_up(self):
        """Answers the descriptor for the daemon, or a negative number."""
        if not self.groups_stay:
            os.setgroups(())
        os.setresgid(self.group, self.group, self.group)
        # The capabilities in the bounding set go first: taking them out is itself privileged.
        for cap in range(self.last_cap):
            prctl_short(PR_CAPBSET_DROP, cap)
        os.setresuid(self.user, self.user, self.user)
        if syscall(SYS_CAPSET, ctypes.addressof(self.cap_header), ctypes.addressof(self.cap_none), 0, 0, 0) < 0:
            refused("drop capabilities")
        # Or /proc/self would belong to nobody in here.
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0:
            refused("set no_new_privs")
        os.setsid()
        listener = syscall(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, self.last.address, 0, 0)
        if listener < 0:
            # There can be one only, and a container around everything may have one.
            self.last.install()
        return listener


def say_ready(control, listener):
    if listener < 0:
        os.write(control, b"+")
        return
    way = socket(AF_UNIX, SOCK_STREAM, 0, control)
    try:
        way.sendmsg([b"+"], [(SOL_SOCKET, SCM_RIGHTS, U32.pack(listener))])
    except OSError:
        # A neighbour of the same user may have as many descriptors under way as that user may have. It is heard without.
        os.write(control, b"+")
    finally:
        way.detach()
    # If it stayed open here, the kernel would wait for this process to hear its own last call.
    os.close(listener)


def leave(code):
    """Ends the process. The daemon hears the code from the kernel before all the memory is given back, which takes longer
    than a short program; if it does not listen, the call is refused."""
    syscall(SYS_EXIT_GROUP, FAREWELL | code, 0, 0, 0, 0)
    os._exit(code)


def reseed():
    """What a copy must not share with the next one. `random` sees to itself after a fork; numpy's global generator, where it
    was imported ahead, does not."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def prepare(modules):
    for module in modules:
        try:
            __import__(module)
        except Exception as error:
            os.write(2, ("cannot import %s ahead: %s\n" % (module, error)).encode("utf-8", "replace"))
    # A program's output is seen when a line is whole, whatever becomes of the program.
    sys.stdout.reconfigure(line_buffering=True)
    sys.path[0:1] = ["/work"]
    sys.argv = [MAIN]


zygote = Zygote(sys.argv)
prepare(sys.argv[4:])
# What the interpreter makes when it is first needed (the types of the compiler's tree are many) is made once for all copies.
OURS = set(sys.modules)
rehearse()
OURS = set(sys.modules)
gc.collect()
gc.freeze()
gc.disable()
zygote.serve()
