"""Reports as large as real ones, put together by hand: of images, of texts, of a table."""

from typing import Any, Literal

import numpy as np
import scipy.sparse

from deel_dualview.labels import HeadWeight, LabelCount, LabelIssues
from deel_dualview.report import (
    AuditReport,
    Certificate,
    ClassAccuracy,
    ClassCounts,
    ClassInfluence,
    ClassPairCount,
    CommonProponent,
    ConflictingDuplicates,
    Confusion,
    Duplicates,
    ExampleReference,
    ExplainedPrediction,
    Faithfulness,
    GroupMember,
    Influence,
    InfluentialExample,
    InfluentialExamples,
    InputProblem,
    InputProblems,
    LabelErrors,
    LabelIssue,
    Leaks,
    Measure,
    OddExample,
    Outlier,
    Outliers,
    Overview,
    PairMaps,
    Setting,
    Severity,
    SimilarPair,
    StepTime,
    WeakClasses,
    WeakGroup,
    WeakGroups,
    WrongPredictions,
)

Kind = Literal["images", "texts", "table"]
NUM_TRAIN, NUM_TEST, NUM_CLASSES, NUM_ISSUES, K = 240, 60, 6, 200, 5
WORDS = tuple(f"word{number}" for number in range(400))
COLUMNS = tuple(f"column {number}" for number in range(24))


def make_full_report(
    kind: Kind, class_names: tuple[str, ...] = ("cat", "dog", "owl", "fox", "eel", "bee"), *, ids: Any = None
) -> AuditReport:
    """Make a report with 200 label issues, 12 explained predictions with heatmaps, and 24 pairs that look alike."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, NUM_CLASSES, NUM_TRAIN)
    suggested = (labels + rng.integers(1, NUM_CLASSES, NUM_TRAIN)) % NUM_CLASSES
    scores = np.linspace(9, -9, NUM_TRAIN)

    def train(index: int) -> ExampleReference:
        return ExampleReference("train", index, None if ids is None else ids[index], int(labels[index]))

    def test(index: int) -> ExampleReference:
        return ExampleReference("test", index, None, index % NUM_CLASSES)

    def influences(start: int, sign: int) -> tuple[Influence, ...]:
        values = [sign * 0.0595] * K if start % 2 else [sign * 0.1 / (1 + place) for place in range(K)]
        return tuple(
            Influence(train(start + place), value, None, likeness=0.9 - place / 10)
            for place, value in enumerate(values)
        )

    predictions = tuple(
        ExplainedPrediction(
            test(index),
            (index + 1) % NUM_CLASSES,
            0.9,
            1,
            2.0,
            0.1,
            influences(10 * index, 1),
            influences(10 * index + 5, -1),
        )
        for index in range(12)
    )
    findings = [
        LabelErrors(
            severity=Severity.ACT,
            title="About 130 training labels are wrong, perhaps more (90 to 180)",
            summary="Of 240 labels, judged by classifiers that have not seen the label they judge.",
            count=130,
            share=130 / NUM_TRAIN,
            status="counted",
            low=90,
            high=180,
            at_most=None,
            reason="",
            training_accuracy=0.6,
            deviations_easier=0.2,
            heads=(HeadWeight("features", 1.0),),
            class_pairs=(ClassPairCount(0, 1, 12.5, 10),),
            issues=tuple(
                LabelIssue(
                    train(index), int(suggested[index]), float(scores[index]), 0.1, flagged=index < 130
                )
                for index in range(NUM_ISSUES)
            ),
            ranks=tuple(range(1, NUM_TRAIN + 1)),
            scores=tuple(map(float, scores)),
            detection=None,
        ),
        WrongPredictions(
            severity=Severity.ACT,
            title="30 of 60 test predictions are wrong",
            summary="The 12 of which the model is surest.",
            count=30,
            share=0.5,
            predictions=predictions,
            confusions=tuple(
                Confusion(
                    label,
                    (label + 1) % NUM_CLASSES,
                    6 - label,
                    10,
                    tuple(CommonProponent(train(place), 3) for place in range(6)),
                )
                for label in range(6)
            ),
            matrix=tuple(
                tuple(4 if row == column else (6 - row) * (column == (row + 1) % 6) for column in range(6))
                for row in range(6)
            ),
        ),
        Leaks(
            severity=Severity.KNOW,
            title="No test example is in the training set; 24 examples look like one there",
            summary="Judge by eye.",
            count=24,
            share=0.4,
            num_identical=0,
            pairs=tuple(SimilarPair(test(index), train(index), 0.99, False) for index in range(24)),
        ),
        Outliers(
            severity=Severity.LOOK,
            title="22 examples are far from all training examples in the model's features",
            summary="Damaged, of another kind, or rare.",
            count=22,
            share=0.07,
            num_train=22,
            num_test=0,
            examples=tuple(Outlier(train(index), 5.0) for index in range(22)),
        ),
        WeakClasses(
            severity=Severity.LOOK,
            title="1 of 6 classes is predicted worse than the rest",
            summary="By Fisher's exact test.",
            count=1,
            share=1 / 6,
            classes=tuple(
                ClassAccuracy(label, 40, 10, 3 + label, label == 0) for label in range(NUM_CLASSES)
            ),
        ),
        InfluentialExamples(
            severity=Severity.KNOW,
            title="200 of 240 training examples stand behind the predictions",
            summary="Counted are the five strongest.",
            count=200,
            share=0.4,
            k=K,
            classes=tuple(
                ClassInfluence(
                    label, 10, 8, tuple(InfluentialExample(train(place), 4, 0.1) for place in range(6))
                )
                for label in range(NUM_CLASSES)
            ),
        ),
        Faithfulness(
            severity=Severity.FINE,
            title="The surrogate agrees with the model on 99.0% of the test set",
            summary="Influence is that of a surrogate.",
            count=1,
            share=0.01,
            measures=(Measure("Same predictions", 0.99, "99.0%", "Share of test examples."),),
        ),
        Duplicates(
            severity=Severity.KNOW,
            title="20 training examples are copies of another one of the same label, 4 more look like one",
            summary="They count twice in training.",
            count=24,
            share=0.1,
            num_identical=20,
            pairs=tuple(
                SimilarPair(train(index), train(index + 100), 1.0, index < 20) for index in range(24)
            ),
        ),
        WeakGroups(
            severity=Severity.LOOK,
            title="The model is weak in 3 groups of test examples",
            summary="40 groups were tested.",
            count=3,
            share=0.3,
            num_examined=40,
            groups=tuple(
                WeakGroup(
                    kind,
                    name,
                    value,
                    0,
                    train(3) if kind == "proponents" else None,
                    20,
                    8,
                    0.9,
                    40,
                    0.001,
                    tuple(GroupMember(test(index), 1) for index in range(6)),
                )
                for kind, name, value in (
                    ("features", "", ""),
                    ("proponents", "", ""),
                    ("column", "age", "3 to 9"),
                )
            ),
        ),
        ConflictingDuplicates(
            severity=Severity.FINE,
            title="No training example has the inputs of one of another label",
            summary="Training examples with the same inputs have the same label, and so have those that look alike.",
            count=0,
            share=0.0,
            num_identical=0,
            pairs=(),
        ),
    ]
    if kind == "images":
        findings.append(
            InputProblems(
                severity=Severity.KNOW,
                title="Several things are unusual about the inputs",
                summary="What was found in the inputs, whatever the model makes of them.",
                count=4,
                share=1.0,
                problems=(
                    *(
                        InputProblem(
                            kind="odd-images",
                            severity=Severity.KNOW,
                            title=f"9 images are {what}",
                            advice="Drop or repair those that are no fair examples.",
                            count=9,
                            examples=tuple(OddExample(train(index), "brightness 0.02") for index in range(5)),
                        )
                        for what in ("of one colour", "much darker than the rest")
                    ),
                    InputProblem(
                        kind="identifier",
                        severity=Severity.KNOW,
                        title=f"7 columns number the examples: {', '.join(COLUMNS[:5])} and 2 more",
                        advice="An id, a row number or a time: leave it out, unless it is a quantity.",
                        count=7,
                        columns=COLUMNS[:7],
                    ),
                    InputProblem(
                        kind="order",
                        severity=Severity.KNOW,
                        title="The test set is not in random order",
                        advice="Shuffle before you split off a set, and in training.",
                        count=NUM_TEST,
                    ),
                ),
            )
        )
    contents = [_example(kind, rng) for _ in range(NUM_TRAIN + NUM_TEST)]
    shown = {("train", index): contents[index] for index in range(NUM_TRAIN)}
    shown |= {("test", index): contents[NUM_TRAIN + index] for index in range(NUM_TEST)}
    return AuditReport(
        overview=_overview(class_names),
        findings=findings,
        attributions=scipy.sparse.csr_array((NUM_TEST, NUM_TRAIN), dtype=np.float32),
        label_issues=LabelIssues(
            given_labels=labels,
            suggested_labels=suggested,
            scores=scores,
            flagged=np.arange(NUM_TRAIN) < 130,
            count=LabelCount("counted", 130, 90, 180),
            class_pairs=(),
            training_accuracy=0.6,
            test_accuracy=0.5,
            deviations_easier=0.2,
            heads=(HeadWeight("features", 1.0),),
            ids=None if ids is None else np.array(ids),
            class_names=class_names,
        ),
        shown=shown,
        relevance={
            (item.example.index, own.example.index): _maps(kind, rng)
            for item in predictions
            for own in (*item.proponents, *item.opponents)
        },
        input_names={"images": (), "texts": WORDS, "table": COLUMNS}[kind],
    )


def _example(kind: Kind, rng: np.random.Generator) -> np.ndarray:
    if kind == "images":
        return rng.random((8, 8, 1)).astype(np.float32)
    return rng.integers(1, len(WORDS), 50) if kind == "texts" else rng.normal(size=len(COLUMNS))


def _maps(kind: Kind, rng: np.random.Generator) -> PairMaps:
    shape, name = {"images": ((8, 8), "image"), "texts": ((50,), "tokens"), "table": ((24,), "columns")}[kind]
    inputs = (None, None) if kind == "images" else [_example(kind, np.random.default_rng(0))] * 2
    return PairMaps(rng.normal(size=shape), rng.normal(size=shape), name, *inputs)


def _overview(class_names: tuple[str, ...]) -> Overview:
    return Overview(
        model_name="animals",
        model_fingerprint="abc",
        feature_layer="input of logits",
        num_features=4,
        num_train=NUM_TRAIN,
        num_test=NUM_TEST,
        class_names=class_names,
        test_accuracy=0.5,
        certificate=Certificate(1e-5, 1e-4, True, 7, 0.1, 0.1, 0.01),
        classes=tuple(ClassCounts(label, 40, 10, 20) for label in range(NUM_CLASSES)),
        num_support_vectors=100,
        mean_nonzero_attributions=50.0,
        settings=(Setting("Kernel", "cosine"),),
        versions=(Setting("Python", "3"),),
        steps=(StepTime("All of it", 1.0),),
        seconds=1.0,
        peak_memory_bytes=None,
        added_memory_bytes=None,
        created="",
        relevance_rule="epsilon",
    )
