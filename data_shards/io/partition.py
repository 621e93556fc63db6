"""Cutting n items into parts: over the ranks of a job, the parts of a computation, the processes of a build."""


def partition(n: int, part: int, parts: int) -> range:
    """The items 0..n-1 of part `part` of `parts`: consecutive, sizes differ by at most 1, empty where n < parts.

    The parts in order are all items, each once. Raises ValueError unless 0 <= part < parts and n >= 0.
    """
    if n < 0 or not 0 <= part < parts:
        raise ValueError(f"part {part} of {parts} of {n} items does not exist")
    return range(n * part // parts, n * (part + 1) // parts)
