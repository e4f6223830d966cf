"use strict";
// The page at `/`: sends the program, shows what it writes as it comes, and remembers. Whatever comes from a program or from
// the server is put in place as text, never as markup.

const at = (id) => document.getElementById(id);
const code = at("code"), stdin = at("stdin"), key = at("key"), output = at("output");
const limits = { ...document.documentElement.dataset };

const EXAMPLES = {
  "Hello": `print("Hello, world")\n`,
  "Primes": `def primes(most):
    sieve = bytearray([1]) * (most + 1)
    for number in range(2, int(most ** 0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, most + 1, number)))
    return [number for number in range(2, most + 1) if sieve[number]]

print(primes(100))
`,
  "Piece by piece": `import sys, time

for step in range(1, 6):
    print("step", step, flush=True)
    if step == 3:
        print("halfway there", file=sys.stderr, flush=True)
    time.sleep(0.4)
`,
  "Standard input": `import sys

numbers = [int(line) for line in sys.stdin.read().split()]
print(len(numbers), "numbers, together", sum(numbers))
`,
  "Files": `from pathlib import Path

Path("notes.txt").write_text("kept as long as the program runs\\n")
print(Path("notes.txt").read_text(), end="")
print(sorted(path.name for path in Path(".").iterdir()))
`,
  "An error": `def inverse(number):
    return 1 / number

print([inverse(number) for number in (2, 1, 0)])
`,
  "A limit": `while True:
    pass
`,
};

// How an execution's reason is told.
const REASONS = {
  ok: "Done", exit_nonzero: "Failed", signal: "Crashed", timeout: "Out of time", cpu_limit: "Out of processor time",
  oom: "Out of memory", output_limit: "Too much output", cancelled: "Cancelled",
};

let running = null;
const past = [];

// ---- The editor

function number() {
  const lines = code.value.split("\n").length;
  at("numbers").textContent = Array.from({ length: lines }, (_, line) => line + 1).join("\n");
  at("numbers").scrollTop = code.scrollTop;
}

// As if typed, so that it can be undone.
function type(text) {
  if (!document.execCommand("insertText", false, text)) {
    code.setRangeText(text, code.selectionStart, code.selectionEnd, "end");
  }
  number();
}

function indent(outwards) {
  const { value, selectionStart: from, selectionEnd: to } = code;
  if (from === to && !outwards) return type("    ");
  const first = value.lastIndexOf("\n", from - 1) + 1;
  const block = value.slice(first, to);
  const changed = outwards ? block.replace(/^ {1,4}/gm, "") : block.replace(/^(?=.)/gm, "    ");
  if (changed === block) return;
  code.setSelectionRange(first, to);
  type(changed);
  if (from !== to) code.setSelectionRange(first, first + changed.length);
}

function newLine() {
  const before = code.value.slice(code.value.lastIndexOf("\n", code.selectionStart - 1) + 1, code.selectionStart);
  type("\n" + before.match(/^ */)[0] + (before.trimEnd().endsWith(":") ? "    " : ""));
}

let leaving = false;
code.addEventListener("keydown", (event) => {
  const modified = event.ctrlKey || event.metaKey || event.altKey || event.isComposing;
  if (event.key === "Tab" && !modified && !leaving) {
    event.preventDefault();
    indent(event.shiftKey);
  } else if (event.key === "Enter" && !modified && !event.shiftKey) {
    event.preventDefault();
    newLine();
  }
  leaving = event.key === "Escape" || (leaving && event.key === "Shift");
});
code.addEventListener("input", number);
code.addEventListener("scroll", () => { at("numbers").scrollTop = code.scrollTop; });
new ResizeObserver(number).observe(code);

// ---- What came of it

function write(stream, text) {
  let last = output.lastElementChild;
  if (!last || last.className !== stream) {
    last = document.createElement("span");
    last.className = stream;
    last.append(document.createTextNode(""));
    output.append(last);
  }
  const follows = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
  last.firstChild.appendData(text);
  if (follows) output.scrollTop = output.scrollHeight;
}

function verdict(text, kind) {
  at("verdict").textContent = text;
  at("verdict").className = kind;
}

function milliseconds(value) {
  return value < 1000 ? `${Math.round(value * 10) / 10} ms` : `${Math.round(value / 100) / 10} s`;
}

function bytes(value) {
  return value < 1 << 20 ? `${Math.round(value / 1024)} KiB` : `${Math.round(value / 104857.6) / 10} MiB`;
}

function usage(used) {
  at("usage").hidden = !used;
  if (!used) return;
  const show = (id, value, most, told) => {
    at(id).max = most;
    at(id).value = value;
    at(`${id}-text`).textContent = `${told(value)} of ${told(Number(most))}`;
  };
  show("wall", used.wall_ms, limits.wallMs, milliseconds);
  show("cpu", used.cpu_ms, limits.cpuMs, milliseconds);
  show("memory", used.memory_peak, limits.memoryBytes, bytes);
}

function told(result) {
  const cut = result.truncated && (result.truncated.stdout || result.truncated.stderr) ? " Output was cut." : "";
  const good = result.reason === "ok";
  verdict((good ? `${REASONS.ok}, exit code 0.` : `${REASONS[result.reason] || "Ended"}: ${result.message || result.reason}.`) + cut,
    good ? "good" : "bad");
  usage(result.usage);
}

function clear() {
  output.replaceChildren();
  verdict("", "");
  usage(null);
}

// ---- Running

function headers() {
  const fields = { "Content-Type": "application/json" };
  if (key.value) fields.Authorization = `Bearer ${key.value}`;
  return fields;
}

async function problem(response) {
  const told = await response.json().catch(() => ({}));
  if (response.status === 401) {
    at("access").open = true;
    key.focus();
  }
  return `${told.title || `The server answered ${response.status}`}: ${told.detail || ""}${told.hint ? ` – ${told.hint}` : ""}`;
}

// Lines of JSON, as they arrive.
async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const whole = (rest + value).split("\n");
    rest = whole.pop();
    for (const line of whole) if (line) yield JSON.parse(line);
  }
}

async function execute(sent, signal) {
  const response = await fetch("/execute?stream=1", { method: "POST", headers: headers(), body: JSON.stringify(sent), signal });
  const left = response.headers.get("RateLimit-Remaining");
  at("status").textContent = left === null ? "Running…" : `Running… ${left} calls are left`;
  if (!response.ok) throw new Error(await problem(response));
  let id = null;
  for await (const event of lines(response.body)) {
    if (event.type === "start") id = event.id;
    else if (event.type === "stdout" || event.type === "stderr") write(event.type, event.data);
    else if (event.type === "error") throw new Error(`${event.problem.title}: ${event.problem.detail}`);
    else if (event.type === "end") {
      told(event.result);
      remember({ id: id || event.result.id, code: sent.code, stdin: sent.stdin || "", reason: event.result.reason });
      return;
    }
  }
  throw new Error("The connection ended before the program did.");
}

async function run() {
  if (running) return;
  running = new AbortController();
  clear();
  at("run").disabled = true;
  at("cancel").hidden = false;
  at("status").textContent = "Running…";
  const sent = { code: code.value };
  if (stdin.value) sent.stdin = stdin.value;
  try {
    await execute(sent, running.signal);
    at("status").textContent = "";
  } catch (error) {
    at("status").textContent = "";
    if (error.name === "AbortError") verdict("Cancelled.", "bad");
    else verdict(error instanceof TypeError ? "The server cannot be reached." : error.message, "bad");
  } finally {
    running = null;
    at("run").disabled = false;
    if (document.activeElement === at("cancel")) at("run").focus();
    at("cancel").hidden = true;
  }
}

at("program").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
at("cancel").addEventListener("click", () => running && running.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    run();
  }
});

// ---- History

function remember(entry, old = false) {
  if (past.some((known) => known.id === entry.id)) return;
  old ? past.push(entry) : past.unshift(entry);
  const button = document.createElement("button");
  button.type = "button";
  const first = document.createElement("span");
  first.className = "first";
  first.textContent = (entry.code || "").split("\n").find((line) => line.trim()) || "an empty program";
  const how = document.createElement("span");
  how.className = "how";
  how.textContent = REASONS[entry.reason] || entry.reason;
  button.append(first, how);
  button.addEventListener("click", () => restore(entry));
  const item = document.createElement("li");
  item.append(button);
  old ? at("history").append(item) : at("history").prepend(item);
  at("no-history").hidden = true;
}

async function restore(entry) {
  if (running) return;
  if (entry.cut) {
    const response = await fetch(`/executions/${encodeURIComponent(entry.id)}`, { headers: headers() }).catch(() => null);
    if (!response || !response.ok) return verdict(response ? await problem(response) : "The server cannot be reached.", "bad");
    const whole = await response.json();
    Object.assign(entry, { code: whole.code, stdin: whole.stdin || "", cut: false });
  }
  code.value = entry.code;
  stdin.value = entry.stdin;
  number();
  clear();
  code.focus();
  code.setSelectionRange(0, 0);
  at("status").textContent = "Brought back from the history.";
}

// A key may have limits and a history of its own.
async function ownLimits() {
  const response = await fetch("/limits", { headers: headers() }).catch(() => null);
  if (!response || !response.ok) return;
  const { execution } = await response.json().catch(() => ({}));
  if (execution) Object.assign(limits, { wallMs: execution.wall_ms, cpuMs: execution.cpu_ms, memoryBytes: execution.memory_bytes });
}

function forget() {
  past.length = 0;
  at("history").replaceChildren();
  at("no-history").hidden = false;
}

async function recall() {
  const response = await fetch("/executions?limit=12", { headers: headers() }).catch(() => null);
  // History may be switched off, or for holders of keys only: then there is what this page remembers.
  if (!response || !response.ok) return;
  const { executions = [] } = await response.json().catch(() => ({}));
  for (const one of executions) remember({ id: one.id, code: one.code, stdin: "", reason: one.reason, cut: true }, true);
}

// ---- Everything else

function theme(chosen) {
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  if (chosen) document.documentElement.dataset.theme = chosen;
  at("theme").setAttribute("aria-pressed", String(dark));
}

// A browser may keep nothing at all for a page.
function kept(store, name, value) {
  try {
    if (value === undefined) return window[store].getItem(name);
    window[store].setItem(name, value);
  } catch { /* then it is not kept */ }
  return null;
}

for (const name of Object.keys(EXAMPLES)) at("examples").append(new Option(name, name));
at("examples").addEventListener("change", (event) => {
  const chosen = EXAMPLES[event.target.value];
  if (!chosen) return;
  code.value = chosen;
  if (event.target.value === "Standard input") {
    stdin.value = "1\n2\n39\n";
    stdin.closest("details").open = true;
  }
  number();
  code.focus();
});
at("theme").addEventListener("click", () => {
  const next = at("theme").getAttribute("aria-pressed") === "true" ? "light" : "dark";
  kept("localStorage", "pyrunner-theme", next);
  theme(next);
});
key.value = kept("sessionStorage", "pyrunner-key") || "";
key.addEventListener("change", () => {
  kept("sessionStorage", "pyrunner-key", key.value);
  forget();
  ownLimits();
  recall();
});
theme(kept("localStorage", "pyrunner-theme"));
if (!code.value) code.value = EXAMPLES.Hello;
at("tools").hidden = false;
at("past").hidden = false;
number();
if (key.value) ownLimits();
recall();
