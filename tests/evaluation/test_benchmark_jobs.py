"""A benchmark in several processes and after damage, and how a result says to repeat it."""

import functools
import pathlib
import shlex
import shutil

import pytest
from click.testing import CliRunner
from evaluation_cases import EndsItsProcess

from deel_dualview import GradCos
from deel_dualview.calculators.method_specs import check_can_travel, resolve_all
from deel_dualview.cli import main
from deel_dualview.evaluation import Recipe, benchmark, read_benchmark, subject
from deel_dualview.evaluation.worker import Plan

RECIPE = Recipe("digits-cnn", epochs=1, batch_size=128)


def run(output, methods, metrics=("superclass",), **settings):
    settings = {"num_test": 20, "recipe": RECIPE, "progress": False} | settings
    return benchmark("digits", methods, metrics, output=output, **settings)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with one trained model."""
    directory = tmp_path_factory.mktemp("models")
    subject("digits", "superclass", 0, directory=directory, recipe=RECIPE)
    return directory


def make_at_the_top(model, train_set, *, store=None):
    return GradCos(model, train_set, store=store)


class TestSeveralProcesses:
    def test_a_killed_process_loses_no_result_and_the_same_call_goes_on(self, models, tmp_path, monkeypatch):
        methods = {"near": GradCos, "killed": EndsItsProcess}
        monkeypatch.setenv(EndsItsProcess.SWITCH, "on")
        with pytest.raises(ChildProcessError, match="ended abruptly.*results are kept"):
            run(tmp_path, methods, models=models, jobs=2)
        left = {path: path.stat().st_mtime_ns for path in tmp_path.glob("digits/cells/*/*")}
        assert {path.parent.name for path in left} <= {"near"}
        monkeypatch.delenv(EndsItsProcess.SWITCH)
        found = run(tmp_path, methods, models=models)
        assert found.methods == ["killed", "near"] and found.failed == []
        assert all(path.stat().st_mtime_ns == time for path, time in left.items() if path.suffix == ".json")

    @pytest.mark.parametrize(
        "make",
        [
            lambda model, train, store=None: GradCos(model, train),
            functools.partial(lambda model, train, store=None: GradCos(model, train)),
        ],
        ids=["lambda", "partial"],
    )
    def test_a_method_that_cannot_be_sent_is_refused_before_anything_is_trained(self, tmp_path, make):
        def local(model, train_set, *, store=None):
            return GradCos(model, train_set)

        for method in (make, local):
            with pytest.raises(ValueError, match=r"top level of a module.*jobs=1. Received: name='mine'"):
                run(tmp_path / "results", {"mine": method, "random": "random"}, jobs=2)
        assert not (tmp_path / "results").exists()

    def test_names_classes_and_functions_of_modules_can_be_sent(self):
        methods = {"a": "dualview?K=1", "b": GradCos, "c": make_at_the_top}
        check_can_travel(resolve_all(methods | {"d": functools.partial(GradCos, function="logit")}))

    def test_a_function_of_a_notebook_is_refused(self, monkeypatch):
        """The main module of a notebook has no file that another process could read."""
        main_module = __import__("__main__")
        monkeypatch.delattr(main_module, "__file__", raising=False)
        monkeypatch.setattr(make_at_the_top, "__module__", "__main__")
        monkeypatch.setattr(main_module, "make_at_the_top", make_at_the_top, raising=False)
        with pytest.raises(ValueError, match="one of a notebook"):
            check_can_travel(resolve_all({"mine": make_at_the_top}))


class TestDamage:
    @pytest.mark.parametrize("name", ["model.keras", "perturbation.npz", "record.json"])
    @pytest.mark.parametrize("is_missing", [True, False], ids=["missing", "cut off"])
    def test_a_damaged_model_is_named_with_what_to_do(self, models, tmp_path, name, is_missing):
        place = shutil.copytree(models, tmp_path / "models") / "digits" / "superclass-0"
        (place / name).unlink() if is_missing else (place / name).write_bytes(b"{")
        with pytest.raises(
            ValueError, match=r"superclass-0 .*elete .*train the model again. Received: error="
        ):
            run(tmp_path / "results", ["random"], models=tmp_path / "models")

    def test_damaged_checkpoints_are_named_by_the_method_that_needs_them(self, models, tmp_path):
        place = shutil.copytree(models, tmp_path / "models") / "digits" / "superclass-0"
        for path in (place / "checkpoints").glob("*.h5"):
            path.write_bytes(b"damaged")
        [cell] = run(tmp_path / "results", ["tracin", "random"], models=tmp_path / "models").failed
        assert cell.identity.method == "tracin" and "superclass-0 cannot be read" in cell.error["message"]

    def test_a_missing_folder_of_results_is_no_empty_table(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no results of this dataset.*Received: data='digits'"):
            read_benchmark(tmp_path / "nowhere", "digits")

    def test_results_of_other_data_or_other_numbers_are_told(self, models, tmp_path):
        run(tmp_path, ["random"], models=models)
        with pytest.raises(FileNotFoundError, match="only of digits"):
            read_benchmark(tmp_path, "mnist")
        with pytest.raises(ValueError, match=r"of other numbers of test examples: 20. Received: num_test=30"):
            read_benchmark(tmp_path, "digits", 30)


class TestHowToRepeatAResult:
    @staticmethod
    def context(name, method, recipe=None):
        folder = pathlib.Path("results")
        plan = Plan("digits", None, folder, folder / "models", 20, False, recipe)
        [spec] = resolve_all({name: method})
        return plan.context(spec, plan.identity(spec, "superclass", 3))

    def test_the_command_names_the_method_and_not_the_row(self):
        command = self.context("DualView (mine)", "dualview?K=0.1&kernel=linear")["command"]
        words = shlex.split(command)
        assert words[:2] == ["deel-dualview", "benchmark"] and "dualview?K=0.1&kernel=linear" in words
        parsed = main.commands["benchmark"].make_context("benchmark", words[2:]).params
        assert (parsed["methods"], parsed["seeds"]) == ("dualview?K=0.1&kernel=linear", [3])
        assert (parsed["metrics"], parsed["num_test"]) == ("superclass", 20)

    def test_a_recorded_command_runs(self, tmp_path):
        words = shlex.split(self.context("chance", "random?seed=2")["command"])
        given = [*words[1:], "--no-progress", "--output", str(tmp_path)]
        result = CliRunner().invoke(main, given)
        assert result.exit_code == 0, result.output
        assert len(list(tmp_path.glob("digits/cells/random_seed=2/superclass-3.json"))) == 1

    @pytest.mark.parametrize("make", [make_at_the_top, functools.partial(make_at_the_top, store=None)])
    def test_a_python_function_is_recorded_as_one_without_a_command(self, make):
        context = self.context("mine", make)
        assert context["command"] is None
        assert context["python"] == {"module": __name__, "qualified_name": "make_at_the_top"}
        told = f"{__name__}.make_at_the_top" + ("" if make is make_at_the_top else "(...)")
        assert context["call"] == (
            f"benchmark('digits', {{'mine': {told}}}, ['superclass'], [3], num_test=20)"
        )

    def test_a_recipe_of_ones_own_is_no_command_either(self):
        context = self.context("random", "random", RECIPE)
        assert context["command"] is None and "python" not in context
        assert (
            f"{{'random': 'random'}}, ['superclass'], [3], num_test=20, recipe={RECIPE!r})" in context["call"]
        )
