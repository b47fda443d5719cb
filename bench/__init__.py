"""Benchmarks: each prints ratios measured inside one run, and what it ran on."""
