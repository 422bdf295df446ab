"""The edge runtime's benchmark: paired rounds against floors, marks, a page; and a soak.

`python -m load.edge` measures (`bench`), `python -m load.edge.soak` keeps a runtime under full
load. What is measured is one module each: `start`, `overhead`, `hop`, `death`, `throughput`.
"""
