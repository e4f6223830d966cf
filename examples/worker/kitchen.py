"""The counter: takes orders and tells how they are coming along. The cooking is done in `worker.py`."""

from flask import Flask, request

from database import connect

VERSION = "v1"

app = Flask(__name__)


@app.get("/")
def orders():
    rows = connect().execute("SELECT id, dish, cooked_by FROM orders ORDER BY id DESC LIMIT 20")
    return {"version": VERSION, "orders": [dict(row) for row in rows]}


@app.post("/orders")
def order():
    dish = request.form.get("dish", "soup")
    row = connect().execute("INSERT INTO orders (dish) VALUES (?) RETURNING id", (dish,)).fetchone()
    return {"version": VERSION, "id": row["id"]}, 201


@app.get("/healthz")
def healthz():
    connect().execute("SELECT count(*) FROM orders")
    return "ok\n"
