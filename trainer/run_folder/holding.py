"""The lease on a run folder, held by the main process of a job."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from data_shards.io.errors import InputError, told_where_only_reading_is_allowed
from data_shards.io.lease import Lease, lease
from trainer.process_group import Ranks


@contextlib.contextmanager
def held_by_main(folder: Path, ranks: Ranks, name: str = "", *, steal: bool = False) -> Iterator[Lease | None]:
    """Holds the lease on `folder`, or on the one thing `name` in it; yields it on the main process, None on the others.

    Every process calls it. A missing folder is made, and removed again where it stays empty. Raises InputError on the
    main process where another job works there, and ends the others.
    """
    with contextlib.ExitStack() as stack:

        def hold() -> Lease | None:
            if not ranks.is_main:
                return None
            with told_where_only_reading_is_allowed(
                folder / name, "choose a folder that can be written, such as a copy of the run folder"
            ):
                stack.enter_context(_made(folder))
                return stack.enter_context(lease(folder, name, steal=steal))

        yield ranks.agree(hold)


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        found = "a link to nothing" if Path(error.filename).is_symlink() else "a file"
        raise InputError(f"{folder} cannot be made, as {error.filename} is {found}", parameter="runs") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # not empty
            for path in missing:
                path.rmdir()
