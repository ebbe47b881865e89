"""Whatever comes in from outside, mutated for a stated time: `make fuzz`."""
