"""Rules besides layer-wise relevance propagation follow their formulas, and say what they cannot explain."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import DualRelevance, DualView, FeatureSimilarity, GradDot, InfluenceModel
from deel_dualview.relevance import GradCAM, GradientsInputs, IntegratedGradients, Occlusion, SmoothGrad
from deel_dualview.relevance.back_ends import BACK_ENDS

SHAPE = (6, 6, 2)
OTHERS = ["grad-cam", "integrated-gradients", "smoothgrad", "gradients-inputs", "occlusion"]
CALCULATORS = {
    "DualView": lambda model, train: DualView(model, train, K=0.1),
    "standardized": lambda model, train: DualView(model, train, K=1.0, kernel="standardized"),
    "GradDot": GradDot,
}


def network(activation="softplus"):
    """Smooth by default, so that finite differences and integrals converge."""
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(5, 3, activation=activation, name="maps")(inputs)
    x = layers.Dense(7, activation=activation)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


class Problem:
    def __init__(self):
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        self.labels = rng.integers(0, 3, 24)
        self.images = rng.uniform(size=(30, *SHAPE)).astype(np.float32)
        self.train = tf.data.Dataset.from_tensor_slices((self.images[:24], self.labels)).batch(8)
        self.test = tf.data.Dataset.from_tensors(self.images[24:27])
        self.model = InfluenceModel(network())


@pytest.fixture(scope="module")
def problem():
    return Problem()


@pytest.fixture(scope="module", params=CALCULATORS.values(), ids=CALCULATORS)
def calculator(request, problem):
    return request.param(problem.model, problem.train)


@pytest.fixture(scope="module")
def similarity(problem):
    return FeatureSimilarity(problem.model, problem.train, similarity="dot")


def explained(calculator, rule, test, k=2):
    return next(iter(DualRelevance(calculator, rule).explain(test, k=k)))


def values_of(calculator, pair, query, rank, *, train=None, test=None):
    """The influence of one pair, with each of some images in the place of one, apart from the constant feature."""
    from deel_dualview.calculators.contributions import Pairs

    top = pair.top
    images = [np.asarray(top.training_samples[0])[query, rank][np.newaxis] if train is None else train]
    images.append(np.asarray(top.samples)[query][np.newaxis] if test is None else test)
    num = max(len(given) for given in images)
    features = [tf.repeat(calculator.model.features(given), num // len(given), axis=0) for given in images]
    index = np.repeat(np.asarray(top.training_indices)[query, rank], num)
    label = np.repeat(np.asarray(top.training_samples[1])[query, rank], num)
    pairs = Pairs(features[1], np.repeat(np.asarray(pair.classes)[query], num), features[0], label, index)
    return np.sum(calculator.feature_contributions(pairs).features, axis=1, dtype=np.float64)


def value_of(calculator, pair, query, rank, **replaced):
    """The influence of one pair, with another image in the place of one, apart from the constant feature."""
    (value,) = values_of(
        calculator, pair, query, rank, **{side: image[np.newaxis] for side, image in replaced.items()}
    )
    return value


@pytest.mark.parametrize("rule", OTHERS)
def test_relevance_is_finite_of_the_right_shape_and_its_leak_is_told(calculator, problem, rule):
    pair = explained(calculator, rule, problem.test, k=4)
    values = np.asarray(pair.top.influence_values)
    for relevance, leak in ((pair.train_relevance, pair.train_leak), (pair.test_relevance, pair.test_leak)):
        assert relevance.shape == (3, 4, *SHAPE)
        assert np.isfinite(relevance).all() and np.any(np.asarray(relevance) != 0)
        total = np.sum(relevance, axis=(2, 3, 4)) + leak + pair.bias_share
        np.testing.assert_allclose(total, values, atol=1e-5 * np.abs(values).max())


def test_gradients_inputs_is_the_input_times_what_a_small_change_of_it_does(calculator, problem):
    pair = explained(calculator, "gradients-inputs", problem.test)
    step = 1e-2
    for side, image, found in (
        ("train", np.asarray(pair.top.training_samples[0])[1, 1], pair.train_relevance),
        ("test", np.asarray(pair.top.samples)[1], pair.test_relevance),
    ):
        changes = step * np.eye(image.size, dtype=np.float32).reshape(-1, *SHAPE)  # one number at a time
        up, down = (values_of(calculator, pair, 1, 1, **{side: image + sign * changes}) for sign in (1, -1))
        expected = image * (up - down).reshape(SHAPE) / (2 * step)
        np.testing.assert_allclose(found[1, 1], expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_integrated_gradients_add_up_to_the_influence_less_that_of_the_baseline(
    calculator, problem, baseline
):
    rule = IntegratedGradients(num_steps=40, baseline=baseline)
    pair = explained(calculator, rule, problem.test)
    blank = np.full(SHAPE, baseline, np.float32)
    for query, rank in ((0, 0), (2, 1)):
        whole = value_of(calculator, pair, query, rank)
        for relevance, side in ((pair.train_relevance, "train"), (pair.test_relevance, "test")):
            expected = whole - value_of(calculator, pair, query, rank, **{side: blank})
            np.testing.assert_allclose(
                np.sum(relevance[query, rank]), expected, atol=2e-3 * max(abs(whole), 1e-6)
            )


def test_smoothgrad_of_a_linear_influence_is_gradients_inputs(rng):
    """The gradient is the same everywhere, so that noise changes nothing."""
    inputs = keras.Input((5,))
    model = InfluenceModel(keras.Sequential([inputs, layers.Dense(4), layers.Dense(3)]))
    rows = rng.normal(size=(12, 5)).astype(np.float32)
    train = tf.data.Dataset.from_tensor_slices((rows, np.arange(12) % 3)).batch(5)
    calculator = FeatureSimilarity(model, train, similarity="dot")
    queries = tf.data.Dataset.from_tensors(rows[:2])
    found = [explained(calculator, rule, queries) for rule in (SmoothGrad(noise=0.5), GradientsInputs())]
    np.testing.assert_allclose(found[0].test_relevance, found[1].test_relevance, rtol=1e-4, atol=1e-5)


def test_smoothgrad_averages_gradients_at_noisy_copies(similarity, problem):
    rule = SmoothGrad(num_samples=3, noise=0.3, seed=5)
    pair = explained(similarity, rule, problem.test)
    image = np.asarray(pair.top.samples)[0]
    noise = np.asarray(tf.random.stateless_normal((1, 3, *SHAPE), (5, 0)))[0] * 0.3 * np.ptp(image)
    partner = similarity.model.features(pair.top.training_samples[0][0, :1])
    copies = tf.constant(image + noise)
    with tf.GradientTape() as tape:
        tape.watch(copies)
        total = tf.reduce_sum(similarity.model.features(copies) * partner)
    sign = np.sign(np.asarray(pair.top.influence_values)[0, 0])
    expected = sign * image * np.mean(tape.gradient(total, copies), axis=0)
    np.testing.assert_allclose(pair.test_relevance[0, 0], expected, rtol=1e-3, atol=1e-4)


def test_noise_does_not_change_from_run_to_run_nor_with_the_batch_size(similarity, problem):
    pairs = [
        next(iter(DualRelevance(similarity, "smoothgrad", batch_size=size).explain(problem.test, k=2)))
        for size in (2, 64)
    ]
    np.testing.assert_allclose(pairs[0].train_relevance, pairs[1].train_relevance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fill", [None, 0.25])
def test_occlusion_is_what_a_covered_patch_takes_away(calculator, problem, fill):
    pair = explained(calculator, Occlusion(size=4, fill=fill), problem.test)
    image = np.array(pair.top.training_samples[0])[0, 1]
    for rows, columns in ((slice(0, 4), slice(4, 6)), (slice(4, 6), slice(4, 6))):
        covered = image.copy()
        covered[rows, columns] = image.mean(axis=(0, 1)) if fill is None else fill
        lost = value_of(calculator, pair, 0, 1) - value_of(calculator, pair, 0, 1, train=covered)
        patch = np.asarray(pair.train_relevance)[0, 1, rows, columns]
        np.testing.assert_allclose(patch, lost / patch.size, rtol=1e-3, atol=1e-6)


def test_grad_cam_adds_up_where_features_are_means_of_the_maps(problem):
    inputs = keras.Input((8, 8, 2))
    maps = layers.Conv2D(5, 3, strides=2, padding="same", activation="relu")(inputs)
    outputs = layers.Dense(3)(layers.GlobalAveragePooling2D()(maps))
    images = np.random.default_rng(1).uniform(size=(12, 8, 8, 2)).astype(np.float32)
    train = tf.data.Dataset.from_tensor_slices((images, np.arange(12) % 3)).batch(6)
    model = InfluenceModel(keras.Model(inputs, outputs))
    calculator = FeatureSimilarity(model, train, similarity="dot")
    pair = explained(calculator, "grad-cam", tf.data.Dataset.from_tensors(images[:2]))
    values = np.asarray(pair.top.influence_values)
    # Of a last layer with a bias nothing is left out: the influence is that of the features alone.
    np.testing.assert_allclose(np.sum(pair.test_relevance, axis=(2, 3, 4)), values, rtol=1e-3)
    # The naive twin: the mean of the maps is the feature, its weight the partner's.
    own = np.asarray(keras.Model(inputs, maps)(images[:1]), np.float64)[0]
    partner = own_means(keras.Model(inputs, maps)(pair.top.training_samples[0][0, :1]))[0]
    sign = np.sign(np.asarray(pair.top.influence_values)[0, 0])
    cam = sign * (own * partner / 16).sum(axis=2)
    enlarged = np.asarray(tf.image.resize(cam[..., np.newaxis], (8, 8)))[..., 0] / 4
    np.testing.assert_allclose(np.sum(pair.test_relevance[0, 0], axis=-1), enlarged, rtol=1e-3, atol=1e-6)


def own_means(maps):
    return np.mean(np.asarray(maps, np.float64), axis=(1, 2))


def test_grad_cam_takes_the_layer_that_it_is_told(similarity, problem):
    found = [explained(similarity, rule, problem.test) for rule in (GradCAM(), GradCAM("maps"))]
    np.testing.assert_allclose(found[0].test_relevance, found[1].test_relevance)
    with pytest.raises(ValueError, match="Grad-CAM needs a layer whose output is a map.*layer='absent'"):
        explained(similarity, GradCAM("absent"), problem.test)


@pytest.fixture(scope="module")
def of_integers_and_floats(problem):
    """Calculators of the same images as bytes and as floats, and images to explain."""
    images, made = (255 * problem.images).astype(np.uint8), []
    parts = [layers.Rescaling(1 / 255), *network().layers[1:]]
    for dtype in ("uint8", "float32"):
        whole = keras.Sequential([keras.Input(SHAPE, dtype=dtype), *parts])
        train = tf.data.Dataset.from_tensor_slices((images[:24].astype(dtype), problem.labels)).batch(8)
        test = tf.data.Dataset.from_tensors(images[24:26].astype(dtype))
        made.append((FeatureSimilarity(InfluenceModel(whole), train), test))
    return made


@pytest.mark.parametrize("rule", OTHERS)
def test_images_of_integers_are_explained_as_those_of_floats(of_integers_and_floats, rule):
    found = [
        np.asarray(explained(calculator, rule, test).test_relevance)
        for calculator, test in of_integers_and_floats
    ]
    assert np.any(found[0] != 0)
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Every influence value:UserWarning")
def test_features_of_zeros_pass_on_nothing(problem):
    """The cosine has no gradient where the features are all zero."""
    dead = keras.Model(
        *(lambda x: (x, layers.Dense(3)(layers.ReLU()(layers.Flatten()(x)))))(keras.Input(SHAPE))
    )
    images = problem.images.copy()
    images[24:] *= -1
    train = tf.data.Dataset.from_tensor_slices((images[:24], problem.labels)).batch(8)
    pair = explained(
        FeatureSimilarity(InfluenceModel(dead), train),
        "gradients-inputs",
        tf.data.Dataset.from_tensors(images[24:26]),
    )
    np.testing.assert_array_equal(pair.test_relevance, 0.0)
    assert np.isfinite(pair.train_relevance).all()


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.flatten, self.hidden, self.dense = layers.Flatten(), layers.Dense(4, "tanh"), layers.Dense(3)

    def call(self, inputs):
        return self.dense(self.hidden(self.flatten(inputs)))


def test_subclassed_models_are_explained_by_rules_that_only_call_them(problem):
    model = Subclassed()
    model(np.zeros((1, *SHAPE), np.float32))
    calculator = FeatureSimilarity(InfluenceModel(model), problem.train)
    for rule in ("integrated-gradients", "occlusion"):
        assert np.any(np.asarray(explained(calculator, rule, problem.test).test_relevance) != 0)
    with pytest.raises(ValueError, match="a subclassed model"):
        DualRelevance(calculator, "grad-cam")


@pytest.fixture(scope="module")
def tokens():
    model = keras.Sequential(
        [keras.Input((6,), dtype="int32"), layers.Embedding(9, 4), layers.GlobalAveragePooling1D()]
        + [layers.Dense(3)]
    )
    rows = np.random.default_rng(0).integers(0, 9, (12, 6)).astype(np.int32)
    train = tf.data.Dataset.from_tensor_slices((rows, np.arange(12) % 3)).batch(6)
    return FeatureSimilarity(InfluenceModel(model), train), tf.data.Dataset.from_tensors(rows[:2])


@pytest.mark.parametrize("rule", ["integrated-gradients", "smoothgrad", "gradients-inputs"])
def test_inputs_that_are_not_differentiable_are_refused_before_any_work(tokens, rule):
    with pytest.raises(ValueError, match=r"needs the gradient.*tokens.*'epsilon-plus'.*model="):
        DualRelevance(tokens[0], rule)


@pytest.mark.parametrize("rule", ["occlusion"])
def test_occlusion_of_tokens_is_refused(tokens, rule):
    with pytest.raises(ValueError, match="explains images"):
        explained(*[tokens[0], rule, tokens[1]])


def test_several_inputs_are_refused(rng):
    inputs = [keras.Input((4,)), keras.Input((4,))]
    model = keras.Model(inputs, layers.Dense(3)(layers.Dense(5)(layers.Concatenate()(inputs))))
    rows = tuple(rng.normal(size=(12, 4)).astype(np.float32) for _ in range(2))
    train = tf.data.Dataset.from_tensor_slices((rows, np.arange(12) % 3)).batch(6)
    calculator = FeatureSimilarity(InfluenceModel(model), train)
    with pytest.raises(ValueError, match="one input tensor.*inputs=2"):
        explained(calculator, "integrated-gradients", train)


@pytest.mark.parametrize("rule", [rule for rule in OTHERS if rule != "occlusion"])
def test_without_tf_explain_the_command_that_installs_it_is_told(similarity, rule, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf_explain", None)
    with pytest.raises(ImportError, match=r"pip install 'deel-dualview\[tf-explain\]'"):
        DualRelevance(similarity, rule)


def test_an_unknown_rule_is_refused_with_all_names(similarity):
    with pytest.raises(ValueError, match="grad-cam.*occlusion.*Received: rule='deeplift'"):
        DualRelevance(similarity, "deeplift")
    assert set(OTHERS) < set(BACK_ENDS)


@pytest.mark.parametrize(
    "make",
    [
        lambda: IntegratedGradients(num_steps=0),
        lambda: SmoothGrad(num_samples=0),
        lambda: SmoothGrad(noise=0.0),
        lambda: Occlusion(size=0),
    ],
)
def test_settings_that_make_no_rule_are_refused(make):
    with pytest.raises(ValueError, match="must be"):
        make()
