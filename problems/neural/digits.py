"""Small networks on real data, for evaluation only, never meta-training."""

import keras


def digits_convnet(seed: int = 0) -> keras.Model:
    """A ConvNet of two layers for the digits: 8 tensors, 13,178 parameters.

    Args:
        seed: seed of the initial weights.
    """
    seeds = keras.random.SeedGenerator(seed)

    def initializer():
        return keras.initializers.GlorotUniform(seed=seeds)

    return keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.Conv2D(
                16, 3, activation="relu", kernel_initializer=initializer()
            ),
            keras.layers.Conv2D(
                32, 3, activation="relu", kernel_initializer=initializer()
            ),
            keras.layers.Flatten(),
            keras.layers.Dense(
                16, activation="relu", kernel_initializer=initializer()
            ),
            keras.layers.Dense(10, kernel_initializer=initializer()),
        ]
    )


def digits_mlp(seed: int = 0) -> keras.Model:
    """An MLP of two hidden ReLU layers for the digits: 26,122 parameters.

    Args:
        seed: seed of the initial weights.
    """
    seeds = keras.random.SeedGenerator(seed)

    def dense(units, activation=None):
        return keras.layers.Dense(
            units,
            activation=activation,
            kernel_initializer=keras.initializers.GlorotUniform(seed=seeds),
        )

    return keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.Flatten(),
            dense(128, "relu"),
            dense(128, "relu"),
            dense(10),
        ]
    )
