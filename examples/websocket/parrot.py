"""A parrot: repeats what it hears over a WebSocket, and counts aloud over server-sent events.

Plain ASGI without a framework: an application is one coroutine that is called for every connection.
"""

import asyncio

VERSION = "v1"

PAGE = b"""<!doctype html>
<title>Parrot</title>
<h1>Parrot</h1>
<form><input autofocus placeholder="Say something"></form>
<ul></ul>
<p>It has counted to <output>0</output>.</p>
<script>
  const socket = new WebSocket(location.href.replace("http", "ws") + "echo")
  socket.onmessage = ({data}) => document.querySelector("ul").append(Object.assign(document.createElement("li"), {textContent: data}))
  document.forms[0].onsubmit = event => { event.preventDefault(); socket.send(event.target[0].value); event.target.reset() }
  new EventSource("ticks").onmessage = ({data}) => document.querySelector("output").textContent = data
</script>
"""


async def app(scope, receive, send):
    match scope["type"], scope.get("path"):
        case "lifespan", _:
            await lifespan(receive, send)
        case "websocket", "/echo":
            await echo(receive, send)
        case "http", "/ticks":
            await ticks(receive, send)
        case "http", "/":
            await answer(send, 200, PAGE, b"text/html; charset=utf-8")
        case "http", "/version":
            await answer(send, 200, VERSION.encode() + b"\n")
        case "http", _:
            await answer(send, 404, b"The parrot does not know this place.\n")


async def echo(receive, send):
    """Greets, then repeats every message until the other side has enough."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": f"parrot {VERSION}"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


async def ticks(receive, send):
    """One event every tenth of a second, for as long as somebody listens."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    gone = asyncio.create_task(hung_up(receive))
    count = 0
    while not gone.done():
        count += 1
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % count, "more_body": True})
        await asyncio.wait([gone], timeout=0.1)


async def hung_up(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


async def answer(send, status, body, kind=b"text/plain; charset=utf-8"):
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive, send):
    while (event := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{event['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})
