"""A/B experiments with Fiedler regularization; run ``python -m benchmarks.compare``."""

import os

# Threads of OpenBLAS wait busily for some 2^26 cycles after their last work and take a core from whatever is timed
# next: ours took 13 to 24 ms right after SciPy's solvers, and eigsh 22, where both take 8 by themselves (3072 inputs in
# training, combinatorial, float32, warm). Pausing instead would let JAX's threads fall asleep. Read as NumPy is loaded.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
