import numpy as np
import pytest

from benchmarks._config import DATASETS
from benchmarks._data import load_dataset
from benchmarks._data.digits import load_digits
from benchmarks._errors import DataError


def test_digits_split_is_stratified_scaled_and_disjoint():
    data = load_digits()
    assert data.train_inputs.shape == (898, 64)
    assert data.test_inputs.shape == (899, 64)
    assert data.classes == 10
    counts = [np.bincount(labels) for labels in (data.train_labels, data.test_labels)]
    assert np.abs(counts[0] - counts[1]).max() <= 2
    np.testing.assert_allclose(data.train_inputs.mean(), 0, atol=1e-5)
    np.testing.assert_allclose(data.train_inputs.std(), 1, atol=1e-5)
    train, test = ({row.tobytes() for row in np.asarray(x)} for x in (data.train_inputs, data.test_inputs))
    assert not train & test


def test_digits_are_the_same_each_time():
    np.testing.assert_array_equal(load_digits().train_inputs, load_digits().train_inputs)


def test_train_size_keeps_pairs_and_nests():
    whole = load_dataset("digits", None, None)
    large, small = (load_dataset("digits", None, size) for size in (100, 40))
    np.testing.assert_array_equal(large.train_inputs[:40], small.train_inputs)
    np.testing.assert_array_equal(large.test_inputs, whole.test_inputs)
    label_of = {row.tobytes(): label for row, label in zip(whole.train_inputs, whole.train_labels, strict=True)}
    assert len(large.train_labels) == 100
    assert all(label_of[row.tobytes()] == label for row, label in zip(*large[:2], strict=True))


def test_train_size_beyond_the_data_is_refused():
    with pytest.raises(DataError, match="899 training examples are asked for, and there are 898"):
        load_dataset("digits", None, 899)


def test_data_dir_is_for_data_in_files(tmp_path):
    with pytest.raises(DataError, match="--data-dir is for mnist, cifar10, tcga; digits comes with"):
        load_dataset("digits", tmp_path, None)


@pytest.mark.parametrize(
    ("name", "examples", "features", "classes"),
    [("mnist", (60, 30), 9, 10), ("cifar10", (60, 12), 3072, 10), ("tcga", (600, 20), 4, 5)],
)
def test_data_in_files_are_found_by_name(request, name, examples, features, classes):
    folder = request.getfixturevalue(f"{name}_folder")
    data = load_dataset(name, folder, None)
    assert (data.train_inputs.shape, data.test_inputs.shape) == ((examples[0], features), (examples[1], features))
    assert data.classes == classes == len(set(data.train_labels.tolist()))
    assert load_dataset(name, folder, 50).train_inputs.shape == (50, features)


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
def test_data_in_files_need_their_folder(tmp_path, name):
    with pytest.raises(DataError, match=f"{name} needs --data-dir, a folder with the files"):
        load_dataset(name, None, None)
    with pytest.raises(DataError, match=r"nowhere does not exist.*--data-dir must name a folder with the files"):
        load_dataset(name, tmp_path / "nowhere", None)
    with pytest.raises(DataError, match=r"--data-dir"):
        load_dataset(name, tmp_path, None)
