// Runs while the app is built, with development dependencies.
const leftPad = require("left-pad")

require("fs").writeFileSync("greeting.txt", leftPad("hello", 8, "."))
