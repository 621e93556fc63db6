"""One process of a job for test_failing_together.py. Its word says what goes wrong with it."""

import os
import signal
import sys
import time

from data_shards.io.errors import InputError
from trainer.group_command import group_command


def fail(message: str) -> None:
    raise InputError(message, parameter="field")


def main() -> None:
    what = sys.argv[1]
    if what == "wrong command":
        fail("is wrong")
    if what == "crash at once":
        raise KeyError("early")

    import torch

    from trainer.process_group import process_group

    start_seconds = float(os.environ.get("START_SECONDS", "120"))
    options = {"n": 5 if what == "other options" else 4}
    with process_group("cuda" if what == "no gpu" else "cpu", options=options, start_seconds=start_seconds) as ranks:
        print("met", flush=True)
        ranks.agree(lambda: fail("file.bin is damaged") if what == "bad file" else None)
        if what == "input":
            fail("found later")
        if what == "crash":
            raise KeyError("late")
        if what == "exit":
            os._exit(0)
        if what in ("kill", "stop"):
            os.kill(os.getpid(), signal.SIGKILL if what == "kill" else signal.SIGSTOP)
        if what == "sleep":
            time.sleep(100)
        assert ranks.sum_(torch.ones(3))[0] == ranks.world_size
        print("done")


if __name__ == "__main__":
    sys.exit(group_command(main))
