"""Downloads from a server that answers like Hugging Face, and every way in which they can fail."""

import functools
import logging

import pytest
from hub_server import HubServer, commit_of
from huggingface_hub import constants, hf_hub_download
from zoolib.config.sources import encoder_name, files_of_source, kind_of_source
from zoolib.job.logs import UserError, log
from zoolib.weights import hub

WEIGHTS = bytes(range(256)) * 100
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS}


@pytest.fixture
def server(monkeypatch, tmp_path, caplog):
    """A running server with one repository, and an empty cache."""
    with HubServer() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        # The library reads the environment only when it is imported.
        asked = functools.partial(hf_hub_download, endpoint=running.url, cache_dir=tmp_path / "cache")
        monkeypatch.setattr(hub, "hf_hub_download", asked)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        monkeypatch.setattr(log, "propagate", True)
        caplog.set_level(logging.INFO, "zoolib")
        running.add("owner/encoder", FILES)
        yield running


def error_of(source, file="config.json"):
    with pytest.raises(UserError) as caught:
        hub.Repository(source).fetch(file)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and message.startswith(f"{source}: ")
    return message


def test_files_come_from_one_commit_and_are_kept(server, caplog):
    repository = hub.Repository("hf://owner/encoder")
    config = repository.fetch("config.json")
    # The repository changes between two files.
    server.add("owner/encoder", {**FILES, "model.safetensors": b"other"})
    assert repository.fetch("model.safetensors").read_bytes() == WEIGHTS
    assert repository.commit == commit_of(FILES) == config.parent.name
    assert "model.safetensors, 25.6 kB" in caplog.text and repository.commit in caplog.text
    assert server.sent == ["config.json", "model.safetensors"]
    again = hub.Repository(f"hf://owner/encoder@{repository.commit}")
    for file in FILES:
        again.fetch(file)
    assert len(server.sent) == 2
    assert "from the cache" in caplog.text
    assert hub.Repository("hf://owner/encoder").fetch("model.safetensors").read_bytes() == b"other"


def test_a_pull_request_is_a_revision(server):
    server.add("owner/encoder", {**FILES, "config.json": b"[]"}, "refs/pr/1")
    assert hub.Repository("hf://owner/encoder@refs/pr/1").fetch("config.json").read_bytes() == b"[]"
    assert hub.Repository("hf://owner/encoder").fetch("config.json").read_bytes() == b"{}"


def test_a_token_opens_a_private_repository_and_goes_nowhere_else(server, monkeypatch, caplog):
    server.add("owner/private", FILES, token="hf_secret")
    assert (
        "has no such repository, or it is private; fix the name, or, if private, set HF_TOKEN."
        in error_of("hf://owner/private")
    )
    monkeypatch.setenv("HF_TOKEN", "another")
    assert "if private, use a token that may read it." in error_of("hf://owner/private")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    assert "refuses the token; fix or unset HF_TOKEN." in error_of("hf://owner/private")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert hub.Repository("hf://owner/private").fetch("model.safetensors").read_bytes() == WEIGHTS
    assert not server.leaked
    assert "hf_secret" not in caplog.text
    monkeypatch.setenv("HF_ENDPOINT", server.url.replace("//", "//me:password@"))
    assert "password" not in error_of("hf://owner/nothing")


def test_what_is_not_there_is_named(server):
    server.add("owner/pickle", {"config.json": b"{}", "pytorch_model.bin": b"\x80\x02"})
    server.add("owner/gated", FILES, gated=True)
    assert f"{server.url} has no such repository" in error_of("hf://owner/nothing")
    assert "has no revision 'v9', expected a branch, a tag or a commit" in error_of("hf://owner/encoder@v9")
    assert "has no weights.json, expected an encoder that timm" in error_of(
        "hf://owner/encoder", "weights.json"
    )
    pickle = error_of("hf://owner/pickle", "model.safetensors")
    assert "weights in a pickle (pytorch_model.bin)" in pickle and "hf://owner/pickle@refs/pr/1" in pickle
    assert "its owner must grant access; request it at" in error_of("hf://owner/gated")
    assert "pytorch_model.bin" not in server.sent


def test_without_a_network_the_cache_is_used(server, monkeypatch):
    hub.Repository("hf://owner/encoder").fetch("config.json")
    server.broken = True
    assert hub.Repository("hf://owner/encoder").fetch("config.json").read_bytes() == b"{}"
    assert "cannot be reached (Server error '500" in error_of("hf://owner/encoder", "model.safetensors")
    nowhere = {**hub.hf_hub_download.keywords, "endpoint": "http://127.0.0.1:9"}
    monkeypatch.setattr(hub, "hf_hub_download", functools.partial(hf_hub_download, **nowhere))
    assert hub.Repository("hf://owner/encoder").fetch("config.json").read_bytes() == b"{}"
    assert "cannot be reached ([Errno 111] Connection refused), and the cache has no copy" in error_of(
        "hf://owner/other"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.Repository("hf://owner/encoder").fetch("config.json").read_bytes() == b"{}"
    assert "is not in the cache, and HF_HUB_OFFLINE is set" in error_of("hf://owner/other")


def test_a_download_that_ends_early_leaves_no_file(server, monkeypatch):
    monkeypatch.setattr(constants, "DEFAULT_DOWNLOAD_TIMEOUT", 1)
    server.short = True
    assert "failed" in error_of("hf://owner/encoder", "model.safetensors")
    server.short = False
    assert hub.Repository("hf://owner/encoder").fetch("model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("imagenet", "imagenet"),
        ("hf://mwalmsley/zoobot-encoder-convnext_nano", "hub"),
        ("hf://mwalmsley/zoobot-encoder-convnext_nano@refs/pr/1", "hub"),
        ("model", "model"),
        ("encoder", "encoder"),
        ("old", "checkpoint"),
        ("old/zoobot", "checkpoint"),
        ("results/mine/finetune/ring", "model"),
    ],
)
def test_the_kind_of_a_source_follows_from_what_is_there(tmp_path, monkeypatch, source, kind):
    monkeypatch.chdir(tmp_path)
    files = ("model/model.keras", "model/model.json", "encoder/config.json", "encoder/model.safetensors")
    for file in (*files, "old/zoobot.index", "old/zoobot.data-00000-of-00001", "old/other.txt"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert kind_of_source(source, "MODEL", run="mine") == kind
    if kind == "encoder":
        assert files_of_source(source) == ["encoder/config.json", "encoder/model.safetensors"]
    if kind == "checkpoint":
        assert files_of_source(source) == ["old/zoobot.data-00000-of-00001", "old/zoobot.index"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf://nano", "expected hf://organisation/name or hf://organisation/name@revision"),
        ("hf://owner/a--b", "expected hf://organisation/name"),
        ("hf://owner/a..b@main", "expected hf://organisation/name"),
        ("hf://owner/nano.git", "expected hf://organisation/name"),
        ("hf://-owner/nano", "expected hf://organisation/name"),
        (f"hf://owner/{'n' * 97}", "expected hf://organisation/name"),
        ("hf_hub:mwalmsley/nano", "expected hf://organisation/name"),
        ("pickled", "the weights are in a pickle (nano.ckpt)"),
        ("pickled/nano.ckpt", "the weights are in a pickle (nano.ckpt)"),
        ("nothing", "expected a model folder (a folder with model.keras and model.json), hf://organisation"),
        ("results/other/finetune/ring", "expected a model folder"),
    ],
)
def test_an_unknown_source_is_an_error(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pickled").mkdir()
    for file in ("config.json", "pytorch_model.bin", "nano.ckpt"):
        (tmp_path / "pickled" / file).touch()
    with pytest.raises(UserError) as caught:
        kind_of_source(source, "MODEL", run="mine")
    assert str(caught.value).startswith(f"MODEL is '{source}', ") and message in str(caught.value)


def test_each_revision_has_its_own_folder(tmp_path):
    names = {
        encoder_name({"source": f"hf://owner/my.encoder{revision}", "image": None, "backbone": None})
        for revision in ("", "@main", "@refs/pr/1")
    }
    assert len(names) == 3 and all(name.startswith("my_encoder-") for name in names)
