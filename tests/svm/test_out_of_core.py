"""Features that are read in blocks, and fits that are interrupted."""

import numpy as np
import pytest
from svm_problems import check_certificate, make_problem, relative_penalty

from deel_dualview import DualSVMSolver
from deel_dualview.linalg.rows import LazyRows
from deel_dualview.svm.ascent import Ascent
from deel_dualview.svm.checkpoints import Checkpoint
from deel_dualview.svm.problem import check_problem

NUM_ROWS = 600


class Recorded(LazyRows):
    """Rows of an array, with a record of how many were read at a time."""

    def __init__(self, array):
        self.array, self.shape, self.read = np.asarray(array, np.float32), array.shape, []

    def __getitem__(self, rows):
        found = self.array[rows].copy()
        self.read.append(len(found))
        return found


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Tiny problems go through all that large ones do."""
    monkeypatch.setattr("deel_dualview.svm.dual._LARGE", 0)
    monkeypatch.setattr("deel_dualview.svm.ascent._LEVEL", 32)
    monkeypatch.setattr("deel_dualview.svm.checkpoints._SECONDS", 0.0)


def blobs(seed=0, is_sorted=False):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, NUM_ROWS)
    if is_sorted:
        labels.sort()
    features = generator.normal(size=(NUM_ROWS, 8)) + generator.normal(size=(4, 8))[labels]
    return features.astype(np.float32), labels, 4


def on_disk(problem):
    return Recorded(problem[0]), *problem[1:]


@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize("strength", [0.05, 1.0, 30.0])
def test_rows_read_in_blocks_give_the_solution_of_rows_in_memory(strength, is_sorted):
    problem = blobs(is_sorted=is_sorted)
    K = relative_penalty(problem[0], strength)
    found, expected = DualSVMSolver().solve(*on_disk(problem), K), DualSVMSolver().solve(*problem, K)
    check_certificate(problem, found)
    bound = found.weight_error_bound + expected.weight_error_bound
    assert found.converged and np.linalg.norm(found.weights - expected.weights) <= bound


def test_a_fit_without_room_for_newton_steps_stays_with_passes(monkeypatch):
    monkeypatch.setattr("deel_dualview.svm.dual.ProximalPoint", None)
    problem = blobs()
    found = DualSVMSolver(1e-3, memory_budget=1).solve(*problem, relative_penalty(problem[0], 1.9))
    check_certificate(problem, found)
    assert found.converged


@pytest.mark.filterwarnings("ignore:Some classes have no example")
@pytest.mark.parametrize("name", ["duplicates", "zero_rows", "missing_class", "two_classes"])
def test_awkward_rows_are_certified_too(name):
    problem = make_problem(name)
    found = DualSVMSolver().solve(*on_disk(problem), relative_penalty(problem[0], 1.0))
    check_certificate(problem, found)
    if name == "duplicates":
        alpha, half = found.coefficients.toarray(), len(problem[1]) // 2
        np.testing.assert_array_equal(alpha[:half], alpha[half:])


def test_examples_without_weight_are_not_read_for_the_fit():
    features, labels, num_classes = blobs()
    weights = np.where(np.arange(NUM_ROWS) % 3 == 0, 0.0, 2.0)
    K = relative_penalty(features, 0.5)
    found = DualSVMSolver().solve(Recorded(features), labels, num_classes, K, sample_weight=weights)
    expected = DualSVMSolver().solve(features, labels, num_classes, K, sample_weight=weights)
    assert not found.coefficients[::3].nnz
    np.testing.assert_allclose(found.slack, expected.slack, atol=0.05)
    assert found.weight_error_bound < 0.1 * np.linalg.norm(found.weights)


def test_a_preview_reads_the_features_at_most_25_times():
    features, *rest = on_disk(blobs())
    solution = DualSVMSolver(1e-3).solve(features, *rest, relative_penalty(features.array, 0.1))
    assert solution.converged and sum(features.read) <= 25 * NUM_ROWS


def test_no_more_rows_than_a_block_are_asked_for_at_a_time(monkeypatch):
    monkeypatch.setattr("deel_dualview.svm.features._NUMBERS", 800)
    monkeypatch.setattr("deel_dualview.svm.ascent._NUMBERS", 1200)
    monkeypatch.setattr("deel_dualview.svm.passes.CHUNK", 100)
    monkeypatch.setattr("deel_dualview.svm.duplicates._CHUNK", 100)
    monkeypatch.setattr("deel_dualview.svm.features._KEYS_AT_ONCE", 100)
    # Of a call of visits and of a run that is read together.
    monkeypatch.setattr("deel_dualview.svm.ascent.rows_of_call", lambda c, d: 128)
    monkeypatch.setattr("deel_dualview.svm.block_visits.rows_of_call", lambda c, d: 128)
    features, labels, num_classes = blobs()
    # A shape of its own, since compiled calls are kept.
    rows = Recorded(np.concatenate([features, features[:, :3]], axis=1))
    DualSVMSolver(1e-3, memory_budget=1).solve(rows, labels, num_classes, relative_penalty(rows.array, 0.1))
    assert max(rows.read) <= 128


def test_rows_that_are_not_finite_are_named():
    problem = blobs()
    problem[0][[3, 400], 2] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"rows=\[3, 400\]"):
        DualSVMSolver().solve(*on_disk(problem), 1.0)


class Interrupted(Exception):
    pass


def interrupted_after(number):
    def progress(state):
        if state.iteration == number:
            raise Interrupted

    return progress


def same_bits(found, expected):
    return found.weights.tobytes() == expected.weights.tobytes() and (
        found.coefficients.data.tobytes() == expected.coefficients.data.tobytes()
    )


@pytest.mark.parametrize("source", [on_disk, lambda problem: problem], ids=["disk", "memory"])
def test_an_interrupted_fit_goes_on_to_the_same_bits(source, tmp_path):
    problem = blobs()
    K = relative_penalty(problem[0], 1.0)
    expected = DualSVMSolver(1e-4, memory_budget=1).solve(*source(problem), K)
    last = expected.num_iterations - 2
    for number in (3, last // 3, last // 2, last):
        solver = DualSVMSolver(
            1e-4, progress=interrupted_after(number), checkpoints=tmp_path, memory_budget=1
        )
        with pytest.raises(Interrupted):
            solver.solve(*source(problem), K)
    seen = []
    solver = DualSVMSolver(
        1e-4, progress=lambda state: seen.append(state.iteration), checkpoints=tmp_path, memory_budget=1
    )
    assert same_bits(solver.solve(*source(problem), K), expected)
    assert min(seen) > last // 2


@pytest.mark.parametrize("strength", [3.0, 30.0])
def test_a_fit_interrupted_in_its_newton_steps_goes_on_to_the_same_bits(strength, tmp_path):
    problem = blobs()
    K = relative_penalty(problem[0], strength)
    expected = DualSVMSolver().solve(*on_disk(problem), K)
    for number in (expected.num_iterations - 1, expected.num_iterations - 2):
        solver = DualSVMSolver(progress=interrupted_after(number), checkpoints=tmp_path)
        with pytest.raises(Interrupted):
            solver.solve(*on_disk(problem), K)
    found = DualSVMSolver(checkpoints=tmp_path).solve(*on_disk(problem), K)
    assert same_bits(found, expected) and found.num_iterations == expected.num_iterations


def test_a_fit_that_goes_on_from_a_hand_over_decides_on_the_same_history(tmp_path):
    decided = []

    class Recorded(Ascent):
        def _remaining_work(self, history):
            decided.append(list(history))
            return super()._remaining_work(history)

    rows, labels, num_classes = blobs()
    problem = check_problem(rows, labels, num_classes, relative_penalty(rows, 30.0))
    for _ in range(2):
        checkpoint = Checkpoint(tmp_path, problem, {})
        Recorded(problem, 1e-4, 5_000, lambda *_: None, checkpoint=checkpoint).run()
    assert decided[-1] == decided[-2] and len(decided[-1]) > 3


@pytest.mark.filterwarnings("ignore::deel_dualview.ConvergenceWarning")
def test_a_fit_that_ran_out_of_iterations_goes_on_with_more(tmp_path):
    problem = blobs()
    K = relative_penalty(problem[0], 1.0)
    first = DualSVMSolver(checkpoints=tmp_path, max_iterations=3, memory_budget=1).solve(*problem, K)
    found = DualSVMSolver(checkpoints=tmp_path, memory_budget=1).solve(*problem, K)
    assert not first.converged and found.converged
    assert same_bits(found, DualSVMSolver(memory_budget=1).solve(*problem, K))


def test_features_of_the_same_lengths_are_other_features(tmp_path):
    features, labels, num_classes = blobs()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    others, K = features.copy(), 0.05
    others[20:50] *= -1
    for rows in (features, others):
        found = DualSVMSolver(checkpoints=tmp_path).solve(rows, labels, num_classes, K)
        check_certificate((rows, labels, num_classes), found)


def test_fits_that_ended_are_found_for_each_penalty(tmp_path):
    problem = blobs()
    Ks = [relative_penalty(problem[0], strength) for strength in (0.1, 1.0)]
    first = DualSVMSolver(checkpoints=tmp_path).fit_path(*problem, Ks)
    visits = []
    again = DualSVMSolver(
        checkpoints=tmp_path, progress=lambda state: visits.append(state.num_active)
    ).fit_path(*problem, Ks)
    assert all(map(same_bits, again, first)) and not visits


@pytest.mark.parametrize("change", ["labels", "features", "K", "weights", "tolerance"])
def test_a_checkpoint_of_another_problem_is_not_taken(change, tmp_path):
    features, labels, num_classes = blobs()
    K = relative_penalty(features, 0.5)
    DualSVMSolver(checkpoints=tmp_path).solve(features, labels, num_classes, K)
    weights, tolerance = np.ones(NUM_ROWS), 1e-4
    if change == "labels":
        labels = np.where(np.arange(NUM_ROWS) == 7, (labels + 1) % 4, labels)
    elif change == "features":
        features = features.copy()
        features[7, 3] += 1
    elif change == "weights":
        weights[7] = 2.0
    elif change == "K":
        K *= 1.01
    else:
        tolerance = 1e-5
    visits = []
    solver = DualSVMSolver(tolerance, checkpoints=tmp_path, progress=visits.append)
    found = solver.solve(features, labels, num_classes, K, sample_weight=weights)
    expected = DualSVMSolver(tolerance).solve(features, labels, num_classes, K, sample_weight=weights)
    assert visits and same_bits(found, expected)


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path):
    problem = blobs()
    K = relative_penalty(problem[0], 0.5)
    DualSVMSolver(checkpoints=tmp_path).solve(*problem, K)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{file.name}.*damaged"):
        DualSVMSolver(checkpoints=tmp_path).solve(*problem, K)


def test_a_file_of_another_kind_is_refused_as_damaged(tmp_path):
    problem = blobs()
    K = relative_penalty(problem[0], 0.5)
    DualSVMSolver(checkpoints=tmp_path).solve(*problem, K)
    (file,) = tmp_path.iterdir()
    np.savez(file, alpha_data=np.zeros(3))
    with pytest.raises(ValueError, match="damaged: it is no state of a fit"):
        DualSVMSolver(checkpoints=tmp_path).solve(*problem, K)


def test_a_fit_goes_on_where_its_checkpoint_cannot_be_written(tmp_path):
    problem, place = blobs(), tmp_path / "file"
    place.write_text("no directory")
    with pytest.warns(UserWarning, match=rf"{place / 'fits'} does not take its checkpoint") as warned:
        found = DualSVMSolver(checkpoints=place / "fits").solve(*problem, relative_penalty(problem[0], 0.5))
    assert found.converged and len(warned) == 1


@pytest.mark.parametrize("path", [True, b"fits", 5])
def test_checkpoints_must_be_a_path(path):
    with pytest.raises(TypeError, match="checkpoints"):
        DualSVMSolver(checkpoints=path)


def test_checkpoints_must_be_no_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="`checkpoints` must be a directory"):
        DualSVMSolver(checkpoints=tmp_path / "file")
