"""The cook: takes one open order at a time until it is told to stop."""

import os
import signal
import threading

from database import connect

VERSION = "v1"

closing = threading.Event()


def cook_one(database):
    """Cooks the oldest open order; false if there is none."""
    row = database.execute(
        "UPDATE orders SET cooked_by = ? WHERE id = (SELECT min(id) FROM orders WHERE cooked_by IS NULL) RETURNING id, dish",
        (f"cook {VERSION}",),
    ).fetchone()
    if row:
        print(f"order {row['id']}: {row['dish']} is ready", flush=True)
    return row is not None


def main():
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: closing.set())
    database = connect()
    print(f"cook {VERSION} is at the stove (process {os.getpid()})", flush=True)
    while not closing.is_set():
        if not cook_one(database):
            closing.wait(0.2)
    print("the kitchen is closed", flush=True)


if __name__ == "__main__":
    main()
