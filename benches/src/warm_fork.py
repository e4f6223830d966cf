"""A plain server that forks a warm interpreter for each program: what isolation is measured against. It isolates nothing.

argv[1] is a Unix socket. A request is a u32 and so many bytes of a program, an answer a u32 and so many bytes of its output.
"""
import gc
import os
import socket
import struct
import sys

LENGTH = struct.Struct("<I")


def perform(code):
    """Forks, runs the program, reads its output to the end and waits for its end."""
    reading, writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.dup2(writing, 1)
        try:
            exec(compile(code, "main.py", "exec"), {"__name__": "__main__"})
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.close(writing)
    output = []
    while piece := os.read(reading, 65536):
        output.append(piece)
    os.close(reading)
    os.waitpid(worker, 0)
    return b"".join(output)


def exactly(stream, left):
    pieces = []
    while left:
        piece = stream.recv(left)
        if not piece:
            return None
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def main():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    # What is needed first is made once, and the collector does not touch it in the copies.
    perform(b"print(42)")
    gc.collect()
    gc.freeze()
    while True:
        stream, _ = listener.accept()
        while head := exactly(stream, 4):
            output = perform(exactly(stream, LENGTH.unpack(head)[0]))
            stream.sendall(LENGTH.pack(len(output)) + output)
        stream.close()


main()
