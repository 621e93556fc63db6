"""Images and latents: generated, reconstructed, or read from shards, block by block."""
