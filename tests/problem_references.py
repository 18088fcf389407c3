"""Losses of the problems in the usual form, in plain float64 NumPy.

`REFERENCES[name](data, params)` takes the data and parameters of one
instance, without the leading axis, and subtracts the known minimum at the end.
"""

import itertools
import math

import numpy as np

PI, E = math.pi, math.e


def ackley(x, y):
    rho = math.sqrt(0.5 * (x * x + y * y))
    waves = 0.5 * (math.cos(2 * PI * x) + math.cos(2 * PI * y))
    return -20 * math.exp(-0.2 * rho) - math.exp(waves) + E + 20


def beale(x, y):
    pairs = ((1, 1.5), (2, 2.25), (3, 2.625))
    return sum((c - x + x * y**k) ** 2 for k, c in pairs)


def branin(x, y):
    b, c, t = 5.1 / (4 * PI**2), 5 / PI, 1 / (8 * PI)
    square = (y - b * x**2 + c * x - 6) ** 2
    return square + 10 * (1 - t) * math.cos(x) + 10 - 0.397887


def styblinski_tang(x, y):
    return sum(t**4 - 16 * t**2 + 5 * t for t in (x, y)) / 2 + 78.33233


def michalewicz(x, y):
    total = 1.8013034
    for i, t in ((1, x), (2, y)):
        inside = min(max(t, 0.0), PI)
        total -= math.sin(inside) * math.sin(i * inside**2 / PI) ** (2 * 10)
        total += (t - inside) ** 2
    return total


CLASSIC = {
    "rosenbrock": lambda x, y: 100 * (y - x * x) ** 2 + (x - 1) ** 2,
    "ackley": ackley,
    "beale": beale,
    "booth": lambda x, y: (x + 2 * y - 7) ** 2 + (2 * x + y - 5) ** 2,
    "styblinski_tang": styblinski_tang,
    "matyas": lambda x, y: 0.26 * (x * x + y * y) - 0.48 * x * y,
    "branin": branin,
    "michalewicz": michalewicz,
}


def log_sum_exp(data, params):
    rows = np.concatenate([data["rows"], -data["rows"]])
    exponents = rows @ (params[0] - data["centre"])
    return math.log(np.sum(np.exp(exponents))) - math.log(len(rows))


def quadratic(data, params):
    offset = params[0] - data["centre"]
    return offset @ (data["matrix"].T @ data["matrix"]) @ offset / 2


def norm(data, params):
    p = float(data["exponent"][0])
    offset = np.abs(params[0] - data["centre"])
    return np.mean(offset**p) ** (1 / p)


def logistic_regression(data, params):
    total, (w, b) = 0.0, params
    for x, label in zip(data["x"], data["y"], strict=True):
        assert label in (-1, 1)
        # The probability of the row's label.
        total -= math.log(1 / (1 + math.exp(-label * (w @ x + b))))
    return total / len(data["x"])


def softmax_regression(data, params):
    return cross_entropy(data["x"] @ params[0] + params[1], data["y"])


def minibatch_quadratic(data, params):
    # The mean over all 1,024 sign vectors s of (v . theta)^2, v = M^T s.
    signs = np.array(list(itertools.product((-1, 1), repeat=10)))
    return np.mean((signs @ data["matrix"] @ params[0]) ** 2)


def oscillating_valley(data, params):
    first, *others = params[0]
    walls = 0.0
    for k, theta in enumerate(others):
        angle = first / data["wave"][0] + data["phase"][k]
        walls += (theta - data["amplitude"][k] * math.sin(angle)) ** 2
    fall = math.log(1 + math.exp(-first / data["length"]))
    return fall + walls / len(others)


def dependency_chain(data, params):
    total, product = 0.0, 1.0
    for u in params[0] - data["centre"]:
        product /= 1 + u * u
        total += 1 - product
    return total / len(params[0])


def rosenbrock_chain(data, params):
    k, theta = data["strength"][0], params[0]
    terms = [
        (1 - a) ** 2 + k * (b - a * a) ** 2
        for a, b in itertools.pairwise(theta)
    ]
    return sum(terms) / len(terms)


def min_max(data, params):
    offset = sorted(params[0] - data["centre"])
    return offset[0] ** 2 + offset[-1] ** 2


def factors(data, params):
    got, wanted = (np.linalg.multi_dot((*p, np.eye(p[-1].shape[-1])))
                   for p in (params, data["factors"]))  # fmt: skip
    return np.mean((got - wanted) ** 2)


def matrix_inverse(data, params):
    return np.mean((data["matrix"] @ params[0] - np.eye(6)) ** 2)


def cross_entropy(logits, labels):
    total = 0.0
    for row, label in zip(logits, labels.astype(int), strict=True):
        total += math.log(np.sum(np.exp(row))) - row[label]
    return total / len(logits)


ACTIVATIONS = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": np.vectorize(lambda x: x * (1 + math.erf(x / 2**0.5)) / 2),
}


def mlp(activation, normalized=False, regression=False):
    def loss(data, params):
        x, params = data["x"], list(params)
        while len(params) > 2:
            x = x @ params.pop(0) + params.pop(0)
            if normalized:
                gain, shift = 1 + params.pop(0), params.pop(0)
                centred = x - x.mean(1, keepdims=True)
                x = centred / np.sqrt(x.var(1, keepdims=True) + 1e-3)
                x = x * gain + shift
            x = ACTIVATIONS[activation](x)
        outputs = x @ params[0] + params[1]
        if regression:
            return np.mean((outputs - data["y"]) ** 2)
        return cross_entropy(outputs, data["y"])

    return loss


def convolution(x, w, b, stride):
    return np.maximum(correlation(x, w, stride) + b, 0)


def correlation(x, w, stride):
    size = (x.shape[1] - len(w)) // stride + 1
    out = np.zeros((len(x), size, size, w.shape[-1]))
    for i, j in itertools.product(range(size), repeat=2):
        rows = slice(i * stride, i * stride + 3)
        columns = slice(j * stride, j * stride + 3)
        out[:, i, j] = np.tensordot(x[:, rows, columns], w, 3)
    return out


def convnet(data, params):
    w1, b1, w2, b2, w3, b3 = params
    x = convolution(convolution(data["x"], w1, b1, 2), w2, b2, 1)
    return cross_entropy(x.mean((1, 2)) @ w3 + b3, data["y"])


def residual(data, params):
    params = list(params)

    def normalized(x):
        gain, shift = 1 + params.pop(0), params.pop(0)
        x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3)
        return np.maximum(x * gain + shift, 0)

    x = correlation(data["x"], params.pop(0), 2)
    while len(params) > 4:
        branch = x
        for _ in range(2):
            branch = np.pad(
                normalized(branch), ((0, 0), (1, 1), (1, 1), (0, 0))
            )
            branch = correlation(branch, params.pop(0), 1)
        x = x + branch
    x = normalized(x).mean((1, 2))
    return cross_entropy(x @ params[0] + params[1], data["y"])


def recurrent(data, params):
    w_x, w_h, b_h, w_y, b_y = params
    h = np.zeros((len(data["x"]), len(w_h)))
    for x in np.swapaxes(data["x"], 0, 1):
        h = np.tanh(x @ w_x + h @ w_h + b_h)
    return cross_entropy(h @ w_y + b_y, data["y"])


def bigram(data, params):
    embedding, w, b = params
    words = embedding[data["x"].astype(int)]
    return cross_entropy(words @ w + b, data["y"])


def plain_network(x, params, activation):
    params = list(params)
    while len(params) > 2:
        x = ACTIVATIONS[activation](x @ params.pop(0) + params.pop(0))
    return x @ params[0] + params[1]


def softmax_logarithm(logits):
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def kl(wanted, logits):
    other = softmax_logarithm(logits)
    return np.mean(np.sum(np.exp(wanted) * (wanted - other), axis=-1))


def stream_labels(data, params):
    outputs = plain_network(data["held"], params, "relu")
    return kl(softmax_logarithm(data["wanted"]), outputs)


def stream_values(data, params):
    outputs = plain_network(data["held"], params, "tanh")
    return np.mean((outputs - data["wanted"]) ** 2)


def posterior(data):
    square = np.sum(
        (data["held"][:, None] - data["templates"][None]) ** 2, axis=-1
    )
    return softmax_logarithm(-square / (2 * data["sd"].item() ** 2))


def stream_templates(data, params):
    return kl(posterior(data), plain_network(data["held"], params, "relu"))


def stream_denoising(data, params):
    best = np.exp(posterior(data)) @ data["templates"]
    outputs = plain_network(data["held"], params, "relu")
    return np.mean((outputs - best) ** 2)


def stream_autoencoder(data, params):
    x = data["held"]
    chance = sigmoid(plain_network(x, params, "sigmoid"))
    return -np.mean(np.log(np.where(x == 1, chance, 1 - chance)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def stream_text(data, params):
    table, *core = params
    words = data["held"].astype(int)
    h = np.tanh(table[words] @ core[0] + core[1])
    return kl(data["wanted"], h @ core[2] + core[3])


def stream_topics(data, params):
    table, *network = params
    held = data["held"].astype(int)
    each = np.diff(data["below"], prepend=0.0)
    likelihood = np.log(each)[:, held].sum(-1).T
    logits = plain_network(table[held].mean(1), network, "relu")
    return kl(softmax_logarithm(likelihood), logits)


def stream_ratings(data, params):
    def ratings(u, v, a, b):
        return u @ v.T + a[:, None] + b

    square = (ratings(*params) - ratings(*data["true"])) ** 2
    users, items = (1 / np.arange(2.0, n + 2) for n in square.shape)
    return users @ square @ items / users.sum() / items.sum()


def plane(function):
    return lambda data, params: function(*map(float, params[0]))


REFERENCES = {
    **{name: plane(function) for name, function in CLASSIC.items()},
    "log_sum_exp": log_sum_exp,
    "quadratic_5": quadratic,
    "quadratic_20": quadratic,
    "quadratic_100": quadratic,
    "norm": norm,
    "logistic_regression": logistic_regression,
    "logistic_regression_overlapping": logistic_regression,
    "softmax_regression": softmax_regression,
    "softmax_regression_positive": softmax_regression,
    "minibatch_quadratic": minibatch_quadratic,
    "oscillating_valley": oscillating_valley,
    "dependency_chain": dependency_chain,
    "rosenbrock_chain": rosenbrock_chain,
    "min_max": min_max,
    "matrix_factorization": factors,
    "matrix_product": factors,
    "matrix_inverse": matrix_inverse,
    "mlp_sigmoid": mlp("sigmoid"),
    "mlp_tanh": mlp("tanh"),
    "mlp_relu": mlp("relu"),
    "mlp_gelu": mlp("gelu"),
    "mlp_relu_normalized": mlp("relu", normalized=True),
    "mlp_tanh_regression": mlp("tanh", regression=True),
    "convnet": convnet,
    "residual": residual,
    "recurrent": recurrent,
    "bigram": bigram,
    "stream_dense_8_16_4_relu": stream_labels,
    "stream_values_dense_4_8_2_tanh": stream_values,
    "stream_values_dense_16_1": stream_values,
    "stream_templates_dense_16_12_6_relu": stream_templates,
    "stream_denoising_dense_16_12_16_relu": stream_denoising,
    "stream_autoencoder_dense_12_6_12_sigmoid": stream_autoencoder,
    "stream_text_dense_24": stream_text,
    "stream_topics_bag_of_words": stream_topics,
    "stream_ratings": stream_ratings,
}
