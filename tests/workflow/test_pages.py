"""Pages of docs/ that benchmarks write."""

import pages


def test_a_section_is_replaced_and_the_others_stay(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pages, "REPO", tmp_path)
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "page.md"
    page.write_text("# Page\n\nText.\n\n## One\n\nOld.\n\n### Part\n\nOld.\n\n## Two\n\nKept.\n")
    pages.write_section("page.md", "One", ["New."])
    assert page.read_text() == "# Page\n\nText.\n\n## One\n\nNew.\n\n## Two\n\nKept.\n"
    pages.write_section("page.md", "Three", ["Last.", "", "Line."])
    expected = "# Page\n\nText.\n\n## One\n\nNew.\n\n## Two\n\nKept.\n\n## Three\n\nLast.\n\nLine.\n"
    assert page.read_text() == expected
    pages.write_section("page.md", "Three", ["Last.", "", "Line."])
    assert page.read_text() == expected
    pages.write_section("page.md", "Three", ["Printed", "only."], write=False)
    assert page.read_text() == expected and capsys.readouterr().out == "Printed\nonly.\n"
