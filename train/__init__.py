"""Jobs that make models; the zoo builds those that the demo and the benchmarks serve."""
