"""Alone: an interpreter that runs one program in a container of its own, or under nothing but its own limits.

argv: the working directory, and the most seconds that anything may take. Standard input brings a u32 length and two seccomp
programs (none, if the length is 0), then the job, then the program's own input. One byte on standard output says that it is
ready (`+`) or that it is not (`!` and why, on standard error).

The program runs in a child: this process, PID 1 of a container, waits for it and ends as it ended, with 128 and the number
of the signal if one ended it. It ends everything when the time is over, should nobody else be left who would.
"""
import signal


def wait_for(child, seconds):
    # The streams are the child's; somebody who waits for their end must not wait for this process.
    os.closerange(0, 3)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(124))
    signal.alarm(seconds)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def alone(directory, seconds):
    global HOME, MAIN, OURS
    HOME, MAIN = directory, directory + "/main.py"
    head = read_exactly(0, 4)
    programs = head and read_exactly(0, U32.unpack(head)[0])
    if programs is None:
        os._exit(0)
    sys.stdout.reconfigure(line_buffering=True)
    sys.path[0:1] = [HOME]
    out, err, null = os.dup(1), os.dup(2), os.open("/dev/null", os.O_RDWR)
    os.chdir(HOME)
    OURS = set(sys.modules)
    os.close(warm_up(null))
    os.unlink(MAIN)
    for saved, number in ((out, 1), (err, 2)):
        os.dup2(saved, number)
        os.close(saved)
    os.close(null)
    OURS = set(sys.modules)
    gc.collect()
    gc.freeze()
    child = os.fork()
    if child:
        wait_for(child, seconds)
    try:
        if programs:
            if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0:
                refused("set no_new_privs")
            for program in filters(programs):
                program.install()
        os.write(1, b"+")
    except BaseException as error:
        os.write(1, b"!")
        os.write(2, str(error).encode("utf-8", "replace"))
        os._exit(125)
    job = receive(0)
    if job is None:
        os._exit(0)
    perform(job)


alone(sys.argv[1], int(sys.argv[2]))
