"""The oracle itself, where it is more than a call of NumPy."""

import pytest
import reference


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("sizes", [(300, 12, 9, 4), (40, 30, 20, 5)])
def test_elimination_agrees_with_the_dense_spectrum(sizes: tuple[int, ...], normalized: bool) -> None:
    kernels = reference.random_kernels(sizes, seed=3)
    expected = reference.spectrum(reference.chain_adjacency(kernels), normalized)[1]
    exceeds = reference.fiedler_value_exceeds(kernels, normalized)
    for distance in (1e-9, 1e-6, 1e-3, 0.1):
        assert exceeds(expected * (1 - distance))
        assert not exceeds(expected * (1 + distance))
