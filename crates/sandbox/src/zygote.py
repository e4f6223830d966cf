"""The zygote: a warm interpreter that makes waiting copies of itself, one per execution.

It is started by the maker inside the image's root, in its own mount and network namespace, as the machine's root, and never
runs a line of anybody's program. Descriptor 3 is a SOCK_SEQPACKET socket to the daemon:

  first    the two seccomp programs, each a u32 length and an array of struct sock_filter
  hello    the interpreter's name and version, when it is warm
  then     {u32 id} with descriptors: PID 1 of the slot, control, stdin, stdout, stderr, and the doors of its cgroup
  answer   {u32 id, i64 pid or -errno}

A copy (the worker) is the daemon's child, not the zygote's (CLONE_PARENT), so the daemon learns from the kernel how it ends.
It joins the slot, gives up everything, runs a small program to touch the pages that any program touches, writes one byte to
`control` and waits there for its job: {u32 length} and then what `Job` reads. If something fails before, the byte is `!` and
a text follows. Nothing is ever read from `control` by the daemon after that byte.

argv: the user and group inside, then modules to import ahead.
"""
import sys
import os
import gc
import ctypes
import builtins
import atexit
from struct import Struct, unpack_from
from types import ModuleType
from _socket import socket, CMSG_SPACE

CLONE_PARENT, CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x8000, 0x200000, 0x1000000
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
SIGCHLD = 17
MSG_CMSG_CLOEXEC = 0x40000000
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 4, 24, 38, 22
MODE_EXEC = 1
MAIN = "/work/main.py"
U32 = Struct("<I")
ANSWER = Struct("<Iq")

# PyDLL keeps the interpreter's lock: nothing else runs here, and letting it go would only cost time.
libc = ctypes.PyDLL(None, use_errno=True)
syscall = libc.syscall
syscall.argtypes = [ctypes.c_long] * 6
syscall.restype = ctypes.c_long
prctl = libc.prctl
prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
prctl.restype = ctypes.c_int
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
SYS_CLONE, SYS_CAPSET, SYS_CLOSE_RANGE = (56, 126, 436) if X86 else (220, 91, 436)


def refused(step):
    code = ctypes.get_errno()
    raise OSError(code, "%s: %s" % (step, os.strerror(code)))


def thread_id_address():
    """Where the C library keeps the number of its thread, so that the kernel can put the copy's own there, as for fork(3)."""
    own = os.getpid()
    libc.pthread_self.restype = ctypes.c_ulong
    start = libc.pthread_self()
    words = (ctypes.c_int * 512).from_address(start)
    found = [index for index, word in enumerate(words) if word == own]
    return start + 4 * found[0] if len(found) == 1 else 0


class SockFprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


class Filter:
    def __init__(self, program):
        self.steps = ctypes.create_string_buffer(program, len(program))
        self.head = SockFprog(len(program) // 8, ctypes.addressof(self.steps))
        self.address = ctypes.addressof(self.head)

    def install(self):
        if prctl(PR_SET_SECCOMP, 2, self.address, 0, 0) < 0:
            refused("install the seccomp filter")


class Zygote:
    def __init__(self, argv):
        self.user, self.group = int(argv[1]), int(argv[2])
        self.socket = socket(fileno=3)
        programs = self.socket.recv(1 << 17)
        length = U32.unpack_from(programs)[0]
        self.list = Filter(programs[4 : 4 + length])
        self.last = Filter(programs[8 + length :])
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
            self.give_up(descriptors)
            reseed()
            warm_up(self.null)
            for number, descriptor in enumerate(descriptors[2:5]):
                os.dup2(descriptor, number)
            os.dup2(control, 3)
            control = 3
            syscall(SYS_CLOSE_RANGE, 4, 0xFFFFFFFF, 0, 0, 0)
            os.write(control, b"+")
        except BaseException as error:
            os.write(control, b"!" + str(error).encode("utf-8", "replace"))
            os._exit(125)
        job = receive(control)
        if job is None:
            os._exit(0)
        os.close(control)
        perform(job)

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

    def give_up(self, descriptors):
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
        self.last.install()


def reseed():
    """What a copy must not share with the next one. `random` sees to itself after a fork; numpy's global generator, where it
    was imported ahead, does not."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def receive(control):
    """The job, or None if the daemon went away or gave this slot up."""
    head = os.read(control, 4)
    if len(head) < 4:
        return None
    left = U32.unpack(head)[0]
    pieces = []
    while left:
        piece = os.read(control, min(left, 1 << 20))
        if not piece:
            return None
        pieces.append(piece)
        left -= len(piece)
    return Job(pieces[0] if len(pieces) == 1 else b"".join(pieces))


class Job:
    """{u8 mode, arguments, variables, files, code}: a list is a u32 and so many items, a text a u32 and so many bytes."""

    def __init__(self, frame):
        self.frame, self.at = frame, 1
        self.mode = frame[0]
        self.arguments = [self.text() for _ in range(self.number())]
        self.variables = [(self.text(), self.text()) for _ in range(self.number())]
        self.files = [(self.text(), self.text()) for _ in range(self.number())]
        self.code = self.text()
        self.frame = None

    def number(self):
        (number,) = U32.unpack_from(self.frame, self.at)
        self.at += 4
        return number

    def text(self):
        end = self.at + 4 + U32.unpack_from(self.frame, self.at)[0]
        text = self.frame[self.at + 4 : end]
        self.at = end
        return text


PLACE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


def place(path, content):
    try:
        descriptor = os.open(path, PLACE, 0o644)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, PLACE, 0o644)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def perform(job):
    try:
        for key, value in job.variables:
            os.environb[key] = value
        for path, content in job.files:
            place(os.path.join(b"/work", path), content)
        place(MAIN, job.code)
    except OSError as error:
        os.write(2, ("the sandbox could not place its files: %s\n" % error).encode("utf-8", "replace"))
        os._exit(125)
    if job.mode == MODE_EXEC:
        try:
            os.execve(sys.executable, [sys.executable, "-u", MAIN, *job.arguments], os.environb)
        except OSError as error:
            os.write(2, ("the sandbox could not start the interpreter: %s\n" % error).encode("utf-8", "replace"))
            os._exit(126)
    sys.argv = [MAIN, *map(os.fsdecode, job.arguments)]
    code = job.code
    del job
    run(code)


def run(code):
    """Runs a program as `python main.py` would, and ends as that would."""
    main = ModuleType("__main__")
    main.__file__ = MAIN
    main.__builtins__ = builtins
    main.__cached__ = None
    main.__annotations__ = {}
    sys.modules["__main__"] = main
    end(attempt(code, main.__dict__), main.__dict__)


def attempt(code, names):
    """Runs the program and answers its exit code."""
    try:
        exec(compile(code, MAIN, "exec", 0, True), names)
        return 0
    except SystemExit as request:
        return exit_code(request.code)
    except BaseException as error:
        # The frame of this function is none of the program's business.
        trace = error.__traceback__ and error.__traceback__.tb_next
        show(error, trace)
        return 130 if isinstance(error, KeyboardInterrupt) else 1


def exit_code(code):
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    flush(sys.stdout)
    try:
        print(code, file=sys.stderr)
    except Exception:
        pass
    return 1


def show(error, trace):
    flush(sys.stdout)
    error.__traceback__ = trace
    try:
        sys.excepthook(type(error), error, trace)
    except SystemExit:
        pass
    except BaseException:
        sys.__excepthook__(*sys.exc_info())
        sys.__excepthook__(type(error), error, trace)
    flush(sys.stderr)


def flush(stream):
    """Whether everything is out; a stream that the program has closed or taken away has nothing."""
    try:
        if stream is not None and not stream.closed:
            stream.flush()
        return True
    except Exception:
        return False


def end(code, names):
    """The end of an interpreter as far as programs can tell: threads, exit functions, what the main module held, what is
    still buffered. The rest of the memory is left to the kernel, which is much quicker."""
    try:
        threading = sys.modules.get("threading")
        if threading is not None:
            threading._shutdown()
        atexit._run_exitfuncs()
    except BaseException as error:
        show(error, error.__traceback__)
    clear(names)
    for name in [name for name in sys.modules if name not in OURS]:
        sys.modules.pop(name, None)
    # Most programs end before anything has become old; a look at the young is enough then, and quicker.
    gc.collect(1)
    if gc.get_objects(generation=2):
        gc.collect()
    if not flush(sys.stdout):
        code = code or 120
    flush(sys.stderr)
    os._exit(code)


def clear(names):
    """Lets go of a module's names in the interpreter's own order: private ones first."""
    try:
        for name in list(names):
            if isinstance(name, str) and name.startswith("_") and not name.startswith("__"):
                names[name] = None
        for name in list(names):
            if name != "__builtins__":
                names[name] = None
    except BaseException:
        pass


WARM = b"""
import sys
def square(number):
    return number * number
print(42, [square(n) for n in range(3)], f"{1.5:>5}")
"""


def warm_up(null):
    """Touches the pages that every program touches: copying them now costs the program nothing later."""
    os.dup2(null, 1)
    os.dup2(null, 2)
    place(MAIN, WARM)
    rehearse()
    os.unlink(MAIN)


def rehearse():
    gc.enable()
    names = {"__name__": "__main__", "__builtins__": builtins}
    attempt(WARM, names)
    clear(names)
    gc.collect(1)
    gc.get_objects(generation=2)
    flush(sys.stdout)
    flush(sys.stderr)


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
prepare(sys.argv[3:])
# What the interpreter makes when it is first needed (the types of the compiler's tree are many) is made once for all copies.
rehearse()
OURS = set(sys.modules)
gc.collect()
gc.freeze()
gc.disable()
zygote.serve()
