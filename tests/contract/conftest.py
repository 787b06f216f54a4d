"""One model of each method, for all tests."""

import pytest

from tests.contract.tiny_models import PARAMS, case_of


@pytest.fixture(scope="module", params=PARAMS)
def case(request):
    return case_of(request.param)


@pytest.fixture(scope="module")
def images(case):
    return case.images
