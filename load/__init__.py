"""Load tools: the demo, benchmarks, traffic, overload and fuzz."""
