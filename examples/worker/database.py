"""The kitchen's one database file. It lies in a volume, so it outlives every release."""

import os
import sqlite3

PATH = os.environ.get("DATABASE", "/data/kitchen.db")


def connect():
    connection = sqlite3.connect(PATH, timeout=10, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    return connection
