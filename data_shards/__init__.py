"""Images as tar shards, and the stream of batches from them.

    from data_shards import Manifest, ShardStream, build_shards
    build_shards("folder", "shards/mine", source="IMAGES", size=64)
    for batch in ShardStream("shards/mine", split="train", global_batch=256):
        batch.image                                     # (B, C, H, W) uint8

The rooms, from the top; each imports only what stands below it:

    __main__    the list of commands
    inspect     the commands verify, info and simulate
    stream      `order` decides which sample is where in an epoch, `reader` reads and checks samples, `loader` loads a
                rank's part of a batch, here or in `processes`, and `stream` is what training uses
    build       `writer` writes a tar and its index, `builder` does so in parallel and writes the manifest last,
                `request` is what to build and the table of data sets known by name, `command` its command line
    storage     where the stream reads shards: a local folder, or a bounded cache of remote ones
    sources     data sets as their authors distribute them
    manifest, shard_index, checksum, pixels
                the format of shards
    decoding    the bytes of one image file to 8-bit pixels: which formats, depth, colour, orientation, transparency
    io          what all packages share: errors, configurations, atomic files, addresses, locks, tables, progress
"""

from typing import TYPE_CHECKING

from data_shards.io.lazy_names import lazy_names

if TYPE_CHECKING:
    from data_shards.build.request import build_shards
    from data_shards.io.address import Location
    from data_shards.io.errors import InputError, MachineFault
    from data_shards.manifest import Manifest
    from data_shards.stream.stream import ShardStream

__all__ = ["InputError", "Location", "MachineFault", "Manifest", "ShardStream", "build_shards"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "InputError": "data_shards.io.errors",
        "Location": "data_shards.io.address",
        "MachineFault": "data_shards.io.errors",
        "Manifest": "data_shards.manifest",
        "ShardStream": "data_shards.stream.stream",
        "build_shards": "data_shards.build.request",
    },
)
