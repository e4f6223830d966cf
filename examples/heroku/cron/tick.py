"""Does its work now and then, and listens on no port."""

import signal
import sys
import time

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
count = 0
while True:
    count += 1
    print(f"tick {count}", flush=True)
    time.sleep(1)
