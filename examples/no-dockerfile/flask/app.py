"""A page that says who serves it."""

import os

from flask import Flask, request

VERSION = "v1"

app = Flask(__name__)


@app.get("/")
def index():
    server = request.environ["SERVER_SOFTWARE"]
    return f"{VERSION} by {server}, user {os.getuid()}\n"


if __name__ == "__main__":
    # For development. It is not what serves after a deployment.
    app.run(port=int(os.environ.get("PORT", "5000")), debug=True)
