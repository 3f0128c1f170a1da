"""The report as data and as files: complete, escaped, written whole or not at all."""

import csv
import dataclasses
import errno
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
from pages import Page

from deel_dualview.labels import HeadWeight, LabelCount, LabelIssues
from deel_dualview.report import (
    AuditReport,
    Certificate,
    ClassCounts,
    ClassPairCount,
    ExampleReference,
    ExplainedPrediction,
    Influence,
    LabelErrors,
    LabelIssue,
    Overview,
    Setting,
    Severity,
    StepTime,
    WrongPredictions,
    check_output_directory,
    exceeded_thresholds,
    parse_threshold,
    parse_thresholds,
)
from deel_dualview.report.html import percent
from deel_dualview.report.rendering import (
    ExampleRenderer,
    ImageView,
    PartsView,
    SignalView,
    TableView,
    TextView,
)
from deel_dualview.report.review import read_script

SCRIPT = "<script>alert('x')</script>"


def make_report(
    examples: list, class_names: tuple[str, str] = ("cat", "dog"), ids: list | None = None
) -> AuditReport:
    """Make a report by hand: the first example is a wrong test prediction, the others are from training."""
    ids = ids or [None] * len(examples)
    subject = ExampleReference("test", 0, ids[0], 0)
    train = [ExampleReference("train", index, ids[index], 1) for index in range(1, len(examples))]
    influences = tuple(Influence(example, 0.5, 0.25) for example in train)
    wrong = WrongPredictions(
        severity=Severity.ACT,
        title="1 of 2 test predictions is wrong",
        summary="Why.",
        count=1,
        share=0.5,
        predictions=(ExplainedPrediction(subject, 1, 0.9, 1, 2.0, 0.01, influences, influences[:1]),),
    )
    labels = LabelErrors(
        severity=Severity.LOOK,
        title="1 label",
        summary="Look.",
        count=1,
        share=0.1,
        status="counted",
        low=1,
        high=2,
        at_most=None,
        reason="",
        training_accuracy=0.9,
        deviations_easier=0.5,
        heads=(HeadWeight("kernel ridge on inputs", 1.0),),
        class_pairs=(ClassPairCount(1, 0, 1.2, 1),),
        issues=(LabelIssue(train[0], 0, 1.5, float("nan"), flagged=True),),
        ranks=(1, 2),
        scores=(1.5, 0.1),
        detection=None,
    )
    shown = {("test", 0): examples[0]} | {("train", i): examples[i] for i in range(1, len(examples))}
    attributions = scipy.sparse.csr_array(np.array([[0.5, 0.0, -0.25], [0.0, 1.0, 0.0]], np.float32))
    overview = make_overview(class_names)
    arrays = {"test_predictions": np.array([1, 0])}
    issues = make_issues(class_names, None if ids == [None] * len(examples) else ids[1:])
    return AuditReport(overview, [labels, wrong], attributions, issues, arrays, shown)


def make_issues(class_names: tuple[str, str], ids: list | None = None) -> LabelIssues:
    """Make label issues of three training examples, the second of which is flagged."""
    return LabelIssues(
        given_labels=np.array([0, 1, 1]),
        suggested_labels=np.array([1, 0, 0]),
        scores=np.array([-2.0, 1.5, -0.25]),
        flagged=np.array([False, True, False]),
        count=LabelCount("counted", 1, 1, 2),
        class_pairs=(),
        training_accuracy=0.9,
        test_accuracy=0.5,
        deviations_easier=0.5,
        heads=(HeadWeight("kernel ridge on inputs", 1.0),),
        ids=None if ids is None else np.array(ids),
        class_names=class_names,
    )


def without_a_count(report: AuditReport) -> AuditReport:
    """Return a report that cannot tell how many labels are wrong."""
    labels, wrong = report.findings
    unknown = dataclasses.replace(
        labels,
        severity=Severity.CANNOT_TELL,
        count=0,
        share=float("nan"),
        status="cannot tell",
        low=None,
        high=None,
    )
    return dataclasses.replace(report, findings=[unknown, wrong])


def make_overview(class_names: tuple[str, str]) -> Overview:
    return Overview(
        model_name="small <model>",
        model_fingerprint="abc",
        feature_layer="input of logits",
        num_features=4,
        num_train=3,
        num_test=2,
        class_names=class_names,
        test_accuracy=0.5,
        certificate=Certificate(1e-5, 1e-4, True, 7, 0.1, 0.1, 0.01),
        classes=tuple(ClassCounts(label, 2, 1, 1) for label in range(2)),
        num_support_vectors=2,
        mean_nonzero_attributions=1.5,
        settings=(Setting("Kernel", SCRIPT),),
        versions=(Setting("Python", "3"),),
        steps=(StepTime("All of it", 1.0),),
        seconds=1.0,
        peak_memory_bytes=None,
        added_memory_bytes=None,
        created="",
    )


@pytest.fixture
def images(rng) -> list[np.ndarray]:
    return list(rng.random((4, 8, 8, 1)).astype(np.float32))


@pytest.fixture
def report(images) -> AuditReport:
    return make_report(images)


def read_page(report: AuditReport, folder: pathlib.Path) -> tuple[str, Page]:
    text = report.to_html(folder / "audit").read_text(encoding="utf-8")
    return text, Page(text)


def test_a_report_is_four_files(report, tmp_path):
    page = report.to_html(tmp_path / "deep" / "audit")
    assert page == tmp_path / "deep" / "audit" / "index.html"
    names = {"index.html", "audit.json", "attributions.npz", "label_issues.csv"}
    assert {file.name for file in page.parent.iterdir()} == names


def test_nothing_but_the_report_is_left_behind(report, tmp_path):
    report.to_html(tmp_path / "audit")
    report.to_html(tmp_path / "audit", overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["audit"]


def test_an_existing_directory_is_refused_with_the_way_out(report, tmp_path):
    report.to_html(tmp_path / "audit")
    with pytest.raises(FileExistsError, match=r"overwrite=True \(--overwrite"):
        report.to_html(tmp_path / "audit")


def test_a_directory_with_other_files_is_never_overwritten(report, tmp_path):
    report.to_html(tmp_path / "audit")
    (tmp_path / "audit" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.tex"):
        report.to_html(tmp_path / "audit", overwrite=True)
    assert (tmp_path / "audit" / "thesis.tex").read_text() == "years of work"


def test_a_file_in_the_place_of_the_directory_is_refused(report, tmp_path):
    (tmp_path / "audit").write_text("a file")
    with pytest.raises(NotADirectoryError, match="taken by a file"):
        report.to_html(tmp_path / "audit", overwrite=True)


def test_a_failure_while_writing_leaves_the_earlier_report_whole(report, tmp_path):
    report.to_html(tmp_path / "audit")
    before = (tmp_path / "audit" / "index.html").read_bytes()
    broken = dataclasses.replace(report, arrays={"test_predictions": object()})
    with pytest.raises(TypeError):
        broken.to_html(tmp_path / "audit", overwrite=True)
    assert (tmp_path / "audit" / "index.html").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["audit"]


def test_a_new_directory_can_be_read_by_others_as_the_umask_says(report, tmp_path):
    (tmp_path / "reference").mkdir()
    report.to_html(tmp_path / "audit")
    assert (tmp_path / "audit").stat().st_mode == (tmp_path / "reference").stat().st_mode


def test_an_output_directory_can_be_checked_before_the_work(tmp_path):
    assert check_output_directory(tmp_path / "new") == tmp_path / "new"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "name", ["n" * 255, "n" * 256, "nul\0", "loop/deep", "file/deep", "", ".", "..", "\udcff\ud800"]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_that_cannot_be_written_is_refused_by_the_check(name, overwrite, tmp_path, monkeypatch):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    place = name if name in ("", ".", "..") else str(tmp_path / name)
    with pytest.raises(NotADirectoryError, match="cannot be written.*Received"):
        check_output_directory(place, overwrite=overwrite)
    assert sorted(os.listdir(tmp_path)) == ["file", "here", "loop"]


@pytest.mark.parametrize("failing", ["unfinished", "audit", "replaced"])
def test_what_the_check_accepts_was_done(failing, report, tmp_path, monkeypatch):
    report.to_html(tmp_path / "audit")
    before = (tmp_path / "audit" / "index.html").read_bytes()
    rename = pathlib.Path.rename

    def refused(path, target):
        if path.name == "audit" if failing == "audit" else failing in path.name:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(pathlib.Path, "rename", refused)
        with pytest.raises(NotADirectoryError, match="Device or resource busy"):
            check_output_directory(tmp_path / "audit", overwrite=True)
    check_output_directory(
        tmp_path / "audit", overwrite=True
    )  # and brings back what could not be renamed back
    assert (tmp_path / "audit" / "index.html").read_bytes() == before
    assert os.listdir(tmp_path) == ["audit"]


def test_the_earlier_report_comes_back_if_the_new_one_cannot_take_its_name(report, tmp_path, monkeypatch):
    report.to_html(tmp_path / "audit")
    before, rename = (tmp_path / "audit" / "index.html").read_bytes(), pathlib.Path.rename

    def refused(path, target):
        if "unfinished" in path.name and target == tmp_path / "audit":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(pathlib.Path, "rename", refused)
    with pytest.raises(OSError, match="Input/output error"):
        report.to_html(tmp_path / "audit", overwrite=True)
    assert (tmp_path / "audit" / "index.html").read_bytes() == before
    assert os.listdir(tmp_path) == ["audit"]


def test_what_a_killed_run_left_is_tidied_up_and_nothing_of_the_user(report, tmp_path):
    report.to_html(tmp_path / "audit")
    before = (tmp_path / "audit" / "index.html").read_bytes()
    (tmp_path / "audit").rename(tmp_path / ".dualview-replaced-0-audit")
    own = [".dualview-unfinished-0-other", ".audit-12345678-new", ".dualview-unfinished-audit"]
    for name in (*own, ".dualview-unfinished-0-audit", ".dualview-rehearsed-0-audit"):
        (tmp_path / name).mkdir()
    with pytest.raises(FileExistsError):
        check_output_directory(tmp_path / "audit")
    assert (tmp_path / "audit" / "index.html").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == sorted([*own, "audit"])


def test_the_json_has_every_finding_and_no_nan(report, tmp_path):
    page = report.to_html(tmp_path / "audit")
    content = json.loads((page.parent / "audit.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert content["schema_version"] == 2
    assert [finding["name"] for finding in content["findings"]] == ["label-errors", "wrong-predictions"]
    assert content["rates"] == {"label-errors": 0.1, "wrong-predictions": 0.5, "not-finite": 0.0}
    assert content["findings"][0]["severity"] == "look"
    assert content["findings"][0]["issues"][0]["self_influence"] is None


def read_label_issues(report: AuditReport, folder: pathlib.Path) -> list[dict[str, str]]:
    path = report.to_html(folder / "audit").parent / "label_issues.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_of_label_issues_has_every_training_example_by_decreasing_score(report, tmp_path):
    rows = read_label_issues(report, tmp_path)
    assert [row["position"] for row in rows] == ["1", "2", "0"]
    assert [row["score"] for row in rows] == ["1.5", "-0.25", "-2.0"]
    assert [row["flagged"] for row in rows] == ["True", "False", "False"]
    assert "id" not in rows[0]


def test_the_table_of_label_issues_has_ids_and_names_of_classes(images, tmp_path):
    rows = read_label_issues(make_report(images, ids=["t", "a", "b", "c"]), tmp_path)
    assert [row["id"] for row in rows] == ["b", "c", "a"]
    assert [(row["given_label"], row["suggested_label"]) for row in rows][0] == ("dog", "cat")


@pytest.mark.parametrize("name", ["=1+1", "@SUM(1)", "+1", "-1"])
def test_a_class_name_that_a_spreadsheet_would_run_gets_an_apostrophe(name, images, tmp_path):
    rows = read_label_issues(make_report(images, (name, "dog")), tmp_path)
    assert [row["given_label"] for row in rows] == ["dog", "dog", f"'{name}"]


def test_an_id_that_a_spreadsheet_would_run_gets_an_apostrophe(images, tmp_path):
    rows = read_label_issues(make_report(images, ids=["t", "a", "=HYPERLINK(0)", "c"]), tmp_path)
    assert [row["id"] for row in rows] == ["'=HYPERLINK(0)", "c", "a"]


def test_the_attributions_are_read_by_scipy_and_by_numpy_without_pickles(report, tmp_path):
    path = report.to_html(tmp_path / "audit").parent / "attributions.npz"
    matrix = scipy.sparse.load_npz(path)
    np.testing.assert_array_equal(matrix.toarray(), report.attributions.toarray())
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["test_predictions"], [1, 0])


def test_the_page_is_well_formed_and_loads_nothing(report, tmp_path):
    text, page = read_page(report, tmp_path)
    assert text.startswith("<!DOCTYPE html>")
    assert page.mismatches == [] and page.open == []
    addresses = [
        value for _, name, value in page.attributes if name in ("src", "href", "xlink:href", "action")
    ]
    assert all(value.startswith(("#", "data:")) for value in addresses)
    assert "default-src 'none'" in text


def test_links_lead_to_sections_and_no_id_occurs_twice(report, tmp_path):
    _, page = read_page(report, tmp_path)
    ids = [value for _, name, value in page.attributes if name == "id"]
    links = [value[1:] for tag, name, value in page.attributes if tag == "a" and name == "href"]
    assert len(ids) == len(set(ids))
    assert links and set(links) <= set(ids)


def test_pictures_have_a_text_and_tables_a_caption(report, tmp_path):
    _, page = read_page(report, tmp_path)
    alternatives = [value for tag, name, value in page.attributes if tag == "img" and name == "alt"]
    assert len(alternatives) == page.tags.count("img") > 0
    assert "test example 0, labelled cat, predicted dog" in alternatives
    assert "train example 1, labelled dog, suggested cat" in alternatives
    assert page.tags.count("caption") == page.tags.count("table") > 0


def test_a_title_names_the_page_and_is_escaped(images, tmp_path):
    report = make_report(images)
    text = report.to_html(tmp_path / "audit", title="Shoes <b>").read_text(encoding="utf-8")
    assert "<title>Shoes &lt;b&gt;</title>" in text and "<h1>Shoes &lt;b&gt;</h1>" in text


def test_the_model_names_a_page_without_a_title(images, tmp_path):
    report = make_report(images)
    text = report.to_html(tmp_path / "audit").read_text(encoding="utf-8")
    assert "<h1>small &lt;model&gt;</h1>" in text


@pytest.mark.parametrize("place", ["class name", "id", "text", "column", "part"])
def test_everything_from_the_data_is_escaped(place, images, tmp_path):
    examples = {
        "text": [np.array(SCRIPT.encode())] * 4,
        "column": [{SCRIPT: np.float32(1), "b": np.float32(2)}] * 4,
        "part": [{SCRIPT: image, "b": image} for image in images],
    }.get(place, images)
    names = (SCRIPT, f'"{SCRIPT}') if place == "class name" else ("cat", "dog")
    ids = [SCRIPT] * 4 if place == "id" else None
    text, page = read_page(make_report(examples, names, ids), tmp_path)
    assert page.tags.count("script") == text.count("<script") == 1
    assert read_script() in text
    assert "alert(" in text.replace(read_script(), "")


def test_the_finding_of_a_name_is_returned(report):
    assert report.finding("label-errors") is report.findings[0]
    with pytest.raises(KeyError, match="wrong-predictions"):
        report.finding("leaks")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("label-errors=0.02", ("label-errors", 0.02)),
        (" leaks = 2% ", ("leaks", 0.02)),
        ("unfaithful=0", ("unfaithful", 0)),
    ],
)
def test_a_threshold_is_a_rate_and_a_share(text, expected):
    assert parse_threshold(text) == expected


@pytest.mark.parametrize(
    "text", ["label-errors", "colour=0.1", "leaks=two", "leaks=2", "leaks=-1", "leaks=nan"]
)
def test_a_bad_threshold_is_refused(text):
    with pytest.raises(ValueError, match="Received"):
        parse_threshold(text)


def test_only_a_rate_above_its_threshold_is_told(report):
    failures = exceeded_thresholds(report.rates, {"label-errors": 0.1, "wrong-predictions": 0.4})
    assert len(failures) == 1
    assert failures[0].startswith("wrong-predictions is 50.00%, above the accepted 40.00%")


def test_a_rate_that_cannot_be_told_does_not_pass(report):
    rates = without_a_count(report).rates
    assert rates["label-errors"] is None
    (failure,) = exceeded_thresholds(rates, {"label-errors": 1.0})
    assert failure.startswith("label-errors is unknown")


def test_a_rate_that_cannot_be_told_passes_where_that_is_allowed(report):
    rates = without_a_count(report).rates
    assert exceeded_thresholds(rates, {"label-errors": 0.0}, allow_cannot_tell=True) == []
    assert exceeded_thresholds(rates, {"wrong-predictions": 0.1}, allow_cannot_tell=True) != []


def test_what_cannot_be_told_has_a_badge_of_its_own(report, tmp_path):
    text, page = read_page(without_a_count(report), tmp_path)
    assert text.count('<use href="#sev-cannot-tell"/></svg>cannot tell</span>') == 2
    assert page.mismatches == [] and page.open == []


def test_label_issues_show_given_and_suggested_label_with_their_score(report, tmp_path):
    text, _ = read_page(report, tmp_path)
    assert "<s>dog</s>" in text and "<b>cat</b>" in text and "score +1.5" in text
    assert 'data-pair="1-0"' in text


@pytest.mark.parametrize("module", ["thresholds", "html", "comparison"])
def test_a_report_is_prepared_without_tensorflow(module):
    """Commands read it before they silence TensorFlow's log."""
    """A command reads them before it silences TensorFlow."""
    code = f"import sys, deel_dualview.report.{module}; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_threshold_on_what_was_not_measured_is_refused():
    with pytest.raises(ValueError, match="wrong-predictions"):
        exceeded_thresholds({"label-errors": 0.0}, {"wrong-predictions": 0.5})


@pytest.mark.parametrize(
    "rate, limit", [(np.nan, 0.5), (-0.1, 0.5), (1.5, 1.0), (np.inf, 0.5), (0.5, np.nan)]
)
def test_a_rate_that_is_no_share_does_not_pass(rate, limit):
    with pytest.raises(ValueError, match="could not be compared"):
        exceeded_thresholds({"leaks": rate}, {"leaks": limit})


@pytest.mark.parametrize("second", ["leaks=0.5", "leaks=1%", " leaks = 0.01"])
def test_two_thresholds_of_one_name_are_refused(second):
    with pytest.raises(ValueError, match="two for leaks"):
        parse_thresholds(["leaks=0.01", "unfaithful=0", second])


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0%"),
        (1, "100%"),
        (0.25, "25%"),
        (0.0412, "4.1%"),
        (0.0004, "0.04%"),
        (0.9996, "99.96%"),
        (-0.099, "−9.9%"),
    ],
)
def test_a_share_is_not_rounded_to_nothing_or_to_all(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("example", "kind"),
    [
        (np.zeros((8, 8), np.uint8), ImageView),
        (np.zeros((28, 28, 1), np.float32), ImageView),
        (np.zeros((224, 224, 3), np.uint8), ImageView),
        (np.zeros((16, 16, 4), np.float64), ImageView),
        (np.zeros((16, 16, 3), np.float16), ImageView),
        (np.sin(np.arange(300.0)), SignalView),
        (np.zeros((128, 2), np.float32), SignalView),
        (np.arange(12.0), TableView),
        (np.arange(200), TextView),
        (np.array("words"), TextView),
        (np.array(b"words"), TextView),
        (np.zeros((8, 8, 8, 2), np.float32), TextView),
        (np.float32(3), TableView),
        ({"age": np.int64(3), "job": np.array(b"cook")}, TableView),
        ({"image": np.zeros((8, 8)), "text": np.array(b"words")}, PartsView),
        ((np.zeros((8, 8)), np.arange(3.0)), PartsView),
    ],
)
def test_an_example_is_shown_as_what_it_is(example, kind):
    assert isinstance(ExampleRenderer([example]).render(example), kind)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"age": 40.5, "job": b"cook", "zip": 1}, {"age", "job"}),
        ({"age": 55.0, "job": b"nurse", "zip": 2}, {"zip"}),
        ({"age": np.nan, "job": b"", "zip": 9}, set()),
    ],
)
def test_columns_agree_that_are_equal_or_near_in_their_range(other, expected):
    one = {"age": np.float32([40.0]), "job": np.array([b"cook"]), "zip": np.int64(2)}
    other = {name: np.asarray(value) for name, value in other.items()}
    renderer = ExampleRenderer(
        [one, other, {"age": np.float32(80), "job": np.array(b""), "zip": np.int64(9)}]
    )
    assert renderer.agreeing(other, one) == expected
    assert isinstance(renderer.render(one), TableView)


def test_a_row_is_shown_in_the_columns_of_the_one_beside_it():
    rows = np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32)
    renderer = ExampleRenderer(rows)
    view, beside = renderer.render_beside(rows[1], rows[0]), renderer.render(rows[0])
    assert [name for name, _ in view.rows] == [name for name, _ in beside.rows]
    assert [value for _, value in view.rows] == [
        f"{rows[1][int(name.split()[1])]:.4g}" for name, _ in view.rows
    ]
    assert renderer.agreeing(rows[0], rows[0]) == {f"column {place}" for place in range(20)}


@pytest.mark.parametrize(
    "example", [np.array("long " * 999), {"age": np.float32(3), "text": np.array("long " * 999)}]
)
def test_of_a_long_text_the_beginning_is_shown_and_the_rest_is_at_hand(example):
    view = ExampleRenderer([example]).render(example)
    text = view if isinstance(view, TextView) else dict(view.parts)["text"]
    assert len(text.text) <= 280 and text.text.endswith("…")
    assert text.whole == "long " * 999


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_with_a_non_finite_pixel_is_shown(value):
    image = np.full((8, 8), value, np.float32)
    assert ExampleRenderer([image]).render(image).address.startswith("data:image/png")


def decode(address: str) -> np.ndarray:
    import base64
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))


@pytest.mark.parametrize(
    ("image", "brightest"),
    [
        (np.full((8, 8), 51, np.uint8), 51),
        (np.full((8, 8, 1), 0.2, np.float32), 51),
        (np.full((8, 8, 3), 0.2, np.float16), 51),
        (np.linspace(-1, 1, 64).reshape(8, 8), 255),
        (np.linspace(0, 16, 64).reshape(8, 8), 255),
    ],
)
def test_pixels_keep_their_brightness(image, brightest):
    assert decode(ExampleRenderer([image]).render(image).address).max() == brightest


def test_images_share_one_scale_so_that_they_can_be_compared():
    dark, bright = np.full((8, 8), 1.0), np.full((8, 8), 4.0)
    dark[0, 0] = 0
    renderer = ExampleRenderer([dark, bright])
    assert decode(renderer.render(dark).address).max() == 64
    assert decode(renderer.render(bright).address).min() == 255


def test_a_large_image_is_reduced(rng):
    image = rng.random((600, 400, 3)).astype(np.float32)
    address = ExampleRenderer([image]).render(image).address
    assert decode(address).shape == (160, 107, 3)


def test_a_wide_row_shows_its_most_unusual_columns():
    rows = [np.zeros(30) for _ in range(5)]
    rows[0][17] = 9.0
    view = ExampleRenderer(rows).render(rows[0])
    assert ("column 17", "9") in view.rows
    assert view.num_hidden == 22


def test_a_long_signal_keeps_its_spike():
    signal = np.zeros(5000)
    signal[1234] = 1.0
    (line,) = ExampleRenderer([signal]).render(signal).lines
    heights = [float(point.split(",")[1]) for point in line.split()]
    assert min(heights) == 2.0
    assert len(heights) <= 160


def test_a_long_text_is_shortened():
    view = ExampleRenderer([]).render(np.array("word " * 200))
    assert len(view.text) <= 280
    assert view.text.endswith("…")


def test_aligned_rows_have_the_same_columns_those_that_are_most_unusual(rng):
    usual = rng.normal(size=(40, 20))
    chosen = usual[:5].copy()
    chosen[:, [3, 4, 7, 9, 11, 13, 17, 19]] += 9
    views = ExampleRenderer([*usual, *chosen]).render_aligned(list(chosen))
    columns = [[name for name, _ in view.rows] for view in views]
    assert columns == [[f"column {number}" for number in (3, 4, 7, 9, 11, 13, 17, 19)]] * 5
    assert {view.num_hidden for view in views} == {12}


def test_pictures_are_not_aligned_as_rows(images):
    assert ExampleRenderer(images).render_aligned(images) == []


def test_few_named_numbers_are_aligned():
    examples = [{"age": np.float32(3), "height": np.float32(number)} for number in range(3)]
    views = ExampleRenderer(examples).render_aligned(examples)
    assert [view.rows[1][1] for view in views] == ["0", "1", "2"]
