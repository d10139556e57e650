"""Published figures of orders on the named sets, and how far a correct implementation may be off.

Adjacency and coherence 16 in the order of SETS. Tolerances: of adjacency, both ways except for the
orders of AT_LEAST, which may be better; those of COHERENT, which k-means seeds move, are held to
their coherence, too.
"""

SETS = ("flat2000", "hier2000", "flat20000", "hier20000", "wiki2")

ICP_DIRECTED, ICP_UNDIRECTED = "ICP algorithm 1, directed", "ICP algorithm 1, undirected"
ICP_RELEASED, GREEDY, PATH = "ICP released code", "greedy edge + joining", "path"
CLUSTER_PATH_16, CLUSTER_PATH_50 = "cluster_path, K = n // 16", "cluster_path, K = n // 50"
K_MEANS_50 = "k-means, K = n // 50, random inside"
CLUSTERS_50 = "clusters, K = n // 50"
SHARDS = "8 random shards, path in each"

PUBLISHED = {
    "random": ((0.0155, 0.014), (0.146, 0.148), (0.0018, 0.002), (0.0276, 0.027), (0.0541, 0.053)),
    ICP_DIRECTED: (
        (0.4670, 0.329),
        (0.6899, 0.467),
        (0.4584, 0.317),
        (0.6528, 0.412),
        (0.4976, 0.245),
    ),
    ICP_UNDIRECTED: (
        (0.4823, 0.359),
        (0.7114, 0.505),
        (0.4781, 0.353),
        (0.6795, 0.463),
        (0.5328, 0.283),
    ),
    ICP_RELEASED: (
        (0.5177, 0.446),
        (0.7312, 0.618),
        (0.5174, 0.446),
        (0.7355, 0.585),
        (0.4899, 0.326),
    ),
    GREEDY: ((0.5384, 0.457), (0.7707, 0.651), (0.5388, 0.456), (0.7765, 0.651), (0.5689, 0.314)),
    PATH: ((0.5411, 0.457), (0.7758, 0.651), (0.5413, 0.455), (0.7815, 0.652), (0.5715, 0.308)),
    CLUSTER_PATH_16: (
        (0.5324, 0.458),
        (0.7662, 0.661),
        (0.5328, 0.459),
        (0.7713, 0.668),
        (0.5289, 0.382),
    ),
    CLUSTER_PATH_50: (
        (0.5397, 0.457),
        (0.7714, 0.655),
        (0.5398, 0.458),
        (0.7769, 0.661),
        (0.5399, 0.377),
    ),
    K_MEANS_50: (
        (0.4439, 0.404),
        (0.6124, 0.564),
        (0.4513, 0.410),
        (0.6152, 0.560),
        (0.3424, 0.317),
    ),
    SHARDS: ((0.4614, 0.183), (0.6819, 0.500), (0.4674, 0.194), (0.6949, 0.530), (0.4579, 0.201)),
}
TOLERANCE = {
    "random": 0.01,
    ICP_DIRECTED: 0.012,
    ICP_UNDIRECTED: 0.006,
    ICP_RELEASED: 0.01,
    GREEDY: 0.0015,
    PATH: 0.0015,
    CLUSTER_PATH_16: 0.008,
    CLUSTER_PATH_50: 0.008,
    K_MEANS_50: 0.012,
    SHARDS: 0.012,
}
COHERENCE_TOLERANCE = 0.012
COHERENT = (CLUSTER_PATH_16, CLUSTER_PATH_50, K_MEANS_50)
AT_LEAST = (PATH, CLUSTER_PATH_16, CLUSTER_PATH_50)


def published(order: str, name: str) -> tuple[float, float] | None:
    """Published adjacency and coherence 16 of an order on a set; None where there are none."""
    known = PUBLISHED.get(order)
    return known[SETS.index(name)] if known and name in SETS else None


def is_off(order: str, name: str, adjacency: float, coherence_16: float) -> bool:
    """Whether measured figures are further from the published ones than the tolerance."""
    known = published(order, name)
    if known is None:
        return False
    short, incoherent = known[0] - adjacency, known[1] - coherence_16
    if order not in AT_LEAST:
        short = abs(short)
    return short > TOLERANCE[order] or (order in COHERENT and incoherent > COHERENCE_TOLERANCE)
