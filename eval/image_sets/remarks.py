"""What was decided about the images of a set, by all processes of a job together."""

from data_shards.io.errors import InputError
from eval.image_sets.image_set import Decisions, ImageSet
from eval.run import gathered_json
from trainer.process_group import Ranks

_SHOWN = 3  # unreadable images that are named


def remarks_of(images: ImageSet, ranks: Ranks, *, skip_bad: int) -> list[str]:
    """`remarks_on` the images that all processes have read."""
    return remarks_on(images, decisions_of(images, ranks), skip_bad=skip_bad)


def decisions_of(images: ImageSet, ranks: Ranks) -> Decisions:
    """What was done to the images that all processes have read."""
    return Decisions.together(gathered_json(images.decisions.to_json(), ranks))


def remarks_on(images: ImageSet, decisions: Decisions, *, skip_bad: int) -> list[str]:
    """What was found, left out and done to images, a line each.

    Raises InputError where none can be read, or more than `skip_bad` cannot, naming some.
    """
    unreadable = decisions.unreadable
    said = [f"{images.name}: {count:,} images {what}" for what, count in sorted(decisions.conversions.items())]
    if unreadable:
        some = "; ".join(f"{name} {reason}" for name, reason in list(unreadable.items())[:_SHOWN])
        counted = f"{len(unreadable):,} of {images.n:,} images cannot be read ({some})"
        if len(unreadable) == images.n:
            raise InputError(f"{images.name}: {counted}; give images that can be")
        if len(unreadable) > skip_bad:
            raise InputError(
                f"{images.name}: {counted}; remove them, or leave them out by --skip-bad {len(unreadable)}"
            )
        said.append(f"{images.name}: left out: {counted}")
    return [*images.notes, *said]
