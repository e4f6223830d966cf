const fs = require("fs")
const http = require("http")
const ms = require("ms")

const VERSION = "v1"
const greeting = fs.readFileSync("greeting.txt", "utf8")
const development = fs.existsSync("node_modules/left-pad") ? "there" : "absent"

http
  .createServer((request, answer) => {
    answer.end(`${VERSION} ${greeting} ${ms("1s")} ms, user ${process.getuid()}, development ${development}\n`)
  })
  .listen(process.env.PORT)
