"""A program that behaves as the conformance suite asks: python3 program.py WHAT ARGUMENTS…

Arguments it does not need are ignored, so that a test can mark a process with one.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def say(stream, text):
    stream.write(text + "\n")
    stream.flush()


def forever():
    while True:
        time.sleep(60)


class Greeting(BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ.get("GREETING", "hello").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def serve(*_):
    """Answers GREETING on PORT until SIGTERM."""
    server = ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Greeting)
    say(sys.stdout, "serving")
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()


def prints(out, err, code, *_):
    """So many lines on each stream, then an exit code."""
    for number in range(int(out)):
        say(sys.stdout, f"out {number}")
    for number in range(int(err)):
        say(sys.stderr, f"err {number}")
    sys.exit(int(code))


def ticks(*_):
    """A numbered line every 20 ms."""
    number = 0
    while True:
        say(sys.stdout, f"tick {number}")
        number += 1
        time.sleep(0.02)


def stubborn(*_):
    """Stays when it is sent SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(sys.stdout, "staying")
    forever()


def forks(*_):
    """Leaves a grandchild in a session of its own that ignores SIGTERM, and goes on."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            say(sys.stdout, "grandchild")
            forever()
        os._exit(0)
    forever()


def env(*_):
    """Its environment as one line of JSON."""
    say(sys.stdout, json.dumps(dict(os.environ)))


def env_and_stay(*_):
    env()
    forever()


def signals(number, *_):
    """Ends by a signal of its own."""
    os.kill(os.getpid(), int(number))
    forever()


def allocates(mebibytes, *_):
    """Uses memory for good."""
    kept = [bytearray(os.urandom(1 << 20)) for _ in range(int(mebibytes))]
    say(sys.stdout, f"allocated {len(kept)}")
    forever()


def raw(*_):
    """Bytes that are no text, a line far too long, and one without an end."""
    out = sys.stdout.buffer
    out.write(b"\xff\xfe ok\n" + b"x" * 100_000 + b"\nafter\nno end")
    out.flush()


def writes(path, text, *_):
    with open(path, "w") as file:
        file.write(text)


def reads(path, *_):
    with open(path) as file:
        say(sys.stdout, file.read())


if __name__ == "__main__":
    globals()[sys.argv[1].replace("-", "_")](*sys.argv[2:])
