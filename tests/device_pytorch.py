"""LeNet-5's training step in PyTorch, for a comparison on the same GPU: eager, compiled, and as a CUDA graph.

    python3 tests/device_pytorch.py [BATCH...]

The network, the batches and the optimizer of `lenet bench`. Prints one line of JSON for each way and batch, or one line
that says why there is nothing to measure.
"""

import json
import os
import statistics
import sys
import time

try:
    import torch
except ImportError:
    print("skipped: there is no torch")
    sys.exit(0)
if not torch.cuda.is_available():
    print("skipped: torch sees no CUDA device")
    sys.exit(0)

from torch import nn

SECONDS = float(os.environ.get("SECONDS_EACH", "1"))


def lenet5():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(),
        nn.Linear(84, 10),
    ).cuda()


class Steps:
    """A network in training on one batch that stays on the GPU."""

    def __init__(self, batch, compiled=False, capturable=False):
        torch.manual_seed(0)
        self.images = torch.rand(batch, 1, 28, 28, device="cuda")
        self.labels = torch.randint(10, (batch,), device="cuda")
        self.net = lenet5()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3, capturable=capturable)
        self.loss = nn.CrossEntropyLoss()
        forward = lambda images, labels: self.loss(self.net(images), labels)
        self.forward = torch.compile(forward) if compiled else forward

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.forward(self.images, self.labels)
        loss.backward()
        self.optimizer.step()
        return loss


def graph(steps):
    """The step as one CUDA graph, recorded after a warm-up on a stream of its own."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            steps.step()
    torch.cuda.current_stream().wait_stream(stream)
    recorded = torch.cuda.CUDAGraph()
    steps.optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(recorded):
        steps.step()

    def replay():
        # The graph does not own the weights and images that it works on.
        recorded.replay()
        return steps

    return replay


def measure(step):
    """Medians and quartiles of the seconds of a step, from samples of many steps each."""
    start = time.perf_counter()
    for _ in range(10):
        step()
    torch.cuda.synchronize()
    first = time.perf_counter() - start
    many, samples, begin = 50, [], time.perf_counter()
    while len(samples) < 5 or time.perf_counter() - begin < SECONDS:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(many):
            step()
        torch.cuda.synchronize()
        samples.append((time.perf_counter() - start) / many)
    quartiles = statistics.quantiles(samples, n=4)
    return {"median_s": quartiles[1], "quartiles_s": [quartiles[0], quartiles[2]], "samples": len(samples),
            "first_ten_s": first}


WAYS = {
    "eager": lambda batch: Steps(batch).step,
    "compiled": lambda batch: Steps(batch, compiled=True).step,
    "cuda graph": lambda batch: graph(Steps(batch, capturable=True)),
}

for batch in [int(word) for word in sys.argv[1:]] or [64, 256, 1024]:
    for way, make in WAYS.items():
        line = {"framework": "pytorch", "version": torch.__version__, "device": torch.cuda.get_device_name(),
                "way": way, "batch": batch}
        try:
            line |= measure(make(batch))
            line["images_per_second"] = batch / line["median_s"]
        except Exception as error:  # A way that this installation lacks, such as a compiler, is told and passed over.
            line["not_measured"] = f"{type(error).__name__}: {error}".splitlines()[0]
        print(json.dumps(line), flush=True)
