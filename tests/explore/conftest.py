"""A survey that is made by hand, and its page: the tests only read them."""

import pytest
from drawn import SMALL
from explored import write_page, write_survey


@pytest.fixture(scope="package")
def survey(tmp_path_factory):
    return write_survey(tmp_path_factory.mktemp("survey"))


@pytest.fixture(scope="package")
def page(survey, tmp_path_factory):
    images = [survey.catalog[0].with_name("catalog.parquet")]
    return write_page(survey, tmp_path_factory.mktemp("page"), images, images, SMALL.cuts)
