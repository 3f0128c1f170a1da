"""`dir` of a public module, and so completion in a notebook, shows its public names and nothing else."""

import importlib

import pytest

MODULES = [
    "evaluation",
    "gradients",
    "ihvp",
    "lrp",
    "metrics",
    "plots",
    "relevance",
    "report",
    "stores",
    "svm",
    "verification",
]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_shows_its_public_names_alone(name):
    module = importlib.import_module(f"deel_dualview.{name}")
    assert dir(module) == sorted(module.__all__)
    homes = {getattr(getattr(module, shown), "__module__", "deel_dualview") for shown in dir(module)}
    assert [
        home for home in homes if home.split(".")[0] not in ("deel_dualview", "typing", "builtins", "types")
    ] == []


def test_pictures_of_pair_relevance_are_what_plots_shows():
    assert dir(importlib.import_module("deel_dualview.plots")) == [
        "column_relevance",
        "pair_relevance",
        "token_relevance",
    ]


def test_the_package_shows_its_names_and_public_modules():
    package = importlib.import_module("deel_dualview")
    shown = dir(package)
    assert set(package.__all__) < set(shown) and {"plots", "metrics", "__version__"} < set(shown)
    assert not {"import_module", "Any", "TYPE_CHECKING", "_HOMES"} & set(shown)
