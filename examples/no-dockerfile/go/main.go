// A lamp that tells its version.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
)

const version = "v1"

func main() {
	http.HandleFunc("/", func(answer http.ResponseWriter, _ *http.Request) {
		_, err := os.Stat("main.go")
		fmt.Fprintf(answer, "%s by Go, user %d, source %t\n", version, os.Getuid(), err == nil)
	})
	log.Fatal(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
