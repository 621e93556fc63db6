"""What GaussianMixture takes as points and parameters, and what it refuses."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.mixture import GaussianMixture as ScikitMixture

from trainer.mixture import GaussianMixture

X = np.concatenate([np.random.default_rng(0).standard_normal((60, 2)) + m for m in (-6, 0, 6)])
WHOLE = np.round(4 * X)


def means(x, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "prior_strength|inflation", UserWarning)
        fitted = GaussianMixture(3, **settings).fit(x)
        fitted.score(x)
    return np.asarray(fitted.means_, np.float64)


@pytest.mark.parametrize(
    "made",
    [
        lambda x: x.astype(np.int16),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(">f8"),
        lambda x: x.astype(np.longdouble),
        lambda x: x.astype(object),
        lambda x: x.tolist(),
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: x[::-1].copy()[::-1],
        lambda x: x[:, ::-1].copy()[:, ::-1],
        lambda x: np.frombuffer(x.tobytes()).reshape(x.shape),
        lambda x: pd.DataFrame(x, columns=["a", "b"]),
        lambda x: np.ma.masked_array(x),
        lambda x: torch.from_numpy(x).long(),
        lambda x: torch.from_numpy(x.T.copy()).T,
        lambda x: torch.tensor(x, requires_grad=True),
        lambda x: torch.tensor(x).bfloat16(),
        lambda x: torch.tensor(x).half(),
        lambda x: torch.complex(torch.tensor(x), -torch.tensor(x)).conj().imag,
    ],
    ids=[
        "int16",
        "float16",
        "bigendian",
        "longdouble",
        "object",
        "list",
        "fortran",
        "strided",
        "rows-backwards",
        "columns-backwards",
        "read-only",
        "pandas",
        "unmasked",
        "long",
        "transposed",
        "gradient",
        "bfloat16",
        "half",
        "negative-view",
    ],
)
def test_the_same_numbers_give_the_same_fit_without_a_warning_however_they_are_stored(made):
    np.testing.assert_allclose(means(made(WHOLE)), means(WHOLE), rtol=1e-12, atol=1e-12)


def test_a_file_mapped_for_reading_is_fitted_without_a_warning_and_without_a_copy(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(means(mapped), means(X))
    points = GaussianMixture()._points(mapped, reset=True)
    assert points.data_ptr() == mapped.__array_interface__["data"][0]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ma.masked_greater(X, 6), "X: some values are masked"),
        (torch.from_numpy(X).to_sparse(), "X: a sparse tensor cannot be fitted"),
        (torch.from_numpy(X).to(torch.complex128), "X: a complex tensor cannot be fitted"),
        (torch.quantize_per_tensor(torch.from_numpy(X).float(), 0.1, 0, torch.qint8), "X: a quantized tensor cannot"),
        (torch.empty(9, 2, device="meta"), "X: a meta tensor cannot be fitted"),
        (torch.nested.nested_tensor([torch.zeros(3, 2), torch.zeros(4, 2)]), "X: a nested tensor cannot be fitted"),
        ([np.ma.masked_greater(X, 6), X], "X: some values are masked"),
        ([np.array([["a", "b"]])], "X: this is not an array of numbers"),
        (X * 1e160, "X: some values are above 1e.150, too large to be squared"),
        (torch.from_numpy(X) * float("nan"), "X: some values are NaN or infinite"),
    ],
)
def test_points_that_cannot_be_fitted_are_refused_in_one_line(x, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(3).fit(x)


def test_tensors_of_few_digits_have_attributes_in_float64_as_arrays_have():
    for x in (torch.from_numpy(X).half(), torch.from_numpy(X).bfloat16(), torch.from_numpy(X > 0)):
        assert GaussianMixture(2).fit(x).means_.dtype == torch.float64


@pytest.mark.parametrize("made", [scipy.sparse.csr_matrix, scipy.sparse.coo_array])
def test_sparse_batches_are_refused_as_scikit_learn_refuses_them(made):
    with pytest.raises(TypeError, match="dense data is required"):
        GaussianMixture(3).partial_fit(made(X))


def test_sparse_matrices_are_refused_as_scikit_learn_refuses_them():
    with pytest.raises(TypeError, match="dense data is required"):
        GaussianMixture(3).fit(scipy.sparse.csr_matrix(X))


def test_points_too_large_to_be_squared_are_not_scored():
    with pytest.raises(ValueError, match=r"z: some values are above 1e.150"):
        GaussianMixture(3).fit(X).score_samples(X * 1e200)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("verbose", "yes"),
        ("verbose", -1),
        ("verbose_interval", 0),
        ("warm_start", "no"),
        ("weights_init", "abc"),
        ("means_init", "abc"),
        ("means_init", [[0.0, 0.0], [1.0]]),
        ("precisions_init", np.full((3, 2, 2), 1j)),
    ],
)
def test_parameters_that_cannot_be_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name}: "):
        GaussianMixture(3, **{name: value}).fit(X)


@pytest.mark.parametrize("count", [-1, 1.5, "3", None])
def test_samples_are_counted_by_whole_numbers(count):
    with pytest.raises(ValueError, match=r"n_samples: .* is not a whole number of at least 0"):
        GaussianMixture(3).fit(X).sample(count)


def test_start_parameters_may_be_tables_and_lists():
    start = [[-6, -6], [0, 0], [6, 6]]
    expected = means(X, means_init=np.array(start, float))
    for given in (start, pd.DataFrame(start), torch.tensor(start)):
        np.testing.assert_array_equal(means(X, means_init=given), expected)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_points_that_were_held_out_move_the_components_as_all_others_do(kind):
    # As many points as leave little to choose: the fit ends with an iteration of all of them.
    fitted = GaussianMixture(3, covariance_type=kind, prior_strength=0.0, reg_covar=0.0, random_state=1).fit(X)
    start = {"weights_init": fitted.weights_, "means_init": fitted.means_}
    start["precisions_init"] = fitted.precisions_ * fitted.inflation_
    further = ScikitMixture(3, covariance_type=kind, tol=1e-9, max_iter=300, reg_covar=0.0, **start).fit(X)
    np.testing.assert_allclose(fitted.means_, further.means_, atol=1e-3)
