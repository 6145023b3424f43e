"""A/B experiments with Fiedler regularization; run ``python -m benchmarks.compare``."""
