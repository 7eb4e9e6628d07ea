"""What several tests share and pytest need not know of: processes, refusals, run folders, small networks."""

import pytest

pytest.register_assert_rewrite("helpers.disk", "helpers.errors", "helpers.runs")
