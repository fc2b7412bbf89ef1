"""AdaMerging."""

from supermerge.methods.registry import LearnedSpec, learned

adamerging = learned(
    "adamerging",
    LearnedSpec(
        link="clamp", loss="entropy", init=0.3, granularity="tensor", data="unlabelled", defaults={"lr": 0.001}
    ),
    title="AdaMerging (layer-wise)",
    paper="https://arxiv.org/abs/2310.02575",
    doc="""The base plus learned multiples of the task vectors, learned without labels.

θ(j) = θp(j) + Σᵢ clamp(w(i,j), 0, 1) τ(i,j), w learned by making the merged model's predictions on unlabelled examples
of every task certain: the loss is the mean Shannon entropy of softmax(logits). Starts at 0.3; Adam with lr 0.001 as in
the authors' code. A coefficient outside [0, 1] gets no gradient, as there. `granularity: model` is the task-wise
form, `on: ties` is AdaMerging++, which learns on what TIES keeps of every task vector.""",
    cost="Learns: per step one forward and backward pass and one reading of the task vectors; memory of one model, "
    "whatever the number of experts.",
    use="Classification tasks with unlabelled examples but no labels.",
    avoid="Tasks with few classes or free text, where confident and wrong is easy; comparisons with data-free "
    "methods, if it sees the test inputs.",
)
