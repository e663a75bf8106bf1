"""Names of licences that the Hub takes."""

import re

import pytest

from lsd_sampler.support.licenses import LICENSES, check_license


def test_a_name_is_taken_as_the_hub_writes_it_and_near_ones_are_advised() -> None:
    assert {"apache-2.0", "mit", "other"} <= LICENSES
    for name in LICENSES:
        check_license(name, "--license")
        with pytest.raises(ValueError, match=re.escape(f"Did you mean {name!r}")):
            check_license(name.upper(), "--license")
    with pytest.raises(ValueError, match="`--license` 'my own' .*`other`"):
        check_license("my own", "--license")
