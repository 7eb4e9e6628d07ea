"""What several tests share and pytest need not know of: processes, refusals, run folders, small networks."""

import pytest

pytest.register_assert_rewrite("helpers.errors", "helpers.runs")
