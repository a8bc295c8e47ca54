"""The profile for SLURM, planned as typed and as its comments say; tests/slurm runs it on a real SLURM."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
import yte
from pipeline import REPO, TEST, conda_stub, copy_of_the_repository, shown_by_each, snakemake
from snakemake.cli import get_argument_parser

SOURCES = "".join(path.read_text() for path in (REPO / "rules").glob("*.smk"))
RULES = set(re.findall(r"^ *rule (\w+):", SOURCES, re.MULTILINE))
GPU_RULES = set(re.findall(r'environment_of\("(\w+)"\)', SOURCES))
# What sbatch is asked for, as Snakemake shows it.
ONE_V100 = {
    "slurm": "gpu=1, gpu_model=v100",
    "gres": "gres=gpu:v100:1",
    "four": "gpu=1, gpu_model=v100",
    "four, gres": "gres=gpu:v100:1",
}
FOUR_V100S = {
    "four": "nodes=1, gpu=4, gpu_model=v100",
    "four, gres": "nodes=1, gres=gpu:v100:4",
}
# The profile of the repository, and copies of it that are edited as its comments say.
PROFILES = list(ONE_V100)
FOUR = """
  # on_four_gpus: &on_four_gpus
  #   slurm_partition: gpu
  #   nodes: 1
  #   gpu: 4
  #   gpu_model: v100
  #   mem_mb: 32000
"""


def replaced(text, old, new):
    assert text.count(old) == 1, f"the profile has not one {old!r}"
    return text.replace(old, new)


def with_gres(text):
    text = replaced(text, "    gpu: 1\n    gpu_model: v100\n    # gres:", "    gres:")
    return text.replace("    gpu: 4\n    gpu_model: v100\n", "    gres: gpu:v100:4\n")


def with_four_gpus(text):
    text = replaced(text, FOUR, FOUR.replace("# ", ""))
    text = replaced(text, "# set-threads:\n#   train_member: 32", "set-threads:\n  train_member: 32")
    return replaced(text, "  train_member: *on_a_gpu\n", "  train_member: *on_four_gpus\n")


@pytest.fixture(scope="module")
def profiles(tmp_path_factory):
    """What is typed after --profile, {name: path}; the paths are relative to the repository."""
    text = (REPO / "profiles/slurm/config.yaml").read_text()
    edited = {"gres": with_gres(text), "four": with_four_gpus(text)}
    edited["four, gres"] = with_gres(edited["four"])
    # As the documentation types it.
    folders = {"slurm": Path("slurm")}
    for name, content in edited.items():
        folders[name] = tmp_path_factory.mktemp("profile") / "slurm"
        folders[name].mkdir()
        (folders[name] / "config.yaml").write_text(content)
    return folders


def read(folder):
    return yaml.safe_load((REPO / folder / "config.yaml").read_text())


def jobs_shown(shown):
    """(rule, text) of each job that a dry run shows."""
    return re.findall(r"^ *rule (\w+):$(.*?)(?=^ *rule |\Z)", shown, re.MULTILINE | re.DOTALL)


def resource(text, name):
    found = re.search(rf"\b{name}=(\w+)", text)
    return found and found.group(1)


@pytest.fixture(scope="module")
def plans(profiles, tmp_path_factory):
    """The output of dry runs, {name: text}; the name of a profile stands for the paper's run with it."""
    many_cpus = ("--cores", 64, "--directory", tmp_path_factory.mktemp("elsewhere"))
    cases = {name: ("--profile", folder, *many_cpus) for name, folder in profiles.items()}
    cases["tasks"] = ("--profile", "slurm", *TEST, *many_cpus)
    cases["first attempt"] = (*TEST, *many_cpus)
    cases["fifth attempt"] = (*TEST, *many_cpus, "--attempt", 5)
    shown = shown_by_each([(REPO, case) for case in cases.values()])
    return dict(zip(cases, shown, strict=True))


def test_the_command_of_the_documentation_finds_the_profile(plans):
    assert (REPO / "slurm").resolve() == REPO / "profiles" / "slurm"
    assert os.readlink(REPO / "slurm") == "profiles/slurm"
    assert len(jobs_shown(plans["slurm"])) > 200


@pytest.mark.parametrize("profile", PROFILES)
def test_every_rule_that_a_profile_names_exists(profiles, profile):
    # Snakemake ignores a mistyped name without a warning.
    content = read(profiles[profile])
    for key in ("set-resources", "set-threads", "groups", "preemptible-rules"):
        assert set(content.get(key, {})) <= RULES, f"{profile}: {key}"
    assert set(content["group-components"]) == set(content["groups"].values())
    assert not set(content["groups"]) & set(content["set-resources"])


@pytest.mark.parametrize("profile", PROFILES)
def test_gpu_rules_ask_for_a_v100_and_the_others_for_none(plans, profiles, profile):
    seen, content = set(), read(profiles[profile])
    for rule, text in jobs_shown(plans[profile]) + (jobs_shown(plans["tasks"]) if profile == "slurm" else []):
        seen.add(rule)
        if rule in GPU_RULES:
            asked = FOUR_V100S.get(profile) if rule == "train_member" else None
            assert (asked or ONE_V100[profile]) in text, rule
            assert resource(text, "slurm_partition") == "gpu", rule
        else:
            assert resource(text, "gpu") is resource(text, "gres") is None, rule
            assert resource(text, "slurm_partition") == "cpu", rule
    assert {"train_member", "recalibrate_member", "predict_chunk"} <= seen & GPU_RULES
    recalibrated = {"recalibrate_member", "recalibrate_ensemble"}
    assert {"train_member", "predict_chunk", "finetune_task", "probe_task"} | recalibrated == GPU_RULES
    assert set(content["set-resources"]) == GPU_RULES


def test_four_gpus_share_more_cpus_and_memory(plans):
    alone, shared = (
        next(text for rule, text in jobs_shown(plans[name]) if rule == "train_member")
        for name in ("slurm", "four")
    )
    assert ("threads: 8" in alone, "threads: 32" in shared) == (True, True)
    assert (resource(alone, "mem_mb"), resource(shared, "mem_mb")) == ("16000", "32000")


def test_a_larger_batch_asks_for_more_memory(tmp_path):
    settings = {"small": (32, None), "usual": (128, None), "views": (128, "vicreg")}
    for name, (batch, pretext) in settings.items():
        ensemble = {"name": "metrics", "members": 1, "pretext": pretext}
        content = {"train": {"batch_size": batch, "ensembles": [ensemble]}}
        content["predict"] = {"targets": [{"name": "test", "ensemble": "metrics", "split": "test"}]}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    cases = [(REPO, ("-n", "--forceall", "--configfile", tmp_path / f"{name}.yaml")) for name in settings]
    asked = [
        resource(text, "mem_mb")
        for shown in shown_by_each(cases)
        for rule, text in jobs_shown(shown)
        if rule == "train_member"
    ]
    assert asked == ["8000", "16000", "32000"]


@pytest.mark.parametrize("profile", PROFILES)
def test_shards_and_posteriors_wait_in_the_queue_eight_at_a_time(plans, profile):
    jobs = [rule for rule, _ in jobs_shown(plans[profile])]
    for rule, group in (("write_shard", "shards"), ("describe_posteriors", "posteriors")):
        assert plans[profile].count(f"Group job {group} ") == jobs.count(rule) / 8 > 1


@pytest.mark.parametrize("profile", PROFILES)
def test_the_profiles_differ_in_their_gpus_alone(profiles, profile):
    own, first = read(profiles[profile]), read(profiles["slurm"])
    for key in ("names", "set-resources", "set-threads"):
        own.pop(key, None), first.pop(key, None)
    assert own == first
    rerun = yte.process_yaml((REPO / "profiles/default/config.yaml").read_text(), require_use_yte=True)
    for key in ("rerun-triggers", "rerun-incomplete", "show-failed-logs"):
        assert own[key] == rerun[key]
    # SLURM says itself which GPU a job gets.
    assert [*own["resources"], "accelerator=1"] == rerun["resources"]


def test_without_a_gpu_the_cores_alone_limit_the_trainings(plans):
    asked = {rule: resource(text, "accelerator") for rule, text in jobs_shown(plans["first attempt"])}
    # The run's ensemble has one member.
    expected = GPU_RULES - {"recalibrate_ensemble"}
    assert {rule for rule, count in asked.items() if count} == expected
    assert {asked[rule] for rule in expected} == {"0"}


def test_jobs_take_turns_on_a_machine_with_gpus_and_slurm_is_asked_for_nothing_more(
    tmp_path, mock_nvidia_smi, installed_for_gpus
):
    variables = {
        "PATH": f"{mock_nvidia_smi}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": installed_for_gpus,
    }
    arguments = ("--dry-run", *TEST, "--directory", tmp_path)
    _, here = snakemake(REPO, *arguments, **variables)
    _, slurm = snakemake(REPO, *arguments, "--profile", "slurm", **variables)
    for shown in (here, slurm):
        asked = {rule: resource(text, "accelerator") for rule, text in jobs_shown(shown)}
        assert asked == {rule: "1" if rule in GPU_RULES else None for rule in asked} and asked


def test_memory_doubles_once_but_not_for_members(plans):
    first, fifth = (
        {rule: int(resource(text, "mem_mb")) for rule, text in jobs_shown(plans[name]) if "runtime=" in text}
        for name in ("first attempt", "fifth attempt")
    )
    assert {"write_shard", "predict_chunk", "train_member", "finetune_task"} <= set(first)
    for rule, memory in first.items():
        times = 1 if rule == "train_member" else 2
        assert fifth[rule] == times * memory, rule
    # Snakemake itself takes a third of this.
    assert min(first.values()) >= 1000


@pytest.mark.parametrize("profile", PROFILES)
def test_trainings_are_sent_again_more_often_than_what_can_only_fail(profiles, profile):
    content = read(profiles[profile])
    assert set(content["preemptible-rules"]) == {"train_member", "finetune_task"}
    assert (content["preemptible-retries"], content["retries"]) == (20, 2)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_preempted_job_is_queued_again(profiles, profile):
    # Snakemake waits for it in any case. A mistyped key would not reach the plugin's setting.
    assert get_argument_parser([REPO / profiles[profile]]).parse_args([]).slurm_requeue is True


@pytest.mark.parametrize(
    ("words", "variables", "expected"),
    [
        (["snakemake"], {}, "all"),
        (["snakemake", "--profile", "slurm"], {}, None),
        (["snakemake", "--profile=slurm"], {}, None),
        (["snakemake"], {"SNAKEMAKE_PROFILE": "slurm"}, None),
    ],
)
def test_the_cpus_of_the_login_node_limit_no_job(monkeypatch, words, variables, expected):
    # Snakemake reads profiles/default beside every other profile, and profiles/default wins.
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    monkeypatch.setattr(sys, "argv", words)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    content = yte.process_yaml((REPO / "profiles/default/config.yaml").read_text(), require_use_yte=True)
    assert content.get("cores") == expected
    assert content.get("resources") == (["download=2", "accelerator=1"] if expected else None)
    assert not {"executor", "jobs", "default-resources", "set-resources"} & set(content)


@pytest.mark.parametrize(
    ("profile", "environments"),
    [("slurm", {"cpu", "gpu"}), ("gres", {"cpu", "gpu"}), (None, {"cpu"})],
)
def test_conda_has_an_environment_for_gpus(tmp_path, profiles, profile, environments):
    # conda itself is a stub: Snakemake lists the files that it would give to conda.
    conda_stub(tmp_path)
    command = [sys.executable, "-m", "snakemake", *TEST, "--directory", tmp_path, "--sdm", "conda"]
    command += ["--list-conda-envs", *(("--profile", profiles[profile]) if profile else ())]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=REPO, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert set(re.findall(r"envs/(\w+)\.yaml", done.stdout)) == environments, done.stderr


def test_requests_are_shown_beside_measurements(tmp_path):
    repo = copy_of_the_repository(tmp_path / "repo")
    table = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    folder = repo / "benchmarks/test/write_shard"
    folder.mkdir(parents=True)
    (folder / "train-0.tsv").write_text(table + "90\t0:01:30\t861.2\t1\t1\t1\t0\t0\t0\t135\n")
    # This job ended before anything could be measured.
    (folder / "val-0.tsv").write_text(table + "0.1\t0:00:00\t-\t-\t-\t-\t-\t-\t-\t-\n")
    command = [sys.executable, REPO / "benchmarks/resources.py", "config/test.yaml"]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[2:]}
    assert lines["write_shard"] == ["3", "2000", "861", "60", "1.5", "2", "1.5"]
    assert lines["train_member"] == ["1", "4000", "-", "1440", "-", "8", "-"]
    assert re.search(r"; 2 of \d+ have run", done.stdout)
