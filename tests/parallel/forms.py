"""The two forms of the fault tests: `make test-faults FORM=short`, and the long one of `make test-faults`."""

from __future__ import annotations

import os

import pytest

FULL = os.environ.get("HVD_DQN_FAULTS") == "full"
only_in_full = pytest.mark.skipif(not FULL, reason="the long form only")
