"""What people use instead of us, each in an environment and a process of its own.

| file | what it holds |
|---|---|
| `environments.py` | which packages each peer needs, and how its environment is made |
| `contenders.py` | a peer as a contender of `benchmarks/loader.py`: started, asked, compared |
| `process.py` | our end of the line to a peer's process |
| `worker.py` | the peer's end |
| `job.py`, `set_files.py` | what a peer is asked for; the members of our shards, by numpy alone |
| the others | one peer each: `prepare` its own files, give `batches` |

What runs in a peer's process imports numpy, the peer's own packages and this folder, nothing else.

MosaicML Streaming is not among them: it imports torchvision, whose wheels are CUDA builds and do
not load beside a CPU build of torch, so that it can be compared on a machine with a GPU alone.
"""
