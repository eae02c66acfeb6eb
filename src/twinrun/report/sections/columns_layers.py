"""How the columns of layers and features read: heading, number format, meaning; plain text, no imports."""

_MEASURE = ".4f"
LAYER_COLUMNS: dict[str, tuple[str, str, str]] = {
    "layer": ("Layer", "", "parameter tensor, in the network's order; `head`: the last layer, weight and bias"),
    "depth": ("Depth", "", "third of the layers with two dimensions or more, by their place in the network"),
    "layers": ("Layers", "d", "layers that the mean is over"),
    "parameters": ("Parameters", "d", "numbers in the tensor"),
    "recorded": ("Recorded", "d", "numbers that the runs recorded of it: all, or a sample"),
    "layer_distance": ("Distance", _MEASURE, "|w1 - w2| / ((|w1| + |w2|) / 2), mean over pairs and cells"),
    "layer_distance_se": ("SE", _MEASURE, "standard error of the distance from sampling coordinates"),
    "layer_cosine": ("Cosine", ".6f", "cosine of the weights, mean over pairs and cells"),
    "layer_cosine_se": ("SE", ".6f", "standard error of the cosine from sampling coordinates"),
    "layer_displacement": ("Cosine of ways", _MEASURE, "cosine of the displacements from the initialization"),
    "layer_displacement_se": ("SE", _MEASURE, "standard error of the cosine of ways from sampling coordinates"),
    "seeds_distance": ("Distance of seeds", _MEASURE, "the same between runs of other seeds"),
    "seeds_cosine": ("Cosine of seeds", _MEASURE, "the same between runs of other seeds"),
    "seeds_displacement": ("Cosine of ways of seeds", _MEASURE, "the same between runs of other seeds"),
    "distance_percent": ("% of seeds", ".1f", "distance in percent of that of other seeds"),
    "distance_percent_se": ("SE", ".1f", "standard error of the percentage from sampling coordinates"),
    "images_recorded": ("Images", "d", "test images whose features were recorded"),
    "features": ("Features", "d", "length of a feature vector: the head's input"),
    "cka_mean": ("CKA mean", _MEASURE, "debiased linear CKA, mean over pairs and cells"),
    "cka_min": ("CKA min", _MEASURE, "smallest"),
    "cka_max": ("CKA max", _MEASURE, "largest"),
}
