"""Waits until all nodes of a job have joined its Ray cluster: wait_for_ray.py ADDRESS NODES SECONDS.

Ends with exit code 1 and one line on stderr where some have not joined in time.
"""

import sys
import time

import ray


def main() -> int:
    """Returns the exit code."""
    address, nodes, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    start = said = time.monotonic()
    while len(joined := sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])) < nodes:
        now = time.monotonic()
        if now - start > seconds:
            print(f"{len(joined)} of {nodes} nodes have joined Ray: {', '.join(joined)}", file=sys.stderr)
            return 1
        if now - said >= 30:
            print(f"waiting for nodes to join Ray: {len(joined)} of {nodes} after {now - start:.0f} s", flush=True)
            said = now
        time.sleep(0.5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
