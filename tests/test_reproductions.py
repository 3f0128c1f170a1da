"""The scripts that reproduce the papers' tables, on the embedded digits and on a few examples."""

import copy
import importlib
import json
import pathlib
import re
import shutil
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import InfluenceModel, _files, load_digits
from deel_dualview.evaluation import GroundTruth, ImageData, Recipe, Subset, load_ground_truth, trained_models
from deel_dualview.svm.penalised_layer import fit_softmax_regression

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(
    path.stem
    for pattern in ("reproduce_*.py", "summarise_results.py", "explain_table2.py", "make_ground_truth.py")
    for path in FOLDER.glob(pattern)
)
NUM_TEST = 20
ROWS = ["SIM, last layer", "random"]
QUESTIONS = ["normal", "poisoned"]
EXPLAINED = ["IF, last layer", "RPS-L2", "RPS-L2, z-scored"]


def script(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return importlib.import_module(name)


def run(name, *arguments):
    """Run a script as the command line does."""
    module = script(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        module.main()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with models of digits that were learned in one pass, and table 2 of them."""
    folder = tmp_path_factory.mktemp("reproductions")
    with pytest.MonkeyPatch.context() as patch:
        recipe = Recipe("digits-cnn", epochs=1, batch_size=64)
        patch.setattr(trained_models, "RECIPES", {**trained_models.RECIPES, "digits": recipe})
        given = ["--data", "digits", "--models", folder / "models"]
        asked = ["--output", folder / "results", "--num-test", NUM_TEST]
        run("reproduce_table2", *given, *asked, "--seeds", 0, "--rows", *ROWS, "--questions", *QUESTIONS)
        yield folder


def cells(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("digits/cells/*/*.json")}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_how_it_is_called_and_what_it_writes(name, capsys):
    with pytest.raises(SystemExit) as ended:
        run(name, "--help")
    text = capsys.readouterr().out
    assert ended.value.code == 0 and "--output" in text
    assert f"python benchmarks/{name}.py" in text


def rewrite(path, cell):
    _files.write_checked_json(path, {name: value for name, value in cell.items() if name != "sha256"})


class TestTable2:
    def test_every_row_is_asked_every_question(self, folder):
        found = {(path.parent.name, path.stem) for path in cells(folder / "results")}
        names = ["SIM_last_layer", "random"]
        assert found == {(name, f"{question}-0") for name in names for question in QUESTIONS}

    def test_nothing_is_asked_twice(self, folder):
        before = cells(folder / "results")
        given = ["--data", "digits", "--models", folder / "models", "--seeds", 0, "--rows", *ROWS]
        asked = ["--output", folder / "results", "--num-test", NUM_TEST, "--questions", *QUESTIONS]
        run("reproduce_table2", *given, *asked)
        assert cells(folder / "results") == before

    def test_the_summary_has_the_values_of_the_results(self, folder, tmp_path):
        run("summarise_results", "--results", folder / "results", "--data", "digits", "--output", tmp_path)
        summary = json.loads((tmp_path / "table2-digits.json").read_text())
        [path] = (folder / "results").glob("digits/cells/SIM_last_layer/normal-0.json")
        value = json.loads(path.read_text())["metrics"]["identical-class"]["value"]
        assert summary["values"]["SIM, last layer"]["identical-class"]["0"] == pytest.approx(value, abs=1e-4)
        lines = (tmp_path / "table2-digits.md").read_text().splitlines()
        [row] = [line for line in lines if line.startswith("| SIM, last layer")]
        assert row.split("|")[3].strip() == f"{value:.3f}"
        costs = json.loads(path.read_text())["cost"]
        [row] = [
            line
            for line in (tmp_path / "table1-digits.md").read_text().splitlines()
            if line.startswith("| SIM, last layer")
        ]
        assert row.split("|")[5].strip() == f"{costs['setup_cpu_seconds']:.3g}"

    def test_costs_may_be_of_other_results(self, folder, tmp_path):
        """Of a machine with nothing else to do: here, with one set-up of a thousand seconds."""
        shutil.copytree(folder / "results", tmp_path / "quiet")
        [path] = (tmp_path / "quiet").glob("digits/cells/SIM_last_layer/normal-0.json")
        cell = json.loads(path.read_text())
        cell["cost"]["setup_seconds"] = 1000.0
        rewrite(path, cell)
        given = ["--results", folder / "results", "--data", "digits", "--output", tmp_path]
        run("summarise_results", *given, "--costs", tmp_path / "quiet")
        assert "| SIM, last layer | 1e+03 |" in (tmp_path / "table1-digits.md").read_text()

    def test_results_of_models_trained_again_are_put_beside_the_others(self, folder, tmp_path):
        shutil.copytree(folder / "results", tmp_path / "again")
        [path] = (tmp_path / "again").glob("digits/cells/SIM_last_layer/normal-0.json")
        cell = json.loads(path.read_text())
        before, cell["metrics"]["identical-class"]["value"] = (
            cell["metrics"]["identical-class"]["value"],
            0.25,
        )
        rewrite(path, cell)
        given = ["--data", "digits", "--output", tmp_path]
        run("summarise_results", "--results", folder / "results", *given)
        table1 = (tmp_path / "table1-digits.md").read_text()
        for _ in range(2):
            run("summarise_results", "--results", tmp_path / "again", *given, "--training", "B")
        summary = json.loads((tmp_path / "table2-digits.json").read_text())
        values = summary["values"]["SIM, last layer"]["identical-class"]
        assert values == {"0": pytest.approx(before, abs=1e-4), "0 B": 0.25}
        assert [one["training"] for one in summary["runs"]] == [None, "B"]
        table = (tmp_path / "table2-digits.md").read_text()
        assert f"| SIM, last layer | 0, 0 B | {(values['0'] + 0.25) / 2:.3f} |" in table
        assert "models (B): normal" in table and (tmp_path / "table1-digits.md").read_text() == table1
        summary["num_test"] = 5
        (tmp_path / "table2-digits.json").write_text(json.dumps(summary))
        with pytest.raises(ValueError, match="as many test examples"):
            run("summarise_results", "--results", tmp_path / "again", *given, "--training", "B")

    def test_a_summary_of_nothing_says_so(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="holds no results"):
            run("summarise_results", "--results", tmp_path, "--output", tmp_path)

    def test_results_that_are_there_keep_their_identity(self):
        """Hours of results are resumed by what a row is described as, and by its file."""
        from deel_dualview.calculators.method_specs import resolve_all
        from deel_dualview.evaluation.worker import Plan

        plan = Plan("mnist", None, FOLDER, FOLDER, 4000, False)
        described = {
            spec.name: (plan.identity(spec, "normal", 2).place.parts[2], spec.described)
            for spec in resolve_all(script("reproduce_table2").ROWS)
        }
        known = {
            "DualView (tempered, 30 / n)": ("DualView_tempered_30_n", "dualview()"),
            "DualView (cosine, 600 / n)": ("DualView_cosine_600_n", "dualview(K=0.01, kernel='cosine')"),
            "RPS-L2 (lambda 0.003)": ("RPS-L2_lambda_0.003", "rps-l2(lambda_regularization=0.003)"),
            "IF, last layer, exact": ("IF_last_layer_exact", "first-order()"),
            "random": ("random", "random()"),
        }
        assert known.items() <= described.items()
        assert plan.identity(resolve_all(["sim"])[0], "poisoned", 1).asked == {"num_test": 4000}

    def test_rows_of_the_papers_are_rows_of_the_table(self):
        summary = script("summarise_results")
        rows = set(script("reproduce_table2").ROWS)
        for table in (summary.PAPER, summary.PAPER_COSTS):
            assert all(set(papers) <= rows for papers in table.values())


@pytest.fixture(scope="module")
def explained(folder):
    given = ["--data", "digits", "--models", folder / "models", "--output", folder]
    asked = ["--seed", 1, "--kinds", "poisoned", "marked", "--experiments", *EXPLAINED]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script("table2_cases"), "MARKED_CLASS", 10)  # that nobody is misled to
        run("explain_table2", *given, *asked)
    return folder / "explain-table2-digits-seed-1.json"


@pytest.mark.reproduction
@pytest.mark.parametrize(
    ("name", "asked", "trained"),
    [
        ("epochs-2", ["--epochs", 2], {"epochs": 2, "momentum": None}),
        ("sgd-epochs-2", ["--sgd", "--epochs", 2], {"epochs": 2, "momentum": 0.9, "learning_rate": 0.005}),
    ],
)
def test_readings_may_be_of_models_that_were_trained_otherwise(name, asked, trained, folder):
    given = ["--data", "digits", "--models", folder / "models", "--output", folder, *asked]
    run("explain_table2", *given, "--kinds", "superclass", "--experiments", "DualView, raw features")
    found = json.loads((folder / f"explain-table2-digits-{name}.json").read_text())
    assert found["epochs"] == 2 and found["scores"]["superclass"]
    record = json.loads((folder / "models" / name / "digits" / "superclass-0" / "record.json").read_text())
    assert trained.items() <= record.items()


def test_a_mean_of_short_recursions_solves_where_no_example_is_curved_too_much(monkeypatch):
    module = script("explain_table2")
    monkeypatch.setattr(module, "SHORT_STEPS", 3000)
    monkeypatch.setattr(module, "SHORT_REPEATS", 2)
    generator, asked = np.random.default_rng(0), {}
    monkeypatch.setattr(module, "influence_of", lambda case, errors, solved: asked.update(solved=solved))
    features = generator.normal(size=(40, 3)).astype(np.float32)
    labels = np.arange(40) % 2

    class Straight:
        kind, num_classes, explained = "normal", 2, labels[:4]
        kernel, queries = np.zeros((3, 2), np.float32), features[:4]

        def __init__(self):
            self.features, self.labels = features, labels

        def first(self, size):
            return self

        def score_rows(self, values):
            return 0.0

    case = Straight()
    module.lissa_of_short_recursions(case)
    p, _, gradients = module.residuals(case)
    weights = np.diag(p[0]) - np.outer(p[0], p[0])
    hessian = np.kron(weights, features.T @ features / 40) / module.SHORT_SCALE
    exact = np.linalg.solve(hessian + module.LISSA_DAMPING * np.eye(6), gradients.reshape(4, 6).T).T
    exact /= np.abs(exact).max(axis=1, keepdims=True)
    np.testing.assert_allclose(asked["solved"].reshape(4, 6), exact, atol=0.15)


@pytest.mark.parametrize("num_examples", [4, 1])
def test_a_step_takes_the_curvature_of_its_example(num_examples):
    module, generator = script("explain_table2"), np.random.default_rng(0)
    solved, gradients = generator.normal(size=(2, 4, 3, 5))
    p, features = generator.dirichlet(np.ones(3), num_examples), generator.normal(size=(num_examples, 5))
    found = module._step(solved, gradients, p, features, 10)
    for query in range(4):
        example = query % num_examples
        weights = np.diag(p[example]) - np.outer(p[example], p[example])
        curved = weights @ solved[query] @ np.outer(features[example], features[example])
        expected = gradients[query] + (1 - module.LISSA_DAMPING) * solved[query] - curved / 10
        np.testing.assert_allclose(found[query], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.reproduction
def test_readings_of_table2_are_shares(explained):
    found = json.loads(explained.read_text())["scores"]["poisoned"]
    assert set(found) == set(EXPLAINED)
    assert all(0 <= score <= 1 for scores in found.values() for score in scores.values())


@pytest.mark.reproduction
def test_a_reading_of_no_example_is_no_number(explained):
    assert "NaN" not in explained.read_text()
    assert set(json.loads(explained.read_text())["scores"]["marked"]["RPS-L2"].values()) == {None}
    assert "| – |" in explained.with_suffix(".md").read_text()


def test_table3_fits_every_k_once(folder, monkeypatch):
    monkeypatch.setattr(script("reproduce_table3"), "EXPONENTS", range(2))
    given = ["--data", "digits", "--models", folder / "models", "--output", folder, "--kernels", "cosine"]
    run("reproduce_table3", *given)
    first = json.loads((folder / "table3-digits.json").read_text())["kernels"]["cosine"]
    assert list(first) == [str(exponent) for exponent in range(2)]
    numbers = [row["num_support_vectors"] for row in first.values()]
    assert numbers[1] < numbers[0]
    run("reproduce_table3", *given)
    assert json.loads((folder / "table3-digits.json").read_text())["kernels"]["cosine"] == first
    assert "| 1e0 |" in (folder / "table3-digits.md").read_text()


@pytest.mark.reproduction
def test_dualxda_asks_its_rows_and_writes_its_table(folder, tmp_path):
    given = ["--data", "digits", "--models", folder / "models", "--output", tmp_path, "--num-test", NUM_TEST]
    run("reproduce_dualxda", *given, "--rows", "DualDA, C = 1e-3", "--questions", "normal")
    [path] = tmp_path.glob("digits/cells/DualDA*/normal-0.json")
    assert "reproduce_dualxda.dualda(C=0.001)" in json.loads(path.read_text())["identity"]["settings"]
    assert "`DualDA, C = 1e-3`" in (tmp_path / "dualxda-digits.md").read_text()
    told = json.loads((tmp_path / "dualxda-digits.json").read_text())
    assert told["values"]["DualDA, C = 1e-3"]["identical-class"]["0"] > 0.5
    assert told["context"]["command"].endswith("--data digits")


@pytest.fixture(scope="module")
def digits_like_mnist():
    """Digits of the size and the type of MNIST's."""
    arrays = []
    for images, labels in load_digits():
        large = np.kron(images[:240], np.ones((1, 3, 3, 1)))
        arrays += [
            np.pad(np.round(255 * large), ((0, 0), (2, 2), (2, 2), (0, 0))).astype(np.uint8),
            labels[:240],
        ]
    return ImageData(*arrays, num_classes=10)


@pytest.mark.reproduction
class TestGroundTruth:
    def test_what_is_made_is_what_is_read_and_it_resumes(self, digits_like_mnist, tmp_path, monkeypatch):
        make = script("make_ground_truth")
        for name, size in (("NUM_TRAIN", 40), ("NUM_SUBSETS", 2), ("NUM_TEST", 16)):
            monkeypatch.setattr(make, name, size)
        own, trained = make.log_probabilities, []

        def until(number):
            def limited(model, images, labels):
                trained.append(len(images))
                if len(trained) == number:
                    raise KeyboardInterrupt
                return own(model, images, labels)

            return limited

        monkeypatch.setattr(make, "log_probabilities", until(2))
        with pytest.raises(KeyboardInterrupt):
            make.make("mnist-logistic", digits_like_mnist, tmp_path)
        monkeypatch.setattr(make, "log_probabilities", until(0))
        make.make("mnist-logistic", digits_like_mnist, tmp_path)
        assert len(trained) == 3  # one, the interrupted one, and that again
        truth = load_ground_truth("mnist-logistic", tmp_path)
        assert (
            truth.outputs.shape == (16, 2) and np.isfinite(truth.outputs).all() and (truth.outputs < 0).all()
        )
        assert truth.subsets.sum(axis=1).tolist() == [20] * 2 and truth.noise_ceiling() == 1.0
        assert {path.name for path in tmp_path.iterdir()} == {"mnist-logistic.npz", "mnist-halves.npz"}

    def test_influence_functions_score_above_random_numbers(self):
        lds, models = script("reproduce_lds"), script("ground_truth_models")
        (images, labels), (tests, of_tests) = ((part[0][:60], part[1][:60]) for part in load_digits())
        subsets = np.array([Subset.draw(60, 30, seed=seed).is_member(60) for seed in range(12)])

        def trained(rows):
            layers = [keras.layers.Flatten(), keras.layers.Dense(10, use_bias=False)]
            model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
            flat, targets = images[rows].reshape(rows.sum(), -1), np.eye(10, dtype=np.float32)[labels[rows]]
            model.set_weights([fit_softmax_regression(flat, targets, penalty=models.PENALTY).weights])
            return model

        columns = [models.log_probabilities(trained(rows), tests, of_tests) for rows in subsets]
        positions = np.arange(60)
        truth = GroundTruth("tiny", "digits", positions, positions, subsets, np.stack(columns, axis=1), None)
        model = InfluenceModel(trained(np.ones(60, bool)))
        train = tf.data.Dataset.from_tensor_slices((images, labels)).batch(20)
        test = tf.data.Dataset.from_tensor_slices((tests, of_tests)).batch(10)
        scores = {
            title: lds.score({**lds.OWN["mnist-logistic"], **lds.SHARED}[title], model, train, test, truth)
            for title in ("IF, exact", "random")
        }
        assert scores["IF, exact"]["value"] > 0.7 > scores["random"]["value"] + 0.3

    @pytest.mark.reproduction
    def test_every_method_is_scored_once_and_a_failure_is_told(
        self, digits_like_mnist, tmp_path, monkeypatch
    ):
        lds = script("reproduce_lds")
        monkeypatch.setattr(lds, "OWN", {"mnist-logistic": {"broken": "dualview?K=-1"}})
        monkeypatch.setattr(lds, "SHARED", {"random": "random"})
        outputs = np.log(np.random.default_rng(0).random((10, 4)))
        subsets = np.arange(40) % 4 != np.arange(4)[:, None]
        truth = GroundTruth("mnist-logistic", "mnist", np.arange(40), np.arange(10), subsets, outputs, None)
        results = lds.Results(tmp_path / "lds.json", {"ground_truths": {}}, "command", lds.to_markdown)
        lds.measure(truth, digits_like_mnist, results)
        again = lds.Results(tmp_path / "lds.json", {"ground_truths": {}}, "command", lds.to_markdown)
        scores = again.found["ground_truths"]["mnist-logistic"]["scores"]
        assert "error" in scores["broken"] and abs(scores["random"]["value"]) < 1
        again.write()
        table = (tmp_path / "lds.md").read_text()
        assert re.search(r"\| random \| -?0\.\d{3} .*\n\| broken \| failed: ValueError: .*K", table)


@pytest.mark.reproduction
def test_rps_lje_finds_flipped_labels():
    module = script("reproduce_rps_lje")
    generator = np.random.default_rng(0)
    labels, test_labels = (np.arange(size) % 2 for size in (80, 40))
    images, test_images = (
        np.clip(
            generator.normal(110 + 40 * of[:, None, None, None], 20, (len(of), 32, 32, 3)), 0, 255
        ).astype(np.uint8)
        for of in (labels, test_labels)
    )
    data, curves, written = [images, labels, test_images, test_labels], {}, []

    def write():
        written.append(copy.deepcopy(curves))

    one = module.Run(data, 0, 2, curves)
    for share in (100, *module.RETRAINED):
        one.train_again(share, write)
    assert len(written) == 1 + 3 * 5  # all labels put right, three shares of five orders
    assert len(curves) == 5 + 3 + 2  # and three orders of which nothing is trained
    for name in curves.keys() - {module.NO_LABEL, module.EVERY_LABEL}:
        found = curves[name]["found"]
        assert (found[0], found[-1]) == (0.0, 1.0), name
        assert np.all(np.diff(found) >= 0)
    one.train_again(20, write)
    assert len(written) == 1 + 3 * 5  # what is there is not trained again
    assert set(written[5]["random"]["accuracy"]) == {"20"}  # and a run that is cut off keeps what it has
    told = {"runs": [curves], "epochs": 2, "context": {"command": "c", "created": "now"}}
    table = module.to_markdown(told)
    assert "1 runs, 2 epochs." in table and "| random |" in table and r"RPS-L2, \|alpha\| |" in table
