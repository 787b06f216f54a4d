"""One model of each method, for all tests."""

import pytest

from tests.contract.tiny_models import NAMES, case_of


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    return case_of(request.param)


@pytest.fixture(scope="module")
def images(case):
    return case.images
