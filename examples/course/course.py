"""A course's page: students enrol in PostgreSQL, visits are counted in Redis."""

import os
from urllib.parse import urlsplit

import pg8000.dbapi
import redis
from flask import Flask, request

# Change this line and deploy again.
VERSION = "v1"

app = Flask(__name__)
visits = redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=5)
database = urlsplit(os.environ["DATABASE_URL"])


def ask(statement, values=()):
    """Runs one statement in a transaction of its own, on a table that is made when it is missing."""
    connection = pg8000.dbapi.connect(
        user=database.username, password=database.password, host=database.hostname, database=database.path[1:], timeout=10
    )
    try:
        cursor = connection.cursor()
        # Two requests that make the same table at once would trip over each other.
        cursor.execute("SELECT pg_advisory_xact_lock(1)")
        cursor.execute("CREATE TABLE IF NOT EXISTS student (name text PRIMARY KEY)")
        cursor.execute(statement, values)
        rows = cursor.fetchall() if cursor.description else []
        connection.commit()
        return rows
    finally:
        connection.close()


@app.get("/")
def page():
    return {"version": VERSION, "env": os.environ["ENV"], "visits": visits.incr("visits")}


@app.get("/students")
def students():
    return {"version": VERSION, "students": [name for (name,) in ask("SELECT name FROM student ORDER BY name")]}


@app.post("/students")
def enrol():
    ask("INSERT INTO student VALUES (%s) ON CONFLICT DO NOTHING", (request.form["name"],))
    return {"version": VERSION}, 201
