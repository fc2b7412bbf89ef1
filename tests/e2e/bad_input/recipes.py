"""Recipes that are wrong in themselves."""

from __future__ import annotations

from case import Case, appended, nothing, recipe, text

PLAIN = "base: base\nexperts: {topic: experts/topic, mood: experts/mood}\noutput: {path: merged}\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{letter}: &{letter} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, letter in zip("abcdefg", "bcdefgh", strict=True)
)

CASES = [
    Case("a key is misspelt", recipe(metod="ties"), 3, ("metod", "method"), own_process=True),
    Case("the home of an unknown user", recipe(base="~nobody-here/base"), 4, ("~nobody-here/base",)),
    Case("the method is misspelt", recipe(method="tiess"), 3, ("tiess", "ties")),
    Case("a parameter is misspelt", recipe(method={"name": "supermerge", "step": 3}), 3, ("step", "steps")),
    Case("a parameter of another method", recipe(method={"name": "linear", "density": 0.5}), 3, ("density", "linear")),
    Case("a density of 2", recipe(method={"name": "ties", "density": 2}), 3, ("density", "2")),
    Case("a density that is a word", recipe(method={"name": "ties", "density": "half"}), 3, ("density", "half")),
    Case("lambda misspelt", recipe(method={"name": "ties", "lamda": 1.0}), 3, ("lamda", "ties")),
    Case(
        "weights that sum to zero",
        recipe(
            method="linear",
            experts={
                "topic": {"model": "experts/topic", "weight": 1.0},
                "mood": {"model": "experts/mood", "weight": -1.0},
            },
            tasks=None,
        ),
        3,
        ("linear", "sum"),
    ),
    Case(
        "a weight that is not a number",
        text(PLAIN.replace("mood: experts/mood", "mood: {model: experts/mood, weight: .nan}")),
        3,
        ("experts.mood.weight", "finite"),
    ),
    Case(
        "a weight beyond all numbers",
        text(PLAIN.replace("mood: experts/mood", "mood: {model: experts/mood, weight: 1e999}")),
        3,
        ("experts.mood.weight", "finite"),
    ),
    Case(
        "one expert without a weight",
        recipe(experts={"topic": "experts/topic", "mood": {"model": "experts/mood", "weight": 1.0}}, method="linear"),
        3,
        ("topic", "weight"),
    ),
    Case(
        "a weight for a method that learns",
        recipe(
            experts={
                "topic": {"model": "experts/topic", "weight": 1.0},
                "mood": {"model": "experts/mood", "weight": 1.0},
            }
        ),
        3,
        ("experts.topic.weight", "supermerge"),
    ),
    Case("no base", recipe(base=None), 3, ("base", "missing")),
    Case("a base that is a number", recipe(base=5), 3, ("base", "string", "5")),
    Case("no experts", recipe(experts={}, tasks=None), 3, ("experts", "at least 1")),
    Case("experts as a list", recipe(experts=["experts/topic"], tasks=None), 3, ("experts", "dict")),
    Case(
        "a misspelt key of an expert",
        recipe(experts={"topic": "experts/topic", "mood": {"modle": "experts/mood"}}),
        3,
        ("modle", "model"),
    ),
    Case(
        "an expert's name that leads elsewhere",
        recipe(experts={"../topic": "experts/topic", "mood": "experts/mood"}, tasks=None),
        3,
        ("../topic", "not a name"),
    ),
    Case(
        "two experts that differ in case",
        recipe(experts={"mood": "experts/mood", "Mood": "experts/topic"}, tasks=None),
        3,
        ("'mood'", "'Mood'"),
    ),
    Case("an empty recipe", text(""), 3, ("recipe.yaml", "nothing")),
    Case("a recipe that is a list", text("- base\n- experts\n"), 3, ("recipe.yaml", "list")),
    Case("a bracket that is never closed", text("base: [\n"), 3, ("recipe.yaml, line 2", "YAML")),
    Case("a recipe that is no text", text(b"\x80\x81\xff\x00"), 3, ("recipe.yaml", "UTF-8")),
    Case("a recipe nested ten thousand deep", text("base: " + "[" * 10_000), 3, ("recipe.yaml", "nested")),
    Case("a number of five thousand digits", text(PLAIN + "seed: " + "9" * 5000), 3, ("recipe.yaml",)),
    Case("a recipe that is not there", nothing, 3, ("nowhere.yaml", "No such file"), ("run", "nowhere.yaml")),
    Case("a recipe that is a directory", nothing, 3, ("data", "directory"), ("run", "data")),
    Case("the same key twice", appended("base: other"), 3, ("line", "base", "twice")),
    Case("aliases that expand without end", text(BOMB), 3, ("recipe.yaml", "aliases")),
    Case("an alias that contains itself", text("base: &a [*a]\n"), 3, ("alias", "itself")),
    Case(
        "YAML that asks for Python code",
        text("base: !!python/object/apply:os.system ['touch merged']\nexperts: {}\n"),
        3,
        ("recipe.yaml, line 1", "python/object"),
        own_process=True,
    ),
    Case("a version yet to come", recipe(version=2), 3, ("version", "2")),
    Case("a negative seed", recipe(seed=-1), 3, ("seed", "-1")),
    Case("a seed that is a word", recipe(seed="now"), 3, ("seed", "now")),
    Case("an unknown dtype", recipe(output={"path": "merged", "dtype": "float7"}), 3, ("output.dtype", "float7")),
    Case(
        "shards of no size", recipe(output={"path": "merged", "shard_size": 0}), 3, ("output.shard_size", "above zero")
    ),
    Case("memory in apples", recipe(memory="16 apples"), 3, ("memory", "16 apples", "16GB")),
    Case(
        "a rule with a method that learns", recipe(rules=[{"match": "*", "method": "adamerging"}]), 3, ("adamerging",)
    ),
    Case("a rule without a method", recipe(rules=[{"match": "*"}]), 3, ("rules", "method", "missing")),
    Case("a method that learns, and no tasks", recipe(tasks=None), 3, ("supermerge", "tasks")),
    Case("an unknown link", recipe(method={"name": "supermerge", "link": "relu"}), 3, ("link", "relu", "tanh")),
    Case("a negative number of steps", recipe(method={"name": "supermerge", "steps": -1}), 3, ("steps", "-1")),
    Case("a learning rate of zero", recipe(method={"name": "supermerge", "lr": 0}), 3, ("lr", "0")),
    Case("an unknown loss", recipe(method={"name": "supermerge", "loss": "hinge"}), 3, ("loss", "hinge")),
    Case("an unknown start", recipe(method={"name": "supermerge", "init": "tiess"}), 3, ("init", "tiess")),
    Case(
        "a start that the link cannot give",
        recipe(method={"name": "supermerge", "init": "iso_c", "link": "softmax"}),
        3,
        ("init", "iso_c", "softmax"),
    ),
    Case(
        "learning on a method without task vectors",
        recipe(method={"name": "supermerge", "on": "iso_c"}),
        3,
        ("on", "iso_c", "init: iso_c", "ties"),
    ),
    Case("a task without its expert", recipe(tasks__mood__expert="nobody"), 3, ("nobody", "mood")),
    Case("an unknown metric", recipe(tasks__mood__metric="acuracy"), 3, ("acuracy", "accuracy")),
    Case("a metric of another kind of task", recipe(tasks__mood__metric="pearson"), 3, ("pearson", "accuracy")),
    Case("an unknown kind of task", recipe(tasks__mood__type="text-clasification"), 3, ("text-classification",)),
    Case("all examples held back", recipe(tasks__mood__held_back=1.0), 3, ("held_back", "less than 1")),
    Case("batches of none", recipe(tasks__mood__batch_size=0), 3, ("batch_size", "0")),
    Case(
        "a task without data", recipe(tasks__mood__validation=None, tasks__mood__test=None), 3, ("tasks.mood", "data")
    ),
    Case("a custom task without its code", recipe(tasks__mood__type="custom"), 3, ("custom",)),
    Case("one class in the list of labels", recipe(tasks__mood__labels=["good"]), 3, ("labels", "two")),
    Case("more labels than the head has", recipe(tasks__mood__labels=["a", "b", "c"]), 3, ("3", "2 outputs")),
    Case("a zero-shot head without embeddings", recipe(tasks__mood__head="zero-shot"), 3, ("zero-shot",)),
    Case("a prompt for a classification", recipe(tasks__mood__prompt="text"), 3, ("prompt", "text-classification")),
    Case("no output named", recipe(output=None), 3, ("output", "--output")),
    Case("less memory allowed than needed", recipe(memory="1MB"), 5, ("memory", "1 MB")),
]
