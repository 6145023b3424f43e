"""The tuned comparison: tasks, trials and their store, the choice of strengths, and the report."""
