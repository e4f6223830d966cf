"""A shop window: the smallest web app that is worth deploying."""

import os
import time

from flask import Flask, request

# Change this line and deploy again.
VERSION = "v1"

app = Flask(__name__)


@app.get("/")
def window():
    return f"{os.environ.get('GREETING', 'Hello')} from {VERSION}\n"


@app.get("/healthz")
def healthz():
    """Whoever deploys this asks here whether it is ready for customers."""
    return "ok\n"


@app.post("/orders")
def order():
    """Takes an order. The size of what arrived is told back, so that nobody can claim it got lost."""
    return {"version": VERSION, "bytes": len(request.get_data())}, 201


@app.get("/slow")
def slow():
    """A customer who takes their time: `/slow?s=2.5`, a minute at most."""
    time.sleep(min(max(request.args.get("s", 1.0, type=float), 0), 60))
    return f"At last, from {VERSION}\n"
