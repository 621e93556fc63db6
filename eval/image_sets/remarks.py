"""What was decided about the images of a set, by all processes of a job together."""

from collections import Counter

from data_shards.io.errors import InputError
from eval.image_sets.image_set import ImageSet
from eval.run import gathered_json
from trainer.process_group import Ranks

_SHOWN = 3  # unreadable images that are named


def remarks_of(images: ImageSet, ranks: Ranks, *, skip_bad: int) -> list[str]:
    """What was found, left out and done to the images that all processes have read, a line each.

    Raises InputError where none can be read, or more than `skip_bad` cannot, naming some.
    """
    own = {"conversions": images.decisions.conversions, "unreadable": images.decisions.unreadable}
    found = gathered_json(own, ranks)
    conversions = sum((Counter(one["conversions"]) for one in found), Counter[str]())
    unreadable = {name: reason for one in found for name, reason in one["unreadable"].items()}
    said = [f"{images.name}: {count:,} images {what}" for what, count in sorted(conversions.items())]
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
