"""What sets of images are read from, in words for the help of commands, which start quickly without the readers."""

KINDS = (
    "a folder or zip of images, an .npz (or FILE.npz:ARRAY) or .npy of uint8 (N, H, W, C), WebDataset tars "
    "(data-{000..009}.tar, also .tar.gz), each of them at an http(s):// or s3:// address too, shards:FOLDER/SPLIT, or "
    "run:RUN for samples of a run"
)
