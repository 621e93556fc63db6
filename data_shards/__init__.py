"""Images as tar shards, and the stream of batches from them.

Building: `sources/` reads a data set as its authors distribute it, `pixels` crops, resizes and encodes, `shard_writer`
writes a tar and its index, `build` does so in parallel and writes the `manifest` last.

Streaming: `order` says which sample stands where in an epoch, `address`, `shard_folder`, `shard_cache` and `prefetch`
bring shards near, `reader` reads and checks samples, `batch_loader` cuts a rank's share, `stream` is what training
uses.

Looking: `verify`, `info`, `simulate`.
"""
