"""Names of licences that the Hub takes."""

import pytest

from lsd_sampler.support.licenses import LICENSES, check_license


@pytest.mark.parametrize("name", sorted(LICENSES))
def test_a_name_is_taken_as_the_hub_writes_it_and_near_ones_are_advised(name: str) -> None:
    check_license(name, "--license")
    with pytest.raises(ValueError, match=f"`--license` '{name.upper()}.*Did you mean {name!r}".replace("+", r"\+")):
        check_license(name.upper(), "--license")
