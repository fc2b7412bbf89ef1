"""SuperMerge."""

from supermerge.methods.registry import LearnedSpec, learned
from supermerge.methods.settings import AUTO

supermerge = learned(
    "supermerge",
    LearnedSpec(link="tanh", loss="cross_entropy", init=AUTO, granularity="tensor", data="labelled"),
    title="SuperMerge",
    paper="https://arxiv.org/abs/2412.10416",
    doc="""The base plus learned multiples of the task vectors, one number per expert and tensor.

θm(j) = θp(j) + Σᵢ tanh(w(i,j)) τ(i,j), w learned by gradient descent on the task losses over a few labelled validation
examples. By default full fine-tunes start at Iso-C's merge, a further vector (`init: auto`); where that is no start, at
tanh(w) = 0.3, which is task arithmetic, or at 1/k where that is less. The paper's own start is not known.""",
    cost="Learns: per step one forward and backward pass and one reading of the task vectors; memory of one model, "
    "whatever the number of experts.",
    use="A few labelled examples per task are at hand: the only merge here that is told what is right.",
    avoid="Fewer than about ten labels per task, or labels of another distribution than the use: coefficients follow "
    "their noise.",
)
