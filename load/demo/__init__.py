"""`make demo`: the main job on real input, shown end to end and judged at every step."""
