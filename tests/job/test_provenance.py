"""Fingerprints of code, and what is kept of them from call to call."""

import json
import os

import pytest
from zoolib.job import provenance

SOURCE = '''"""What it is."""
from zoolib.data import tables


def double(x):
    """Twice x."""
    return 2 * x  # as it says
'''


@pytest.fixture
def forgetful(monkeypatch, tmp_path):
    """A place of its own for what is kept; calling the fixture starts a new call of Python."""
    monkeypatch.setattr(provenance, "KEPT", tmp_path / "kept" / "fingerprints.json")
    ends = []
    monkeypatch.setattr(provenance.atexit, "register", lambda *call: ends.append(call))

    def next_call():
        for function, *arguments in ends:
            function(*arguments)
        ends.clear()
        for cached in ("code_tokens", "imported_modules", "_facts", "_kept"):
            getattr(provenance, cached).cache_clear()
        return provenance.KEPT

    next_call()
    yield next_call
    next_call()


def facts(kept):
    return json.loads(kept.read_text().partition("\n")[2])


def test_comments_and_docstrings_change_no_fingerprint(forgetful):
    other = (
        SOURCE.replace("What it is", "Something else").replace("  # as it says", "").replace("Twice x", "2 x")
    )
    assert other != SOURCE
    assert provenance.code_tokens(other) == provenance.code_tokens(SOURCE)
    assert provenance.code_tokens(SOURCE.replace("2 *", "3 *")) != provenance.code_tokens(SOURCE)
    assert provenance.imported_modules(SOURCE) == {"data", "data.tables"}


def test_the_next_call_parses_nothing_and_finds_the_same(forgetful, monkeypatch):
    first = provenance.fingerprint("write_shard", "shards")
    kept = forgetful()
    assert len(facts(kept)) > 10
    monkeypatch.setattr(provenance.ast, "parse", None)
    assert provenance.fingerprint("write_shard", "shards") == first
    written = os.stat(kept)
    forgetful()
    assert os.stat(kept) == written


@pytest.mark.parametrize("damage", ["nothing", "no check", "other code", "one letter", "cut"])
def test_what_is_damaged_or_of_other_code_is_not_used(forgetful, damage):
    first = provenance.fingerprint("write_shard", "shards")
    kept = forgetful()
    whole = kept.read_text()
    damaged = {"nothing": "", "no check": "{}", "other code": '0123456789ab\n{"a": 1}', "cut": whole[:5000]}
    damaged["one letter"] = whole.replace("def write_shard", "def write_shared")
    assert whole not in damaged.values()
    kept.write_text(damaged[damage])
    assert provenance.fingerprint("write_shard", "shards") == first
    forgetful()
    assert facts(kept) and [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_what_cannot_be_written_is_not_missed(forgetful, tmp_path):
    (tmp_path / "kept").write_text("a file where the folder should be")
    first = provenance.fingerprint("write_shard", "shards")
    forgetful()
    assert provenance.fingerprint("write_shard", "shards") == first


def test_sources_that_are_gone_are_forgotten_in_the_end(forgetful, monkeypatch):
    monkeypatch.setattr(provenance, "MOST_KEPT", 3)
    for number in range(3):
        provenance.code_tokens(f"x = {number}")
    forgetful()
    provenance.code_tokens("x = 4")
    kept = facts(forgetful())
    assert [tokens for tokens, _ in kept.values()] == ["x = 4 NEWLINE "]
