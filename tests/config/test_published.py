"""Published numbers: that they are read, that they add up, and by which rules their galaxies are chosen."""

import json

import pytest
import yaml
from zoolib.config.published import changed_rules, read_published
from zoolib.job.logs import UserError


def test_the_published_table_counts_whole_galaxies(published, tree):
    for subset in ("all", "confident"):
        rows = published["table_1"][subset]
        assert list(rows) == [question.name for question in tree.questions]
        for row in rows.values():
            wrong = row["count"] * (1 - row["accuracy"])
            # Four digits of a share of so many galaxies.
            assert abs(wrong - round(wrong)) <= row["count"] * 5.1e-5
            assert row["recall"] == row["accuracy"]


def test_published_numbers_that_cannot_be_read_are_messages(tmp_path, published):
    with pytest.raises(UserError, match="evaluate.published is 'nobody_1999', but there is no file"):
        read_published("nobody_1999", tmp_path)
    broken = json.loads(json.dumps(published))
    del broken["table_1"]["all"]["bar"]["f1"]
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(broken))
    with pytest.raises(UserError, match=r"a key is missing or wrong \(KeyError\('f1'\)\)"):
        read_published("broken", tmp_path)
    (tmp_path / "text.yaml").write_text("just text")
    with pytest.raises(UserError, match="expected a mapping of keys"):
        read_published("text", tmp_path)
    broken = json.loads(json.dumps(published))
    broken["not_comparable"] = {"mergers": "why"}
    (tmp_path / "question.yaml").write_text(yaml.safe_dump(broken))
    with pytest.raises(UserError, match=r"a key is missing or wrong \(KeyError\('mergers'\)\)"):
        read_published("question", tmp_path)
    broken["rules"] = {"min_votes": 34}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(broken))
    with pytest.raises(UserError, match=r"\(KeyError\('confident'\)\), expected .* rules with min_votes and"):
        read_published("rules", tmp_path)


def test_rules_that_choose_other_galaxies_are_named(repo, published):
    config = yaml.safe_load((repo / "config" / "config.yaml").read_text())
    entry = {"name": "near", "query": None}
    assert changed_rules(published, config["evaluate"], [entry]) == ""
    message = changed_rules(
        published,
        {"min_votes": 5, "confident": 0.5, "relevant": "asked"},
        [entry | {"query": "redshift < 0.1"}],
    )
    assert "evaluate.min_votes is 5 (published: 34); evaluate.confident is 0.5 (published: 0.8)" in message
    assert "evaluate.relevant is asked (published: product); catalogue" in message
    assert message.endswith("; catalogue 'near' has only galaxies with redshift < 0.1.")
