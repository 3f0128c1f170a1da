"""A benchmark on the embedded digits: what it measures, what it writes, and how it goes on after an interruption."""

import dataclasses
import errno
import functools
import json
import shutil

import numpy as np
import pytest

from deel_dualview import DualView, GradCos, InfluenceModel, metrics
from deel_dualview.evaluation import Recipe, benchmark, load_images, read_benchmark, runner, subject, worker
from deel_dualview.evaluation.method_run import MethodRun, Queries, draw_tests
from deel_dualview.evaluation.pages import NAMES
from deel_dualview.evaluation.results import read_result

NUM_TEST = 30
RECIPE = Recipe("digits-cnn", epochs=2, batch_size=32)
METHODS = ["gradcos", "random"]
KINDS = ["marked", "normal", "poisoned", "superclass"]


def run(output, methods=METHODS, metrics="all", **settings):
    settings = {"num_test": NUM_TEST, "recipe": RECIPE, "progress": False} | settings
    return benchmark("digits", methods, metrics, output=output, **settings)


def scaled(model, train_set, *, store=None, scale=1.0):
    """Make GradCos, and have a setting."""
    return GradCos(model, train_set, store=store)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with the results of two methods on all kinds of models, and of DualView on one."""
    output = tmp_path_factory.mktemp("benchmark") / "results"
    run(output, metrics=KINDS)
    run(output, ["dualview"], ["poisoned"])
    return output


@pytest.fixture
def without_pages(monkeypatch):
    """Tables and figures have their own tests."""
    monkeypatch.setattr(runner, "write_pages", lambda *_: None)


@pytest.fixture
def output(finished, tmp_path):
    """A copy of the finished folder that a test may change."""
    return shutil.copytree(finished, tmp_path / "results")


def files(output):
    return sorted((output / "digits" / "cells").glob("*/*.json"))


def chosen(finished, kind):
    return subject("digits", kind, 0, directory=finished / "models", recipe=RECIPE)


def matrix(finished, kind, images):
    import tensorflow as tf

    given = chosen(finished, kind)
    calculator = GradCos(InfluenceModel(given.model), given.train)
    return next(
        iter(
            calculator.estimate_influence_values_in_batches(
                tf.data.Dataset.from_tensor_slices(images).batch(len(images))
            )
        )
    ).numpy()


def _of_class_3(trial, rows, images):
    """Test examples that a model takes for threes, whatever they are."""
    return Queries(images, trial.images.test_labels[rows], np.full(len(rows), 3))


class TestValues:
    def test_table_page_and_figures_are_written(self, finished):
        assert {path.name for path in (finished / "digits").iterdir()} == {"cells", *NAMES}

    def test_every_question_has_a_result_and_none_failed(self, finished):
        names = {f"{method}/{kind}-0.json" for method in METHODS for kind in KINDS}
        names.add("dualview/poisoned-0.json")
        assert {"/".join(path.parts[-2:]) for path in files(finished)} == names
        assert read_benchmark(finished, "digits").failed == []

    def test_identical_class_and_subclass_are_those_of_the_whole_matrix(self, finished):
        images, found = load_images("digits"), read_benchmark(finished, "digits").summaries
        rows = draw_tests(len(images.test_labels), 0)[:NUM_TEST]
        first = matrix(finished, "normal", images.test_images[rows]).argmax(axis=1)
        expected = np.mean(images.train_labels[first] == images.test_labels[rows])
        assert found["gradcos", "identical-class-label"].value == pytest.approx(expected)
        first = matrix(finished, "superclass", images.test_images[rows]).argmax(axis=1)
        expected = np.mean(images.train_labels[first] == images.test_labels[rows])
        assert found["gradcos", "identical-subclass"].value == pytest.approx(expected)

    def test_label_poisoning_is_the_area_of_the_summed_shares(self, finished):
        images, found = load_images("digits"), read_benchmark(finished, "digits").summaries
        rows = draw_tests(len(images.test_labels), 0)[:NUM_TEST]
        values = np.abs(matrix(finished, "poisoned", images.test_images[rows]))
        is_poisoned = chosen(finished, "poisoned").truth.is_poisoned(len(images.train_labels))
        metric = metrics.LabelErrorDetection(is_poisoned)
        metric.update_state((values / values.max(axis=1, keepdims=True)).sum(axis=0))
        assert found["gradcos", "label-poisoning"].value == pytest.approx(metric.result().value, abs=1e-3)

    def test_the_score_that_dualview_recommends_is_the_slack_of_its_surrogate(self, finished):
        given = chosen(finished, "poisoned")
        metric = metrics.LabelErrorDetection(given.truth.is_poisoned(len(given.original_labels)))
        metric.update_state(DualView(InfluenceModel(given.model), given.train).surrogate.slack)
        found = read_benchmark(finished, "digits").summaries
        assert found["dualview", "label-errors"].value == pytest.approx(metric.result().value, abs=1e-3)
        assert found["dualview", "label-errors-self"] != found["dualview", "label-errors"]
        assert found["gradcos", "label-errors-self"] == found["gradcos", "label-errors"]

    def test_domain_mismatch_asks_about_all_misled_of_the_draw(self, finished):
        images, marked = load_images("digits"), chosen(finished, "marked")
        rows = draw_tests(len(images.test_labels), 0)
        inputs = marked.truth.mark(images.test_images[rows])
        predictions = marked.model.predict(inputs, verbose=0).argmax(axis=1)
        is_misled = (predictions == 2) & (images.test_labels[rows] != 2)
        result = json.loads((finished / "digits" / "cells" / "gradcos" / "marked-0.json").read_text())
        assert result["metrics"]["domain-mismatch"]["num_examples"] == is_misled.sum() > 0
        first = matrix(finished, "marked", np.asarray(inputs)[is_misled]).argmax(axis=1)
        share = np.mean(marked.truth.is_marked(len(images.train_labels))[first])
        assert result["metrics"]["domain-mismatch"]["value"] == pytest.approx(share)

    def test_random_influence_scores_its_expectation(self, finished):
        found = read_benchmark(finished, "digits").summaries
        for name in ("label-poisoning", "label-errors", "label-errors-self"):
            assert found["random", name].value == pytest.approx(0.5, abs=0.06)
        for name in ("identical-class", "identical-subclass"):
            assert found["random", name].value == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / NUM_TEST))

    def test_a_result_says_what_it_cost_and_how_to_repeat_it(self, finished):
        result = json.loads((finished / "digits" / "cells" / "gradcos" / "normal-0.json").read_text())
        assert result["cost"]["setup_seconds"] > 0 and result["cost"]["seconds_per_query"] > 0
        assert "{'gradcos': 'gradcos'}, ['normal'], [0], num_test=30, recipe=" in result["context"]["call"]
        assert result["context"]["machine"]["cores"] >= 1 and "TensorFlow" in result["context"]["versions"]
        assert str(finished) not in json.dumps(result)


@pytest.mark.usefixtures("without_pages")
class TestResuming:
    def test_nothing_that_is_there_is_computed_again(self, output, monkeypatch):
        monkeypatch.setattr(runner, "work", lambda *_: pytest.fail("computed"))
        before = {path: path.stat().st_mtime_ns for path in files(output)}
        run(output, metrics=KINDS)
        assert {path: path.stat().st_mtime_ns for path in files(output)} == before

    def test_only_settings_without_a_result_are_tried(self, output, monkeypatch):
        tried = []
        monkeypatch.setattr(
            runner, "dry_run", lambda specs, *_, **__: tried.append([spec.name for spec in specs])
        )
        run(output, ["random", "graddot"], ["superclass"])
        run(output, ["random", "graddot"], ["superclass"])
        assert tried == [["graddot"], []]

    def test_a_function_with_other_settings_is_another_method(self, output):
        first, same, other = (functools.partial(scaled, scale=scale) for scale in (1.0, 1.0, 2.0))
        run(output, {"own": first}, ["superclass"])
        assert run(output, {"own": same}, ["superclass"]).cells
        with pytest.raises(ValueError, match="holds a result of other settings"):
            run(output, {"own": other}, ["superclass"])

    def test_an_interrupted_run_goes_on_with_what_is_missing(self, output, monkeypatch):
        for path in files(output):
            path.unlink()
        asked = []

        def ask(trial, protocol):
            asked.append((trial.spec.name, protocol))
            if len(asked) == 3:
                raise KeyboardInterrupt
            return own(trial, protocol)

        own = worker._run
        monkeypatch.setattr(worker, "_run", ask)
        with pytest.raises(KeyboardInterrupt):
            run(output, metrics=["superclass"], methods=["random", "gradcos", "graddot"])
        assert len(files(output)) == 2
        found = run(output, metrics=["superclass"], methods=["random", "gradcos", "graddot"])
        assert asked[2:] == [("graddot", "superclass")] * 2 and len(found.cells) == 3

    def test_one_more_method_leaves_the_others(self, output, monkeypatch):
        before = {path: path.stat().st_mtime_ns for path in files(output)}
        found = run(output, ["random", "graddot"], ["identical-subclass"])
        assert found.methods == ["dualview", "graddot", "gradcos", "random"]
        assert before == {path: path.stat().st_mtime_ns for path in files(output) if path in before}
        assert "`graddot`" in found.to_markdown()

    def test_a_half_written_file_is_no_result(self, output):
        path = output / "digits" / "cells" / "gradcos" / "marked-0.json"
        path.rename(path.with_name(f"{path.name}.123.unfinished"))
        run(output, ["gradcos"], KINDS)
        assert path.exists()

    @pytest.mark.parametrize("found", ["{}", "[]", '{"format": 1}', "edited"])
    def test_a_result_that_was_changed_by_hand_is_refused(self, output, found):
        path = output / "digits" / "cells" / "random" / "superclass-0.json"
        path.write_text(path.read_text().replace('"seed": 0', '"seed": 1') if found == "edited" else found)
        with pytest.raises(ValueError, match=r"superclass-0\.json is no result.*checksum.*Move or remove"):
            read_benchmark(output, "digits")

    @pytest.mark.parametrize("name", ["n" * 300, "nul\0", "loop/deep"])
    def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_trained(
        self, name, tmp_path, monkeypatch
    ):
        (tmp_path / "loop").symlink_to("loop")
        monkeypatch.setattr("deel_dualview.evaluation.runner.dry_run", None)
        with pytest.raises(NotADirectoryError, match="Choose another"):
            benchmark("digits", ["random"], ["superclass"], output=tmp_path / name)

    def test_results_of_other_settings_are_refused_unless_they_may_be_replaced(self, output):
        with pytest.raises(ValueError, match=r"other settings.*overwrite.*num_test='30 there, 20 now'"):
            run(output, ["random"], ["superclass"], num_test=20)
        found = run(output, ["random"], ["superclass"], num_test=20, overwrite=True)
        assert (found.num_test, len(found.cells)) == (20, 1)

    def test_a_method_of_the_same_name_with_other_settings_is_refused(self, output):
        methods = {"gradcos": functools.partial(GradCos, function="logit")}
        with pytest.raises(ValueError, match=r"other settings.*settings=.*logit"):
            run(output, methods, ["superclass"])

    def test_results_of_another_model_are_refused(self, output):
        path = output / "digits" / "cells" / "random" / "superclass-0.json"
        cell = read_result(path)
        dataclasses.replace(cell, model={**cell.model, "fingerprint": "another"}).write(output)
        with pytest.raises(ValueError, match="Results of other models"):
            run(output, ["graddot"], ["superclass"])
        run(output, ["graddot", "random"], ["superclass"], overwrite=True)
        assert json.loads(path.read_text())["model"]["fingerprint"] != "another"


@pytest.mark.usefixtures("without_pages")
class TestFailures:
    def test_a_method_that_fails_is_recorded_the_rest_goes_on_and_it_is_tried_again(self, output):
        def broken(model, train_set, *, store=None):
            raise RuntimeError("out of\norder")

        found = run(output, {"broken": broken, "near": GradCos}, ["superclass", "normal"])
        assert [(cell.identity.method, cell.error) for cell in found.failed] == [
            ("broken", {"type": "RuntimeError", "message": "out of order"})
        ] * 2
        assert ("near", "identical-subclass") in found.summaries
        with pytest.raises(ValueError, match="other settings"):
            run(output, {"broken": GradCos}, ["superclass", "normal"])
        assert "failed" in found.to_markdown()

    def test_one_question_may_fail_alone(self, output, monkeypatch):
        monkeypatch.setattr(GradCos, "compute_influence_values", lambda self: 1 / 0)
        found = run(output, {"near": GradCos}, ["poisoned", "superclass"])
        assert [(cell.identity.protocol, cell.error["type"]) for cell in found.failed] == [
            ("poisoned", "ZeroDivisionError")
        ]
        monkeypatch.undo()
        assert run(output, {"near": GradCos}, ["poisoned"]).failed == []

    def test_no_misled_test_example_says_how_many_of_each_kind_there_were(self, output, monkeypatch):
        """A model that never saw the mark, in the place of the one that did, and says 3 whatever it is asked."""
        shutil.rmtree(output / "digits")
        models = output / "models" / "digits"
        shutil.copy(models / "normal-0" / "model.keras", models / "marked-0" / "model.keras")
        monkeypatch.setattr(MethodRun, "queries", functools.partialmethod(_of_class_3))
        [cell] = run(output, {"near": GradCos}, ["marked"]).failed
        for words in ("was misled", "seen=288", "of that class=", "predicted otherwise="):
            assert words in cell.error["message"]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"methods": ["dualwiev"]}, r"one of dualview, first-order, .*random\..*dualwiev"),
            ({"methods": ["dualview?L=1"]}, r"has the settings K, kernel, bias, solver.*L"),
            ({"methods": ["dualview?K"]}, "NAME=VALUE"),
            ({"methods": ["dualview?K=large"]}, "`K` must be a number.*K='large'"),
            ({"methods": ["random", "dualview?K=-1"]}, r"dualview\?K=-1: `K` must be positive.*K=-1"),
            (
                {"methods": {"cut": "trak?weights=['logit']"}},
                "cut: `weights` must name layers.*logits.*Received",
            ),
            ({"methods": ["tracin?weights=['a']"]}, "must name layers"),
            ({"methods": ["first-order?ihvp.damping=-1"]}, "`damping` must not be negative"),
            ({"methods": []}, "At least one method"),
            ({"methods": ["random", "random"]}, "each once"),
            ({"methods": {"a b": "random", "a?b": "random"}}, "letters or digits"),
            ({"metrics": ["identical"]}, r"one of all, normal, superclass.*identical-class.*identical"),
            ({"num_test": 300}, r"Of the 359 test examples 288 may be asked.*300"),
            ({"seeds": 0}, "at least 1"),
            ({"seeds": [1, 1]}, "must differ"),
            ({"jobs": 0}, "at least 1"),
            ({"methods": {" ": "random"}}, "needs a name"),
            ({"models": __file__}, r"Models go into a folder.*models="),
        ],
    )
    def test_bad_settings_are_refused_before_anything_is_trained(self, tmp_path, settings, message):
        with pytest.raises(ValueError, match=message):
            run(tmp_path / "results", **settings)
        assert not (tmp_path / "results").exists()

    def test_unknown_data_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"digits, mnist.*minst"):
            benchmark("minst", ["random"], output=tmp_path)

    def test_a_folder_of_something_else_is_refused(self, tmp_path):
        (tmp_path / "digits").mkdir()
        (tmp_path / "digits" / "thesis.tex").write_text("")
        with pytest.raises(FileExistsError, match=r"thesis\.tex"):
            run(tmp_path, ["random"])
        (tmp_path / "file").write_text("")
        with pytest.raises(NotADirectoryError):
            run(tmp_path / "file", ["random"])

    def test_a_result_that_is_none_is_refused_with_its_name(self, output):
        files(output)[0].write_text("{")
        with pytest.raises(ValueError, match=r"poisoned-0\.json is no result.*remove the file"):
            run(output, metrics=KINDS)


def test_a_run_that_was_killed_while_pages_were_written_goes_on(output):
    for place in (".", "figures", "cells/random"):
        (output / "digits" / place / ".dualview-unfinished-0-table.md").write_text("half")
    (output / "digits" / "cells" / ".dualview-rehearsed-0-result").mkdir()
    (output / "digits" / "table.md").unlink()
    run(output, ["random"], ["superclass"])
    assert (output / "digits" / "table.md").exists()
    assert not list(output.rglob(".dualview-*"))


def test_a_full_disk_while_pages_are_written_loses_no_result(output, monkeypatch):
    def savefig(figure, path, **options):
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    before = {path: path.read_bytes() for path in files(output)}
    path = output / "digits" / "cells" / "random" / "superclass-0.json"
    path.unlink()
    with monkeypatch.context() as patched:
        patched.setattr("matplotlib.figure.Figure.savefig", savefig)
        with pytest.raises(OSError, match="No space left"):
            run(output, ["random"], ["superclass"])
    run(output, ["random"], ["superclass"])
    assert set(files(output)) == set(before)
    assert not list(output.rglob(".dualview-*"))
