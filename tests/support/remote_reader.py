"""A rank that reads an epoch of remote shards, as a process of its own: python remote_reader.py ADDRESS RANK WORLD."""

import sys

from data_shards.stream.stream import ShardStream

if __name__ == "__main__":
    address, rank, world_size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    stream = ShardStream(address, split="train", global_batch=32, rank=rank, world_size=world_size)
    print(*[sample for batch in stream for sample in batch.index.tolist()])
