"""The server of Examist: exams that students remember, kept in PostgreSQL."""

from os import environ as env

import pg8000.dbapi
from flask import Flask, request
from waitress import serve

# Change this line and deploy again.
VERSION = "v1"

app = Flask(__name__)


def ask(statement, values=()):
    """Runs one statement in a transaction of its own."""
    connection = pg8000.dbapi.connect(
        user=env["DB_USER"],
        password=env["DB_PASS"],
        host=env.get("DB_HOST", "localhost"),
        port=int(env.get("DB_PORT", 5432)),
        database=env["DB_NAME"],
        timeout=10,
    )
    try:
        cursor = connection.cursor()
        cursor.execute(statement, values)
        rows = cursor.fetchall() if cursor.description else []
        connection.commit()
        return rows
    finally:
        connection.close()


@app.get("/version")
def version():
    return f"{VERSION}\n"


@app.get("/exams")
def exams():
    rows = ask("SELECT title, year FROM exam ORDER BY id")
    return {"version": VERSION, "exams": [{"title": title, "year": year} for title, year in rows]}


@app.post("/exams")
def remember():
    ask("INSERT INTO exam (title, year) VALUES (%s, %s)", (request.form["title"], int(request.form["year"])))
    return {"version": VERSION}, 201


if env.get("APP_DEBUG") == "True":
    # Listens on loopback alone: nobody outside the container reaches it.
    app.run(port=int(env["APP_PORT"]), debug=True)
else:
    serve(app, host=env["APP_HOST"], port=int(env["APP_PORT"]), threads=8)
