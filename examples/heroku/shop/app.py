"""One of several small web apps on one small server."""

import os

from flask import Flask

# Change this line and deploy again.
VERSION = "v1"

app = Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]


@app.get("/")
def front():
    return f"shop {VERSION} in {os.environ['PYTHON_ENV']}\n"
