"""Which scripts load TensorFlow when they start: that takes 6 to 8 seconds of every job."""

import ast

import architecture
import pytest

REPO = architecture.ZOOLIB.parents[2]
HEAVY = {"keras", "tensorflow"}
# They train, predict, or write a network. probe_task and write_shard load it when they need it.
NETWORKS = {
    "draw_augmentations",
    "export_model",
    "finetune_task",
    "import_backbone",
    "predict_chunk",
    "recalibrate_ensemble",
    "recalibrate_member",
    "train_member",
}
SCRIPTS = sorted(path.stem for path in (REPO / "workflow" / "scripts").glob("*.py"))


def at_the_start(tree):
    """The names of the modules that a file imports when it is imported itself: none inside functions."""
    names, nodes = set(), list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif not isinstance(node, ast.FunctionDef | ast.ClassDef):
            nodes += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return names


@pytest.fixture(scope="module")
def loaded():
    """{script: the packages outside zoolib that it loads when it starts}."""
    found = architecture.modules()
    trees = {f"zoolib.{name}".rstrip("."): module.tree for name, module in found.items()}

    def load(names, seen):
        for name in names:
            parents = [name.rsplit(".", up)[0] for up in range(name.count(".") + 1)]
            for module in set(parents) - seen:
                seen.add(module)
                load(at_the_start(trees[module]) if module in trees else (), seen)
        return seen

    scripts = {name: REPO / "workflow" / "scripts" / f"{name}.py" for name in SCRIPTS}
    return {name: load(at_the_start(ast.parse(path.read_text())), set()) for name, path in scripts.items()}


@pytest.mark.parametrize("script", SCRIPTS)
def test_only_scripts_with_a_network_load_tensorflow(loaded, script):
    assert bool(loaded[script] & HEAVY) == (script in NETWORKS)


@pytest.mark.parametrize("script", sorted(NETWORKS))
def test_a_script_loads_tensorflow_the_quick_way(loaded, script):
    """Before its other imports, which would load it with all that Keras can use."""
    text = (REPO / "workflow" / "scripts" / f"{script}.py").read_text()
    before, called, after = text.partition("use_threads(" if "use_threads(" in text else "load_tensorflow(")
    assert called and "    from zoolib" in after
    assert before.count("    from zoolib") == 1 and "    from zoolib.job.gpus import" in before
