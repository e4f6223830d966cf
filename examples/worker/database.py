"""The kitchen's one database file. It lies in a volume, so it outlives every release."""

import os
import sqlite3

# Without root the process engine cannot show a volume at a path of its own, and tells where it is instead.
PATH = os.path.join(os.environ.get("CORACLE_VOLUME_DATA", "/data"), "kitchen.db")


def connect():
    connection = sqlite3.connect(PATH, timeout=10, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    return connection
