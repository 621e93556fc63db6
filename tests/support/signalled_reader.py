"""Streams slowly with reader processes and prints a digest of each batch: python signalled_reader.py ADDRESS SECONDS.

The signals that stop a job are noted and nothing more, as a trainer does until its update is done.
"""

import hashlib
import signal
import sys
import time

from data_shards.stream.stream import ShardStream

if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)
    stream = ShardStream(sys.argv[1], split="train", global_batch=8, workers=2)
    for batch in stream:
        print(hashlib.sha256(batch.image.numpy().tobytes()).hexdigest(), *stream.reader_pids, flush=True)
        time.sleep(float(sys.argv[2]))
