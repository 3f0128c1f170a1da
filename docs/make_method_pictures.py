"""Draw the pictures of the pages on methods: one wrong prediction of the demo, explained by every method.

    python docs/make_method_pictures.py [--output docs/assets/methods] [--only dualview overview ...]

The digits come with the package; the network of the demo is trained once more, with checkpoints. The test digit
is the wrong prediction of which that network is surest. About a minute of CPU time.
"""

import argparse
import io
import pathlib
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image

import deel_dualview as dd
from deel_dualview.cli.demo import make_demo
from deel_dualview.evaluation import record_training
from deel_dualview.plots import BLUE, GREY, VERMILLION

INK, NUM_SHOWN, EPOCHS = "#1b1f24", 7, 12
ORDERS = {"proponents": (dd.ORDER.DESCENDING, BLUE), "opponents": (dd.ORDER.ASCENDING, VERMILLION)}


class Scene(NamedTuple):
    """What all pictures are drawn from.

    Attributes:
        checkpoints: of the network, the last one last.
        train: images and labels, some of them wrong, in batches.
        images: of the training set, (n, 8, 8).
        labels: of the training set, (n,).
        truth: the labels before some were swapped, (n,).
        query: one test image and its label, a batch of one.
        predicted: what the network says of it.
    """

    checkpoints: dd.Checkpoints
    train: tf.data.Dataset
    images: np.ndarray
    labels: np.ndarray
    truth: np.ndarray
    query: tf.data.Dataset
    predicted: int

    @property
    def one(self) -> tuple[dd.InfluenceModel, tf.data.Dataset]:
        """The first two arguments of a calculator."""
        return self.checkpoints.models[-1], self.train


Build = Callable[[Scene], dd.BaseInfluenceCalculator]


def arnoldi(scene: Scene) -> dd.BaseInfluenceCalculator:
    """Return influence on twenty directions of the whole network."""
    ihvp = dd.ArnoldiIHVP(*scene.one, weights="all", rank=20, num_iterations=40)
    return dd.ArnoldiInfluenceCalculator(*scene.one, ihvp)


def ekfac(scene: Scene) -> dd.BaseInfluenceCalculator:
    """Return influence functions in all weights."""
    return dd.FirstOrderInfluenceCalculator(*scene.one, dd.EkfacIHVP(*scene.one, weights="all"))


def tracin(scene: Scene) -> dd.BaseInfluenceCalculator:
    """Return gradient products in all weights over all checkpoints."""
    models, rates, _ = scene.checkpoints
    return dd.TracIn(models, scene.train, learning_rates=rates, weights="all")


def unrolled(scene: Scene) -> dd.BaseInfluenceCalculator:
    """Return derivatives of the loss of the network's prediction through a recorded training of its like."""
    keras.utils.set_random_seed(0)
    network = keras.models.clone_model(scene.checkpoints.models[-1].model)
    training = record_training(
        network, scene.train, epochs=EPOCHS, batch_size=32,
        optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-4),
        loss_function=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )  # fmt: skip
    return dd.UnrolledInfluenceCalculator(network, scene.train, training=training, target=scene.predicted)


PICTURES: dict[str, dict[str, Build]] = {
    "dualview": {"DualView": lambda s: dd.DualView(*s.one)},
    "representer_points": {
        "RepresenterPointL2": lambda s: dd.RepresenterPointL2(*s.one),
        "RepresenterPointLJE": lambda s: dd.RepresenterPointLJE(*s.one),
    },
    "influence_functions": {
        "First order": lambda s: dd.FirstOrderInfluenceCalculator(*s.one),
        "Leverage corrected": lambda s: dd.LeverageCorrectedInfluenceCalculator(*s.one),
    },
    "relatif": {
        "RelatIF, theta": lambda s: dd.RelatIF(*s.one),
        "RelatIF, loss": lambda s: dd.RelatIF(*s.one, normalisation="loss"),
    },
    "arnoldi": {"Arnoldi, all weights": arnoldi},
    "ekfac": {"EK-FAC, all weights": ekfac},
    "trak": {
        "Trak, last layer": lambda s: dd.Trak(*s.one),
        "Trak, all weights, 512 projections": lambda s: dd.Trak(
            *s.one, weights="all", projection=dd.FactoredProjection(512), relative_damping=1e-3
        ),
    },
    "tracin": {"TracIn, all weights": tracin},
    "unrolled": {"Unrolled differentiation, all weights": unrolled},
    "gradient_products": {
        "GradDot": lambda s: dd.GradDot(*s.one),
        "GradCos": lambda s: dd.GradCos(*s.one),
        "SIM: GradCos of the logits, only the training side at unit length": lambda s: dd.GradCos(
            *s.one, function="logit", normalize="train"
        ),
    },
    "feature_similarity": {
        "Cosine": lambda s: dd.FeatureSimilarity(*s.one),
        "Euclidean": lambda s: dd.FeatureSimilarity(*s.one, similarity="euclidean"),
    },
}
OVERVIEW = {
    "DualView": PICTURES["dualview"]["DualView"],
    "Representer L2": PICTURES["representer_points"]["RepresenterPointL2"],
    "Representer LJE": PICTURES["representer_points"]["RepresenterPointLJE"],
    "Influence function": PICTURES["influence_functions"]["First order"],
    "RelatIF": PICTURES["relatif"]["RelatIF, theta"],
    "EK-FAC, all weights": ekfac,
    "Arnoldi, all weights": arnoldi,
    "TRAK": PICTURES["trak"]["Trak, last layer"],
    "TracIn, all weights": tracin,
    "GradDot": PICTURES["gradient_products"]["GradDot"],
    "GradCos": PICTURES["gradient_products"]["GradCos"],
    "Features, cosine": PICTURES["feature_similarity"]["Cosine"],
}


def make_scene(directory: pathlib.Path) -> Scene:
    """Train the demo's network with checkpoints and find its surest wrong prediction."""
    demo = make_demo()
    images, labels = (np.concatenate(parts) for parts in zip(*demo.train.as_numpy_iterator(), strict=True))
    network = keras.models.clone_model(demo.model)
    network.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    saving = dd.SaveCheckpoints(directory, every=EPOCHS // 4)
    network.fit(images, labels, batch_size=32, epochs=EPOCHS, verbose=0, callbacks=[saving])
    tests = next(demo.test.unbatch().batch(10_000).as_numpy_iterator())
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(network(tests[0])))
    is_wrong = probabilities.argmax(axis=1) != tests[1]
    surest = int(np.argmax(probabilities.max(axis=1) * is_wrong))
    query = tf.data.Dataset.from_tensors(tuple(part[surest : surest + 1] for part in tests))
    return Scene(
        dd.load_checkpoints(directory, network),
        demo.train,
        images[..., 0],
        labels,
        demo.original_labels,
        query,
        int(probabilities[surest].argmax()),
    )


def frame(axes: Axes, image: np.ndarray, colour: str, width: float = 1.6) -> None:
    """Draw one digit in a coloured frame."""
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=width)


def draw_example(axes: Axes, scene: Scene, index: int, colour: str, value: float | None) -> None:
    """Draw a training example, its label, the truth if that is another, and its value."""
    frame(axes, scene.images[index], colour)
    is_swapped = scene.labels[index] != scene.truth[index]
    said = f"{scene.labels[index]} (a {scene.truth[index]})" if is_swapped else f"{scene.labels[index]}"
    axes.set_title(said, fontsize=8, pad=2.5, color=INK, fontweight="bold" if is_swapped else "normal")
    if value is not None:
        axes.set_xlabel(
            f"{value:+.2g}".replace("-", "−") if value else "0", fontsize=7, labelpad=2, color=GREY
        )


def draw_query(axes: Axes, scene: Scene) -> None:
    """Draw the test digit, what the network says and what it is."""
    image, label = next(scene.query.as_numpy_iterator())
    frame(axes, image[0, ..., 0], INK, 1.2)
    axes.set_title(f"predicted {scene.predicted}", fontsize=9, pad=4, color=INK)
    axes.set_xlabel(f"is a {label[0]}", fontsize=9, labelpad=4, color=INK)


def draw_panel(panel: SubFigure, scene: Scene, title: str, calculator: dd.BaseInfluenceCalculator) -> None:
    """Draw the test digit, and its first proponents and opponents in two rows."""
    panel.text(0.012, 0.93, title, va="center", fontsize=10.5, fontweight="bold", color=INK)
    widths = [1.55, 0.28, *[1] * NUM_SHOWN]
    grid = panel.add_gridspec(
        2,
        len(widths),
        width_ratios=widths,
        left=0.012,
        right=0.988,
        top=0.79,
        bottom=0.1,
        hspace=0.75,
        wspace=0.2,
    )
    draw_query(panel.add_subplot(grid[:, 0]), scene)
    for row, (name, (order, colour)) in enumerate(ORDERS.items()):
        values, indices = next(calculator.top_k_indices(scene.query, NUM_SHOWN, order).as_numpy_iterator())
        for column, (value, index) in enumerate(zip(values[0], indices[0], strict=True)):
            axes = panel.add_subplot(grid[row, column + 2])
            draw_example(axes, scene, int(index), colour if value else GREY, float(value))
            if column == 0:
                axes.set_ylabel(name, fontsize=8, color=colour, labelpad=5)


def draw_method(scene: Scene, methods: dict[str, Build]) -> Figure:
    """Draw one panel a variant, one below the other."""
    figure = Figure(figsize=(7.6, 2.45 * len(methods)), facecolor="white")
    panels = figure.subfigures(len(methods), 1, squeeze=False)[:, 0]
    for panel, (title, build) in zip(panels, methods.items(), strict=True):
        draw_panel(panel, scene, title, build(scene))
    return figure


def draw_overview(scene: Scene, num_for: int = 6, num_against: int = 4) -> Figure:
    """Draw a row a method: proponents on the left, opponents on the right."""
    widths = [2.6, *[1] * num_for, 0.5, *[1] * num_against]
    figure = Figure(figsize=(7.6, 0.74 * len(OVERVIEW) + 0.95), facecolor="white")
    grid = figure.add_gridspec(
        len(OVERVIEW), len(widths), width_ratios=widths, left=0.01, right=0.99, top=0.895, bottom=0.01,
        hspace=0.6, wspace=0.1,
    )  # fmt: skip
    draw_query(figure.add_axes((0.03, 0.922, 0.07, 0.054)), scene)
    for row, (name, build) in enumerate(OVERVIEW.items()):
        calculator = build(scene)
        title = figure.add_subplot(grid[row, 0])
        title.axis("off")
        title.text(0, 0.5, name, va="center", fontsize=9, color=INK, transform=title.transAxes)
        first = 1
        for (order, colour), count in zip(ORDERS.values(), (num_for, num_against), strict=True):
            _, indices = next(calculator.top_k_indices(scene.query, count, order).as_numpy_iterator())
            for column, index in enumerate(indices[0]):
                draw_example(figure.add_subplot(grid[row, first + column]), scene, int(index), colour, None)
            first += count + 1
    for x, (name, (_, colour)) in zip((0.2, 0.66), ORDERS.items(), strict=True):
        figure.text(x, 0.932, name, fontsize=10, fontweight="bold", color=colour)
    return figure


def draw_boundaries(scene: Scene, num_shown: int = 9) -> Figure:
    """Draw the training examples nearest to the decision boundary, in weights and in inputs."""
    calculators = {
        "WeightsBoundaryCalculator, last layer": dd.WeightsBoundaryCalculator,
        "SampleBoundaryCalculator": dd.SampleBoundaryCalculator,
    }
    figure = Figure(figsize=(7.6, 3.0), facecolor="white")
    panels = figure.subfigures(2, 1)
    for panel, (title, build) in zip(panels, calculators.items(), strict=True):
        panel.text(0.012, 0.89, title, va="center", fontsize=10.5, fontweight="bold", color=INK)
        grid = panel.add_gridspec(1, num_shown, left=0.012, right=0.988, top=0.66, bottom=0.14, wspace=0.2)
        values = np.concatenate(list(build(*scene.one).compute_influence_values()))
        for column, index in enumerate(np.argsort(-values, kind="stable")[:num_shown]):
            draw_example(panel.add_subplot(grid[column]), scene, int(index), BLUE, float(values[index]))
    return figure


def save(figure: Figure, path: pathlib.Path) -> None:
    """Write a PNG in few colours, so that it stays small."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    picture = Image.open(buffer).convert("RGB")
    picture.quantize(48, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Draw all pictures, or those that are named."""
    drawings: dict[str, Callable[[Scene], Figure]] = {
        name: lambda scene, methods=methods: draw_method(scene, methods) for name, methods in PICTURES.items()
    } | {"boundary": draw_boundaries, "overview": draw_overview}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = pathlib.Path(__file__).parent / "assets" / "methods"
    parser.add_argument("--output", type=pathlib.Path, default=default, help="directory of the pictures")
    parser.add_argument("--only", nargs="+", choices=drawings, default=list(drawings))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        scene = make_scene(pathlib.Path(folder))
    for name in options.only:
        save(drawings[name](scene), options.output / f"{name}.png")


if __name__ == "__main__":
    main()
