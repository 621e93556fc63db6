"""The pretended GPU refuses what a real one refuses: each fault is planted once, and must be found."""

from device.pretended.script import run_script
from support.forked import Job

PRELUDE = """
import os
import torch
import torch.distributed as dist
from device.pretended.counts import COUNTS
gpu, cpu = torch.ones(4, device="cuda"), torch.ones(4)

def fails(name, action):
    try:
        action()
    except Exception as error:
        print(name, type(error).__name__)
    else:
        print(name, "nothing")

def waits(name, action):
    before = sum(COUNTS.waits.values())
    action()
    print(name, sum(COUNTS.waits.values()) - before)
"""
FAULTS = """
fails("two devices", lambda: gpu + cpu)
fails("index on the gpu of a tensor of the cpu", lambda: cpu[torch.zeros(2, dtype=torch.int64, device="cuda")])
fails("numpy", lambda: gpu.numpy())
fails("generator of the cpu", lambda: torch.randn(3, device="cuda", generator=torch.Generator()))
fails("pin the gpu", lambda: gpu.pin_memory())
dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
fails("sum on the cpu", lambda: dist.all_reduce(cpu))
fails("sum of a transposed tensor", lambda: dist.all_reduce(torch.ones(2, 3, device="cuda").T))
fails("sum of complex numbers", lambda: dist.all_reduce(torch.ones(2, dtype=torch.complex64, device="cuda")))
fails("objects", lambda: dist.all_gather_object([None], 1))

def unread():
    host = torch.empty(4, pin_memory=True)
    host.copy_(gpu, non_blocking=True)
    assert host.tolist() == [1, 1, 1, 1]

def rewritten():
    host = cpu.pin_memory()
    sent = host.to("cuda", non_blocking=True)
    host.fill_(2)
    sent.sum().item()

def other_stream():
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        made = torch.ones(4, device="cuda") * 2
    made + 1

def no_record():
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        made = torch.ones(4, device="cuda") * 2
    torch.cuda.current_stream().wait_stream(side)
    made + 1

def overwritten():
    side, read = torch.cuda.Stream(), torch.zeros(4, device="cuda")
    read + 1
    with torch.cuda.stream(side):
        read.fill_(3)

def group_ends_before_graph():
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        dist.all_reduce(gpu)
    dist.destroy_process_group()

def wait_that_is_forbidden():
    torch.cuda.set_sync_debug_mode("error")
    try:
        gpu.sum().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")

def product_before_its_setting():
    square = torch.ones(4, 4, device="cuda")
    square @ square
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    square @ square

def kernel_without_order():
    torch.use_deterministic_algorithms(True)
    gpu.cumsum(0)

for planted in (unread, rewritten, other_stream, no_record, overwritten):
    fails(planted.__name__, planted)
for planted in (wait_that_is_forbidden, product_before_its_setting, kernel_without_order, group_ends_before_graph):
    fails(planted.__name__, planted)
"""
WAITS = """
waits("item", lambda: gpu.sum().item())
waits("if", lambda: bool((gpu > 0).all()))
waits("flags", lambda: gpu[gpu > 0])
waits("nonzero", lambda: gpu.nonzero())
waits("constant", lambda: torch.tensor([1.0], device="cuda"))
waits("new_tensor", lambda: gpu.new_tensor([1.0]))
waits("pageable", lambda: cpu.to("cuda", non_blocking=True))
waits("to the host", lambda: gpu.cpu())
image = torch.ones(2, 3, 4, 4).pin_memory()
waits("layout", lambda: image.to("cuda", non_blocking=True, memory_format=torch.channels_last))
waits("pinned", lambda: cpu.pin_memory().to("cuda", non_blocking=True))
waits("filled", lambda: gpu.new_full((1,), 3.0))
"""


def lines(script, folder):
    """The words that the lines of a script's output end with, by what stands before them."""
    path = folder / "script.py"
    path.write_text(PRELUDE + script)
    job = Job.start([str(path)], 1, folder, work=run_script)
    assert job.wait(600) == [0], job.said()[-3000:]
    return dict(line.rsplit(" ", 1) for line in job.said().splitlines())


def test_every_planted_fault_is_found(tmp_path):
    found = lines(FAULTS, tmp_path)
    assert len(found) == 18
    assert [name for name, error in found.items() if error == "nothing"] == []


def test_what_makes_the_host_wait_is_counted(tmp_path):
    found = lines(WAITS, tmp_path)
    assert {name: count for name, count in found.items() if count == "0"} == {"pinned": "0", "filled": "0"}
    assert len(found) == 11
