"""A recorded update does what the update does, or it is not used: faults that a recording can have are planted here."""

import pytest
from device.test_pretended_device import lines

SCRIPT = '''
from trainer.engines.engine import LearningRates
from trainer.objectives.objective import LocalBatch
from trainer.process_group import single
from trainer.updates.recording import Inputs, RecordedUpdates

def inputs(number, rows=4):
    images = torch.full((rows, 1, 2, 2), number, dtype=torch.uint8).pin_memory().to("cuda", non_blocking=True)
    small = torch.full((3,), float(number)).pin_memory().to("cuda", non_blocking=True)
    batch = LocalBatch(images=images, noise=small, prior=small[:0], start=0, rows=rows, kl_weight=small[0])
    return Inputs(batch, LearningRates(networks=small[0], log_variance=small[1], variance_head=small[2]), small[:2])

class Sum:
    """A state that adds up numbers of the inputs."""
    def __init__(self):
        self.total, self.calls = torch.zeros(3, device="cuda"), 0

    def update(self, found):
        self.calls += 1
        self.total += self.added(found)
        return self.total.double()

    def added(self, found):
        return found.batch.images.float().mean() * found.learning_rates.networks + found.batch.noise

class OfTheHost(Sum):
    def added(self, found):
        return found.batch.images.float().mean() * float(self.calls) + found.batch.noise

class Waits(Sum):
    def added(self, found):
        return found.learning_rates.networks.item() ** 2 + found.batch.noise

class Copies(Sum):
    def added(self, found):
        return torch.full((3,), float(self.calls)).pin_memory().to("cuda", non_blocking=True) + found.batch.noise

class Replaced(Sum):
    def update(self, found):
        self.calls += 1
        self.total = self.total + self.added(found)
        return self.total.double()

class Skipped(Sum):
    def update(self, found):
        self.calls += 1
        wrong = found.learning_rates.networks == 4  # the first that would be compared
        new = torch.where(wrong, float("nan"), self.total + self.added(found))
        self.total.copy_(torch.where(new.isfinite(), new, self.total))
        return new.double()

def tried(name, kind, sizes=(4,) * 9, replaced_at=0):
    """Updates on 1, 2, ...: the final state and result, Python calls of the update, and warnings."""
    made, warned = kind(), []
    updates = RecordedUpdates(
        made.update, lambda: {"total": made.total}, single("cuda"), rows=4, same_bits=False, warn=warned.append
    )
    for number, rows in enumerate(sizes, start=1):
        if number == replaced_at:
            made.total = made.total.clone()
            updates.drop()
        values = updates(inputs(number, rows)).clone()
    print(name, f"{made.total[0].item():.0f}/{values[0].item():.0f}/{made.calls}/{''.join(warned).replace(' ', '_')}")

tried("sum", Sum)
tried("two sizes", Sum, (4, 4, 4, 4, 4, 2, 4, 2, 4))
tried("dropped", Sum, replaced_at=7)
tried("number of the host", OfTheHost)
tried("wait", Waits)
tried("copy from the host", Copies)
tried("replaced state", Replaced)
tried("skipped", Skipped)
'''
RIGHT = sum(number**2 + number for number in range(1, 10))


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """By name: final state, last result, Python calls of the update, and warnings."""
    found = lines(SCRIPT, tmp_path_factory.mktemp("recording"))
    return {name: result.split("/", 3) for name, result in found.items()}


def test_a_recorded_update_reads_the_inputs_of_each_update(tried):
    # Three warm up; two are compared with a recording, for which there is one more call.
    assert tried["sum"] == [str(RIGHT), str(RIGHT), "6", ""]


def test_updates_of_another_size_are_not_replayed(tried):
    assert tried["two sizes"] == [str(RIGHT), str(RIGHT), "8", ""]


def test_a_dropped_recording_is_made_anew_for_the_tensors_of_now(tried):
    assert tried["dropped"] == [str(RIGHT), str(RIGHT), "9", ""]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("number of the host", "others_in_a_replay"),
        ("wait", "could_not_be_recorded"),
        ("copy from the host", "could_not_be_recorded"),
        ("replaced state", "does_not_stay"),
    ],
)
def test_a_recording_that_does_not_do_what_the_update_does_is_not_used(tried, fault, said):
    state, result, calls, warned = tried[fault]
    assert "updates_are_done_one_by_one" in warned
    assert said in warned
    assert int(calls) >= 9
    assert state == result
    if fault in ("wait", "replaced state"):  # the others add numbers of calls, which a recording makes too
        assert int(state) == RIGHT


def test_an_update_that_is_not_finite_is_not_compared(tried):
    assert tried["skipped"] == [str(RIGHT - 20), str(RIGHT - 20), "7", ""]
