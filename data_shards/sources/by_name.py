"""The data sets that `build` knows by name. A new one is a file in this folder and its entry here."""

from data_shards.sources.celeba import CELEBA
from data_shards.sources.fashion_mnist import FASHION_MNIST
from data_shards.sources.folder import FOLDER
from data_shards.sources.idx import MNIST
from data_shards.sources.source import Dataset

SOURCES: dict[str, Dataset] = {known.name: known for known in (CELEBA, MNIST, FASHION_MNIST, FOLDER)}
