"""Ray on one node of a job, until the job ends: ray_node.py OPTIONS, which are those of `ray start`.

SIGTERM, which Slurm sends to all steps at `scancel` and before a preemption, is blocked in Ray's processes, and so in
the trials: else they would end before they have saved. The sweep's own process receives it, and lets them save.
"""

import os
import signal
import sys

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.execv(sys.executable, [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *sys.argv[1:]])
