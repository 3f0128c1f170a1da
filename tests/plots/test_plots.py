"""Drawings of the report: what is asked for is drawn, and nothing of the data can break out of it."""

import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from deel_dualview import plots


def texts_of(svg: str) -> list[str]:
    namespaces = {"xlink": "http://www.w3.org/1999/xlink"}
    for prefix, uri in namespaces.items():
        ElementTree.register_namespace(prefix, uri)
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]


def some_figures() -> dict[str, Figure]:
    return {
        "scores": plots.plot_label_scores([1, 2, 10], [2.5, 1.5, -3.2], 2),
        "detection": plots.plot_detection(
            [0, 5, 10], {"label score": [0, 3, 3], "loss": [0, 1, 3]}, num_known=3
        ),
        "path": plots.plot_path([0.01, 0.1], [0.5, 0.2], [0.9, 0.95], chosen=0.1),
        "classes": plots.plot_class_counts(["cat", "dog"], [3, 12], label="Support vectors"),
    }


@pytest.mark.parametrize("name", ["scores", "detection", "path", "classes"])
def test_a_drawing_is_well_formed_and_follows_the_colours_of_the_page(name):
    svg = plots.to_inline_svg(some_figures()[name], name)
    ElementTree.fromstring(svg)
    assert "var(--ink)" in svg
    assert "style" not in svg
    assert "#1b1f24" not in svg


@pytest.mark.parametrize("num_flagged", [0, 2, 3])
def test_the_scores_of_flagged_labels_are_shaded(num_flagged):
    axes = plots.plot_label_scores([1, 2, 3, 10], [2.5, 1.5, 0.5, -3.2], num_flagged).axes[0]
    (shaded,) = axes.collections
    corners = [path.vertices[:, 0].max() for path in shaded.get_paths()]
    assert corners == ([num_flagged] if num_flagged else [])


def test_two_drawings_on_one_page_share_no_id():
    ids = []
    for name, figure in some_figures().items():
        root = ElementTree.fromstring(plots.to_inline_svg(figure, name))
        ids += [node.get("id") for node in root.iter() if node.get("id")]
    assert len(ids) == len(set(ids))


def test_every_reference_inside_a_drawing_has_its_target():
    svg = plots.to_inline_svg(some_figures()["path"], "path")
    root = ElementTree.fromstring(svg)
    targets = {node.get("id") for node in root.iter()}
    links = [node.get("{http://www.w3.org/1999/xlink}href") for node in root.iter()]
    assert {link[1:] for link in links if link} <= targets
    assert any(links)


def test_class_names_cannot_break_out_of_a_drawing():
    names = ["<script>1</script>", '$x^$ & "y"']
    svg = plots.to_inline_svg(plots.plot_class_counts(names, [1, 2], label="<b>"), "classes")
    assert "<script" not in svg
    assert set(names) <= set(texts_of(svg))


def test_many_classes_are_cut_to_the_twenty_with_most():
    counts = np.arange(50)
    svg = plots.to_inline_svg(
        plots.plot_class_counts([f"class {i}" for i in range(50)], counts, label=""), "c"
    )
    assert "class 49" in texts_of(svg)
    assert "class 29" not in texts_of(svg)


def test_the_same_data_gives_the_same_drawing():
    first, second = (plots.to_inline_svg(some_figures()["scores"], "scores") for _ in range(2))
    assert first == second


def test_plots_leave_pyplot_and_the_settings_of_matplotlib_alone():
    before = dict(matplotlib.rcParams)
    for name, figure in some_figures().items():
        plots.to_inline_svg(figure, name)
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
