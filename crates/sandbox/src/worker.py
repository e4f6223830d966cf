"""What runs a program in a process of its own, wherever that process is: it takes the job from a descriptor, puts the files
where they belong, runs the program as an interpreter would, and ends as that would. `zygote.py` and `alone.py` come after it.
"""
import sys
import os
import gc
import builtins
import atexit
import ctypes
from struct import Struct
from types import ModuleType

MODE_EXEC = 1
HOME = "/work"
MAIN = HOME + "/main.py"
U32 = Struct("<I")
THREE = Struct("<3Q")
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 38, 22
# In bytes; most jobs have fewer.
AHEAD = 4096

# PyDLL keeps the interpreter's lock: nothing else runs here, and letting it go would only cost time.
libc = ctypes.PyDLL(None, use_errno=True)
prctl = libc.prctl
prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
prctl.restype = ctypes.c_int


def refused(step):
    code = ctypes.get_errno()
    raise OSError(code, "%s: %s" % (step, os.strerror(code)))


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


def filters(programs):
    """The two seccomp programs, each a u32 length and an array of struct sock_filter."""
    length = U32.unpack_from(programs)[0]
    return Filter(programs[4 : 4 + length]), Filter(programs[8 + length :])


def receive(descriptor, ahead=4):
    """The job, or None if the daemon went away or gave this slot up. Where nothing comes behind the job, `ahead` may be more
    than its length takes, and one call does for most jobs."""
    piece = os.read(descriptor, ahead)
    if len(piece) < 4:
        rest = piece and read_exactly(descriptor, 4 - len(piece))
        if not rest:
            return None
        piece += rest
    left = U32.unpack_from(piece)[0] + 4 - len(piece)
    if left:
        rest = read_exactly(descriptor, left)
        if rest is None:
            return None
        piece += rest
    return Job(piece)


def read_exactly(descriptor, left):
    pieces = []
    while left:
        piece = os.read(descriptor, min(left, 1 << 20))
        if not piece:
            return None
        pieces.append(piece)
        left -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Job:
    """{u32 length of what follows, 3 u64 limits, u8 mode, arguments, variables, files, code}: a list is a u32 and so many
    items, a text a u32 and so many bytes. The limits are the process's own (address space in bytes, processor seconds,
    processes of its user), where no cgroup keeps the whole of them; 0 leaves what is."""

    def __init__(self, frame):
        self.frame, self.at = frame, 29
        self.limits = THREE.unpack_from(frame, 4)
        self.mode = frame[28]
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
    fill(descriptor, content)


def fill(descriptor, content):
    """Writes all of it and closes."""
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def lower(limits):
    import resource

    for kind, limit in zip((resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NPROC), limits):
        if limit:
            # A second more for the kernel's last word: at the softer one a program hears of it.
            resource.setrlimit(kind, (limit, limit + 1 if kind == resource.RLIMIT_CPU else limit))


def perform(job, main=None):
    """Does the job and ends. `main` is the main file, open and empty, if it is there already."""
    try:
        for key, value in job.variables:
            os.environb[key] = value
        for path, content in job.files:
            place(os.path.join(os.fsencode(HOME), path), content)
        if main is not None and not job.files:
            fill(main, job.code)
        else:
            # One of the files may have been put in its place.
            if main is not None:
                os.close(main)
            place(MAIN, job.code)
        if any(job.limits):
            lower(job.limits)
    except (OSError, ValueError) as error:
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
    main = main_module()
    sys.modules["__main__"] = main
    end(attempt(code, main.__dict__), main.__dict__)


def main_module():
    main = ModuleType("__main__")
    main.__file__ = MAIN
    main.__builtins__ = builtins
    main.__cached__ = None
    main.__annotations__ = {}
    return main


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
    if not let_go(names):
        code = code or 120
    leave(code)


def leave(code):
    """Ends the process; the zygote has its own way."""
    os._exit(code)


def let_go(names):
    """What an interpreter does with a program's objects at its end. Answers whether the standard output is out."""
    try:
        clear(names)
        # Looking at each name writes to the page that it is on; most programs have imported nothing.
        if len(sys.modules) != len(OURS) or next(reversed(sys.modules)) not in OURS:
            for name in [name for name in sys.modules if name not in OURS]:
                sys.modules.pop(name, None)
        # Most programs end before anything has become old; a look at the young is enough then, and quicker.
        gc.collect(1)
        if gc.get_objects(generation=2):
            gc.collect()
    except BaseException as error:
        show(error, error.__traceback__)
    out = flush(sys.stdout)
    flush(sys.stderr)
    return out


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
    """Touches the pages that every program touches: copying them now costs the program nothing later. Answers the main file,
    open and empty."""
    os.dup2(null, 1)
    os.dup2(null, 2)
    place(MAIN, WARM)
    rehearse()
    return os.open(MAIN, PLACE)


# As it comes through `receive`.
WARM_JOB = THREE.pack(0, 0, 0) + bytes(13) + U32.pack(len(WARM)) + WARM
WARM_JOB = U32.pack(len(WARM_JOB)) + WARM_JOB


def rehearse():
    """Runs a small program to its end, but for threads and exit functions, which may be somebody's who was imported ahead."""
    gc.enable()
    reading, writing = os.pipe()
    fill(writing, WARM_JOB)
    job = receive(reading, AHEAD)
    os.close(reading)
    main = main_module()
    attempt(job.code, main.__dict__)
    let_go(main.__dict__)
