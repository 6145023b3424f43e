"""The data sets: scikit-learn's digits, and from files MNIST, CIFAR-10 and TCGA."""

from benchmarks._data.dataset import Dataset
from benchmarks._data.loading import load_dataset

__all__ = ["Dataset", "load_dataset"]
